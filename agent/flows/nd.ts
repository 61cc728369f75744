/**
 * Neighbour discovery (RFC 4861) answered on the sender's host, as ARP is: one flow a block. The answer for an address of a block is
 * its alias MAC, 02:59 and the address's last 32 bits; the holder's host puts the endpoint's own in its place. Solicitations from "::"
 * (duplicate address detection, RFC 4862 §5.4) are answered for known endpoints only; for an address of another host's block its
 * holder is asked. Where the datapath cannot make an advertisement of a solicitation (BridgeModel.relaysNd) the solicitation itself goes
 * to the one who has the address, and to nobody else. Pure.
 */
import { type Cidr, lowOf, sizeOf } from '../../lib/addr.ts';
import type { Cidr as Cidr4 } from '../../lib/ip.ts';
import { linkLocalOf } from '../../lib/ip6.ts';
import { aliasMac, MAC_PREFIX, MAC_PREFIX_6 } from '../../lib/mac.ts';
import type { Action, Flow, MatchField } from '../openflow/flow.ts';
import { ETH_IPV6, flow, goto, ICMPV6, is, masked, move, ND, set } from './build.ts';
import type { Entry, LocalPort, NetworkModel } from './model.ts';
import { PRIORITY, REG, SIDE } from './pipeline.ts';
import { delivery } from './policies.ts';

const ALL_NODES = { mac: 0x3333_0000_0001n, ip: (0xff02n << 112n) | 1n };
/** Flags of an advertisement (RFC 4861 §4.4): solicited, override. */
const SOLICITED = 0x4000_0000n;
const OVERRIDE = 0x2000_0000n;
const TARGET_OPTION = 2n;

const solicits = (n: Pick<NetworkModel, 'index'>): MatchField[] => [
  is(REG.network, n.index),
  is('eth_type', ETH_IPV6),
  is('ip_proto', ICMPV6),
  is('icmpv6_type', ND.solicitation),
];
/** Asked by somebody who has no address yet. */
const probing = is('ipv6_src', 0n);

/**
 * The last step of an answer: Open vSwitch sets the target's MAC only in a packet that is an advertisement already, hence a stage of
 * its own. For all networks.
 */
export const ndBase = (): Flow[] => [
  flow(
    'ndReply',
    0,
    PRIORITY.local,
    [is('eth_type', ETH_IPV6), is('ip_proto', ICMPV6), is('icmpv6_type', ND.advertisement)],
    [move('eth_src', 'nd_tll', 48), { type: 'in_port' }],
  ),
];

/** Turns the solicitation into the advertisement, and back out of the port it came in by. @param sender sets eth_src */
const advertise = (sender: readonly Action[]): Action[] => [
  move('eth_src', 'eth_dst', 48),
  ...sender,
  move('ipv6_src', 'ipv6_dst', 128),
  move('nd_target', 'ipv6_src', 128),
  set('icmpv6_type', ND.advertisement),
  set('nd_options_type', TARGET_OPTION),
  set('nd_reserved', SOLICITED | OVERRIDE),
  goto('ndReply'),
];

/** To all: the one who asks has no address (RFC 4861 §7.2.4). A probe has no option that could hold a MAC. */
const taken = (mac: bigint): Action[] => [
  set('eth_src', mac),
  set('eth_dst', ALL_NODES.mac),
  set('ipv6_dst', ALL_NODES.ip),
  move('nd_target', 'ipv6_src', 128),
  set('icmpv6_type', ND.advertisement),
  set('nd_reserved', OVERRIDE),
  { type: 'in_port' },
];

/** One address, one MAC. */
export function ndExact(
  n: Pick<NetworkModel, 'index'>,
  priority: number,
  ip: bigint,
  mac: bigint,
  relays: boolean,
): Flow[] {
  const target = is('nd_target', ip);
  if (relays) return [flow('arpNd', n.index, priority, [...solicits(n), target], [set('eth_dst', mac), goto('l2')])];
  return [
    flow('arpNd', n.index, priority, [...solicits(n), target], advertise([set('eth_src', mac)])),
    flow('arpNd', n.index, priority + PRIORITY.probe, [...solicits(n), probing, target], taken(mac)),
  ];
}

const addressesOf = (e: { readonly mac: bigint; readonly ip6: bigint | null }): bigint[] =>
  e.ip6 === null ? [] : [e.ip6, linkLocalOf(e.mac)];

