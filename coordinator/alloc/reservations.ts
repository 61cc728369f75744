/** Judges reservations: what is asked for by itself, and against what the network has. Pure. */
import { familyOfText, formatIp } from '../../lib/addr.ts';
import { allowedMac } from '../../lib/allowed.ts';
import { endpointName } from '../../lib/endpoint-name.ts';
import { middleCut, WeftError } from '../../lib/errors.ts';
import { isDefaultForm, macOfIp, normalMac } from '../../lib/mac.ts';
import type { Address, Endpoint, Network, Reservation } from '../../lib/model.ts';
import type { NewReservation, State } from '../contract.ts';
import { spokenFor, whoIs } from './externals.ts';
import { checkAssignable } from './families.ts';
import { reservationAt, reservationOfMac, serviceAt } from './reserved.ts';

export const MAX_RESERVATIONS = 1000;

type Source = Pick<State, 'hosts' | 'addresses' | 'endpoints' | 'externals' | 'settings' | 'reservations' | 'services'>;

const invalid = (message: string, hint: string): WeftError => new WeftError('INVALID_ARGUMENT', message, { hint });
const taken = (message: string, hint = 'choose another address'): WeftError =>
  new WeftError('ALREADY_EXISTS', message, { hint });

/** Canonical. @throws INVALID_ARGUMENT what can be no reservation of the network, whatever else is there */
export function checkReservation(network: Network, asked: Reservation): NewReservation {
  if (!/^[a-zA-Z0-9][a-zA-Z0-9_.-]{0,62}$/.test(asked.name))
    throw invalid(
      `"${middleCut(asked.name)}" cannot be the name of a reservation.`,
      'use 1 to 63 letters, digits, "_", "." or "-", beginning with a letter or digit',
    );
  if (asked.ips.length === 0) throw invalid('A reservation needs an address.', 'give --ip');
  const ips = asked.ips.map((text) => formatIp(checkAssignable(network, text).ip));
  ips.sort((a, b) => familyOfText(a) - familyOfText(b));
  if (ips.length > 2 || (ips.length === 2 && familyOfText(ips[0]!) === familyOfText(ips[1]!)))
    throw invalid('A reservation has one address of each family.', 'give --ip once for IPv4, and once for IPv6');
  const mac = asked.mac === '' ? '' : normalMac(asked.mac);
  if (mac !== '' && isDefaultForm(mac) && !ips.some((ip) => familyOfText(ip) === 4 && macOfIp(ip) === mac))
    throw invalid(
      `The MAC ${mac} is of the form that the mesh gives, and belongs to another address.`,
      'leave --mac out, or choose a MAC that does not begin with 02:57 to 02:5c',
    );
  return { networkId: network.id, name: asked.name, ips, mac, labels: { ...asked.labels } };
}

/** Why it cannot be; null = it can, if those agree who must. */
export function reservationClash(source: Source, network: Network, wanted: NewReservation): WeftError | null {
  const mine = source.reservations.get(network.id);
  if (mine?.has(wanted.name) === true)
    return taken(`network ${network.name} has a reservation named "${wanted.name}"`, 'choose another name');
  if ((mine?.size ?? 0) >= MAX_RESERVATIONS)
    return new WeftError('RESOURCE_EXHAUSTED', `network ${network.name} has ${MAX_RESERVATIONS} reservations`, {
      hint: 'remove some that are not used',
    });
  for (const ip of wanted.ips) {
    const clash = addressClash(source, network, wanted, ip);
    if (clash !== null) return clash;
  }
  return wanted.mac === '' ? null : macClash(source, network, wanted);
}

