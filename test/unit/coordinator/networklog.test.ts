import fc from 'fast-check';
import { expect, test } from 'vitest';
import { peersOf } from '../../../coordinator/reach.ts';
import { CATALOGUE, Topics } from '../../../coordinator/topics.ts';
import { completeCatalogue, completeNetwork } from '../../../coordinator/view.ts';
import type { CoordinatorMessage, NetworkUpdate } from '../../../gen/weft/v1/session.ts';
import { ExternalPeer, Policy, Router, Service } from '../../../gen/weft/v1/types.ts';
import type { Endpoint } from '../../../lib/model.ts';
import { FakeState, type Write } from '../../harness/fake-state.ts';
import { aHost, aNetworkRecord, anEndpoint } from './samples.ts';

const N = 'n1';

/** One session's side: a cursor, and the view that its messages make. */
class Reader {
  cursor: bigint | null = null;
  at: bigint | null = null;
  view = blank();
  completes = 0;

  read(topics: Topics): CoordinatorMessage | null {
    const stretch = topics.get(N)?.since(this.cursor) ?? null;
    if (stretch === null) return null;
    const body = stretch.message.body;
    if (body?.$case !== 'network') throw new Error('not of a network');
    this.merge(body.value);
    this.cursor = stretch.last;
    return stretch.message;
  }

  merge(update: NetworkUpdate): void {
    if (update.complete) {
      this.view = blank();
      this.completes++;
    } else expect(update.basedOn?.number).toBe(this.at);
    for (const id of update.removedBlocks) this.view.blocks.delete(id);
    for (const id of update.removedEndpoints) this.view.endpoints.delete(id);
    for (const id of update.removedPeers) this.view.peers.delete(id);
    for (const id of update.removedAddresses) this.view.addresses.delete(id);
    for (const block of update.blocks) this.view.blocks.set(block.cidr, block);
    for (const endpoint of update.endpoints) this.view.endpoints.set(endpoint.id, endpoint);
    for (const peer of update.peers) this.view.peers.set(peer.hostId, peer);
    for (const address of update.addresses) this.view.addresses.set(address.address, address);
    for (const id of update.removedExternals) this.view.externals.delete(id);
    for (const peer of update.externals) this.view.externals.set(peer.id, peer);
    for (const id of update.removedMemberships) this.view.memberships.delete(id);
    for (const one of update.memberships) this.view.memberships.set(one.hostId, one);
    for (const id of update.removedSettings) this.view.settings.delete(id);
    for (const one of update.settings) this.view.settings.set(one.endpointId, one);
    for (const name of update.removedReservations) this.view.reservations.delete(name);
    for (const one of update.reservations) this.view.reservations.set(one.name, one);
    for (const name of update.removedPolicies) this.view.policies.delete(name);
    for (const one of update.policies) this.view.policies.set(one.name, one);
    for (const name of update.removedServices) this.view.services.delete(name);
    for (const one of update.services) this.view.services.set(one.name, one);
    this.at = update.revision?.number ?? null;
  }
}

const blank = () => ({
  blocks: new Map<string, unknown>(),
  endpoints: new Map<string, unknown>(),
  peers: new Map<string, unknown>(),
  addresses: new Map<string, unknown>(),
  externals: new Map<string, unknown>(),
  memberships: new Map<string, unknown>(),
  settings: new Map<string, unknown>(),
  reservations: new Map<string, unknown>(),
  services: new Map<string, unknown>(),
  policies: new Map<string, unknown>(),
});

function expected(state: FakeState) {
  const update = completeNetwork(state, N, { epoch: 1n, number: 0n });
  return {
    blocks: new Map(update.blocks.map((b) => [b.cidr, b])),
    endpoints: new Map(update.endpoints.map((e) => [e.id, e])),
    peers: new Map(update.peers.map((p) => [p.hostId, p])),
    addresses: new Map(update.addresses.map((a) => [a.address, a])),
    externals: new Map(update.externals.map((x) => [x.id, x])),
    memberships: new Map(update.memberships.map((m) => [m.hostId, m])),
    settings: new Map(update.settings.map((s) => [s.endpointId, s])),
    reservations: new Map(update.reservations.map((r) => [r.name, r])),
    services: new Map(update.services.map((s) => [s.name, s])),
    policies: new Map(update.policies.map((p) => [p.name, p])),
  };
}

