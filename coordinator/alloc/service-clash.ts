/** What a service must not take from others, and addresses for it where none is given. Pure. */
import { byBase, type Cidr, type Family, familyOfText, formatIp, lastOf, parseCidr } from '../../lib/addr.ts';
import { WeftError } from '../../lib/errors.ts';
import type { Block, Network, Router, Service, ServicePort } from '../../lib/model.ts';
import { MAX_PUBLISHED_SERVICES } from '../../lib/published-services.ts';
import type { NewService, State } from '../contract.ts';
import { type AddressPlan, addressPlan, isAssignable } from './blocks.ts';
import { spokenFor } from './externals.ts';
import { textOf } from './reservations.ts';
import { reservationAt, serviceAt } from './reserved.ts';

export const MAX_SERVICES = 2000;

type Source = Pick<
  State,
  'networks' | 'hosts' | 'addresses' | 'endpoints' | 'externals' | 'settings' | 'reservations' | 'services' | 'routers'
>;

const taken = (message: string, hint = 'choose another address'): WeftError =>
  new WeftError('ALREADY_EXISTS', message, { hint });

/** Why it cannot be; null = it can, if those agree who must. */
export function serviceClash(source: Source, network: Network, wanted: NewService): WeftError | null {
  const mine = source.services.get(network.id);
  if (mine?.has(wanted.name) === true)
    return taken(`network ${network.name} has a service named "${wanted.name}"`, 'choose another name');
  if ((mine?.size ?? 0) >= MAX_SERVICES)
    return new WeftError('RESOURCE_EXHAUSTED', `network ${network.name} has ${MAX_SERVICES} services`, {
      hint: 'remove some that are not used',
    });
  for (const ip of wanted.ips) {
    const clash = addressClash(source, network, ip);
    if (clash !== null) return clash;
  }
  return wanted.publish === '' ? null : (tooManyPublished(source) ?? portClash(source, wanted));
}

function addressClash(source: Source, network: Network, ip: string): WeftError | null {
  const what = `the address ${ip} of network ${network.name}`;
  const other = serviceAt(source, network.id, ip);
  if (other !== undefined) return taken(`${what} is the address of service ${other.name}`);
  const reserved = reservationAt(source, network.id, ip);
  if (reserved !== undefined) return taken(`${what} is reserved as "${reserved.name}"`);
  if (spokenFor(source, network.id).has(ip))
    return taken(`${what} is an allowed address of an endpoint, or behind an external peer`);
  const router = nextHopOf(source, network.id, ip);
  if (router !== undefined) return taken(`${what} is a next hop of router ${router.name}`);
  const user = source.endpoints
    .get(network.id)
    ?.values()
    .find((e) => e.ips.includes(ip));
  if (user !== undefined) return taken(`${what} is in use by ${textOf(source, user)}`);
  const claim = source.addresses.get(network.id)?.get(ip);
  if (claim?.state === 'claimed')
    return taken(`${what} is being claimed by host ${source.hosts.get(claim.hostId)?.name ?? claim.hostId}`);
  return null;
}

const nextHopOf = ({ routers }: Source, networkId: string, ip: string): Router | undefined =>
  routers
    .values()
    .find(({ networkIds, routes }) => networkIds.includes(networkId) && routes.some(({ via }) => via.includes(ip)));

function tooManyPublished(source: Source): WeftError | null {
  let published = 0;
  for (const services of source.services.values())
    for (const { publish } of services.values()) if (publish !== '') published++;
  if (published < MAX_PUBLISHED_SERVICES) return null;
  return new WeftError('RESOURCE_EXHAUSTED', `ports of the hosts lead to ${published} services already`, {
    hint: 'leave --publish out, or remove published services that are not used: weft service ls',
  });
}

