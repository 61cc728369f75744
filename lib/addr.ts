/**
 * IPv4 and IPv6 addresses in one space of 128-bit numbers, so that whatever allocates knows one kind of address: IPv4 stands at
 * ::ffff:0:0/96 (RFC 4291 §2.5.5.2), which no IPv6 subnet may touch. A prefix length counts in that space: a /24 of IPv4 is 120.
 */
import { middleCut, WeftError } from './errors.ts';
import { formatIp as formatIp4, parseIp as parseIp4, tryParseIp as tryParseIp4 } from './ip.ts';
import { formatIp6, tryParseIp6 } from './ip6.ts';

export type Family = 4 | 6;

/** A prefix: `base` has its host bits zero. */
export interface Cidr {
  readonly base: bigint;
  /** 0 to 128. */
  readonly prefix: number;
}

const MAPPED = 0xffffn << 32n;
/** Where IPv4 stands. */
export const IPV4: Cidr = { base: MAPPED, prefix: 96 };
/** Low bits of an IPv6 address that a block's MACs are made from: automatic addresses have zeros between their prefix and these. */
export const LOW_BITS = 32;

export const isIp4 = (ip: bigint): boolean => ip >> 32n === 0xffffn;
export const familyOf = (ip: bigint): Family => (isIp4(ip) ? 4 : 6);
/** Of an address or prefix as text, without judging it. */
export const familyOfText = (text: string): Family => (text.includes(':') ? 6 : 4);

/** Of an IPv4 number as lib/ip.ts has it. */
export const mapped = (ip4: number): bigint => MAPPED | BigInt(ip4);
/** The last 32 bits: of IPv4, the address as lib/ip.ts has it. */
export const lowOf = (ip: bigint): number => Number(ip & 0xffff_ffffn);

/** @returns null unless a dotted quad or an IPv6 address. IPv4 written as IPv6 is neither. */
export function tryParseIp(text: string): bigint | null {
  if (familyOfText(text) === 4) {
    const ip = tryParseIp4(text);
    return ip === null ? null : mapped(ip);
  }
  const ip = tryParseIp6(text);
  return ip === null || isIp4(ip) ? null : ip;
}

/** @throws INVALID_ARGUMENT unless a dotted quad or an IPv6 address */
export function parseIp(text: string): bigint {
  const ip = tryParseIp(text);
  if (ip !== null) return ip;
  if (familyOfText(text) === 4) return mapped(parseIp4(text));
  throw new WeftError('INVALID_ARGUMENT', `"${middleCut(text)}" is not an IPv6 address`, {
    hint: 'write eight groups of hex digits, or fewer with ::, like fd00:1::7',
  });
}

/** Canonical text: dotted quad, or RFC 5952. */
export const formatIp = (ip: bigint): string => (isIp4(ip) ? formatIp4(lowOf(ip)) : formatIp6(ip));

/** The canonical text of an address. @throws INVALID_ARGUMENT */
export const canonicalIp = (text: string): string => formatIp(parseIp(text));

/** Number of addresses of a prefix. */
export const sizeOf = (prefix: number): bigint => 1n << BigInt(128 - prefix);

export const cidrOf = (ip: bigint, prefix: number): Cidr => ({ base: ip & -sizeOf(prefix), prefix });

/**
 * @param text address/prefix, e.g. 10.128.0.0/20 or fd00:1::/64
 * @throws INVALID_ARGUMENT when malformed, or when host bits are set (the message names the canonical form).
 */
export function parseCidr(text: string): Cidr {
  const { ip, base, prefix } = parseHostCidr(text);
  if (ip !== base)
    throw new WeftError('INVALID_ARGUMENT', `"${text}" has host bits set`, {
      hint: `did you mean ${formatCidr({ base, prefix })}?`,
    });
  return { base, prefix };
}

