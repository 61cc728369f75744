import { describe, expect, test } from 'vitest';
import { allowedClash } from '../../../coordinator/alloc/allowed.ts';
import { peerClash } from '../../../coordinator/alloc/externals.ts';
import { checkReservation, reservationClash } from '../../../coordinator/alloc/reservations.ts';
import { reservedAddresses } from '../../../coordinator/alloc/reserved.ts';
import {
  familiesToPick,
  MAX_SERVICES,
  occupiedAddresses,
  pickInBlocks,
  pickOutside,
  serviceClash,
} from '../../../coordinator/alloc/service-clash.ts';
import { checkService } from '../../../coordinator/alloc/services.ts';
import { Backends } from '../../../coordinator/backends.ts';
import { Events } from '../../../coordinator/events.ts';
import { notIts } from '../../../coordinator/owners.ts';
import {
  EndpointSettings,
  ExternalPeer,
  HealthCheck,
  Reservation,
  Router,
  Service,
} from '../../../gen/weft/v1/types.ts';
import type { Network, ServicePort } from '../../../lib/model.ts';
import { MAX_PUBLISHED_SERVICES } from '../../../lib/published-services.ts';
import { FakeState } from '../../harness/fake-state.ts';
import { aHost, aNetworkRecord, anEndpoint } from './samples.ts';

const N = 'n1';
const BOTH = aNetworkRecord(N, {
  subnets: ['10.0.0.0/24', 'fd00::/64'],
  gateways: ['10.0.0.1', 'fd00::1'],
  auxAddresses: { router: '10.0.0.50' },
});
const port = (port: number, more: Partial<ServicePort> = {}): ServicePort => ({
  name: '',
  protocol: '',
  port,
  targetPort: 0,
  hostPort: 0,
  ...more,
});
type Asked = Partial<Service>;
const asked = (fields: Asked): Service =>
  Service.fromPartial({ name: 'shop', selector: { app: 'shop' }, ports: [port(80)], ...fields });

