/** IPv4 addresses and prefixes as numbers: strict parsing (dotted quad, no leading zeros, RFC 6943 §3.1.1), canonical text. */
import { middleCut, WeftError } from './errors.ts';

/** A prefix: `base` has its host bits zero. Addresses are unsigned 32-bit numbers. */
export interface Cidr {
  readonly base: number;
  readonly prefix: number;
}

const QUAD = /^(0|[1-9]\d{0,2})\.(0|[1-9]\d{0,2})\.(0|[1-9]\d{0,2})\.(0|[1-9]\d{0,2})$/;

/** @throws INVALID_ARGUMENT unless `text` is a canonical dotted quad. */
export function parseIp(text: string): number {
  const value = tryParseIp(text);
  if (value === null)
    throw new WeftError('INVALID_ARGUMENT', `"${middleCut(text)}" is not an IPv4 address`, {
      hint: 'write four numbers from 0 to 255, like 10.128.0.7',
    });
  return value;
}

export function tryParseIp(text: string): number | null {
  const m = QUAD.exec(text);
  if (m === null) return null;
  let value = 0;
  for (let i = 1; i <= 4; i++) {
    const byte = Number(m[i]);
    if (byte > 255) return null;
    value = value * 256 + byte;
  }
  return value;
}

export const formatIp = (ip: number): string => `${ip >>> 24}.${(ip >>> 16) & 255}.${(ip >>> 8) & 255}.${ip & 255}`;

/** Number of addresses of a prefix. */
export const sizeOf = (prefix: number): number => 2 ** (32 - prefix);

/** Network mask as an unsigned number. */
export const maskOf = (prefix: number): number => (prefix === 0 ? 0 : (0xffffffff << (32 - prefix)) >>> 0);

/**
 * @param text address/prefix, e.g. 10.128.0.0/20
 * @throws INVALID_ARGUMENT when malformed, or when host bits are set (the message names the canonical form).
 */
export function parseCidr(text: string): Cidr {
  const cidr = parseHostCidr(text);
  if (cidr.ip !== cidr.base)
    throw new WeftError('INVALID_ARGUMENT', `"${text}" has host bits set`, {
      hint: `did you mean ${formatCidr(cidr)}?`,
    });
  return { base: cidr.base, prefix: cidr.prefix };
}

/** Like parseCidr, but host bits may be set: `ip` is the address as written (interfaces, gateways with a prefix). */
export function parseHostCidr(text: string): Cidr & { readonly ip: number } {
  const [address, length, ...rest] = text.split('/');
  const ip = tryParseIp(address ?? '');
  const ok = ip !== null && rest.length === 0 && /^(0|[1-9]\d?)$/.test(length ?? '') && Number(length) <= 32;
  if (!ok)
    throw new WeftError('INVALID_ARGUMENT', `"${middleCut(text)}" is not an IPv4 prefix`, {
      hint: 'write address/length, like 10.128.0.0/20',
    });
  const prefix = Number(length);
  return { ip, base: (ip & maskOf(prefix)) >>> 0, prefix };
}

export const formatCidr = (cidr: Cidr): string => `${formatIp(cidr.base)}/${cidr.prefix}`;

export const cidrOf = (ip: number, prefix: number): Cidr => ({ base: (ip & maskOf(prefix)) >>> 0, prefix });

/** Last address (the broadcast address of a subnet). */
export const lastOf = (cidr: Cidr): number => cidr.base + sizeOf(cidr.prefix) - 1;

export const containsIp = (cidr: Cidr, ip: number): boolean => ip >= cidr.base && ip <= lastOf(cidr);

export const containsCidr = (outer: Cidr, inner: Cidr): boolean =>
  inner.prefix >= outer.prefix && containsIp(outer, inner.base);

export const overlaps = (a: Cidr, b: Cidr): boolean => containsCidr(a, b) || containsCidr(b, a);

/** The two halves of a prefix shorter than /32. */
export function halves(cidr: Cidr): readonly [Cidr, Cidr] {
  const prefix = cidr.prefix + 1;
  return [
    { base: cidr.base, prefix },
    { base: cidr.base + sizeOf(prefix), prefix },
  ];
}

/** True for addresses of a subnet that endpoints may have: not its network or broadcast address (subnets up to /30). */
export function isUsable(subnet: Cidr, ip: number): boolean {
  if (!containsIp(subnet, ip)) return false;
  if (subnet.prefix >= 31) return true;
  return ip !== subnet.base && ip !== lastOf(subnet);
}

/** Length of the blocks that a network's addresses are handed to hosts in: a /16 in /26s, a /20 in /27s, a /24 in /28s. */
export function blockPrefix(range: Cidr): number {
  const step = Math.floor((range.prefix - 16) / 4);
  return Math.min(32, Math.max(range.prefix, 26 + step));
}