/** Like parseCidr, but host bits may be set: `ip` is the address as written (interfaces, gateways with a prefix). */
export function parseHostCidr(text: string): Cidr & { readonly ip: bigint } {
  const [address = '', length = '', ...rest] = text.split('/');
  const ip = tryParseIp(address);
  const shift = familyOfText(address) === 4 ? 96 : 0;
  const ok = ip !== null && rest.length === 0 && /^(0|[1-9]\d{0,2})$/.test(length) && Number(length) <= 128 - shift;
  if (!ok) {
    const [family, example] = shift === 96 ? ['IPv4', '10.128.0.0/20'] : ['IPv6', 'fd00:1::/64'];
    throw new WeftError('INVALID_ARGUMENT', `"${middleCut(text)}" is not an ${family} prefix`, {
      hint: `write address/length, like ${example}`,
    });
  }
  const prefix = Number(length) + shift;
  return { ip, ...cidrOf(ip, prefix) };
}

export const formatCidr = (cidr: Cidr): string => `${formatIp(cidr.base)}/${lengthOf(cidr)}`;

/** Prefix length as written: of IPv4, 0 to 32. */
export const lengthOf = (cidr: Cidr): number => (isIp4(cidr.base) ? cidr.prefix - 96 : cidr.prefix);

/** Last address (the broadcast address of an IPv4 subnet). */
export const lastOf = (cidr: Cidr): bigint => cidr.base + sizeOf(cidr.prefix) - 1n;

export const containsIp = (cidr: Cidr, ip: bigint): boolean => ip >= cidr.base && ip <= lastOf(cidr);

export const containsCidr = (outer: Cidr, inner: Cidr): boolean =>
  inner.prefix >= outer.prefix && containsIp(outer, inner.base);

export const overlaps = (a: Cidr, b: Cidr): boolean => containsCidr(a, b) || containsCidr(b, a);

/** Order for sorting: by base, then the larger one. */
export const byBase = (a: Cidr, b: Cidr): number => (a.base < b.base ? -1 : a.base > b.base ? 1 : a.prefix - b.prefix);

/** The two halves of a prefix shorter than /128. */
export function halves(cidr: Cidr): readonly [Cidr, Cidr] {
  const prefix = cidr.prefix + 1;
  return [
    { base: cidr.base, prefix },
    { base: cidr.base + sizeOf(prefix), prefix },
  ];
}

/**
 * True for addresses of a subnet that endpoints may have: not its network address (IPv6: the subnet-router anycast address,
 * RFC 4291 §2.6.1), nor the broadcast address of IPv4 (subnets up to /30).
 */
export function isUsable(subnet: Cidr, ip: bigint): boolean {
  if (!containsIp(subnet, ip)) return false;
  if (subnet.prefix >= 127) return true;
  return ip !== subnet.base && !(isIp4(ip) && ip === lastOf(subnet));
}

/** The part of a subnet that blocks may be cut from: all of an IPv4 one, the low 32 bits of an IPv6 one (docs/pipeline.md). */
export const blockSpace = (subnet: Cidr): Cidr =>
  isIp4(subnet.base) || subnet.prefix >= 128 - LOW_BITS ? subnet : { base: subnet.base, prefix: 128 - LOW_BITS };

/** Length of the blocks that addresses are handed to hosts in: of IPv4 a /16 in /26s, a /20 in /27s, a /24 in /28s; IPv6 alike. */
export function blockPrefix(range: Cidr): number {
  const prefix = isIp4(range.base) ? range.prefix : Math.max(112, range.prefix);
  const step = Math.floor((prefix - 112) / 4);
  return Math.min(128, Math.max(prefix, 122 + step));
}

/** The subnet of a family; null where the network has none. */
export function subnetOf(network: { readonly subnets: readonly string[] }, family: Family): Cidr | null {
  const text = network.subnets.find((subnet) => familyOfText(subnet) === family);
  return text === undefined ? null : parseCidr(text);
}

/** Addresses or prefixes of a family. */
export const ofFamily = (texts: readonly string[], family: Family): string[] =>
  texts.filter((text) => familyOfText(text) === family);