function addressClash(source: Source, network: Network, wanted: NewReservation, ip: string): WeftError | null {
  const what = `the address ${ip} of network ${network.name}`;
  const other = reservationAt(source, network.id, ip);
  if (other !== undefined) return taken(`${what} is reserved as "${other.name}"`);
  const service = serviceAt(source, network.id, ip);
  if (service !== undefined) return taken(`${what} is the address of service ${service.name}`);
  if (spokenFor(source, network.id).has(ip))
    return taken(`${what} is an allowed address of an endpoint, or behind an external peer`);
  const user = endpointOf(source, network.id, (e) => e.ips.includes(ip) && endpointName(e) !== wanted.name);
  if (user !== undefined) return taken(`${what} is in use by ${textOf(source, user)}`);
  const claim = source.addresses.get(network.id)?.get(ip);
  if (claim?.state === 'claimed') return taken(`${what} is being claimed by host ${hostName(source, claim.hostId)}`);
  return null;
}

function macClash(source: Source, network: Network, wanted: NewReservation): WeftError | null {
  const { mac } = wanted;
  const what = `the MAC ${mac} of network ${network.name}`;
  const hint = 'choose another MAC, or leave --mac out';
  const other = reservationOfMac(source, network.id, mac);
  if (other !== undefined) return taken(`${what} is reserved as "${other.name}"`, hint);
  for (const peer of source.externals.get(network.id)?.values() ?? [])
    if (peer.macs.some((known) => known.mac === mac)) return taken(`${what} is behind peer ${peer.name}`, hint);
  const holder = boundTo(source, wanted);
  const sharer = allowedMac(source.settings.get(network.id)?.values() ?? [], mac, holder?.id ?? '');
  if (sharer !== null)
    return taken(
      `${what}, or its link-local address, is one that ${whoIs(source, network, sharer)} may send from`,
      hint,
    );
  const user = endpointOf(source, network.id, (e) => e.mac === mac && e !== holder);
  if (user !== undefined) return taken(`${what} is in use by ${textOf(source, user)}`, hint);
  if (holder === undefined || holder.mac === mac) return null;
  return new WeftError(
    'FAILED_PRECONDITION',
    `${textOf(source, holder)} has the MAC ${holder.mac}, and keeps it while it runs`,
    { hint: 'leave --mac out, or make the reservation while the container is stopped' },
  );
}

/** The endpoint that has the reservation's name and one of its addresses already. */
export const boundTo = (source: Source, wanted: NewReservation): Endpoint | undefined =>
  endpointOf(
    source,
    wanted.networkId,
    (e) => endpointName(e) === wanted.name && e.ips.some((ip) => wanted.ips.includes(ip)),
  );

/** Where none was given, the MAC that the holder was given. */
export function withMac(source: Source, wanted: NewReservation): NewReservation {
  const holder = boundTo(source, wanted);
  return wanted.mac === '' && holder?.givenMac === true ? { ...wanted, mac: holder.mac } : wanted;
}

/** The endpoint that uses the reservation now. */
export const holderOf = (source: Pick<State, 'endpoints'>, { networkId, ips }: Reservation): Endpoint | undefined =>
  endpointOf(source, networkId, (e) => e.ips.some((ip) => ips.includes(ip)));

/** The host that must agree to the address becoming reserved: who holds it, or has its block. Null: nobody. */
export function mustAgree(claim: Address | undefined, blockHolder: string | undefined): string | null {
  return claim !== undefined && claim.state !== 'refused' ? claim.hostId : (blockHolder ?? null);
}

function endpointOf(
  source: Pick<State, 'endpoints'>,
  networkId: string,
  match: (endpoint: Endpoint) => boolean,
): Endpoint | undefined {
  return source.endpoints.get(networkId)?.values().find(match);
}

const hostName = (source: Pick<State, 'hosts'>, id: string): string => source.hosts.get(id)?.name ?? id;

/** Who it is, as part of a sentence. */
export function textOf(source: Pick<State, 'hosts'>, e: Endpoint): string {
  const what =
    e.container === undefined ? `endpoint ${endpointName(e) || e.id.slice(0, 12)}` : `container ${e.container.name}`;
  return `${what} on host ${hostName(source, e.hostId)}`;
}
