/** Random meshes with policies and routers, as the reference evaluators see them. */
import fc from 'fast-check';
import { Policy } from '../../gen/weft/v1/types.ts';
import { defaultMac } from '../../lib/mac.ts';
import type { RefEndpoint, RefPacket } from '../reference/policy.ts';
import type { RefRoutedMesh, RefRouter } from '../reference/routing.ts';

export const HOSTS = ['h1', 'h2'] as const;

export interface MeshEndpoint extends RefEndpoint {
  readonly id: string;
  readonly mac: string;
  /** It does not follow from the address. */
  readonly given?: boolean;
  readonly ofport: number;
}

export interface Mesh extends RefRoutedMesh {
  readonly endpoints: readonly MeshEndpoint[];
  /** Absent: sixteen addresses of each host in each network. */
  readonly blocks?: readonly { readonly network: string; readonly cidr: string; readonly host: string }[];
}

/** In the order of their local indexes, which begin with 1. */
export const IDS = ['n1', 'n2', 'n3'];
/** Where routes of the first router lead, and of the second. */
const RANGES = [
  ['192.168.0.0/16', '10.0.0.0/8', '::/0'],
  ['192.168.7.0/24', '0.0.0.0/0', 'fd00:9::/48'],
] as const;
/** Addresses that no endpoint has: in those ranges, and in subnets. */
export const ELSEWHERE = [
  '192.168.7.9',
  '192.168.1.1',
  '10.9.0.1',
  '198.51.100.1',
  '10.2.0.14',
  'fd00:9::1',
  'fd00:3::e',
];
const subnetsOf = (id: string): string[] => {
  const n = IDS.indexOf(id) + 1;
  return [`10.${n}.0.0/24`, `fd00:${n}::/64`];
};

const labels = fc.dictionary(fc.constantFrom('app', 'tier'), fc.constantFrom('a', 'b'), {
  maxKeys: 2,
  noNullPrototype: true,
});
const SOME = { minLength: 1, maxLength: 2 };
const action = fc.constantFrom('allow', 'allow', 'drop', 'reject');
const port = fc.oneof(
  fc.record({
    protocol: fc.constantFrom('tcp', 'udp', 'sctp'),
    first: fc.constantFrom(0, 1, 79, 80, 1000, 1023),
    width: fc.constantFrom(0, 1, 23, 1024, 64_000),
  }),
  fc.record({
    protocol: fc.constant('icmp'),
    icmpType: fc.constantFrom(undefined, 8, 128, 3),
    icmpCode: fc.constantFrom(undefined, 0),
  }),
);
const peer = fc.oneof(
  {
    weight: 4,
    arbitrary: fc.record({ $case: fc.constant('endpoints'), networkId: fc.constantFrom('', '', ...IDS), labels }),
  },
  {
    weight: 2,
    arbitrary: fc.record({
      $case: fc.constant('addresses'),
      cidr: fc.constantFrom('0.0.0.0/0', '::/0', '10.1.0.0/29', '10.0.0.0/8', 'fd00:1::/125', '10.1.0.3/32'),
      except: fc.subarray(['10.1.0.2/31', '10.1.0.4/32', 'fd00:1::2/127', '10.0.0.0/9'], { maxLength: 2 }),
    }),
  },
  { weight: 1, arbitrary: fc.record({ $case: fc.constant('service'), name: fc.constantFrom('s1', 's2', 'none') }) },
);
/** Often about everybody, on all ports: only rules that overlap tell in which order they are tried. */
const rule = fc.record({
  action,
  peers: fc.oneof({ weight: 2, arbitrary: fc.constant([]) }, { weight: 3, arbitrary: fc.array(peer, SOME) }),
  ports: fc.oneof({ weight: 2, arbitrary: fc.constant([]) }, { weight: 3, arbitrary: fc.array(port, SOME) }),
});
const policy = fc.record({
  networkId: fc.constantFrom(...IDS),
  tier: fc.constantFrom('application', 'application', 'application', 'platform', 'baseline'),
  order: fc.constantFrom(100, 100, 100, 100, 0, 499),
  selector: fc.oneof(fc.constant({}), labels),
  ingress: fc.array(rule, { maxLength: 3 }),
  egress: fc.array(rule, { maxLength: 3 }),
  staged: fc.constantFrom(false, false, true),
});
/** Two rules of one tier, order and level, about everybody, that want different things: which one comes first is seen in all that happens. */
const contest: fc.Arbitrary<DrawnPolicy[]> = fc
  .record({
    networkId: fc.constantFrom(...IDS),
    direction: fc.constantFrom('ingress', 'egress'),
    actions: fc.constantFrom(['drop', 'reject'] as const, ['reject', 'allow'] as const, ['allow', 'drop'] as const),
  })
  .map(({ networkId, direction, actions }) =>
    actions.map((one) => {
      const rules = [{ action: one, peers: [], ports: [] }];
      const none = { networkId, tier: 'application', order: 100, selector: {}, staged: false } as const;
      return { ...none, ingress: direction === 'ingress' ? rules : [], egress: direction === 'egress' ? rules : [] };
    }),
  );