const arbitraryWrite: fc.Arbitrary<Write> = fc
  .record({
    what: fc.integer({ min: 0, max: 10 }),
    n: fc.integer({ min: 0, max: 4 }),
    host: fc.integer({ min: 1, max: 3 }),
    gone: fc.boolean(),
  })
  .map(({ what, n, host, gone }): Write => {
    const hostId = `h${host}`;
    const cidr = `10.0.0.${n * 16}/28`;
    const address = `10.0.0.${n * 16 + 5}`;
    const of = n === 4 ? 'n2' : N;
    switch (what) {
      case 0:
        return { block: cidr, of, after: gone ? null : { networkId: of, cidr, hostId, revision: 0n } };
      case 1:
        return { endpoint: `e${n}`, of, after: gone ? null : anEndpoint(of, hostId, n, address, { ofport: host }) };
      case 2: {
        const state = host === 1 ? 'claimed' : 'held';
        const after = { networkId: of, address, hostId, state, grantorHostId: 'h3', reason: '', revision: 0n };
        return { address, of, after: gone ? null : after };
      }
      case 3: {
        const peer = ExternalPeer.fromPartial({ id: `x${n}`, name: `x${n}`, networkId: of, vtep: address, key: host });
        return { external: peer.id, of, after: gone ? null : peer };
      }
      case 4:
        return {
          memberships: hostId,
          of,
          after: gone ? null : { networkId: of, hostId, groups: [address], revision: 0n },
        };
      case 5: {
        const allowed = [{ ip: address, mac: hostId }];
        const after = { networkId: of, endpointId: `e${n}`, allowed, draining: false, updatedAt: '', revision: 0n };
        return { settings: `e${n}`, of, after: gone ? null : after };
      }
      case 6: {
        const after = { id: hostId, networkId: of, name: `r${n}`, ips: [address], mac: '', labels: {}, createdAt: '' };
        return { reservation: after.name, of, after: gone ? null : { ...after, revision: 0n } };
      }
      case 7: {
        const after = Policy.fromPartial({ id: hostId, networkId: of, name: `p${n}`, order: host });
        return { policy: after.name, of, after: gone ? null : after };
      }
      case 8: {
        const service = Service.fromPartial({
          name: `s${n % 2}`,
          networkId: of,
          publish: ['all', 'local', ''][host - 1]!,
        });
        return { service: service.name, of, after: gone ? null : service };
      }
      case 9: {
        const networkIds = [
          [N, 'n2'],
          ['n2', 'n3'],
          [N, 'n2', 'n3'],
        ][host - 1]!;
        const router = Router.fromPartial({ name: `r${n % 2}`, project: 'default', networkIds });
        return { router: router.name, after: gone ? null : router };
      }
      default: {
        const host = aHost(hostId, { name: `${hostId}-${n % 2}`, express: n > 1 });
        return { host: hostId, after: gone ? null : host };
      }
    }
  });

test('increments from any cursor, coalesced or not, make what the state is', () => {
  const step = fc.record({
    writes: fc.array(arbitraryWrite, { minLength: 1, maxLength: 4 }),
    readers: fc.array(fc.integer({ min: 0, max: 2 })),
    reset: fc.integer({ min: 0, max: 30 }),
  });
  fc.assert(
    fc.property(fc.array(step, { maxLength: 40 }), fc.integer({ min: 1, max: 40 }), (steps, limit) => {
      const state = new FakeState();
      const topics = new Topics(state, limit);
      state.subscribe((set) => topics.apply(set));
      topics.follow(N, { mark: () => {} });
      const readers = [new Reader(), new Reader(), new Reader()];
      for (const { writes, readers: who, reset } of steps) {
        // etcd takes one write for each key in a transaction.
        const unique = new Map(writes.map((write) => [JSON.stringify(Object.entries(write).slice(0, 1)), write]));
        state.commit(...unique.values());
        if (reset === 0) {
          state.revision++;
          state.reset();
        }
        for (const i of who) {
          readers[i]?.read(topics);
          expect(readers[i]?.view).toEqual(expected(state));
        }
      }
      for (const reader of readers) {
        reader.read(topics);
        expect(reader.view).toEqual(expected(state));
        expect(reader.read(topics)).toBeNull();
      }
    }),
    { numRuns: 300 },
  );
});

test('sessions at one cursor get the same message object', () => {
  const { state, topics } = three();
  const [a, b, late] = [new Reader(), new Reader(), new Reader()];
  expect(a.read(topics)).toBe(b.read(topics));
  late.read(topics);
  state.commit({ endpoint: 'e9', of: N, after: anEndpoint(N, 'h1', 9, '10.0.0.9') });
  expect(a.read(topics)).toBe(b.read(topics));
  state.commit({ endpoint: 'e9', of: N, after: null });
  const both = late.read(topics);
  expect(both?.body).toMatchObject({
    $case: 'network',
    value: { complete: false, removedEndpoints: ['e9'], endpoints: [] },
  });
  expect(late.view).toEqual(a.read(topics) === null ? null : a.view);
});

