/** Names that stand for addresses (RFC 1035 §3.5, RFC 3596 §2.5). Pure. */
import { mapped } from '../../lib/addr.ts';
import { tryParseIp as tryParseIp4 } from '../../lib/ip.ts';

const REVERSE4 = '.in-addr.arpa';
const REVERSE6 = '.ip6.arpa';

/** The address that a reverse name is of; null: it is none, or not a whole one. */
export function addressOf(name: string): bigint | null {
  if (name.endsWith(REVERSE4)) {
    const ip = tryParseIp4(name.slice(0, -REVERSE4.length).split('.').toReversed().join('.'));
    return ip === null ? null : mapped(ip);
  }
  if (!name.endsWith(REVERSE6)) return null;
  const digits = name.slice(0, -REVERSE6.length);
  return /^[0-9a-f](\.[0-9a-f]){31}$/.test(digits) ? BigInt(`0x${digits.split('.').toReversed().join('')}`) : null;
}

/** The reverse name of an address. @param ip canonical */
export function reverseName(ip: string, value: bigint): string {
  if (!ip.includes(':')) return `${ip.split('.').toReversed().join('.')}${REVERSE4}`;
  return `${value.toString(16).padStart(32, '0').split('').toReversed().join('.')}${REVERSE6}`;
}
