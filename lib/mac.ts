/** MAC addresses as text (lower-case, colons) and numbers. */
import { middleCut, WeftError } from './errors.ts';
import { parseIp } from './ip.ts';

/** First two bytes of every default MAC: locally administered, unicast; the IPv4 address follows. */
export const MAC_PREFIX = 0x0258;

/** The default MAC of an endpoint: 02:58 and the four bytes of its IPv4 address, so that a block's MACs share a prefix. */
export function macOfIp(ip: string): string {
  return formatMac((BigInt(MAC_PREFIX) << 32n) | BigInt(parseIp(ip)));
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
