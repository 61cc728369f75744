/**
 * Routing between networks, on the sender's own host. What an endpoint sends to its gateway, for a subnet that a router leads to, gets a
 * TTL less one and this host's router MAC, and goes on as a frame of the other network, whose flows find the receiver. Each stage knows its own
 * network only: where a packet goes next stands in a register, and the other network says whose MAC that is. What comes out of a tunnel
 * is never routed: a frame passes two hosts at most. Pure.
 */
import { blockSpace, type Cidr, containsCidr, IPV4, isIp4, lastOf, lowOf, mapped, parseCidr } from '../../lib/addr.ts';
import { aliasMac, MAC_PREFIX, MAC_PREFIX_6 } from '../../lib/mac.ts';
import { ANYCAST_MAC, ROUTER_PREFIX, TRANSIT, TRANSIT6 } from '../gateway/addresses.ts';
import type { Action, Flow, MatchField } from '../openflow/flow.ts';
import type { Backend } from './backend.ts';
import { ETH_IPV4, ETH_IPV6, flow, goto, inPrefix, is, masked, move, set } from './build.ts';
import { answers, echo, toGateway } from './gateway.ts';
import { l2Block, l2Entry } from './l2.ts';
import type { Hop, NetworkModel, Remote, RouteModel, Routing } from './model.ts';
import { ndEntry, toAliases } from './nd.ts';
import { PRIORITY, REG, SIDE, TABLE } from './pipeline.ts';
import { committed, LINK } from './policies.ts';
import { ROUTE, unrouted } from './punt.ts';
import { echo6 } from './services.ts';
import { learns, sharedMac } from './shared.ts';

/** What of the bridge routing depends on. */
export interface RoutingBridge {
  readonly maxMeters: number;
  readonly relaysNd?: boolean;
  /** The gateway's flows are there (gateway.ts). */
  readonly gateway?: number | null;
  /** Frames of TCP that are to be cut yet pass as one: their length says nothing. */
  readonly wholeSegments?: boolean;
}

/** Bytes of an Ethernet header. */
const ETHER = 14;
const TCP = 6n;
/** Its bit 0 says that a packet is too big; bits 31 to 16, which of several hops it takes. */
const TOO_BIG = { field: REG.path, bit: 0 } as const;
const PATH = { field: REG.path, ofs: 16, nBits: 16 } as const;

type Multipath = Extract<Action, { type: 'multipath' }>;
/** ovs-fields(7), nw_frag: bit 0 is set of every fragment. */
const FRAGMENT: MatchField = { field: 'nw_frag', value: 1n, mask: 1n };
const WHOLE: MatchField = { field: 'nw_frag', value: 0n, mask: 1n };

const FAMILIES = [ETH_IPV4, ETH_IPV6] as const;
const typeOf = (cidr: Cidr): bigint => (isIp4(cidr.base) ? ETH_IPV4 : ETH_IPV6);
const isOf = (cidr: Cidr): MatchField[] => [is('eth_type', typeOf(cidr)), inPrefix('dst', cidr)];

/** Never routed: multicast and all above, transit addresses, link-local ones. */
const NEVER: readonly Cidr[] = [
  ...['224.0.0.0/3', 'ff00::/8', 'fe80::/10'].map(parseCidr),
  { base: mapped(TRANSIT.base), prefix: IPV4.prefix + TRANSIT.prefix },
  TRANSIT6,
];

/** Where a router leads from, or to, there is a routed frame. */
export const isRouted = (n: Pick<NetworkModel, 'encap' | 'routing' | 'reached'>): boolean =>
  n.encap !== 'vlan' && (n.routing !== undefined || n.reached === true);

/** What networks with routers share. */
export function routesBase({ maxMeters }: Pick<RoutingBridge, 'maxMeters'>): Flow[] {
  const ended = unrouted(maxMeters, ROUTE.ended);
  return [
    flow('route', 0, PRIORITY.default, [], []),
    flow('hop', 0, PRIORITY.default, [], []),
    flow('neighbour', 0, PRIORITY.default, [], []),
    // Where it is for another host, that one tracks it.
    flow('commit', 0, PRIORITY.guard, [is(REG.routed, 1)], []),
    flow('entered', 0, PRIORITY.default, [], [set(REG.routed, 0), { type: 'resubmit', table: TABLE.policyIngress }]),
    ...LINK.map((match) => flow('route', 0, PRIORITY.guard, match, [])),
    ...NEVER.map((cidr) => flow('route', 0, PRIORITY.guard, isOf(cidr), [])),
    // RFC 4291 §2.5.6
    flow('route', 0, PRIORITY.guard, [is('eth_type', ETH_IPV6), inPrefix('src', parseCidr('fe80::/10'))], []),
    ...FAMILIES.flatMap((type) =>
      [0, 1].map((ttl) => flow('route', 0, PRIORITY.local, [is('eth_type', type), is('nw_ttl', ttl)], [ended])),
    ),
  ];
}