test('who is further behind than the log reaches gets everything', () => {
  const { state, topics } = three(10);
  const reader = new Reader();
  reader.read(topics);
  for (let i = 0; i < 30; i++)
    state.commit({ endpoint: 'e1', of: N, after: anEndpoint(N, 'h1', 1, '10.0.0.1', { ofport: i }) });
  reader.read(topics);
  expect(reader.completes).toBe(2);
  state.commit({ endpoint: 'e1', of: N, after: null });
  reader.read(topics);
  expect(reader.completes).toBe(2);
  expect(reader.view).toEqual(expected(state));
});

test('a claim is not seen until it is granted', () => {
  const { state, topics } = three();
  const reader = new Reader();
  reader.read(topics);
  const claim = {
    networkId: N,
    address: '10.0.0.77',
    hostId: 'h3',
    state: 'claimed',
    grantorHostId: 'h1',
    reason: '',
    revision: 0n,
  };
  state.commit({ address: claim.address, of: N, after: claim });
  expect(reader.read(topics)).toBeNull();
  state.commit({ address: claim.address, of: N, after: { ...claim, state: 'held' } });
  expect(reader.read(topics)?.body).toMatchObject({
    value: { addresses: [{ state: 'held' }], peers: [{ hostId: 'h3' }] },
  });
  state.commit({ address: claim.address, of: N, after: null });
  expect(reader.read(topics)?.body).toMatchObject({
    value: { removedAddresses: [claim.address], removedPeers: ['h3'] },
  });
});

test('a peer’s new VTEP is told where it is a peer, other changes of hosts are not', () => {
  const { state, topics } = three();
  const reader = new Reader();
  reader.read(topics);
  state.commit({ host: 'h1', after: aHost('h1', { versions: { weft: '2' } }) });
  state.commit({ host: 'h3', after: aHost('h3', { vteps: [] }) });
  expect(reader.read(topics)).toBeNull();
  const vteps = [{ address: '192.0.2.99', encaps: ['vxlan'], encrypted: false }];
  state.commit({ host: 'h1', after: aHost('h1', { vteps }) });
  expect(reader.read(topics)?.body).toMatchObject({ value: { peers: [{ hostId: 'h1', vteps }], endpoints: [] } });
});

test('who leads ports into a network is its peer, and is told of it, for as long as a service of it is published by all', () => {
  const { state, topics } = three();
  const catalogue = (cursor: bigint): unknown => topics.get(CATALOGUE)?.since(cursor)?.message.body;
  const reader = new Reader();
  const publish = (name: string, how: string): bigint => {
    const before = topics.get(CATALOGUE)!.head;
    const after = how === 'gone' ? null : Service.fromPartial({ name, networkId: N, publish: how });
    state.commit({ service: name, of: N, after });
    return before;
  };
  state.commit({ host: 'h3', after: aHost('h3', { express: true }) }, { host: 'h4', after: aHost('h4') });
  reader.read(topics);
  expect(catalogue(publish('a', 'local'))).toBeUndefined();
  expect(reader.read(topics)?.body).toMatchObject({ value: { services: [{ name: 'a' }], peers: [] } });
  expect(catalogue(publish('b', 'all'))).toMatchObject({ value: { networks: [{ id: N, published: true }] } });
  const entry = { hostId: 'h3', entry: true };
  expect(reader.read(topics)?.body).toMatchObject({ value: { services: [{ name: 'b' }], peers: [entry] } });
  expect(catalogue(publish('c', 'all'))).toBeUndefined();
  expect(completeCatalogue(state, { epoch: 1n, number: 0n }).networks).toMatchObject([{ id: N, published: true }]);
  // It holds something, and no longer.
  const held = anEndpoint(N, 'h3', 9, '10.0.0.9');
  state.commit({ endpoint: held.id, of: N, after: held });
  reader.read(topics);
  expect(reader.view.peers.get('h3')).toMatchObject({ entry: false });
  state.commit({ endpoint: held.id, of: N, after: null });
  expect(reader.read(topics)?.body).toMatchObject({ value: { peers: [entry], removedPeers: [] } });
  // So may other hosts, from when they can.
  state.commit({ host: 'h4', after: aHost('h4', { express: true }) });
  expect(reader.read(topics)?.body).toMatchObject({ value: { peers: [{ hostId: 'h4', entry: true }] } });
  expect(catalogue(publish('b', 'gone'))).toBeUndefined();
  expect(catalogue(publish('c', 'gone'))).toMatchObject({ value: { networks: [{ id: N, published: false }] } });
  expect(reader.read(topics)?.body).toMatchObject({ value: { removedPeers: ['h3', 'h4'] } });
  state.commit({ service: 'b', of: N, after: Service.fromPartial({ name: 'b', networkId: N, publish: 'all' }) });
  const before = topics.get(CATALOGUE)!.head;
  state.commit({ service: 'b', of: N, after: null }, { network: N, after: null });
  expect(catalogue(before)).toMatchObject({ value: { networks: [], removed: [N] } });
});

