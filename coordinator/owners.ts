/** What an agent may write concerns its own host only (I3): an address that another host holds cannot be registered. Pure. */
import { containsIp, formatIp, parseCidr, tryParseIp } from '../lib/addr.ts';
import { middleCut } from '../lib/errors.ts';
import type { Endpoint } from '../lib/model.ts';
import { serviceAt } from './alloc/reserved.ts';
import type { State } from './contract.ts';

type Source = Pick<State, 'blocks' | 'addresses' | 'hosts' | 'services'>;

/**
 * @returns null, or the sentence why the endpoint cannot be this host's: one of its addresses is in another host's block and has not
 * been granted, or has been granted to another host, or is a service's. Addresses in no block are nobody's yet: those may be what a restored etcd lost.
 */
export function notIts(source: Source, hostId: string, endpoint: Endpoint): string | null {
  for (const text of endpoint.ips) {
    // One address has one text: keys and comparisons rely on it.
    const ip = tryParseIp(text);
    if (ip === null || formatIp(ip) !== text)
      return `Endpoint ${endpoint.id.slice(0, 12)} has "${middleCut(text)}", which is no address in canonical form.`;
    const service = serviceAt(source, endpoint.networkId, text);
    if (service !== undefined)
      return `Endpoint ${endpoint.id.slice(0, 12)} has ${text}, the address of service ${service.name}.`;
    const granted = source.addresses.get(endpoint.networkId)?.get(text);
    const held = granted?.state === 'held' ? granted.hostId : null;
    if (held === hostId) continue;
    const holder = held ?? blockHolder(source, endpoint.networkId, ip);
    if (holder !== null && holder !== hostId) {
      const name = source.hosts.get(holder)?.name ?? holder;
      return `Endpoint ${endpoint.id.slice(0, 12)} has the address ${text}, which host ${name} holds.`;
    }
  }
  return null;
}

/** @returns null, or the sentence why the endpoint cannot be trusted: its network was not made for it. */
export function notTrusted(source: Pick<State, 'networks'>, endpoint: Endpoint): string | null {
  const network = source.networks.get(endpoint.networkId);
  if (!endpoint.trusted || network === undefined || network.allowTrust) return null;
  return `Endpoint ${endpoint.id.slice(0, 12)} cannot be trusted: network ${network.name} was made without --allow-trust.`;
}

function blockHolder(source: Source, networkId: string, ip: bigint): string | null {
  for (const block of source.blocks.get(networkId)?.values() ?? [])
    if (containsIp(parseCidr(block.cidr), ip)) return block.hostId;
  return null;
}
