import { afterAll, beforeAll, describe, expect, test } from 'vitest';
import { ControlService } from '../../../gen/weft/v1/control.ts';
import { aHost, anEndpoint, Mesh, type Node, until } from './support.ts';

describe('a coordinator and its etcd', () => {
  let mesh: Mesh;
  let node: Node;

  beforeAll(async () => {
    mesh = await Mesh.start();
    // Keys are not healed by the auditor: what a session remembers is on its own.
    node = await mesh.coordinator('coord1', { graceMs: 100 }, { heal: false });
  });
  afterAll(async () => {
    await mesh?.[Symbol.asyncDispose]();
  });

  test('a session puts back what its host has, whatever was edited', async () => {
    const network = await mesh.network(node, 'blue', '10.50.0.0/24');
    const agent = await mesh.agent(node, aHost(1), { hello: { interest: [network.id] } });
    const block = await agent.block(network.id);
    const endpoint = anEndpoint(network.id, agent.host.id, 1, '10.50.0.2');
    await agent.register([endpoint]);
    const { state } = node.opened;
    const key = `/weft/v1/default/endpoints/${network.id}/${endpoint.id}`;
    const blocks = `/weft/v1/default/blocks/${network.id}/`;
    const hostKey = `/weft/v1/hosts/${agent.host.id}`;

    const changed = (await mesh.etcd.ctl('get', key, '--print-value-only')).trim().replace('10.50.0.2', '10.50.0.99');
    await mesh.etcd.ctl('put', key, changed);
    await until('the endpoint', () => state.endpoints.get(network.id)?.get(endpoint.id)?.ips[0] === '10.50.0.2');
    await mesh.etcd.ctl('del', key);
    await until('gone', () => !state.endpoints.get(network.id)?.has(endpoint.id));
    await until('the endpoint again', () => state.endpoints.get(network.id)?.get(endpoint.id)?.ips[0] === '10.50.0.2');
    await mesh.etcd.ctl('del', blocks, '--prefix');
    await until('gone', () => !state.blocks.get(network.id)?.has(block.cidr));
    await until('the block', () => state.blocks.get(network.id)?.get(block.cidr)?.hostId === agent.host.id);
    const foreign = JSON.stringify({ networkId: network.id, cidr: '10.50.0.64/28', hostId: agent.host.id });
    await mesh.etcd.ctl('put', `${blocks}10.50.0.64_28`, foreign);
    await until('seen', () => state.blocks.get(network.id)?.has('10.50.0.64/28') === true);
    await until('taken away', () => state.blocks.get(network.id)?.has('10.50.0.64/28') === false);
    const host = (await mesh.etcd.ctl('get', hostKey, '--print-value-only')).trim().replace('192.0.2.1', '192.0.2.66');
    await mesh.etcd.ctl('put', hostKey, host);
    await until('the host', () => state.hosts.get(agent.host.id)?.vteps[0]?.address === '192.0.2.1');

    const drift: string[] = [];
    const { signal } = new AbortController();
    const request = { localOnly: false, follow: false };
    for await (const e of mesh.stream(node, ControlService.watchEvents, request, signal))
      if (e.type === 'drift' && e.host === 'h1')
        drift.push(`${e.object.split('/')[4] ?? e.object.split('/')[3]} ${e.message}`);
    expect(drift).toEqual([
      expect.stringContaining('differs'),
      expect.stringContaining('missing'),
      expect.stringContaining('missing'),
      expect.stringContaining('extra'),
      expect.stringContaining('differs'),
    ]);
    expect(agent.ended).toBeNull();
    await until('told', () => agent.views.get(network.id)?.endpoints.get(endpoint.id)?.ips[0] === '10.50.0.2');
    await agent.close();
  });

  test('draining is the cluster’s to say, and stays', async () => {
    const network = await mesh.network(node, 'drained', '10.51.0.0/24');
    const agent = await mesh.agent(node, aHost(2));
    const status = await mesh.call(node, ControlService.updateHost, { host: 'h2', draining: true });
    expect(status.host).toMatchObject({ name: 'h2', draining: true });
    await expect(agent.block(network.id)).rejects.toMatchObject({ code: 'FAILED_PRECONDITION' });
    agent.send({
      $case: 'report',
      value: {
        host: { ...agent.host, datapath: 'system' },
        conflicts: [{ host: '', network: 'blue', message: 'a foreign network has the name' }],
      },
    });
    await until('reported', () => node.opened.state.hosts.get(agent.host.id)?.datapath === 'system');
    expect(node.opened.state.hosts.get(agent.host.id)?.draining).toBe(true);
    const { conflicts } = await mesh.call(node, ControlService.getStatus, {});
    expect(conflicts).toEqual([{ host: 'h2', network: 'blue', message: 'a foreign network has the name' }]);
    const again = await mesh.agent(node, aHost(2));
    expect(again.welcome?.host?.draining).toBe(true);
    await mesh.call(node, ControlService.updateHost, { host: 'h2', draining: false });
    expect((await again.block(network.id)).hostId).toBe(again.host.id);
    await again.close();
  });

  test('sessions outlive an etcd that is away for longer than the lease', async () => {
    const agent = await mesh.agent(node, aHost(3));
    const session = agent.welcome?.sessionId;
    await mesh.etcd.signal('SIGKILL');
    await new Promise((resolve) => setTimeout(resolve, 3000));
    expect(agent.ended).toBeNull();
    await expect(mesh.network(node, 'never')).rejects.toMatchObject({ code: 'UNAVAILABLE' });
    await mesh.etcd.run();
    await until('a lease again', () => node.opened.lease.held);
    await until('present again', async () => {
      const stored = await mesh.etcd.ctl('get', `/weft/v1/presence/${agent.host.id}`, '--print-value-only');
      return stored.includes(`${session}`);
    });
    await until('in use', () =>
      mesh.network(node, 'later').then(
        () => true,
        () => false,
      ),
    );
    await agent.until('told', () => [...agent.networks.values()].some((n) => n.name === 'later'));
    expect(agent.ended).toBeNull();
    await agent.close();
  });

  test('a host that knows more than a restored etcd begins a new epoch', async () => {
    const kept = await mesh.network(node, 'kept', '10.53.0.0/24');
    await mesh.etcd.ctl('snapshot', 'save', mesh.etcd.path('snapshot'));
    const agent = await mesh.agent(node, aHost(4), { hello: { interest: [kept.id] } });
    const block = await agent.block(kept.id);
    const endpoint = anEndpoint(kept.id, agent.host.id, 4, '10.53.0.2');
    await agent.register([endpoint]);
    for (let i = 0; i < 20; i++) await agent.register([{ ...endpoint, labels: { i: `${i}` } }]);
    const applied = { epoch: 1n, number: node.opened.state.revision };
    await node.close();
    await mesh.etcd.signal('SIGKILL');
    await mesh.etcd.restore(mesh.etcd.path('snapshot'), 'restored');
    await mesh.etcd.run('restored');
    node = await mesh.coordinator('coord1');
    expect(node.opened.state.revision).toBeLessThan(applied.number);
    const hello = { applied, interest: [kept.id], endpoints: [endpoint], blocks: [block] };
    const back = await mesh.agent(node, aHost(4), { hello });
    expect(back.welcome?.epoch).toBe(2n);
    expect(back.views.get(kept.id)?.endpoints.get(endpoint.id)?.ips).toEqual(['10.53.0.2']);
    expect(back.views.get(kept.id)?.blocks.get(block.cidr)?.hostId).toBe(back.host.id);
    const waited = await mesh.call(node, ControlService.waitApplied, {
      revision: undefined,
      network: '',
      project: '',
      timeoutMs: 5000,
      localOnly: false,
      exceptHostIds: [],
    });
    expect(waited).toMatchObject({ applied: true, revision: { epoch: 2n } });
    await back.close();
  });
});
