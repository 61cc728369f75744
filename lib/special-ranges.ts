/** Addresses that are no single machine's elsewhere. Pure. */
import { type Cidr, parseCidr } from './addr.ts';

/** Unspecified, loopback, link-local (the hosts' transit addresses of IPv4 among them), multicast and above (RFC 6890, RFC 4291 §2.4). */
export const SPECIAL_RANGES: readonly Cidr[] = [
  '0.0.0.0/8',
  '127.0.0.0/8',
  '169.254.0.0/16',
  '224.0.0.0/3',
  '::/127',
  'fe80::/10',
  'ff00::/8',
].map(parseCidr);

/** Hosts' transit addresses of IPv6, which each host has for itself. */
export const TRANSIT_RANGE6: Cidr = parseCidr('fd57:6566:7400::/64');