/** A port of the hosts leads to one service of the mesh, whatever its network. */
function portClash(source: Source, { ports }: NewService): WeftError | null {
  const key = (p: ServicePort): string => `${p.hostPort}/${p.protocol}`;
  const wanted = new Set(ports.filter((p) => p.hostPort !== 0).map(key));
  for (const [networkId, services] of source.services)
    for (const other of services.values()) {
      const port = other.publish === '' ? undefined : other.ports.find((p) => p.hostPort !== 0 && wanted.has(key(p)));
      if (port === undefined) continue;
      const where = source.networks.get(networkId)?.name ?? networkId;
      return taken(
        `the port ${key(port)} of the hosts leads to service ${other.name} of network ${where}`,
        'choose another port: --publish HOSTPORT:PORT',
      );
    }
  return null;
}

/** Families of the network in which an address is to be picked. */
export function familiesToPick(network: Network, { ips, headless }: Pick<Service, 'ips' | 'headless'>): Family[] {
  if (headless) return [];
  const given = new Set(ips.map(familyOfText));
  return network.subnets.map(familyOfText).filter((family) => !given.has(family));
}

/**
 * An address that is in nobody's block, so that nobody need be asked: the highest one, for blocks are cut from the lowest on; outside
 * the ip-range rather than in it.
 * @param occupied single addresses that are somebody's
 * @returns null where there is none
 */
export function pickOutside(
  network: Network,
  family: Family,
  blocks: Iterable<Pick<Block, 'cidr'>>,
  occupied: ReadonlySet<string>,
): string | null {
  const plan = addressPlan(network, family);
  if (plan === null) return null;
  const whole = addressPlan({ ...network, ipRange: '' }, family)!.range;
  const taken = [...blocks].filter(({ cidr }) => familyOfText(cidr) === family).map(({ cidr }) => parseCidr(cidr));
  return highest(plan, whole, [...taken, plan.range], occupied) ?? highest(plan, plan.range, taken, occupied);
}

function highest(plan: AddressPlan, space: Cidr, taken: readonly Cidr[], occupied: ReadonlySet<string>): string | null {
  const spans = taken.map((one) => ({ base: one.base, last: lastOf(one) })).sort((a, b) => (a.last > b.last ? -1 : 1));
  let ip = lastOf(space);
  let i = 0;
  while (ip >= space.base) {
    const next = spans[i];
    if (next !== undefined && next.last >= ip) {
      if (next.base <= ip) ip = next.base - 1n;
      i++;
      continue;
    }
    const text = formatIp(ip);
    if (isAssignable(plan, ip) && !occupied.has(text)) return text;
    ip--;
  }
  return null;
}

/**
 * Where every address lies in somebody's block: one that is not known to be used, the highest first.
 * @param occupied single addresses that are somebody's
 * @param pass blocks and addresses that are not to be tried (again)
 */
export function pickInBlocks(
  network: Network,
  family: Family,
  blocks: Iterable<Block>,
  occupied: ReadonlySet<string>,
  pass: { readonly block: (block: Block) => boolean; readonly ip: ReadonlySet<string> },
): string | null {
  const plan = addressPlan(network, family);
  if (plan === null) return null;
  const mine = [...blocks].filter((block) => familyOfText(block.cidr) === family && !pass.block(block));
  const cidrs = mine.map((block) => parseCidr(block.cidr)).sort((a, b) => byBase(b, a));
  for (const cidr of cidrs)
    for (let ip = lastOf(cidr); ip >= cidr.base; ip--) {
      const text = formatIp(ip);
      if (isAssignable(plan, ip) && !occupied.has(text) && !pass.ip.has(text)) return text;
    }
  return null;
}

/** Addresses of the network that somebody has, or may use, by themselves. */
export function occupiedAddresses(source: Source, networkId: string): Set<string> {
  const found = spokenFor(source, networkId);
  for (const { ips } of source.endpoints.get(networkId)?.values() ?? []) for (const ip of ips) found.add(ip);
  for (const { ips } of source.reservations.get(networkId)?.values() ?? []) for (const ip of ips) found.add(ip);
  for (const { ips } of source.services.get(networkId)?.values() ?? []) for (const ip of ips) found.add(ip);
  for (const { networkIds, routes } of source.routers.values())
    if (networkIds.includes(networkId)) for (const ip of routes.flatMap(({ via }) => via)) found.add(ip);
  for (const claim of source.addresses.get(networkId)?.values() ?? [])
    if (claim.state !== 'refused') found.add(claim.address);
  return found;
}
