/** Addresses that an endpoint is allowed besides its own: what it must not take away from others, and whose leave it needs. Pure. */
import {
  containsIp,
  familyOf,
  formatCidr,
  formatIp,
  isIp4,
  isUsable,
  lastOf,
  parseCidr,
  parseIp,
  subnetOf,
} from '../../lib/addr.ts';
import { macOfLinkLocal } from '../../lib/allowed.ts';
import { WeftError } from '../../lib/errors.ts';
import { isDefaultForm } from '../../lib/mac.ts';
import type { AllowedAddress, Endpoint, Network } from '../../lib/model.ts';
import type { Grantor, State } from '../contract.ts';
import { blockAround, endpointWith } from './externals.ts';
import { reservationAt, reservationOfMac, serviceAt } from './reserved.ts';

type Source = Pick<
  State,
  'hosts' | 'blocks' | 'addresses' | 'endpoints' | 'externals' | 'settings' | 'reservations' | 'services'
>;

const OWN = 'choose one that nobody has for itself';
const ROUTER = 'what a router forwards it may send from a MAC: --allow-address ,MAC';

const refused = (message: string, hint = OWN): WeftError => new WeftError('FAILED_PRECONDITION', message, { hint });
const invalid = (message: string, hint: string): WeftError => new WeftError('INVALID_ARGUMENT', message, { hint });

/** Multicast, and the broadcast of IPv4. */
const GROUPS = ['224.0.0.0/4', '255.255.255.255/32', 'ff00::/8'].map(parseCidr);
const LINK_LOCAL = parseCidr('fe80::/64');

/** Why the endpoint may not be given the address; null = it may. Two endpoints may share one: that is what it is for. */
export function allowedClash(
  source: Source,
  network: Network,
  endpoint: Endpoint,
  { ip, mac }: AllowedAddress,
): WeftError | null {
  return (ip === '' ? null : ipClash(source, network, endpoint, ip)) ?? macClash(source, network, endpoint, mac);
}

function ipClash(source: Source, network: Network, endpoint: Endpoint, text: string): WeftError | null {
  const ip = parseIp(text);
  if (GROUPS.some((group) => containsIp(group, ip)))
    return invalid(`${text} is the address of a group, which nobody sends from`, OWN);
  const linkLocal = containsIp(LINK_LOCAL, ip);
  const subnet = linkLocal ? LINK_LOCAL : subnetOf(network, familyOf(ip));
  if (subnet === null || !containsIp(subnet, ip))
    return invalid(`the address ${text} is not in ${network.subnets.join(' or ')} of network ${network.name}`, ROUTER);
  if (!isUsable(subnet, ip))
    return invalid(
      `${text} is the ${isIp4(ip) && ip === lastOf(subnet) ? 'broadcast' : 'network'} address of ${formatCidr(subnet)}`,
      OWN,
    );
  if (linkLocal) return linkLocalClash(source, network, endpoint, ip);
  if (network.gateways.includes(text)) return refused(`${text} is the gateway of network ${network.name}`);
  if (endpoint.ips.includes(text)) return refused(`the address ${text} is the endpoint's own`, 'it may have it anyway');
  const owner = endpointWith(source, network, (e) => e.ips.includes(text));
  if (owner !== null) return refused(`the address ${text} is ${owner}'s own`);
  const reserved = reservationAt(source, network.id, text);
  if (reserved !== undefined) return refused(`the address ${text} is reserved as "${reserved.name}"`);
  const service = serviceAt(source, network.id, text);
  if (service !== undefined) return refused(`the address ${text} is the address of service ${service.name}`);
  const claim = source.addresses.get(network.id)?.get(text);
  if (claim !== undefined && claim.state !== 'refused') {
    const host = source.hosts.get(claim.hostId)?.name ?? claim.hostId;
    return refused(`the address ${text} is held by host ${host}`);
  }
  const peer = peersOf(source, network).find((p) => p.macs.some((known) => known.ip === text));
  return peer === undefined ? null : refused(`the address ${text} is behind peer ${peer.name}`);
}

/**
 * A virtual one (VRRP over IPv6 has one, RFC 5798 §5.2.9) is nobody's. One that is made of a MAC belongs to whoever has the MAC: to a
 * known one, or to the next endpoint that gets an address.
 */
function linkLocalClash(source: Source, network: Network, endpoint: Endpoint, ip: bigint): WeftError | null {
  const text = formatIp(ip);
  const mac = macOfLinkLocal(ip);
  if (mac === null) return null;
  if (mac === endpoint.mac) return refused(`the address ${text} is the endpoint's own`, 'it may have it anyway');
  const owner = endpointWith(source, network, (e) => e.mac === mac);
  if (owner !== null) return refused(`the address ${text} is ${owner}'s own: it is made of the MAC ${mac}`);
  if (isDefaultForm(mac))
    return refused(`the address ${text} is made of ${mac}, a MAC of the form that the mesh gives`);
  const reserved = reservationOfMac(source, network.id, mac);
  if (reserved !== undefined)
    return refused(`the address ${text} is made of the MAC ${mac}, which is reserved as "${reserved.name}"`);
  const peer = peersOf(source, network).find((p) => p.macs.some((known) => known.mac === mac));
  return peer === undefined
    ? null
    : refused(`the address ${text} is made of the MAC ${mac}, which is behind peer ${peer.name}`);
}

function macClash(source: Source, network: Network, endpoint: Endpoint, mac: string): WeftError | null {
  if (mac === '' || mac === endpoint.mac) return null;
  if (isDefaultForm(mac)) return refused(`the MAC ${mac} is of the form that the mesh gives`);
  const owner = endpointWith(source, network, (e) => e.mac === mac);
  if (owner !== null) return refused(`the MAC ${mac} is ${owner}'s own`);
  const reserved = reservationOfMac(source, network.id, mac);
  if (reserved !== undefined) return refused(`the MAC ${mac} is reserved as "${reserved.name}"`);
  const peer = peersOf(source, network).find((p) => p.macs.some((known) => known.mac === mac));
  return peer === undefined ? null : refused(`the MAC ${mac} is behind peer ${peer.name}`);
}

const peersOf = (source: Source, network: Network) => [...(source.externals.get(network.id)?.values() ?? [])];

/**
 * Whom to ask, after `granted` have said yes; addresses that some endpoint is allowed already are nobody's to give out.
 * @returns also those endpoints (ids): it is their settings that this relies on
 */
export function leaveNeeded(
  source: Source,
  network: Network,
  allow: readonly AllowedAddress[],
  granted: readonly Grantor[],
): { readonly ask: readonly Grantor[]; readonly sharedWith: readonly string[] } {
  const ask: Grantor[] = [];
  const sharedWith = new Set<string>();
  for (const ip of new Set(allow.map((one) => one.ip).filter((text) => text !== ''))) {
    const hostId = blockAround(source, network, ip)?.hostId;
    if (hostId === undefined || granted.some((one) => one.ip === ip && one.hostId === hostId)) continue;
    const settings = [...(source.settings.get(network.id)?.values() ?? [])];
    const sharer = settings.find(({ allowed }) => allowed.some((one) => one.ip === ip));
    if (sharer === undefined) ask.push({ ip, hostId });
    else sharedWith.add(sharer.endpointId);
  }
  return { ask, sharedWith: [...sharedWith] };
}

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