/** Of a network with endpoints here: where they are led. */
export function renderRoutes(n: NetworkModel, bridge: RoutingBridge): Flow[] {
  const { routing } = n;
  if (routing === undefined || n.encap === 'vlan') return [];
  return [
    ...gateways(n, routing, bridge),
    ...leads(n, routing),
    ...routing.routes.flatMap((r) => route(n, routing, r, bridge)),
  ];
}

/** Gateways answer as those that lead out of the mesh do. */
function gateways(n: NetworkModel, { own, answering, subnets }: Routing, bridge: RoutingBridge): Flow[] {
  const { relaysNd = false } = bridge;
  const to = [is(REG.network, n.index), ...toGateway];
  const egress = bridge.gateway == null ? null : n.egress;
  const isOurs = (ip: bigint): boolean => (isIp4(ip) ? egress?.ip === lowOf(ip) : egress?.ip6 === ip);
  return [
    ...own.flatMap((ip) => {
      if (isOurs(ip)) return [];
      if (isIp4(ip)) return [answers(n, lowOf(ip))];
      return ndEntry(n, { mac: ANYCAST_MAC, ip: null, ip6: ip, express: false }, relaysNd);
    }),
    ...answering.flatMap((ip) => {
      if (!isIp4(ip)) return [echo6(n, to, ip)];
      return isOurs(ip) ? [] : [echo(n, to, lowOf(ip))];
    }),
    ...(egress == null ? subnets : []).map((subnet) =>
      flow('l2', n.index, PRIORITY.barred, [...to, ...isOf(subnet)], []),
    ),
  ];
}

/** Before what leads out of the mesh. */
function leads(n: NetworkModel, { routes }: Routing): Flow[] {
  // In the space of all addresses ::/0 contains those of IPv4.
  const within = (a: Cidr, b: Cidr): boolean => isIp4(a.base) === isIp4(b.base) && containsCidr(b, a);
  const widest = routes.filter((r) => !routes.some((other) => other !== r && within(r.to, other.to)));
  return widest.map(({ to }) =>
    flow(
      'l2',
      n.index,
      PRIORITY.routed,
      [is(REG.network, n.index), ...toGateway, ...isOf(to)],
      [{ type: 'resubmit', table: TABLE.route }],
    ),
  );
}

function route(n: NetworkModel, routing: Routing, { to, hops }: RouteModel, bridge: RoutingBridge): Flow[] {
  const match = [is(REG.network, n.index), ...isOf(to)];
  const priority = PRIORITY.block + 2 * to.prefix;
  const [first] = hops;
  if (first === undefined) return [];
  const least = Math.min(...hops.map((h) => h.mtu));
  const measured = least < n.mtu;
  const spread = hops.length > 1;
  if (!measured && !spread) return [flow('route', n.index, priority, match, onwards(n, routing, to, first))];

  const by = (hash: Multipath['hash']): Action[] =>
    spread ? [{ type: 'multipath', hash, algorithm: 'hrw', links: hops.length, to: PATH }] : [];
  const choose = by('symmetric_l3l4+udp');
  const measure: Action[] = measured ? [{ type: 'check_larger', bytes: least + ETHER, ...TOO_BIG }] : [];
  const big: MatchField = { field: REG.path, value: 1n, mask: 1n };
  return [
    flow('route', n.index, priority, match, [...choose, ...measure, goto('hop')]),
    // Only the first of a packet's fragments has ports.
    ...(spread
      ? [flow('route', n.index, priority + 1, [...match, FRAGMENT], [...by('symmetric_l3'), ...measure, goto('hop')])]
      : []),
    // Each end says how much it takes itself.
    ...(measured && bridge.wholeSegments === true
      ? [flow('route', n.index, priority + 1, [...match, is('ip_proto', TCP), WHOLE], [...choose, goto('hop')])]
      : []),
    ...hops.map((hop, i) =>
      flow(
        'hop',
        n.index,
        priority,
        [...match, ...(spread ? [{ field: REG.path, value: BigInt(i) << 16n, mask: 0xffff_0000n }] : [])],
        onwards(n, routing, to, hop),
      ),
    ),
    ...(measured
      ? [flow('hop', n.index, priority + 1, [...match, big], [unrouted(bridge.maxMeters, ROUTE.tooBig, least)])]
      : []),
  ];
}

/** Into the other network. Its own connections are committed before that; the other's, where the packet is delivered. */
function onwards(n: NetworkModel, { mac }: Routing, to: Cidr, { network, ip }: Hop): Action[] {
  const four = isIp4(to.base);
  const next: Action =
    ip === null
      ? four
        ? move('ipv4_dst', REG.next4, 32)
        : move('ipv6_dst', REG.next6, 128)
      : set(four ? REG.next4 : REG.next6, four ? lowOf(ip) : ip);
  const crossing = network !== n.index;
  return [
    ...(crossing ? committed(n) : []),
    { type: 'dec_ttl' },
    set('eth_src', mac),
    ...(crossing ? [set(REG.network, network), set(REG.routed, 1)] : []),
    next,
    goto('neighbour'),
  ];
}