const endpoint = fc.record({
  network: fc.constantFrom(...IDS),
  host: fc.constantFrom(...HOSTS),
  labels: fc.option(labels, { freq: 8 }),
  families: fc.constantFrom<readonly number[]>([4, 6], [4, 6], [4], [6]),
  given: fc.constantFrom(false, false, true),
});

const router = fc.record({
  networks: fc.subarray(IDS, { minLength: 2 }),
  /** For each of its ranges, endpoints by number: those that are in its networks. */
  hops: fc.array(fc.array(fc.nat(6), { maxLength: 3 }), { minLength: 3, maxLength: 3 }),
});

/** A mesh as it is drawn. Null: it has gone, and its place keeps its number. */
export interface DrawnMesh {
  readonly shut: readonly boolean[];
  readonly endpoints: readonly (DrawnEndpoint | null)[];
  readonly policies: readonly (DrawnPolicy | null)[];
  readonly services: readonly Record<string, string>[];
  readonly routers: readonly (DrawnRouter | null)[];
}
type DrawnRouter = typeof router extends fc.Arbitrary<infer T> ? T : never;
export type DrawnEndpoint = typeof endpoint extends fc.Arbitrary<infer T> ? T : never;
type DrawnRule = typeof rule extends fc.Arbitrary<infer T> ? T : never;
export type DrawnPolicy = typeof policy extends fc.Arbitrary<infer T> ? T : never;

export const drawn: fc.Arbitrary<DrawnMesh> = fc
  .record({
    shut: fc.array(fc.constantFrom(false, false, true), { minLength: 3, maxLength: 3 }),
    endpoints: fc.array(endpoint, { minLength: 4, maxLength: 7 }),
    random: fc.array(policy, { maxLength: 8 }),
    contests: fc.oneof(fc.constant([]), contest),
    services: fc.tuple(labels, labels),
    routers: fc.oneof(
      { weight: 1, arbitrary: fc.array(router, { maxLength: 0 }) },
      { weight: 5, arbitrary: fc.array(router, { minLength: 1, maxLength: 2 }) },
    ),
  })
  .map(({ random, contests, ...rest }) => ({ ...rest, policies: [...random, ...contests] }));

function routerOf({ networks, hops }: DrawnRouter, i: number, endpoints: readonly (MeshEndpoint | null)[]): RefRouter {
  const routes = RANGES[i === 0 ? 0 : 1].flatMap((cidr, k) => {
    const at = [...new Set(hops[k])].map((n) => endpoints[n] ?? null).filter((e) => e !== null);
    const via = at
      .filter((e) => networks.includes(e.network))
      .flatMap((e) => e.ips.filter((ip) => ip.includes(':') === cidr.includes(':')));
    return via.length === 0 ? [] : [{ cidr, via }];
  });
  return { networks, routes };
}

/** @param i its number */
function placed({ network, host, labels: known, families, given }: DrawnEndpoint, i: number): MeshEndpoint {
  const n = IDS.indexOf(network) + 1;
  // Each host has a block of each network; an IPv6 address alone, too, comes from one.
  const last = (host === 'h1' ? 0 : 16) + i + 2;
  const ip = families.includes(4) ? `10.${n}.0.${last}` : '';
  const ip6 = families.includes(6) ? `fd00:${n}::${last.toString(16)}` : '';
  const ips = [ip, ip6].filter((text) => text !== '');
  const two = i.toString(16).padStart(2, '0');
  const mac = given ? `02:42:00:00:00:${two}` : defaultMac(ip, ip6, 64).mac;
  return { id: two.repeat(32), network, host, ips, labels: known, mac, given, ofport: i + 2 };
}

export function meshOf({ shut, endpoints, policies, services, routers }: DrawnMesh): Mesh {
  const all = endpoints.map((e, i) => (e === null ? null : placed(e, i)));
  return {
    networks: new Map(IDS.map((id, i) => [id, { shut: shut[i] === true, subnets: subnetsOf(id) }])),
    endpoints: all.filter((e) => e !== null),
    routers: routers.flatMap((r, i) => (r === null ? [] : [routerOf(r, i, all)])),
    policies: policies.flatMap((p, i) =>
      p === null ? [] : [Policy.fromPartial({ ...p, name: `p${i}`, ...rulesOf(p) })],
    ),
    services: new Map(
      [
        ['n1/s1', services[0]],
        ['n1/s2', services[1]],
      ].filter(([, of]) => Object.keys(of as object).length > 0) as [string, Record<string, string>][],
    ),
  };
}

