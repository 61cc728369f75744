/** What the datapath needs of the coordinator: external peers, allowed addresses, memberships, trust; how networks travel. */
import { afterAll, beforeAll, describe, expect, test } from 'vitest';
import { keys } from '../../../coordinator/store/keys.ts';
import { ControlService, type CreateNetworkRequest } from '../../../gen/weft/v1/control.ts';
import { SessionService } from '../../../gen/weft/v1/session.ts';
import { ExternalPeer } from '../../../gen/weft/v1/types.ts';
import type { Host } from '../../../lib/model.ts';
import type { FakeAgent } from '../../harness/fake-agent.ts';
import { aHost, aNetwork, anEndpoint, Mesh, type Node, until } from './support.ts';

const PEER = {
  name: 'router',
  vtep: '198.51.100.7',
  macs: [{ mac: '02:00:00:00:00:07', ip: '10.30.0.200' }],
};

const addPeer = (mesh: Mesh, node: Node, network: string, peer: Partial<ExternalPeer>) =>
  mesh.call(node, ControlService.addPeer, { project: '', network, peer: ExternalPeer.fromPartial(peer) });

describe('records of a network', () => {
  let mesh: Mesh;
  let node: Node;
  let other: Node;
  const all = (): Node[] => [node, other];

  beforeAll(async () => {
    mesh = await Mesh.start();
    node = await mesh.coordinator('coord1');
    other = await mesh.coordinator('coord2');
  });
  afterAll(async () => {
    await mesh?.[Symbol.asyncDispose]();
  });

  test('external peers reach every interested host, and go with their network', async () => {
    const network = await mesh.network(node, 'ext', '10.30.0.0/24');
    const agent = await mesh.agent(other, aHost(1), { hello: { interest: [network.id] } });
    const { peer } = await addPeer(mesh, node, 'ext', PEER);
    expect(peer).toMatchObject({ ...PEER, networkId: network.id, encap: 'vxlan', key: 0, learn: false });
    await agent.until('the peer', () => agent.views.get(network.id)?.externals.has(peer?.id ?? '') === true);
    const late = await mesh.agent(node, aHost(2), { hello: { interest: [network.id] } });
    expect([...(late.views.get(network.id)?.externals.values() ?? [])]).toMatchObject([{ name: 'router' }]);

    const cases: readonly (readonly [Partial<ExternalPeer>, string])[] = [
      [{}, 'ALREADY_EXISTS'],
      [{ name: 'b' }, 'ALREADY_EXISTS'],
      [{ name: 'b', vtep: '198.51.100.8' }, 'ALREADY_EXISTS'],
      [{ name: 'b', vtep: '192.0.2.1', macs: [], learn: true }, 'FAILED_PRECONDITION'],
      [{ name: 'b', vtep: '198.51.100.8', macs: [] }, 'INVALID_ARGUMENT'],
      [{ name: 'b', vtep: '198.51.100', learn: true }, 'INVALID_ARGUMENT'],
      [{ name: 'b', vtep: '224.0.0.5', learn: true }, 'INVALID_ARGUMENT'],
      [{ name: 'b', vtep: '::1', learn: true }, 'INVALID_ARGUMENT'],
      [{ name: 'b', vtep: '198.51.100.8', macs: [], learn: true, encap: 'geneve' }, 'FAILED_PRECONDITION'],
      [{ name: 'b', vtep: '198.51.100.8', macs: [{ mac: '02:58:0a:1e:00:09', ip: '' }] }, 'FAILED_PRECONDITION'],
      [{ name: 'b', vtep: '198.51.100.8', macs: [{ mac: '02:00:00:00:00:08', ip: '10.31.0.9' }] }, 'INVALID_ARGUMENT'],
      [
        { name: 'b', vtep: '198.51.100.8', macs: [{ mac: '02:00:00:00:00:08', ip: '10.30.0.1' }] },
        'FAILED_PRECONDITION',
      ],
      [{ name: 'b', vtep: '198.51.100.8', encap: 'vlan', learn: true }, 'INVALID_ARGUMENT'],
    ];
    for (const [change, code] of cases)
      await expect(addPeer(mesh, node, 'ext', { ...PEER, ...change })).rejects.toMatchObject({ code });

    // Edited by hand: put back.
    const key = keys.external('default', network.id, peer?.id ?? '');
    const told: string[] = [];
    for (const one of all()) one.opened.auditor.onDrift((drift) => told.push(drift.object));
    await mesh.etcd.ctl('del', key);
    await until('told', () => told.includes(key));
    await agent.until('put back', () => agent.views.get(network.id)?.externals.has(peer?.id ?? '') === true);
    await until('in the state again', () => node.opened.state.externals.get(network.id)?.size === 1);

    // Its address is nobody else's, and no block has it.
    const block = await agent.block(network.id);
    expect(block.cidr).toBe('10.30.0.0/28');
    const claim = { networkId: network.id, address: '10.30.0.200', ownRecord: false };
    await expect(agent.call(SessionService.claimAddress, claim)).rejects.toMatchObject({ code: 'ALREADY_EXISTS' });
    const inBlock = { name: 'b', vtep: '198.51.100.8', macs: [{ mac: '02:00:00:00:00:08', ip: '10.30.0.9' }] };
    await expect(addPeer(mesh, node, 'ext', inBlock)).rejects.toMatchObject({
      code: 'FAILED_PRECONDITION',
      message: expect.stringContaining('of host h1'),
    });

    const second = await mesh.network(node, 'ext2', '10.32.0.0/24');
    const same = { name: 'r', vtep: PEER.vtep, key: network.vni, learn: true };
    await expect(addPeer(mesh, node, 'ext2', same)).rejects.toMatchObject({ code: 'FAILED_PRECONDITION' });
    await addPeer(mesh, node, 'ext2', { ...same, key: 0 });
    const list = await mesh.call(other, ControlService.listPeers, { project: '', network: '' });
    expect(list.peers.map((p) => `${p.name} ${list.networkNames[p.networkId]}`).sort()).toEqual([
      'r ext2',
      'router ext',
    ]);
    await mesh.call(node, ControlService.removePeer, { project: '', network: 'ext', peer: 'router' });
    await agent.until('its end', () => agent.views.get(network.id)?.externals.size === 0);
    await expect(
      mesh.call(node, ControlService.removePeer, { project: '', network: 'ext', peer: 'router' }),
    ).rejects.toMatchObject({ code: 'NOT_FOUND' });

    await mesh.call(node, ControlService.deleteNetwork, { project: '', network: 'ext2' });
    expect(node.opened.state.externals.has(second.id)).toBe(false);
    await agent.close();
    await late.close();
  });

  test('allowed addresses: shared ones pass, those of others do not; they go with their endpoint', async () => {
    const network = await mesh.network(node, 'vrrp', '10.33.0.0/24');
    const a = await mesh.agent(node, aHost(3), { hello: { interest: [network.id] } });
    const b = await mesh.agent(other, aHost(4), { hello: { interest: [network.id] } });
    const one = anEndpoint(network.id, a.host.id, 31, (await firstIp(a, network.id)) ?? '');
    const two = anEndpoint(network.id, b.host.id, 32, (await firstIp(b, network.id)) ?? '');
    await a.register([one]);
    await b.register([two]);
    const set = (
      endpoint: string,
      allow: { ip: string; mac: string }[],
      disallow: { ip: string; mac: string }[] = [],
    ) => mesh.call(node, ControlService.updateEndpoint, { project: '', endpoint, network: '', allow, disallow });
    const vip = { ip: '10.33.0.100', mac: '' };
    const { endpoint, revision } = await set('h3/c31', [vip, { ip: vip.ip, mac: '00:00:5E:00:01:05' }]);
    expect(endpoint?.allowed).toEqual([vip, { ip: vip.ip, mac: '00:00:5e:00:01:05' }]);
    await set(two.id.slice(0, 64), [vip]);
    for (const agent of [a, b])
      await agent.until('both settings', () => agent.views.get(network.id)?.settings.size === 2);
    await expect(set('h3/c31', [{ ip: two.ips[0]!, mac: '' }])).rejects.toMatchObject({
      code: 'FAILED_PRECONDITION',
      message: expect.stringContaining('c32 on h4'),
    });
    await expect(set('h3/c31', [{ ip: '10.33.0.1', mac: '' }])).rejects.toMatchObject({ code: 'FAILED_PRECONDITION' });
    await expect(set('h3/c31', [{ ip: '', mac: two.mac }])).rejects.toMatchObject({ code: 'FAILED_PRECONDITION' });
    await expect(set('c99', [vip])).rejects.toMatchObject({ code: 'NOT_FOUND' });
    await expect(set('h3/c31', [])).rejects.toMatchObject({ code: 'INVALID_ARGUMENT' });
    const claim = { networkId: network.id, address: vip.ip, ownRecord: false };
    await expect(a.call(SessionService.claimAddress, claim)).rejects.toMatchObject({ code: 'ALREADY_EXISTS' });

    // What the host says of the endpoint later leaves them alone.
    await a.register([{ ...one, ofport: 9 }]);
    const listed = await mesh.call(node, ControlService.listEndpoints, { project: '', network: 'vrrp', host: 'h3' });
    expect(listed.endpoints).toMatchObject([{ ofport: 9, allowed: [vip, { ip: vip.ip }] }]);
    // An address without a MAC takes all of it away.
    await set('h3/c31', [], [vip]);
    await b.until('its end', () => b.views.get(network.id)?.settings.has(one.id) === false);
    expect(revision?.number).toBeGreaterThan(0n);
    await b.register([], [two.id]);
    await a.until('gone with the endpoint', () => a.views.get(network.id)?.settings.size === 0);
    await a.register([], [one.id]);
    await mesh.call(node, ControlService.deleteNetwork, { project: '', network: 'vrrp' });
    await a.close();
    await b.close();
  });

  test('memberships: of the calling host alone, until its session or network ends', async () => {
    const network = await mesh.network(node, 'groups', '10.34.0.0/24');
    const a = await mesh.agent(node, aHost(5), { hello: { interest: [network.id] } });
    const b = await mesh.agent(other, aHost(6), { hello: { interest: [network.id] } });
    const say = (agent: FakeAgent, groups: string[], unknown = false) =>
      agent.call(SessionService.registerMemberships, { networkId: network.id, groups, unknown });
    const seen = (agent: FakeAgent, of: FakeAgent) => agent.views.get(network.id)?.memberships.get(of.host.id)?.groups;
    await say(a, ['239.1.1.2', '224.0.0.251', '239.1.1.1', '239.1.1.1', 'ff02::fb', 'ff15::1']);
    await b.until('groups', () => seen(b, a)?.join() === '239.1.1.1,239.1.1.2,ff15::1');
    await say(b, []);
    await a.until('no group is known too', () => seen(a, b)?.length === 0);
    await expect(say(a, ['10.0.0.1'])).rejects.toMatchObject({ code: 'INVALID_ARGUMENT' });
    await say(a, [], true);
    await b.until('unknown again', () => seen(b, a) === undefined);
    // No agent counts as a peer by its memberships.
    expect(a.views.get(network.id)?.peers.size).toBe(0);

    await say(a, ['239.1.1.1']);
    await b.until('groups', () => seen(b, a) !== undefined);
    // Deleted by hand: put back, like a presence.
    await mesh.etcd.ctl('del', keys.memberships('default', network.id, a.host.id));
    await b.until('put back', () => seen(b, a) !== undefined);
    await a.close();
    await b.until('gone with the session', () => seen(b, a) === undefined);
    const again = await mesh.agent(other, aHost(5), { hello: { interest: [network.id] } });
    await say(again, ['239.9.9.9']);
    await b.until('groups', () => seen(b, again)?.join() === '239.9.9.9');
    await mesh.call(node, ControlService.deleteNetwork, { project: '', network: 'groups' });
    for (const one of all())
      await until(
        'all gone',
        () => !one.opened.state.memberships.has(network.id) && !one.opened.state.networks.has(network.id),
      );
    // Nobody puts them back: the auditors have done all that they wanted, and it has arrived.
    for (const one of all()) await one.opened.auditor.audit(true);
    await node.opened.store.caughtUp();
    for (const one of all()) expect(one.opened.state.memberships.has(network.id)).toBe(false);
    await expect(say(again, ['239.9.9.9'])).rejects.toMatchObject({ code: 'NOT_FOUND' });
    await again.close();
    await b.close();
  });

  test('trust is refused where the network was not made for it', async () => {
    const plain = await mesh.network(node, 'plain', '10.35.0.0/24');
    const trusting = await mesh.call(node, ControlService.createNetwork, {
      ...aNetwork('trusting', '10.36.0.0/24'),
      allowTrust: true,
    });
    const agent = await mesh.agent(node, aHost(7), { hello: { interest: [plain.id, trusting.id] } });
    const of = async (id: string, n: number) =>
      anEndpoint(id, agent.host.id, n, (await firstIp(agent, id)) ?? '', { trusted: true });
    const [no, yes] = [await of(plain.id, 71), await of(trusting.id, 72)];
    await expect(agent.register([no])).rejects.toMatchObject({
      code: 'PERMISSION_DENIED',
      message: expect.stringContaining('--allow-trust'),
    });
    // One that is refused keeps the others from nothing; and it is refused in a Hello too.
    const both = await agent.call(SessionService.registerEndpoints, { upserts: [no, yes], removed: [] });
    expect(both.refused.map((refusal) => refusal.endpointId)).toEqual([no.id]);
    expect(node.opened.state.endpoints.get(trusting.id)?.size).toBe(1);
    const again = await mesh.agent(other, aHost(8), {
      hello: { endpoints: [{ ...no, hostId: aHost(8).id, ips: [] }] },
    });
    expect(other.opened.state.endpoints.has(plain.id)).toBe(false);
    await again.close();
    await agent.register([yes, { ...no, trusted: false }]);
    await agent.register([], [yes.id, no.id]);
    await agent.close();
  });

  test('after all that, the keys agree with each other', async () => {
    expect(await node.opened.auditor.audit(false)).toEqual([]);
  });
});

