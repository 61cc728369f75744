/** Small words to write flows with. Pure. */
import { type Cidr as AnyCidr, containsIp, IPV4, lowOf } from '../../lib/addr.ts';
import { type Cidr, maskOf } from '../../lib/ip.ts';
import type { Action, FieldName, Flow, MatchField } from '../openflow/flow.ts';
import { cookie, type Stage, TABLE } from './pipeline.ts';

export const ETH_IPV4 = 0x0800n;
export const ETH_ARP = 0x0806n;
export const ETH_IPV6 = 0x86ddn;
export const ICMPV6 = 58n;
/** Types of ICMPv6 that neighbour discovery has (RFC 4861 §4). */
export const ND = { routerAdvertisement: 134n, solicitation: 135n, advertisement: 136n, redirect: 137n } as const;
export const MULTICAST_BIT = 1n << 40n;

export const is = (field: FieldName, value: bigint | number): MatchField => ({ field, value: BigInt(value) });
export const masked = (field: FieldName, value: bigint | number, mask: bigint | number): MatchField => ({
  field,
  value: BigInt(value),
  mask: BigInt(mask),
});
export const inCidr = (field: FieldName, cidr: Cidr): MatchField =>
  cidr.prefix === 32 ? is(field, cidr.base) : masked(field, cidr.base, maskOf(cidr.prefix));

/** An address of either family in a prefix; whoever matches it says the family. */
export function inPrefix(end: 'src' | 'dst', { base, prefix }: AnyCidr): MatchField {
  if (containsIp(IPV4, base)) return inCidr(`ipv4_${end}`, { base: lowOf(base), prefix: prefix - IPV4.prefix });
  const host = (1n << BigInt(128 - prefix)) - 1n;
  const field = `ipv6_${end}` as const;
  return host === 0n ? is(field, base) : masked(field, base, ((1n << 128n) - 1n) & ~host);
}

export const set = (field: FieldName, value: bigint | number): Action => ({
  type: 'set_field',
  field,
  value: BigInt(value),
});
export const goto = (stage: Stage): Action => ({ type: 'goto', table: TABLE[stage] });
/** Copies `nBits` from one field to another (NXAST_REG_MOVE, ovs-actions(7)). */
export const move = (src: FieldName, dst: FieldName, nBits: number, dstOfs = 0, srcOfs = 0): Action => ({
  type: 'move',
  src,
  srcOfs,
  dst,
  dstOfs,
  nBits,
});

export function flow(
  stage: Stage,
  index: number,
  priority: number,
  match: readonly MatchField[],
  actions: readonly Action[],
): Flow {
  return { table: TABLE[stage], priority, cookie: cookie(stage, index), match, actions };
}

export const ARP_REQUEST = 1n;
export const ARP_REPLY = 2n;

/** Turns an ARP request into a reply. @param sender sets the answering MAC and address */
export const arpAnswer = (sender: readonly Action[]): Action[] => [
  move('eth_src', 'eth_dst', 48),
  set('arp_op', ARP_REPLY),
  move('arp_sha', 'arp_tha', 48),
  ...sender,
];

/** The reply of one endpoint. */
export const arpReply = (e: { readonly mac: bigint; readonly ip: number }): Action[] =>
  arpAnswer([set('eth_src', e.mac), set('arp_sha', e.mac), move('arp_spa', 'arp_tpa', 32), set('arp_spa', e.ip)]);
