/** Endpoints that have the name of a reservation of their network, and not its address. Pure. */
import { endpointName } from '../lib/endpoint-name.ts';
import type { Conflict, Endpoint } from '../lib/model.ts';
import type { State } from './contract.ts';

type Source = Pick<State, 'reservations' | 'endpoints' | 'hosts' | 'networks'>;

/** The sentence about the endpoint; null when its name is no reservation's, or all is well. */
export function nameConflict(source: Pick<State, 'reservations'>, endpoint: Endpoint): string | null {
  const name = endpointName(endpoint);
  const reservation = name === '' ? undefined : source.reservations.get(endpoint.networkId)?.get(name);
  if (reservation === undefined) return null;
  const missing = reservation.ips.filter((ip) => !endpoint.ips.includes(ip));
  if (missing.length === 0) return null;
  const flags = missing.map((ip) => `${ip.includes(':') ? '--ip6' : '--ip'} ${ip}`).join(' ');
  const what = endpoint.container === undefined ? 'endpoint' : 'container';
  return `${what} ${name} has ${endpoint.ips.join(' and ')}, and ${missing.join(' and ')} ${missing.length > 1 ? 'are' : 'is'} reserved for that name: start it with ${flags}`;
}

/** Of all hosts, by host name. */
export function nameConflicts(source: Source): Conflict[] {
  const found: Conflict[] = [];
  for (const networkId of source.reservations.keys())
    for (const endpoint of source.endpoints.get(networkId)?.values() ?? []) {
      const message = nameConflict(source, endpoint);
      if (message === null) continue;
      const host = source.hosts.get(endpoint.hostId)?.name ?? endpoint.hostId;
      found.push({ host, network: source.networks.get(networkId)?.name ?? networkId, message });
    }
  return found.sort((a, b) => (a.host < b.host ? -1 : a.host > b.host ? 1 : a.message < b.message ? -1 : 1));
}