async function firstIp(agent: FakeAgent, networkId: string): Promise<string | undefined> {
  const { cidr } = await agent.block(networkId);
  const [base = ''] = cidr.split('/');
  return base.replace(/\d+$/, (last) => String(Number(last) + 2));
}

const GENEVE: Partial<Host> = { vteps: [{ address: '192.0.2.12', encaps: ['vxlan', 'geneve'], encrypted: false }] };

describe('how networks travel', () => {
  let mesh: Mesh;
  let node: Node;
  beforeAll(async () => {
    mesh = await Mesh.start();
    node = await mesh.coordinator('coord1');
  });
  afterAll(async () => {
    await mesh?.[Symbol.asyncDispose]();
  });
  const create = (name: string, more: Partial<CreateNetworkRequest> = {}) =>
    mesh.call(node, ControlService.createNetwork, { ...aNetwork(name), ...more });

  test('what no connected host can carry is refused, naming the hosts; MTU follows underlay and overhead', async () => {
    expect(await create('nobody', { encap: 'gre' })).toMatchObject({ encap: 'gre', mtu: 1458 });
    const probes = [{ name: 'encap/geneve', result: 'no', reason: 'kernel has no geneve' }];
    const h1 = await mesh.agent(node, aHost(1, { probes, underlayMtu: 9000 }));
    await expect(create('g', { encap: 'geneve' })).rejects.toMatchObject({
      code: 'FAILED_PRECONDITION',
      message: 'no connected host can carry geneve: h1 (kernel has no geneve)',
    });
    expect(await create('jumbo')).toMatchObject({ mtu: 8950 });
    const h2 = await mesh.agent(node, aHost(2, { ...GENEVE, underlayMtu: 1500 }));
    expect(await create('g', { encap: 'geneve' })).toMatchObject({ encap: 'geneve', mtu: 1450 });
    expect(await create('small', { mtu: 68 })).toMatchObject({ mtu: 68 });
    await expect(create('large', { mtu: 1451 })).rejects.toMatchObject({
      code: 'FAILED_PRECONDITION',
      message: expect.stringMatching(/h2 has MTU 1500.* 1450/),
    });
    await expect(create('tiny', { mtu: 67 })).rejects.toMatchObject({ code: 'INVALID_ARGUMENT' });

    const six = { address: '2001:db8::3', encaps: ['vxlan'], encrypted: false };
    const h3 = await mesh.agent(node, aHost(3, { vteps: [six], underlayMtu: 1400 }));
    expect(await create('six')).toMatchObject({ mtu: 1330 });
    const { conflicts } = await mesh.call(node, ControlService.getStatus, {});
    const about = conflicts.filter((conflict) => conflict.network === 'jumbo');
    expect(about.map((conflict) => conflict.host)).toEqual(['h2', 'h3']);
    expect(about[0]?.message).toMatch(/network jumbo has MTU 8950, h2's underlay carries 1500 .*weft doctor mtu/);
    for (const agent of [h1, h2, h3]) await agent.close();
  });

  test('vlan: uplink and tag are unique together, there is no VNI and no gateway', async () => {
    const uplink = { name: 'uplink/eth1', result: '9000', reason: '' };
    const h1 = await mesh.agent(node, aHost(1, { capabilities: ['encap/vlan', 'uplink/eth1'], probes: [uplink] }));
    const vlan = { encap: 'vlan', uplink: 'eth1', vlanTag: 100 };
    const made = await create('v', { ...vlan, subnets: ['10.40.0.0/24'] });
    expect(made).toMatchObject({ encap: 'vlan', vni: 0, gateways: [], mtu: 9000, uplink: 'eth1', vlanTag: 100 });
    await expect(create('w', vlan)).rejects.toMatchObject({
      code: 'ALREADY_EXISTS',
      message: expect.stringContaining('"v"'),
    });
    await expect(create('w', { ...vlan, uplink: 'eth2' })).rejects.toMatchObject({
      code: 'FAILED_PRECONDITION',
      message: 'no connected host can carry vlan on eth2: h1 (it has no uplink eth2)',
    });
    expect(
      await create('w', { ...vlan, vlanTag: 101, gateways: ['10.41.0.254'], subnets: ['10.41.0.0/24'] }),
    ).toMatchObject({ gateways: ['10.41.0.254'] });
    await expect(addPeer(mesh, node, 'v', { ...PEER, macs: [], learn: true })).rejects.toMatchObject({
      code: 'FAILED_PRECONDITION',
    });
    await mesh.call(node, ControlService.deleteNetwork, { project: '', network: 'v' });
    expect(await create('v2', vlan)).toMatchObject({ vlanTag: 100 });
    expect(await node.opened.auditor.audit(false)).toEqual([]);
    await h1.close();
  });

  test('docker network create -o: judged before the name is known, and the VNI goes back for a tag', async () => {
    const h1 = await mesh.agent(node, aHost(1, { capabilities: ['encap/vlan', 'uplink/eth1'] }));
    const reserve = (options: Record<string, string>) =>
      h1.call(SessionService.reserveNetwork, { pool: '', subPool: '', ipv6: false, options });
    const bind = (networkId: string, name: string, options: Record<string, string>) =>
      h1.call(SessionService.bindNetwork, {
        networkId,
        name,
        labels: {},
        options,
        internal: false,
        attachable: false,
        gateway: '',
        auxAddresses: {},
        gateway6: '',
        joins: '',
        ipv6: false,
      });
    const reserved = await reserve({});
    expect(reserved).toMatchObject({ encap: 'vxlan', mtu: 1450 });
    await expect(bind(reserved.id, '', { 'weft.encap': 'gre' })).rejects.toMatchObject({ code: 'FAILED_PRECONDITION' });
    await expect(bind(reserved.id, '', { 'weft.mtu': '1451' })).rejects.toMatchObject({ code: 'FAILED_PRECONDITION' });
    const options = { 'weft.encap': 'vlan', 'weft.uplink': 'eth1', 'weft.tag': '200', 'weft.allow-trust': 'true' };
    const prepared = await bind(reserved.id, '', options);
    expect(prepared.network).toMatchObject({ state: 'reserved', encap: 'vlan', vni: 0, gateways: [], mtu: 1500 });
    expect(node.opened.deps.cache.raw.has(keys.vni(reserved.vni))).toBe(false);
    expect(node.opened.deps.cache.raw.get(keys.vlan('eth1', 200))?.lease).not.toBe('0');
    const bound = await bind(reserved.id, 'made', options);
    expect(bound).toMatchObject({ won: true, network: { state: 'bound', vlanTag: 200, allowTrust: true, options } });
    expect(node.opened.deps.cache.raw.get(keys.vlan('eth1', 200))?.lease).toBe('0');

    const withPool = await reserve({ 'weft.encap': 'vlan', 'weft.uplink': 'eth1', 'weft.tag': '201' });
    expect(withPool).toMatchObject({ encap: 'vlan', vlanTag: 201, options: {} });
    await h1.call(SessionService.removeNetwork, { networkId: withPool.id });
    const direct = await reserve({});
    expect(await bind(direct.id, 'direct', { 'com.docker.network.driver.mtu': '1400' })).toMatchObject({
      network: { mtu: 1400, vni: direct.vni },
    });
    expect(await node.opened.auditor.audit(false)).toEqual([]);
    await h1.close();
  });

  test('sizes of paths: both ways come together, and what is wrong is a sentence', async () => {
    const other = await mesh.coordinator('coord2');
    const answer = (largest: Record<string, number>) => (query: { $case: string; value: unknown }) =>
      query.$case === 'probeMtu'
        ? {
            body: {
              $case: 'probeMtu' as const,
              value: {
                probes: (query.value as { vteps: string[] }).vteps.map((vtep) => ({
                  vtep,
                  largest: largest[vtep] ?? 1500,
                  problem: (largest[vtep] ?? 1500) === 0 ? 'unreachable' : 'black hole above 1400 bytes',
                })),
              },
            },
          }
        : {};
    const h1 = await mesh.agent(node, aHost(1), { onQuery: answer({ '192.0.2.3': 1400 }) });
    const h2 = await mesh.agent(other, aHost(2), { onQuery: answer({ '192.0.2.3': 0 }) });
    const h3 = await mesh.agent(node, aHost(3), { onQuery: answer({}) });
    const request = { project: '', network: '', localOnly: false };
    const { paths, errors } = await mesh.call(other, ControlService.probeMtu, request);
    expect(errors).toEqual({});
    expect(paths).toHaveLength(6);
    const problem = (from: string, to: string) => paths.find((path) => path.from === from && path.to === to)?.problem;
    expect(problem('h1', 'h2')).toBe('');
    expect(problem('h3', 'h1')).toBe('');
    expect(problem('h1', 'h3')).toMatch(/^underlay h1→h3 carries 1400, h1 announces 1500/);
    expect(problem('h2', 'h3')).toBe('underlay h2→h3: unreachable');
    await h3.close();
    // The network needs more than its smaller end announces.
    const network = await create('wide', { subnets: ['10.50.0.0/24'] });
    const h4 = await mesh.agent(node, aHost(4, { underlayMtu: 1400 }), {
      hello: { interest: [network.id] },
      onQuery: answer({ '192.0.2.1': 1400 }),
    });
    await h4.block(network.id);
    await h1.block(network.id);
    const narrow = await mesh.call(node, ControlService.probeMtu, { ...request, network: 'wide' });
    expect(narrow.paths.map((path) => `${path.from} ${path.to}`).sort()).toEqual(['h1 h4', 'h4 h1']);
    expect(narrow.paths.find((path) => path.from === 'h4')?.problem).toBe(
      'underlay h4→h1 carries 1400, network wide needs 1500 of it',
    );
    for (const agent of [h1, h2, h4]) await agent.close();
  });
});