export function ndLocal(n: NetworkModel, port: LocalPort, relays: boolean): Flow[] {
  // Nobody else has its own address: a probe of it finds nobody, but on a vlan, where others may.
  const own = n.encap === 'vlan' ? [goto('l2')] : [];
  return addressesOf(port).flatMap((ip) => [
    flow('arpNd', n.index, PRIORITY.guard, [...solicits(n), is('in_port', port.ofport), is('nd_target', ip)], own),
    ...ndExact(n, PRIORITY.local, ip, port.mac, relays),
  ]);
}

export const ndEntry = (n: NetworkModel, e: Entry, relays: boolean): Flow[] =>
  addressesOf(e).flatMap((ip) => ndExact(n, PRIORITY.entry, ip, e.mac, relays));

/** @param out towards the block's host */
export function ndBlock(n: NetworkModel, block: Cidr, out: readonly Action[], relays: boolean): Flow[] {
  const fixed = BigInt(MAC_PREFIX_6) << 32n;
  const holder = (field: 'eth_src' | 'eth_dst'): Action[] => [set(field, fixed), move('nd_target', field, 32)];
  const flows = forRange(n, block.base, block.prefix, out, holder, relays);
  const length = block.prefix - 96;
  flows.push(toAliases(n, block, out));
  // Without IPv4 it is the endpoints' own MAC, from which their link-local addresses come.
  if (!n.ipv4) flows.push(...linkLocals(n, fixed | BigInt(lowOf(block.base)), length, out, relays));
  return flows;
}

/** Link-local addresses of a block of IPv4 addresses: they come from the MACs, and those from the addresses. */
export const ndBlock4 = (n: NetworkModel, block: Cidr4, out: readonly Action[], relays: boolean): Flow[] =>
  n.ipv6 ? linkLocals(n, (BigInt(MAC_PREFIX) << 32n) | BigInt(block.base), block.prefix, out, relays) : [];

/** Frames for the alias MAC of a local endpoint get its own. */
export function ndAlias(n: NetworkModel, port: LocalPort): Flow[] {
  if (port.alias === null || port.alias === port.mac) return [];
  const actions = [set('eth_dst', port.mac), set(REG.out, port.ofport), delivery(n)];
  return [flow('l2', n.index, PRIORITY.local, [is(REG.network, n.index), is('eth_dst', port.alias)], actions)];
}

/** Frames for the alias MACs of a block. */
export const toAliases = (n: NetworkModel, block: Cidr, out: readonly Action[]): Flow =>
  toMacs(n, aliasMac(block.base), block.prefix - 96, out);

/** @param length how many of a default MAC's last 32 bits are fixed */
function toMacs(n: NetworkModel, mac: bigint, length: number, out: readonly Action[]): Flow {
  const bits = BigInt(32 - length);
  const dst = bits === 0n ? is('eth_dst', mac) : masked('eth_dst', mac, ((1n << 48n) - 1n) & ~((1n << bits) - 1n));
  const match = [is(REG.network, n.index), is(REG.side, SIDE.local), dst];
  return flow('l2', n.index, PRIORITY.block + length, match, out);
}

/** The modified EUI-64 has the MAC's bytes 3 and 4 to 6 apart from each other. @param mac the block's first one */
function linkLocals(n: NetworkModel, mac: bigint, length: number, out: readonly Action[], relays: boolean): Flow[] {
  // A block of more than 2^24 addresses has no single prefix of link-local ones, and does not exist.
  if (length < 8) return [];
  const holder = (field: 'eth_src' | 'eth_dst'): Action[] => [
    set(field, mac & ~0xffff_ffffn),
    move('nd_target', field, 24),
    move('nd_target', field, 8, 24, 40),
  ];
  return forRange(n, linkLocalOf(mac), 96 + length, out, holder, relays);
}

/** @param holder writes the MAC of the one who has the target into this field */
function forRange(
  n: NetworkModel,
  base: bigint,
  prefix: number,
  out: readonly Action[],
  holder: (field: 'eth_src' | 'eth_dst') => Action[],
  relays: boolean,
): Flow[] {
  const mask = ((1n << 128n) - 1n) & ~(sizeOf(prefix) - 1n);
  const target = prefix === 128 ? is('nd_target', base) : masked('nd_target', base, mask);
  const priority = PRIORITY.block + prefix - 96;
  if (relays) return [flow('arpNd', n.index, priority, [...solicits(n), target], [...holder('eth_dst'), ...out])];
  return [
    flow('arpNd', n.index, priority, [...solicits(n), target], advertise(holder('eth_src'))),
    flow('arpNd', n.index, priority + PRIORITY.probe, [...solicits(n), probing, target], out),
  ];
}