export const mesh: fc.Arbitrary<Mesh> = drawn.map(meshOf);

/** A step from one mesh to another. `at` is a place, counted round; a place behind the last is a new one. */
export const edit: fc.Arbitrary<(m: DrawnMesh) => DrawnMesh> = fc
  .record({
    what: fc.oneof(
      fc.record({ labels: fc.option(labels, { freq: 4 }) }),
      fc.record({ labels: fc.option(labels, { freq: 4 }) }),
      fc.record({ endpoint: fc.option(endpoint, { freq: 3 }) }),
      fc.record({ policy: fc.option(policy, { freq: 3 }) }),
      fc.record({ ports: fc.array(port, { maxLength: 2 }) }),
      fc.record({ peers: fc.array(peer, { maxLength: 2 }) }),
      fc.record({ staged: fc.boolean() }),
      fc.record({ shut: fc.boolean() }),
      fc.record({ service: labels }),
      fc.record({ router: fc.option(router, { freq: 3 }) }),
    ),
    at: fc.nat(14),
  })
  .map(({ what, at }) => (m) => {
    const put = <T>(items: readonly T[], most: number, change: (old: T | null) => T): T[] => {
      const i = Math.min(at % most, items.length);
      return i === items.length ? [...items, change(null)] : items.with(i, change(items[i] ?? null));
    };
    if ('labels' in what)
      return { ...m, endpoints: put(m.endpoints, m.endpoints.length, (e) => e && { ...e, labels: what.labels }) };
    if ('endpoint' in what) return { ...m, endpoints: put(m.endpoints, 14, () => what.endpoint) };
    if ('policy' in what) return { ...m, policies: put(m.policies, 10, () => what.policy) };
    if ('router' in what) return { ...m, routers: put(m.routers, 2, () => what.router) };
    const firstRule = (change: Partial<DrawnRule>): DrawnMesh => {
      const of = (rules: DrawnRule[]): DrawnRule[] => rules.map((r, i) => (i === 0 ? { ...r, ...change } : r));
      const all = m.policies.length || 1;
      const policies = put(m.policies, all, (p) => p && { ...p, ingress: of(p.ingress), egress: of(p.egress) });
      return { ...m, policies };
    };
    if ('ports' in what || 'peers' in what) return firstRule(what);
    if ('staged' in what)
      return { ...m, policies: put(m.policies, m.policies.length || 1, (p) => p && { ...p, staged: what.staged }) };
    if ('shut' in what) return { ...m, shut: put<boolean>(m.shut, 3, () => what.shut) };
    return { ...m, services: put<Record<string, string>>(m.services, 2, () => what.service) };
  });

interface Drawn {
  readonly action: string;
  readonly peers: unknown[];
  readonly ports: unknown[];
}

function rulesOf(p: { ingress: unknown[]; egress: unknown[] }): {
  ingress: Policy['ingress'];
  egress: Policy['egress'];
} {
  const of = (rules: unknown[]): Policy['ingress'] =>
    (rules as Drawn[]).map((r) => ({
      action: r.action,
      peers: (r.peers as { $case: string; name?: string; networkId?: string; labels?: Record<string, string> }[]).map(
        (who) =>
          ({
            who: who.$case === 'service' ? { $case: 'service', value: who.name } : { $case: who.$case, value: who },
          }) as Policy['ingress'][number]['peers'][number],
      ),
      ports: (
        r.ports as { protocol: string; first?: number; width?: number; icmpType?: number; icmpCode?: number }[]
      ).map(({ protocol, first = 0, width = 0, icmpType, icmpCode }) => ({
        protocol,
        first,
        last: Math.min(65_535, first === 0 ? 0 : first + width),
        icmpType,
        icmpCode,
      })),
    }));
  return { ingress: of(p.ingress), egress: of(p.egress) };
}

export const packet: fc.Arbitrary<RefPacket> = fc.record({
  protocol: fc.constantFrom('tcp', 'tcp', 'udp', 'sctp', 'icmp'),
  port: fc.constantFrom(1, 78, 79, 80, 81, 103, 1000, 1023, 1024, 65_535),
  type: fc.constantFrom(8, 128, 3, 1),
  code: fc.constantFrom(0, 1),
});
