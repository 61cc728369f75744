/** What external peers must not take away from others: MACs and addresses of one network. Pure. */
import { containsIp, isUsable, parseCidr, tryParseIp } from '../../lib/addr.ts';
import { allowedIp, allowedMac } from '../../lib/allowed.ts';
import { endpointName } from '../../lib/endpoint-name.ts';
import { WeftError } from '../../lib/errors.ts';
import { isDefaultForm } from '../../lib/mac.ts';
import type { Block, Endpoint, ExternalPeer, Network } from '../../lib/model.ts';
import type { State } from '../contract.ts';
import { addressOfService, reservationAt, reservationOfMac, serviceAt } from './reserved.ts';

type Source = Pick<
  State,
  'hosts' | 'blocks' | 'addresses' | 'endpoints' | 'externals' | 'settings' | 'reservations' | 'services'
>;
type AllNetworks = Source & Pick<State, 'networks'>;

const refused = (message: string, hint: string): WeftError => new WeftError('FAILED_PRECONDITION', message, { hint });
const exists = (message: string, hint: string): WeftError => new WeftError('ALREADY_EXISTS', message, { hint });

/** The block that would give the address to an endpoint some day; undefined for auxiliary addresses, which no host gives out. */
export function blockAround(source: Pick<State, 'blocks'>, network: Network, address: string): Block | undefined {
  const ip = tryParseIp(address);
  if (ip === null || Object.values(network.auxAddresses).includes(address)) return undefined;
  for (const block of source.blocks.get(network.id)?.values() ?? [])
    if (containsIp(parseCidr(block.cidr), ip)) return block;
  return undefined;
}

/** Why the peer cannot be added; null = it can. */
export function peerClash(source: AllNetworks, network: Network, peer: ExternalPeer): WeftError | null {
  const others = [...(source.externals.get(network.id)?.values() ?? [])].filter((other) => other.id !== peer.id);
  if (others.some((other) => other.name === peer.name))
    return exists(`network ${network.name} has a peer named "${peer.name}"`, 'choose another name');
  for (const host of source.hosts.values())
    if (host.vteps.some((vtep) => vtep.address === peer.vtep))
      return refused(`${peer.vtep} is the VTEP of host ${host.name}`, 'hosts of the mesh need no peer');
  const same = others.find((other) => other.vtep === peer.vtep);
  if (same !== undefined)
    return exists(`peer ${same.name} of network ${network.name} has the VTEP ${peer.vtep}`, 'remove that one first');
  const elsewhere = usedElsewhere(source, network, peer);
  if (elsewhere !== null) return elsewhere;
  for (const { mac, ip } of peer.macs) {
    const clash = macClash(source, network, mac, others) ?? (ip === '' ? null : ipClash(source, network, ip, others));
    if (clash !== null) return clash;
  }
  return null;
}

/** Frames that come from a VTEP with a key must belong to one network. */
function usedElsewhere(source: AllNetworks, network: Network, peer: ExternalPeer): WeftError | null {
  const wire = (of: Network, p: ExternalPeer): string => `${p.vtep} ${p.encap || of.encap} ${p.key || of.vni}`;
  for (const [id, peers] of source.externals) {
    const other = source.networks.get(id);
    if (id === network.id || other === undefined) continue;
    for (const one of peers.values())
      if (wire(other, one) === wire(network, peer))
        return refused(
          `peer ${one.name} of network ${other.name} has the same VTEP, encapsulation and key`,
          'give this one another --key',
        );
  }
  return null;
}

function macClash(source: Source, network: Network, mac: string, others: readonly ExternalPeer[]): WeftError | null {
  const hint = 'a MAC is held once in a network';
  const owner = endpointWith(source, network, (endpoint) => endpoint.mac === mac);
  if (owner !== null) return exists(`the MAC ${mac} of network ${network.name} is ${owner}'s`, hint);
  const peer = others.find((other) => other.macs.some((known) => known.mac === mac));
  if (peer !== undefined) return exists(`the MAC ${mac} is behind peer ${peer.name}`, hint);
  const reserved = reservationOfMac(source, network.id, mac);
  if (reserved !== undefined) return exists(`the MAC ${mac} is reserved as "${reserved.name}"`, hint);
  if (isDefaultForm(mac)) return refused(`the MAC ${mac} is of the form that the mesh gives`, 'choose another MAC');
  const sharer = allowedMac(source.settings.get(network.id)?.values() ?? [], mac, '');
  if (sharer === null) return null;
  return exists(
    `the MAC ${mac} of network ${network.name}, or its link-local address, is one that ${whoIs(source, network, sharer)} may send from`,
    `choose another MAC, or take it back: weft endpoint set ${sharer.slice(0, 12)} --disallow-address …`,
  );
}

