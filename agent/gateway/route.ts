/**
 * How a container finds the resolver. Docker adds an endpoint's routes when it joins and removes them when it leaves; two equal ones in
 * one container are an error to it. Each of a container's networks therefore routes a prefix of its own length around the resolver: the
 * longest is used, and when its network goes the next one is there already. Pure.
 */
import { cidrOf, formatCidr } from '../../lib/ip.ts';
import type { Journal, LocalEndpoint } from '../contract.ts';
import { DNS_ADDRESS, TRANSIT } from './addresses.ts';

/** @returns CIDR; null: none is left, or the endpoint cannot reach it */
export function resolverRoute(
  journal: Pick<Journal, 'endpoints'>,
  e: Pick<LocalEndpoint, 'id' | 'ip' | 'transit' | 'resolverRoute'>,
  sandbox: string,
): string | null {
  if (e.transit === undefined || e.ip === '') return null;
  const taken = new Set<string>();
  for (const other of journal.endpoints.values())
    if (other.id !== e.id && other.sandbox === sandbox && other.resolverRoute !== undefined)
      taken.add(other.resolverRoute);
  for (let prefix = 32; prefix >= TRANSIT.prefix; prefix--) {
    const cidr = formatCidr(cidrOf(DNS_ADDRESS, prefix));
    if (!taken.has(cidr)) return cidr;
  }
  return null;
}
