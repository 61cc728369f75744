/** What external peers and allowed addresses must not take away from others: MACs and addresses of one network. Pure. */
import { containsIp, isUsable, parseCidr, tryParseIp } from '../../lib/addr.ts';
import { endpointName } from '../../lib/endpoint-name.ts';
import { WeftError } from '../../lib/errors.ts';

import { isDefaultForm } from '../../lib/mac.ts';
import type { AllowedAddress, Block, Endpoint, ExternalPeer, Network } from '../../lib/model.ts';
import type { State } from '../contract.ts';
import { reservationAt, reservationOfMac } from './reserved.ts';

type Source = Pick<State, 'networks' | 'hosts' | 'blocks' | 'addresses' | 'endpoints' | 'externals' | 'reservations'>;

const refused = (message: string, hint: string): WeftError => new WeftError('FAILED_PRECONDITION', message, { hint });
const exists = (message: string, hint: string): WeftError => new WeftError('ALREADY_EXISTS', message, { hint });

/** The block that would give the address to an endpoint some day; undefined for auxiliary addresses, which no host gives out. */
export function blockAround(source: Source, network: Network, address: string): Block | undefined {
  const ip = tryParseIp(address);
  if (ip === null || Object.values(network.auxAddresses).includes(address)) return undefined;
  for (const block of source.blocks.get(network.id)?.values() ?? [])
    if (containsIp(parseCidr(block.cidr), ip)) return block;
  return undefined;
}

/** Why the peer cannot be added; null = it can. */
export function peerClash(source: Source, network: Network, peer: ExternalPeer): WeftError | null {
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
function usedElsewhere(source: Source, network: Network, peer: ExternalPeer): WeftError | null {
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
  return null;
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
  const claim = source.addresses.get(network.id)?.get(ip);
  if (claim !== undefined && claim.state !== 'refused')
    return exists(
      `the address ${ip} is held by host ${source.hosts.get(claim.hostId)?.name ?? claim.hostId}`,
      'choose another address',
    );
  const peer = others.find((other) => other.macs.some((known) => known.ip === ip));
  return peer === undefined ? null : exists(`the address ${ip} is behind peer ${peer.name}`, 'choose another address');
}

/** Why the endpoint may not be given the address; null = it may. Two endpoints may share one: that is what it is for. */
export function allowedClash(
  source: Source,
  network: Network,
  endpoint: Endpoint,
  { ip, mac }: AllowedAddress,
): WeftError | null {
  const other = (match: (e: Endpoint) => boolean): string | null =>
    endpointWith(source, network, (e) => e.id !== endpoint.id && match(e));
  const peers = [...(source.externals.get(network.id)?.values() ?? [])];
  if (ip !== '') {
    if (network.gateways.includes(ip)) return refused(`${ip} is the gateway of network ${network.name}`, OWN);
    const owner = other((e) => e.ips.includes(ip));
    if (owner !== null) return refused(`the address ${ip} is ${owner}'s own`, OWN);
    const peer = peers.find((p) => p.macs.some((known) => known.ip === ip));
    if (peer !== undefined) return refused(`the address ${ip} is behind peer ${peer.name}`, OWN);
    const reserved = reservationAt(source, network.id, ip);
    if (reserved !== undefined) return refused(`the address ${ip} is reserved as "${reserved.name}"`, OWN);
  }
  if (mac === '' || mac === endpoint.mac) return null;
  if (isDefaultForm(mac)) return refused(`the MAC ${mac} is of the form that the mesh gives`, OWN);
  const owner = other((e) => e.mac === mac);
  if (owner !== null) return refused(`the MAC ${mac} is ${owner}'s own`, OWN);
  const reserved = reservationOfMac(source, network.id, mac);
  if (reserved !== undefined) return refused(`the MAC ${mac} is reserved as "${reserved.name}"`, OWN);
  const peer = peers.find((p) => p.macs.some((known) => known.mac === mac));
  return peer === undefined ? null : refused(`the MAC ${mac} is behind peer ${peer.name}`, OWN);
}

const OWN = 'choose one that nobody has for itself';

/** The list after adding and removing. To remove an address without a MAC removes it with every MAC. */
export function changedAllowed(
  before: readonly AllowedAddress[],
  allow: readonly AllowedAddress[],
  disallow: readonly AllowedAddress[],
): AllowedAddress[] {
  const covers = (gone: AllowedAddress, one: AllowedAddress): boolean =>
    gone.ip === one.ip && (gone.mac === one.mac || (gone.mac === '' && gone.ip !== ''));
  const kept = before.filter((one) => !disallow.some((gone) => covers(gone, one)));
  const all = new Map([...kept, ...allow].map((one) => [`${one.ip} ${one.mac}`, one]));
  return [...all.values()].sort((a, b) => (`${a.ip} ${a.mac}` < `${b.ip} ${b.mac}` ? -1 : 1));
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

function endpointWith(source: Source, network: Network, match: (endpoint: Endpoint) => boolean): string | null {
  for (const endpoint of source.endpoints.get(network.id)?.values() ?? [])
    if (match(endpoint)) {
      const host = source.hosts.get(endpoint.hostId)?.name ?? endpoint.hostId;
      return `${endpointName(endpoint) || `endpoint ${endpoint.id.slice(0, 12)}`} on ${host}`;
    }
  return null;
}

function inside(subnet: string, address: string): boolean {
  const ip = tryParseIp(address);
  return ip !== null && isUsable(parseCidr(subnet), ip);
}