test('who holds something where a router leads here from is a peer that nothing goes to; the catalogue tells of routers', () => {
  const { state, topics } = three();
  const catalogue = (cursor: bigint): unknown => topics.get(CATALOGUE)?.since(cursor)?.message.body;
  const reader = new Reader();
  reader.read(topics);
  const held = anEndpoint('n2', 'h3', 9, '10.9.0.9');
  state.commit({ network: 'n2', after: aNetworkRecord('n2') }, { endpoint: held.id, of: 'n2', after: held });
  expect(reader.read(topics)).toBeNull();
  const router = Router.fromPartial({ name: 'r', project: 'default', networkIds: [N, 'n2'] });
  const before = topics.get(CATALOGUE)!.head;
  state.commit({ router: 'r', after: router });
  expect(catalogue(before)).toMatchObject({ value: { routers: [{ name: 'r' }], networks: [] } });
  const routed = { hostId: 'h3', entry: false, routed: true };
  expect(reader.read(topics)?.body).toMatchObject({ value: { peers: [routed], endpoints: [] } });
  expect(completeNetwork(state, N, { epoch: 1n, number: 0n }).peers).toHaveLength(3);
  // It goes from there, and another host comes.
  const other = anEndpoint('n2', 'h4', 8, '10.9.0.8');
  state.commit(
    { host: 'h4', after: aHost('h4') },
    { endpoint: held.id, of: 'n2', after: null },
    { endpoint: other.id, of: 'n2', after: other },
  );
  expect(reader.read(topics)?.body).toMatchObject({
    value: { peers: [{ ...routed, hostId: 'h4' }], removedPeers: ['h3'] },
  });
  // Who holds something of the network itself is a peer as ever.
  const own = anEndpoint(N, 'h4', 7, '10.0.0.7');
  state.commit({ endpoint: own.id, of: N, after: own });
  reader.read(topics);
  expect(reader.view.peers.get('h4')).toMatchObject({ routed: false });
  state.commit({ endpoint: own.id, of: N, after: null });
  reader.read(topics);
  const last = topics.get(CATALOGUE)!.head;
  state.commit({ router: 'r', after: null });
  expect(catalogue(last)).toMatchObject({ value: { routers: [], removedRouters: ['r'] } });
  expect(reader.read(topics)?.body).toMatchObject({ value: { removedPeers: ['h4'] } });
});

test('a network that nobody follows has no log; what another network does marks nobody', () => {
  const { state, topics } = three();
  const marked: string[] = [];
  const follower = { mark: (topic: string) => void marked.push(topic) };
  topics.follow(CATALOGUE, follower);
  topics.follow('n2', follower);
  state.commit({ endpoint: 'x', of: N, after: anEndpoint(N, 'h1', 8, '10.0.0.8') });
  expect(marked).toEqual([]);
  state.commit(
    { network: 'n3', after: aNetworkRecord('n3') },
    { endpoint: 'y', of: 'n2', after: anEndpoint('n2', 'h1', 8, '10.0.0.8') },
  );
  expect(marked).toEqual([CATALOGUE, 'n2']);
  topics.leave('n2', follower);
  expect([...topics.networks]).toEqual([N]);
});

function three(limit?: number): { state: FakeState; topics: Topics } {
  const state = new FakeState();
  state.commit(
    { network: N, after: aNetworkRecord(N) },
    ...['h1', 'h2', 'h3'].map((id): Write => ({ host: id, after: aHost(id) })),
    ...['h1', 'h2'].map((id, i): Write => {
      const e: Endpoint = anEndpoint(N, id, i, `10.0.0.${i + 1}`);
      return { endpoint: e.id, of: N, after: e };
    }),
  );
  expect([...peersOf(state, N).keys()]).toEqual(['h1', 'h2']);
  const topics = new Topics(state, limit);
  state.subscribe((set) => topics.apply(set));
  topics.follow(N, { mark: () => {} });
  return { state, topics };
}