describe('what can be a service', () => {
  test('is made canonical, with what has a default', () => {
    const health = HealthCheck.fromPartial({ type: 'http', path: '/up' });
    const ports = [port(53, { protocol: 'udp' }), port(80, { targetPort: 8080, name: 'web', hostPort: 8000 })];
    const fields = { ips: ['fd00:0::0a', '10.0.0.7'], ports, health, publish: 'local', labels: { a: 'b' } };
    expect(checkService(BOTH, asked({ ...fields, affinityS: 60, localFirst: true }))).toEqual({
      networkId: N,
      name: 'shop',
      ips: ['10.0.0.7', 'fd00::a'],
      ports: [
        { name: '', protocol: 'udp', port: 53, targetPort: 53, hostPort: 0 },
        { name: 'web', protocol: 'tcp', port: 80, targetPort: 8080, hostPort: 8000 },
      ],
      selector: { app: 'shop' },
      headless: false,
      health: { type: 'http', port: 8080, path: '/up', intervalMs: 1000, timeoutMs: 500, rise: 1, fall: 2 },
      affinityS: 60,
      localFirst: true,
      publish: 'local',
      labels: { a: 'b' },
    });
    const quick = HealthCheck.fromPartial({ type: 'tcp', intervalMs: 200 });
    expect(checkService(BOTH, asked({ health: quick })).health).toMatchObject({ intervalMs: 200, timeoutMs: 200 });
    expect(checkService(BOTH, asked({ headless: true, ports: [] }))).toMatchObject({ ips: [], health: undefined });
    expect(checkService(BOTH, asked({ name: 'my_shop-1' })).name).toBe('my_shop-1');
  });

  const tcp = (fields: Partial<HealthCheck>) => ({ health: HealthCheck.fromPartial({ type: 'tcp', ...fields }) });
  const http = (fields: Partial<HealthCheck>) => ({ health: HealthCheck.fromPartial({ type: 'http', ...fields }) });
  test.each<[Asked, RegExp]>([
    [{ name: '' }, /cannot be the name/],
    [{ name: 'Shop' }, /cannot be the name/],
    [{ name: 'a.b' }, /cannot be the name/],
    [{ name: 'a/b' }, /cannot be the name/],
    [{ name: '-a' }, /cannot be the name/],
    [{ name: 'a'.repeat(64) }, /cannot be the name/],
    [{ selector: {} }, /who is behind it/],
    [{ selector: { '': 'x' } }, /has no name/],
    [{ ports: [] }, /needs a port/],
    [{ ports: [port(0)] }, /0 is no port/],
    [{ ports: [port(65_536)] }, /65536 is no port/],
    [{ ports: [port(80, { targetPort: 70_000 })] }, /70000 is no port/],
    [{ ports: [port(80, { protocol: 'sctp' })] }, /"sctp" is no protocol/],
    [{ ports: [port(80), port(80, { targetPort: 81 })] }, /80\/tcp is given twice/],
    [{ ports: [port(80, { name: 'a' }), port(81, { name: 'a' })] }, /have the name "a"/],
    [{ ports: [port(80, { name: 'a_b' })] }, /cannot be the name of a port/],
    [{ ports: Array.from({ length: 33 }, (_, i) => port(i + 1)) }, /at most 32 ports/],
    [{ publish: 'some' }, /no way to publish/],
    [{ publish: 'all' }, /no port of the hosts leads to it/],
    [{ ports: [port(80, { hostPort: 80 })] }, /is not published/],
    [{ publish: 'all', ports: [port(80, { hostPort: 80_000 })] }, /80000 is no port/],
    [
      { publish: 'all', ports: [port(80, { hostPort: 9 }), port(81, { hostPort: 9 })] },
      /9\/tcp of the hosts is given twice/,
    ],
    [{ publish: 'all', headless: true, ports: [port(80, { hostPort: 80 })] }, /cannot be published/],
    [{ headless: true, ips: ['10.0.0.7'] }, /no address of its own/],
    [{ headless: true, affinityS: 1 }, /no affinity/],
    [{ affinityS: 86_401 }, /too long/],
    [{ ips: ['10.0.0.7', '10.0.0.8'] }, /one address of each family/],
    [{ ips: ['10.0.1.7'] }, /is not in the subnet/],
    [{ ips: ['10.0.0.1'] }, /is the gateway's/],
    [{ ips: ['10.0.0.50'] }, /auxiliary address/],
    [{ ips: ['10.0.0.255'] }, /is the broadcast address/],
    [{ ips: ['fd00::'] }, /is the network address/],
    [{ ips: ['10.0.0.07'] }, /is not an IPv4 address/],
    [{ health: HealthCheck.fromPartial({ type: 'ping' }) }, /is no health check/],
    [{ health: HealthCheck.fromPartial({ type: '' }) }, /is no health check/],
    [{ ports: [port(53, { protocol: 'udp' })], ...tcp({}) }, /has no port/],
    [tcp({ port: 70_000 }), /70000 is no port/],
    [tcp({ path: '/x' }), /has no path/],
    [http({}), /is no path/],
    [http({ path: 'up' }), /is no path/],
    [http({ path: '/a b' }), /is no path/],
    [http({ path: '/a\r\nX: y' }), /is no path/],
    [tcp({ intervalMs: 199 }), /interval of 199 ms/],
    [tcp({ intervalMs: 3_600_001 }), /interval of 3600001 ms/],
    [tcp({ intervalMs: 300, timeoutMs: 301 }), /timeout of 301 ms/],
    [tcp({ rise: 11 }), /A rise of 11/],
    [tcp({ fall: 11 }), /A fall of 11/],
  ])('%j cannot', (fields, message) => {
    expect(() => checkService(BOTH, asked(fields))).toThrow(message);
    expect(() => checkService(BOTH, asked(fields))).toThrow(expect.objectContaining({ code: 'INVALID_ARGUMENT' }));
  });

  test('not in every network', () => {
    const refused = expect.objectContaining({ code: 'FAILED_PRECONDITION' });
    expect(() => checkService({ ...BOTH, encap: 'vlan' }, asked({}))).toThrow(refused);
    expect(() => checkService({ ...BOTH, name: '', state: 'reserved' }, asked({}))).toThrow(refused);
    const four = { ...BOTH, subnets: ['10.0.0.0/24'] };
    expect(() => checkService(four, asked({ ips: ['fd00::7'] }))).toThrow(/is not in the subnet/);
  });
});

const DB = Service.fromPartial({
  id: 's1',
  networkId: N,
  name: 'db',
  ips: ['10.0.0.9', 'fd00::9'],
  ports: [port(5432, { protocol: 'tcp', targetPort: 5432, hostPort: 5432 })],
  selector: { app: 'db', tier: 'back' },
  publish: 'all',
});

const ROUTE = { cidr: '192.168.0.0/16', via: ['10.0.0.22'] };

function world(): FakeState {
  const state = new FakeState();
  const reserved = { id: '1', networkId: N, name: 'kept', ips: ['10.0.0.10'] };
  const peer = { id: 'p', name: 'router', networkId: N, vtep: '192.0.2.9' };
  const claim = { networkId: N, hostId: 'h1', grantorHostId: 'h2', reason: '', revision: 1n };
  const settings = { endpointId: 'e1', networkId: N, allowed: [{ ip: '10.0.0.40', mac: '' }] };
  state.commit(
    { network: N, after: BOTH },
    { host: 'h1', after: aHost('h1') },
    { service: 'db', of: N, after: DB },
    { reservation: 'kept', of: N, after: Reservation.fromPartial(reserved) },
    { endpoint: 'e1', of: N, after: anEndpoint(N, 'h1', 1, '10.0.0.20') },
    { settings: 'e1', of: N, after: EndpointSettings.fromPartial(settings) },
    { router: 'r', after: Router.fromPartial({ name: 'r', project: 'default', networkIds: [N], routes: [ROUTE] }) },
    { address: '10.0.0.60', of: N, after: { ...claim, address: '10.0.0.60', state: 'claimed' } },
    { address: '10.0.0.61', of: N, after: { ...claim, address: '10.0.0.61', state: 'refused' } },
    {
      external: 'p',
      of: N,
      after: ExternalPeer.fromPartial({ ...peer, macs: [{ mac: '02:00:00:00:00:01', ip: '10.0.0.30' }] }),
    },
  );
  return state;
}

describe('what a service must not take from others', () => {
  const clash = (fields: Asked, network = BOTH) =>
    serviceClash(world(), network, checkService(network, asked({ name: 'new', ...fields })));
  const published = (hostPort: number, protocol = 'tcp') => ({
    publish: 'all',
    ports: [port(80, { hostPort, protocol })],
  });

  test.each<[Asked, RegExp]>([
    [{ name: 'db' }, /has a service named "db"/],
    [{ ips: ['10.0.0.9'] }, /is the address of service db/],
    [{ ips: ['10.0.0.7', 'fd00::9'] }, /fd00::9 .* is the address of service db/],
    [{ ips: ['10.0.0.10'] }, /is reserved as "kept"/],
    [{ ips: ['10.0.0.20'] }, /in use by container c1 on host h1/],
    [{ ips: ['10.0.0.30'] }, /behind an external peer/],
    [{ ips: ['10.0.0.40'] }, /allowed address/],
    [{ ips: ['10.0.0.22'] }, /is a next hop of router r/],
    [{ ips: ['10.0.0.60'] }, /being claimed by host h1/],
    [published(5432), /5432\/tcp of the hosts leads to service db of network name-n1/],
  ])('%j', (fields, message) => {
    expect(clash(fields)).toMatchObject({ code: 'ALREADY_EXISTS', message: expect.stringMatching(message) });
  });

  test('the rest is free', () => {
    expect(clash({ ips: ['10.0.0.7', 'fd00::7'] })).toBe(null);
    expect(clash({ ips: ['10.0.0.61'] })).toBe(null);
    // A container's name, and a port of UDP, are others.
    expect(clash({ name: 'c1', ...published(5432, 'udp') })).toBe(null);
    expect(clash({ ports: [port(5432)] })).toBe(null);
  });

  test('ports of the hosts are all networks’', () => {
    const other = aNetworkRecord('n2', { name: 'other' });
    expect(clash(published(5432), other)?.code).toBe('ALREADY_EXISTS');
    expect(clash({ name: 'db', ips: ['10.0.0.9'] }, other)).toBe(null);
  });

  test('there may be so many', () => {
    const state = world();
    for (let i = 1; i < MAX_SERVICES; i++)
      state.commit({ service: `s${i}`, of: N, after: { ...DB, name: `s${i}`, ips: [] } });
    expect(serviceClash(state, BOTH, checkService(BOTH, asked({})))).toMatchObject({ code: 'RESOURCE_EXHAUSTED' });
  });

  test('there may be so many that are published, in all networks together', () => {
    const state = world();
    const fill = (first: number, last: number, of: string): void => {
      for (let i = first; i <= last; i++)
        state.commit({ service: `s${i}`, of, after: { ...DB, networkId: of, name: `s${i}`, ports: [], ips: [] } });
    };
    const clashOf = (fields: Asked) => serviceClash(state, BOTH, checkService(BOTH, asked(fields)));
    fill(1, 1000, N);
    fill(1001, MAX_PUBLISHED_SERVICES - 2, 'n2');
    expect(clashOf(published(5433))).toBe(null);
    fill(MAX_PUBLISHED_SERVICES - 1, MAX_PUBLISHED_SERVICES - 1, 'n2');
    expect(clashOf(published(5433))).toMatchObject({
      code: 'RESOURCE_EXHAUSTED',
      message: 'ports of the hosts lead to 2047 services already',
    });
    expect(clashOf({})).toBe(null);
  });
});

test('others do not take a service’s address', () => {
  const state = world();
  const macs = [{ mac: '02:00:00:00:00:02', ip: '10.0.0.9' }];
  const peer = ExternalPeer.fromPartial({ id: 'q', name: 'q', networkId: N, vtep: '192.0.2.10', macs });
  expect(peerClash(state, BOTH, peer)?.message).toContain('is the address of service db');
  const endpoint = state.endpoints.get(N)!.get('e1')!;
  expect(allowedClash(state, BOTH, endpoint, { ip: '10.0.0.9', mac: '' })?.message).toContain('service db');
  const reservation = checkReservation(BOTH, Reservation.fromPartial({ name: 'x', ips: ['10.0.0.9'] }));
  expect(reservationClash(state, BOTH, reservation)?.message).toContain('is the address of service db');
  expect(reservedAddresses(state, N)).toEqual(['10.0.0.10', '10.0.0.9', 'fd00::9']);
  expect(notIts(state, 'h1', anEndpoint(N, 'h1', 2, '10.0.0.9'))).toContain('the address of service db');
  expect(notIts(state, 'h1', anEndpoint(N, 'h1', 2, '10.0.0.8'))).toBe(null);
});

describe('an address where none is given', () => {
  const pick = (network: Network, family: 4 | 6, blocks: string[] = [], occupied: string[] = []) =>
    pickOutside(
      network,
      family,
      blocks.map((cidr) => ({ cidr })),
      new Set(occupied),
    );

  test('is one of each family that the network has', () => {
    expect(familiesToPick(BOTH, { ips: [], headless: false })).toEqual([4, 6]);
    expect(familiesToPick(BOTH, { ips: ['fd00::7'], headless: false })).toEqual([4]);
    expect(familiesToPick(BOTH, { ips: [], headless: true })).toEqual([]);
  });

  test('is the highest that is in no block and nobody’s', () => {
    expect(pick(BOTH, 4)).toBe('10.0.0.254');
    expect(pick(BOTH, 4, [], ['10.0.0.254', '10.0.0.253', '10.0.0.251'])).toBe('10.0.0.252');
    expect(pick(BOTH, 4, ['10.0.0.128/25'], ['10.0.0.200', '10.0.0.127'])).toBe('10.0.0.126');
    // .50 is an auxiliary address, and what is below .2 the gateway's and the network's.
    const upper = ['10.0.0.56/29', '10.0.0.64/26', '10.0.0.128/25', '10.0.0.52/30', '10.0.0.51/32'];
    expect(pick(BOTH, 4, upper)).toBe('10.0.0.49');
    const lower = ['10.0.0.32/28', '10.0.0.48/31', '10.0.0.16/28', '10.0.0.8/29', '10.0.0.4/30', '10.0.0.2/31'];
    expect(pick(BOTH, 4, [...upper, ...lower])).toBe(null);
    expect(pick(BOTH, 4, [...upper, ...lower.slice(0, -1)], ['10.0.0.3'])).toBe('10.0.0.2');
    expect(pick(BOTH, 6, ['fd00::ffff:0/112', '10.0.0.0/25'], ['fd00::fffe:ffff'])).toBe('fd00::fffe:fffe');
    expect(pick(aNetworkRecord(N), 6)).toBe(null);
  });

  test('outside the ip-range rather than in it', () => {
    const ranged = { ...BOTH, ipRange: '10.0.0.192/26' };
    expect(pick(ranged, 4)).toBe('10.0.0.191');
    expect(pick(ranged, 4, ['10.0.0.0/25', '10.0.0.128/26'])).toBe('10.0.0.254');
    expect(pick({ ...BOTH, ipRange: '10.0.0.0/26' }, 4)).toBe('10.0.0.254');
  });

  test('else one in a block, that nobody is known to use', () => {
    const state = world();
    const block = (cidr: string, hostId: string) => ({ networkId: N, cidr, hostId, revision: 1n });
    const blocks = [block('10.0.0.0/28', 'h1'), block('10.0.0.16/28', 'h2'), block('fd00::/124', 'h1')];
    const inBlocks = (ip: string[] = [], hosts: string[] = [], family: 4 | 6 = 4) =>
      pickInBlocks(BOTH, family, blocks, occupiedAddresses(state, N), {
        block: (b) => hosts.includes(b.hostId),
        ip: new Set(ip),
      });
    expect(inBlocks()).toBe('10.0.0.31');
    // .30 is behind a peer.
    expect(inBlocks(['10.0.0.31'])).toBe('10.0.0.29');
    expect(inBlocks([], ['h2'])).toBe('10.0.0.15');
    // .10 is reserved, .9 another service's, .1 the gateway's.
    expect(inBlocks(['10.0.0.15', '10.0.0.14', '10.0.0.13', '10.0.0.12', '10.0.0.11'], ['h2'])).toBe('10.0.0.8');
    expect(inBlocks([], ['h1', 'h2'])).toBe(null);
    expect(inBlocks([], [], 6)).toBe('fd00::f');
  });
});

test('who is behind a service, and how they are', () => {
  const state = new FakeState();
  const service = { ...DB, selector: { app: 'db', tier: '' } };
  const labels = { app: 'db', tier: '', more: 'x' };
  const make = (n: number, more: object) =>
    state.commit({ endpoint: `e${n}`, of: N, after: anEndpoint(N, 'h1', n, `10.0.0.${n}`, { labels, ...more }) });
  make(5, {});
  make(4, { unhealthy: ['s0', 's1'] });
  make(3, { unhealthy: ['s0'] });
  make(2, { state: 'pending' });
  make(1, { labels: { app: 'db' } });
  make(6, { labels: { app: 'web', tier: '' } });
  make(7, { state: 'pending', labels: {} });
  state.commit({ settings: 'e5', of: N, after: EndpointSettings.fromPartial({ endpointId: 'e5', draining: true }) });
  const of = (s: Service) => new Backends(state, N).of(s).map((b) => `${b.endpoint?.id} ${b.state}`);
  expect(of(service)).toEqual(['e2 pending', 'e3 healthy', 'e4 unhealthy', 'e5 draining']);
  expect(of({ ...service, selector: { constructor: 'x' } })).toEqual([]);
  expect(of({ ...service, selector: { app: 'none' } })).toEqual([]);
});

test('their events', async () => {
  const state = new FakeState();
  const events = new Events(state, () => new Date(0));
  state.subscribe((set) => events.apply(set));
  state.commit({ network: N, after: BOTH });
  state.commit({ service: 'db', of: N, after: DB });
  state.commit({ network: N, after: null }, { service: 'db', of: N, after: null });
  const seen = [];
  const options = { localOnly: false, follow: false, signal: new AbortController().signal };
  for await (const event of events.read(options)) if (event.type === 'service') seen.push(event);
  expect(seen).toMatchObject([
    { action: 'create', object: 'db', message: '10.0.0.9, fd00::9 on name-n1' },
    { action: 'remove', object: 'db', message: '10.0.0.9, fd00::9 on name-n1' },
  ]);
});