function ipClash(source: Source, network: Network, ip: string, others: readonly ExternalPeer[]): WeftError | null {
  if (!network.subnets.some((subnet) => inside(subnet, ip)))
    return new WeftError('INVALID_ARGUMENT', `the address ${ip} is not in ${network.subnets.join(' or ')}`, {
      hint: 'leave the address out: then only the MAC is known',
    });
  if (network.gateways.includes(ip)) return refused(`${ip} is the gateway of the network`, 'choose another address');
  const owner = endpointWith(source, network, (endpoint) => endpoint.ips.includes(ip));
  if (owner !== null) return exists(`the address ${ip} is ${owner}'s`, 'choose another address');
  const reserved = reservationAt(source, network.id, ip);
  if (reserved !== undefined)
    return exists(`the address ${ip} is reserved as "${reserved.name}"`, 'choose another address');
  const service = serviceAt(source, network.id, ip);
  if (service !== undefined) return addressOfService(network, ip, service);
  const sharer = allowedIp(source.settings.get(network.id)?.values() ?? [], ip);
  if (sharer !== null)
    return exists(
      `the address ${ip} is an allowed address of ${whoIs(source, network, sharer)}`,
      `choose another address, or take it back: weft endpoint set ${sharer.slice(0, 12)} --disallow-address ${ip}`,
    );
  const claim = source.addresses.get(network.id)?.get(ip);
  if (claim !== undefined && claim.state !== 'refused')
    return exists(
      `the address ${ip} is held by host ${source.hosts.get(claim.hostId)?.name ?? claim.hostId}`,
      'choose another address',
    );
  const peer = others.find((other) => other.macs.some((known) => known.ip === ip));
  return peer === undefined ? null : exists(`the address ${ip} is behind peer ${peer.name}`, 'choose another address');
}

/** Addresses of the network that are not an endpoint's own, and that no block may give out. */
export function spokenFor(source: Pick<State, 'externals' | 'settings'>, networkId: string): Set<string> {
  const found = new Set<string>();
  for (const peer of source.externals.get(networkId)?.values() ?? [])
    for (const { ip } of peer.macs) if (ip !== '') found.add(ip);
  for (const settings of source.settings.get(networkId)?.values() ?? [])
    for (const { ip } of settings.allowed) if (ip !== '') found.add(ip);
  return found;
}

/** Why an endpoint cannot have an address that is spoken for. */
export const notForEndpoints = (network: Network, address: string): WeftError =>
  exists(
    `Address ${address} of network ${network.name} is an allowed address of an endpoint, or behind an external peer.`,
    'choose another address; weft endpoint ls and weft peer ls show whose it is',
  );

type Naming = Pick<State, 'hosts' | 'endpoints'>;

/** The first endpoint of the network that is like that, in words. */
export function endpointWith(source: Naming, network: Network, match: (endpoint: Endpoint) => boolean): string | null {
  for (const endpoint of source.endpoints.get(network.id)?.values() ?? [])
    if (match(endpoint)) return whoIs(source, network, endpoint.id);
  return null;
}

/** An endpoint in words; it may be gone. */
export function whoIs(source: Naming, network: Network, endpointId: string): string {
  const endpoint = source.endpoints.get(network.id)?.get(endpointId);
  const unnamed = `endpoint ${endpointId.slice(0, 12)}`;
  if (endpoint === undefined) return unnamed;
  return `${endpointName(endpoint) || unnamed} on ${source.hosts.get(endpoint.hostId)?.name ?? endpoint.hostId}`;
}

function inside(subnet: string, address: string): boolean {
  const ip = tryParseIp(address);
  return ip !== null && isUsable(parseCidr(subnet), ip);
}
