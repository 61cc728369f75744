/** MAC addresses as text (lower-case, colons) and numbers. */
import { cidrOf, LOW_BITS, parseIp as parseAny } from './addr.ts';
import { middleCut, WeftError } from './errors.ts';
import { parseIp } from './ip.ts';

/** First two bytes of every default MAC: locally administered, unicast; the IPv4 address follows. */
export const MAC_PREFIX = 0x0258;
/**
 * The same with the last 32 bits of an IPv6 address: the default MAC where there is no IPv4 address, and else the alias that other
 * hosts send to (the endpoint's host puts the real one in its place).
 */
export const MAC_PREFIX_6 = 0x0259;
/** Default MACs of IPv6 addresses that their last 32 bits do not tell: a hash follows. */
const MAC_PREFIX_FAR = 0x025a;

/** The default MAC of an endpoint: 02:58 and the four bytes of its IPv4 address, so that a block's MACs share a prefix. */
export function macOfIp(ip: string): string {
  return formatMac((BigInt(MAC_PREFIX) << 32n) | BigInt(parseIp(ip)));
}

/** 02:59 and the last four bytes of an IPv6 address. */
export const aliasMac = (ip6: bigint): bigint => (BigInt(MAC_PREFIX_6) << 32n) | (ip6 & 0xffff_ffffn);

/** True where the last 32 bits tell the address from all others of the subnet that automatic ones come from. @param prefix of the subnet */
export const isNear = (ip6: bigint, prefix: number): boolean =>
  prefix >= 128 - LOW_BITS || cidrOf(ip6, 128 - LOW_BITS).base === cidrOf(ip6, prefix).base;

/**
 * The MAC of an endpoint that gave none.
 * @param ip IPv4 address, may be empty; `ip6`, `prefix6`: IPv6 address and its subnet's length
 * @returns `own` true: it does not follow from the address by a rule that blocks know, so that others must be told
 */
export function defaultMac(ip: string, ip6: string, prefix6: number): { mac: string; own: boolean } {
  if (ip !== '') return { mac: macOfIp(ip), own: false };
  const value = parseAny(ip6);
  if (isNear(value, prefix6)) return { mac: formatMac(aliasMac(value)), own: false };
  return { mac: formatMac((BigInt(MAC_PREFIX_FAR) << 32n) | hash(value)), own: true };
}

/** True for MACs that are made from addresses, and those of the hosts themselves (02:57, 02:5b, 02:5c): nobody else may choose one of these. */
export const isDefaultForm = (mac: string): boolean => /^02:5[789abc]:/.test(mac);

/** FNV-1a over the sixteen bytes. */
function hash(value: bigint): bigint {
  let h = 0x811c9dc5n;
  for (let shift = 120n; shift >= 0n; shift -= 8n) h = ((h ^ ((value >> shift) & 0xffn)) * 0x0100_0193n) & 0xffff_ffffn;
  return h;
}

export function formatMac(mac: bigint): string {
  return mac
    .toString(16)
    .padStart(12, '0')
    .replace(/..(?=.)/g, '$&:');
}

/** @throws INVALID_ARGUMENT unless a unicast MAC that is not zero. */
export function parseMac(text: string): bigint {
  if (!/^[0-9a-f]{2}(:[0-9a-f]{2}){5}$/i.test(text))
    throw new WeftError('INVALID_ARGUMENT', `"${middleCut(text)}" is not a MAC address`, {
      hint: 'write six hex bytes, like 02:58:0a:80:00:07',
    });
  const mac = BigInt(`0x${text.replaceAll(':', '')}`);
  if ((mac >> 40n) & 1n)
    throw new WeftError('INVALID_ARGUMENT', `${text} is a multicast MAC address`, {
      hint: 'the lowest bit of the first byte must be 0',
    });
  if (mac === 0n)
    throw new WeftError('INVALID_ARGUMENT', 'the MAC address is zero', {
      hint: 'leave --mac-address out to get a default one',
    });
  return mac;
}

export const normalMac = (text: string): string => formatMac(parseMac(text));
