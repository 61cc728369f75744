/** IPv6 addresses as text and 128-bit numbers: strict parsing (RFC 4291 §2.2, no zone, no embedded IPv4), canonical text (RFC 5952). */

import { middleCut, WeftError } from './errors.ts';

const GROUP = /^[0-9a-f]{1,4}$/i;

/** @throws INVALID_ARGUMENT unless an IPv6 address. */
export function parseIp6(text: string): bigint {
  const value = tryParseIp6(text);
  if (value !== null) return value;
  throw new WeftError('INVALID_ARGUMENT', `"${middleCut(text)}" is not an IPv6 address`, {
    hint: 'write eight groups of hex digits, or fewer with ::, like fd00:1::7',
  });
}

/** @returns null unless `text` is eight groups, or fewer around one "::" */
export function tryParseIp6(text: string): bigint | null {
  if (text.length > 39) return null;
  const halves = text.split('::');
  if (halves.length > 2) return null;
  const [head, tail] = halves.map((half) => (half === '' ? [] : half.split(':')));
  const groups = [...(head ?? []), ...(tail ?? [])];
  if (!groups.every((group) => GROUP.test(group))) return null;
  const missing = 8 - groups.length;
  // "::" stands for one group at least.
  if (halves.length === 1 ? missing !== 0 : missing < 1) return null;
  const all = [...(head ?? []), ...Array.from({ length: missing }, () => '0'), ...(tail ?? [])];
  return all.reduce((value, group) => (value << 16n) | BigInt(`0x${group}`), 0n);
}

/** Lower case, no leading zeros, the first longest run of two or more zero groups as "::" (RFC 5952 §4). */
export function formatIp6(ip: bigint): string {
  const groups = Array.from({ length: 8 }, (_, i) => Number((ip >> BigInt(112 - 16 * i)) & 0xffffn));
  let [best, length] = [0, 1];
  for (let i = 0; i < 8; i++) {
    let end = i;
    while (end < 8 && groups[end] === 0) end++;
    if (end - i > length) [best, length] = [i, end - i];
  }
  const text = (part: readonly number[]): string => part.map((group) => group.toString(16)).join(':');
  if (length < 2) return text(groups);
  return `${text(groups.slice(0, best))}::${text(groups.slice(best + length))}`;
}

/** Link-local address of an interface whose MAC this is (RFC 4291 appendix A, "modified EUI-64"): what Linux takes by default. */
export function linkLocalOf(mac: bigint): bigint {
  const eui = ((mac >> 24n) << 40n) | (0xfffen << 24n) | (mac & 0xff_ffffn);
  return (0xfe80n << 112n) | (eui ^ (1n << 57n));
}
