/** What endpoints were allowed to send from besides their own (weft endpoint set --allow-address), as others must heed it. Pure. */
import { formatIp6, linkLocalOf } from './ip6.ts';
import { formatMac, parseMac } from './mac.ts';
import type { AllowedAddress, EndpointSettings } from './model.ts';

/** The link-local address that Linux makes of a MAC. @param mac canonical text */
export const linkLocalText = (mac: string): string => formatIp6(linkLocalOf(parseMac(mac)));

/** The MAC that a link-local address is made of (RFC 4291 appendix A); null where it is made of none. */
export function macOfLinkLocal(ip: bigint): string | null {
  if (ip >> 64n !== 0xfe80n << 48n || ((ip >> 24n) & 0xffffn) !== 0xfffen) return null;
  const eui = (ip & ((1n << 64n) - 1n)) ^ (1n << 57n);
  return formatMac(((eui >> 40n) << 24n) | (eui & 0xff_ffffn));
}

/** Who may send from an address. @returns id of an endpoint */
export const allowedIp = (settings: Iterable<EndpointSettings>, ip: string): string | null =>
  find(settings, '', (one) => one.ip === ip);

/** Which other endpoint may send from a MAC, or from the link-local address that whoever has the MAC would take. @returns its id */
export function allowedMac(settings: Iterable<EndpointSettings>, mac: string, except: string): string | null {
  const linkLocal = linkLocalText(mac);
  return find(settings, except, (one) => one.mac === mac || one.ip === linkLocal);
}

function find(
  settings: Iterable<EndpointSettings>,
  except: string,
  match: (one: AllowedAddress) => boolean,
): string | null {
  for (const { endpointId, allowed } of settings) if (endpointId !== except && allowed.some(match)) return endpointId;
  return null;
}
