import { afterAll, beforeAll, describe, expect, test } from 'vitest';
import { ControlService } from '../../../gen/weft/v1/control.ts';
import { Network, Policy, type PolicyPeer, type PolicyRule } from '../../../gen/weft/v1/types.ts';
import { aHost, Mesh, type Node, until } from './support.ts';

describe('policies over two coordinators', () => {
  let mesh: Mesh;
  let one: Node;
  let two: Node;

  beforeAll(async () => {
    mesh = await Mesh.start();
    one = await mesh.coordinator('coord1');
    two = await mesh.coordinator('coord2');
    await until('they know each other', () => one.opened.state.coordinators.size === 2);
  });
  afterAll(async () => {
    await mesh?.[Symbol.asyncDispose]();
  });

  const rule = (action: string, ...peers: PolicyPeer[]): PolicyRule => ({ action, peers, ports: [] });
  const from = (labels: Record<string, string>, networkId = ''): PolicyPeer => ({
    who: { $case: 'endpoints', value: { networkId, labels } },
  });
  const spec = (network: string, name: string, fields: Partial<Policy> = {}) => ({
    network,
    policy: Policy.fromPartial({ name, order: 100, ingress: [rule('drop')], ...fields }),
  });
  const apply = (node: Node, ...policies: ReturnType<typeof spec>[]) =>
    mesh.call(node, ControlService.applyPolicies, { project: '', policies });
  const list = (node: Node, network = '') => mesh.call(node, ControlService.listPolicies, { project: '', network });
  const remove = (node: Node, network: string, name: string) =>
    mesh.call(node, ControlService.removePolicy, { project: '', network, name });

  test('applied, told to interested hosts, listed, replaced and removed', async () => {
    const data = await mesh.network(one, 'data', '10.60.0.0/24');
    const other = await mesh.network(one, 'other', '10.61.0.0/24');
    const h1 = await mesh.agent(two, aHost(1), { hello: { interest: [data.id] } });
    const h2 = await mesh.agent(one, aHost(2));
    const ingress = [rule('allow', from({ app: 'web' }, 'other'), from({ app: 'api' }, 'data')), rule('drop')];
    const made = await apply(one, spec('data', 'db', { selector: { app: 'db' }, ingress }), spec('other', 'db'));
    expect(made.outcomes).toEqual(['created', 'created']);
    expect(made.policies[0]).toMatchObject({
      networkId: data.id,
      name: 'db',
      tier: 'application',
      // By id, and the own network without.
      ingress: [rule('allow', from({ app: 'web' }, other.id), from({ app: 'api' })), rule('drop')],
    });
    expect(made.revision?.number).toBe(made.policies[0]?.revision);
    await h1.until('it is told', () => h1.views.get(data.id)?.policies.get('db')?.selector['app'] === 'db');
    expect(h1.views.has(other.id)).toBe(false);
    expect(h2.views.has(data.id)).toBe(false);
    await two.opened.store.caughtUp();
    const listed = await list(two, 'data');
    expect(listed.policies).toEqual([made.policies[0]]);
    expect(listed.networkNames).toEqual({ [data.id]: 'data', [other.id]: 'other' });
    expect((await list(two)).policies).toHaveLength(2);
    const again = await apply(two, spec('data', 'db', { order: 7 }), spec('other', 'db'));
    expect(again.outcomes).toEqual(['updated', 'unchanged']);
    await h1.until('it is told', () => h1.views.get(data.id)?.policies.get('db')?.order === 7);
    await one.opened.store.caughtUp();
    const still = await apply(one, spec('data', 'db', { order: 7 }), spec('other', 'db'));
    expect(still.outcomes).toEqual(['unchanged', 'unchanged']);
    // Whoever waits for it waits for what was changed before.
    expect(still.revision?.number).toBe(again.policies[0]?.revision);
    await remove(two, 'data', 'db');
    await h1.until('it is told', () => h1.views.get(data.id)?.policies.size === 0);
    await one.opened.store.caughtUp();
    await expect(remove(one, 'data', 'db')).rejects.toMatchObject({ code: 'NOT_FOUND' });
    await expect(list(one, 'gone')).rejects.toMatchObject({ code: 'NOT_FOUND' });
    await h1.close();
    await h2.close();
  });

  test('one that cannot be: nothing is changed, and it is named', async () => {
    await mesh.network(one, 'whole', '10.62.0.0/24');
    const good = spec('whole', 'good');
    const cases: [ReturnType<typeof spec>[], string, RegExp][] = [
      [[], 'INVALID_ARGUMENT', /No policy was given/],
      [[spec('gone', 'web')], 'NOT_FOUND', /^Policy web: There is no network gone/],
      [[spec('', 'web')], 'INVALID_ARGUMENT', /^Policy web: No network is named/],
      [[good], 'INVALID_ARGUMENT', /^Policy good of network whole is given twice/],
      [
        [spec('whole', 'web', { egress: [rule('allow'), rule('drop', { who: { $case: 'service', value: 'x' } })] })],
        'NOT_FOUND',
        /^Policy web, egress rule 2: network whole has no service x/,
      ],
      [
        [spec('whole', 'web', { ingress: [rule('allow', from({}, 'gone'))] })],
        'NOT_FOUND',
        /^Policy web, ingress rule 1: There is no network gone/,
      ],
    ];
    for (const [bad, code, message] of cases)
      await expect(bad.length === 0 ? apply(one) : apply(one, good, ...bad)).rejects.toMatchObject({
        code,
        message: expect.stringMatching(message),
      });
    expect((await list(one, 'whole')).policies).toEqual([]);
  });

  test('a network that another coordinator made a moment ago is found, also by rules', async () => {
    for (let i = 0; i < 10; i++) {
      await mesh.network(one, `new${i}`);
      await mesh.network(one, `peer${i}`);
      await apply(two, spec(`new${i}`, 'web', { ingress: [rule('allow', from({}, `peer${i}`))] }));
    }
    // A network that is named may go; whoever was meant is nobody then.
    await mesh.call(one, ControlService.deleteNetwork, { project: '', network: 'peer0' });
    const { policies, networkNames } = await list(one, 'new0');
    const named = policies[0]?.ingress[0]?.peers[0]?.who;
    const id = named?.$case === 'endpoints' ? named.value.networkId : '';
    expect(networkNames[id]).toBe(id);
  });

  test('what no policy is about, told to every host', async () => {
    const network = await mesh.network(one, 'shut');
    const h3 = await mesh.agent(two, aHost(3), { hello: { interest: [network.id] } });
    const set = (policyDefault: string) =>
      mesh.call(one, ControlService.updateNetwork, {
        project: '',
        network: 'shut',
        fields: ['policyDefault'],
        values: Network.fromPartial({ policyDefault }),
      });
    const told = () => h3.networks.get(network.id)?.policyDefault;
    await set('drop');
    await h3.until('it is told', () => told() === 'drop');
    await set('allow');
    await h3.until('it is told', () => told() === '');
    await expect(set('deny')).rejects.toMatchObject({ code: 'INVALID_ARGUMENT' });
    await h3.close();
  });
});
