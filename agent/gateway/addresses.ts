/**
 * Addresses that mean something on this host only: where containers find the agent, and by which the host finds each of its endpoints
 * whatever network that is in (subnets of two networks may overlap). IPv4 link-local (RFC 3927), and unique local addresses of IPv6
 * (RFC 4193), whose link-local ones no host forwards: none of them leaves the host. Pure.
 */
import { type Cidr, containsIp, formatIp, parseCidr, parseIp } from '../../lib/ip.ts';
import { parseMac } from '../../lib/mac.ts';
import { MAX_PUBLISHED_SERVICES } from '../../lib/published-services.ts';
import { RESOLVER_ADDRESS } from '../../lib/resolver-address.ts';
import { TRANSIT_RANGE6 } from '../../lib/special-ranges.ts';
import { hash32 } from '../services/numbers.ts';

/** Transit addresses, one for each local endpoint. */
export const TRANSIT: Cidr = parseCidr('169.254.64.0/18');
/** The host's own among them. */
export const HOST_ADDRESS = parseIp('169.254.64.1');
/** The same in IPv6: this prefix, and the transit address as its last 32 bits. */
export const TRANSIT6 = TRANSIT_RANGE6;
export const transit6 = (transit: number): bigint => TRANSIT6.base | BigInt(transit);
/** The host's own among them. */
export const HOST_ADDRESS6 = transit6(HOST_ADDRESS);
/** Where the host sends what is for one of them: stands for br-weft. */
export const NEXT_HOP6 = 'fe80::1';
/** The agent's resolver, as containers and Docker know it. */
export const DNS_ADDRESS = parseIp(RESOLVER_ADDRESS);
export const DNS_PORT = 53;

/** The MAC that stands for the host in every network, on every host. */
export const ANYCAST_MAC = parseMac('02:57:65:66:74:01');
/** The host's end of the link to br-weft. */
export const HOST_MAC = parseMac('02:57:65:66:74:02');

/**
 * A host's own MAC in the whole mesh: of frames of those who came in by a port of it, and of what goes back to them.
 */
export const entryMac = (hostId: string): bigint => (0x025bn << 32n) | BigInt(hash32(hostId));

/** First two bytes of the MACs of hosts as routers. */
export const ROUTER_PREFIX = 0x025c;
/** A host's own MAC of what it has routed from one network into another. */
export const routerMac = (hostId: string): bigint => (BigInt(ROUTER_PREFIX) << 32n) | BigInt(hash32(hostId));

const SIZE = 2 ** (32 - TRANSIT.prefix);
/** The last of them, but for the broadcast address, stand for published services. */
const SERVICES = MAX_PUBLISHED_SERVICES + 1;
const ENDPOINTS = SIZE - SERVICES;
const isFree = (ip: number, used: ReadonlySet<string>): boolean =>
  ip !== HOST_ADDRESS && ip !== DNS_ADDRESS && !used.has(formatIp(ip));

/**
 * A free transit address. It depends on the endpoint's id: what is still on its way to an endpoint that has gone, or is remembered of
 * it, does not meet the next one.
 * @param endpointId hexadecimal
 * @returns dotted; null: all are taken
 */
export function pickTransit(endpointId: string, used: ReadonlySet<string>): string | null {
  const first = Number.parseInt(endpointId.slice(0, 8), 16) % ENDPOINTS;
  for (let i = 0; i < ENDPOINTS; i++) {
    const at = (first + i) % ENDPOINTS;
    if (at === 0) continue; // the subnet's own address
    const ip = TRANSIT.base + at;
    if (isFree(ip, used)) return formatIp(ip);
  }
  return null;
}

/**
 * A transit address for a published service: by its id alone as far as that can be, so that connections outlast the agent.
 * @param used of endpoints from before there were services, and of other services
 * @returns dotted; null: all are taken
 */
export function pickServiceTransit(serviceId: string, used: ReadonlySet<string>): string | null {
  const first = hash32(serviceId) % SERVICES;
  for (let i = 0; i < SERVICES; i++) {
    const at = ENDPOINTS + ((first + i) % SERVICES);
    if (at === SIZE - 1) continue; // the broadcast address
    const ip = TRANSIT.base + at;
    if (isFree(ip, used)) return formatIp(ip);
  }
  return null;
}

export const isTransit = (ip: number): boolean => containsIp(TRANSIT, ip);