/** Another host has routed it. */
const FROM_ROUTER: readonly MatchField[] = [
  is(REG.side, SIDE.tunnel),
  masked('eth_src', BigInt(ROUTER_PREFIX) << 32n, 0xffffn << 32n),
];

/** Of a network that routers lead to: whose MAC an address of it has, and what becomes of a packet for nobody. */
export function renderNeighbours(n: NetworkModel, maxMeters: number): Flow[] {
  if (!isRouted(n)) return [];
  const here = is(REG.network, n.index);
  const at = (ip: bigint, priority: number, actions: readonly Action[]): Flow =>
    flow(
      'neighbour',
      n.index,
      priority,
      isIp4(ip)
        ? [here, is('eth_type', ETH_IPV4), is(REG.next4, lowOf(ip))]
        : [here, is('eth_type', ETH_IPV6), is(REG.next6, ip)],
      actions,
    );
  const nobody = (frame: readonly MatchField[]): Flow =>
    flow('l2', n.index, PRIORITY.default + 1, [here, ...frame], [unrouted(maxMeters, ROUTE.unreachable)]);
  return [
    ...[...neighboursOf(n)].map(([ip, mac]) => at(ip, PRIORITY.entry, [set('eth_dst', mac), goto('l2')])),
    ...(n.routing?.subnets ?? []).flatMap((subnet) => byAddress(n, subnet)),
    // Where MACs are learned, that they are not known yet says nothing.
    ...(learns(n) ? [] : [[is(REG.routed, 1)], FROM_ROUTER].map(nobody)),
  ];
}

/** Addresses whose MAC does not follow from them, and that MAC. */
export function neighboursOf(n: Pick<NetworkModel, 'locals' | 'remotes' | 'neighbours'>): Map<bigint, bigint> {
  const known = new Map<bigint, bigint>();
  const know = (ip: bigint | null, mac: bigint): void => {
    if (ip !== null && !known.has(ip) && mac !== derived(ip)) known.set(ip, mac);
  };
  for (const p of n.locals) {
    know(p.ip === null ? null : mapped(p.ip), p.mac);
    if (p.alias === null) know(p.ip6, p.mac);
  }
  for (const { ip, mac } of n.neighbours ?? []) known.set(ip, mac);
  for (const e of n.remotes.flatMap((r) => r.entries)) {
    know(e.ip === null ? null : mapped(e.ip), e.mac);
    // Not by its alias: that is its block's.
    if (e.ip6 !== null && !known.has(e.ip6)) known.set(e.ip6, e.mac);
  }
  return known;
}

const derived = (ip: bigint): bigint => (isIp4(ip) ? (BigInt(MAC_PREFIX) << 32n) | BigInt(lowOf(ip)) : aliasMac(ip));

/** All whose MAC, or alias, is a function of their address. */
function byAddress(n: NetworkModel, subnet: Cidr): Flow[] {
  const here = is(REG.network, n.index);
  const four = isIp4(subnet.base);
  const space = blockSpace(subnet);
  const bits = BigInt(128 - space.prefix);
  const mask = ((1n << (four ? 32n : 128n)) - 1n) & ~((1n << bits) - 1n);
  const field = four ? REG.next4 : REG.next6;
  const base = four ? BigInt(lowOf(space.base)) : space.base;
  const within: MatchField = { field, value: base, mask };
  const type = is('eth_type', four ? ETH_IPV4 : ETH_IPV6);
  const prefix = BigInt(four ? MAC_PREFIX : MAC_PREFIX_6) << 32n;
  // A wide register's last 32 bits are a register of their own.
  const low = four ? REG.next4 : REG.next6Low;
  return [
    flow(
      'neighbour',
      n.index,
      PRIORITY.block,
      [here, type, within],
      [set('eth_dst', prefix), move(low, 'eth_dst', 32), goto('l2')],
    ),
    // RFC 2644: nobody sends to all of a subnet from outside.
    ...(four && subnet.prefix < 127
      ? [flow('neighbour', n.index, PRIORITY.entry, [here, type, is(field, BigInt(lowOf(lastOf(subnet))))], [])]
      : []),
  ];
}

/** What leads to other hosts, of a network without an endpoint here: routed frames, and nothing else. */
export function renderReached(n: NetworkModel, backend: Backend): Flow[] {
  const single = n.remotes.flatMap((r: Remote) => {
    const out = [...committed(n), ...backend.unicast(n, r)];
    if (out.length === 0) return [];
    return [
      ...r.blocks.map((block) => l2Block(n, block, out)),
      ...r.blocks6.map((block) => toAliases(n, block, out)),
      ...r.entries.map((entry) => l2Entry(n, entry, out)),
    ];
  });
  return [...single, ...n.macs.flatMap((m) => sharedMac(n, m, backend))];
}
