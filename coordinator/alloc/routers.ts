/** Judges what is asked of a router, and makes it canonical. Pure: every refusal says which router, and what to do. */
import {
  type Cidr,
  containsCidr,
  containsIp,
  familyOf,
  formatCidr,
  formatIp,
  isUsable,
  overlaps,
  parseCidr,
  parseIp,
} from '../../lib/addr.ts';
import { middleCut, WeftError } from '../../lib/errors.ts';
import type { Network, Route, Router } from '../../lib/model.ts';
import { isLinked } from '../../lib/routers.ts';
import { SPECIAL_RANGES, TRANSIT_RANGE6 } from '../../lib/special-ranges.ts';
import type { NewRouter, State } from '../contract.ts';
import { about, canonicalLabels, type Refuse, refusal } from './policy-rules.ts';

/** Each is guarded in the router's transaction. */
export const MAX_NETWORKS = 32;
export const MAX_ROUTES = 256;
export const MAX_HOPS = 16;

export type RouterSources = Pick<State, 'networks' | 'routers' | 'services'>;

/**
 * @param asked networks by their ids; id and times mean nothing
 * @throws INVALID_ARGUMENT what no router can be; NOT_FOUND a network; FAILED_PRECONDITION what these networks cannot have
 */
export function checkRouter(sources: RouterSources, asked: NewRouter): NewRouter {
  if (!/^[a-z0-9]([a-z0-9_-]{0,61}[a-z0-9])?$/.test(asked.name))
    throw new WeftError('INVALID_ARGUMENT', `"${middleCut(asked.name)}" cannot be the name of a router.`, {
      hint: 'use 1 to 63 lower-case letters, digits, "-" or "_", beginning and ending with a letter or digit',
    });
  const refuse = refusal(`Router ${asked.name}`);
  const networks = networksOf(sources, asked.networkIds, refuse);
  if (asked.routes.length > MAX_ROUTES)
    throw refuse(`it has more than ${MAX_ROUTES} routes`, 'give fewer, or longer ranges');
  const routes = checkRoutes(sources, networks, asked.routes, refuse);
  if (networks.length === 1 && routes.length === 0)
    throw refuse('it leads nowhere', 'give it another network (--network), or a route (--route CIDR via IP)');
  refuseAmbiguous(sources, asked, networks, routes, refuse);
  return {
    project: asked.project,
    name: asked.name,
    networkIds: networks.map(({ id }) => id),
    routes,
    labels: canonicalLabels(refuse, asked.labels),
  };
}

function networksOf({ networks }: RouterSources, ids: readonly string[], refuse: Refuse): Network[] {
  if (ids.length === 0) throw refuse('it has no network', 'give it networks: --network');
  if (ids.length > MAX_NETWORKS) throw refuse(`it has more than ${MAX_NETWORKS} networks`, 'make several routers');
  const found = ids.map((id) => {
    const network = networks.get(id);
    if (network === undefined) throw refuse(`there is no network ${id}`, 'list them: weft network ls', 'NOT_FOUND');
    return network;
  });
  for (const [i, network] of found.entries()) {
    if (found.indexOf(network) !== i) throw refuse(`network ${network.name} is given twice`, 'give each once');
    if (network.state !== 'bound')
      throw refuse(`network ${network.id} has no name yet`, 'try again', 'FAILED_PRECONDITION');
    if (network.encap === 'vlan')
      throw refuse(
        `network ${network.name} is a vlan, whose machines have a router of their own`,
        'take networks of another encapsulation',
        'FAILED_PRECONDITION',
      );
    for (const other of found.slice(0, i)) refuseStrangers(other, network, refuse);
  }
  return found;
}

/** Within one address space no two networks overlap. */
function refuseStrangers(a: Network, b: Network, refuse: Refuse): void {
  for (const mine of a.subnets)
    for (const other of b.subnets)
      if (overlaps(parseCidr(mine), parseCidr(other)))
        throw refuse(
          `the subnets of network ${a.name} (${mine}) and network ${b.name} (${other}) overlap`,
          'a router needs networks whose addresses differ: make one of them with another --subnet',
          'FAILED_PRECONDITION',
        );
  if (a.space !== b.space)
    throw refuse(
      `network ${a.name} is in address space ${a.space}, and network ${b.name} in ${b.space}`,
      'a router lives in one address space: take networks of one',
      'FAILED_PRECONDITION',
    );
}

function checkRoutes(
  sources: RouterSources,
  networks: readonly Network[],
  asked: readonly Route[],
  refuse: Refuse,
): Route[] {
  const routes = asked.map((route) => checkRoute(sources, networks, route, refuse));
  for (const [i, { cidr }] of routes.entries())
    if (routes.findIndex((r) => r.cidr === cidr) !== i)
      throw refuse(`the route to ${cidr} is given twice`, 'give it once, with several next hops: via IP,IP');
  return routes;
}

function checkRoute(sources: RouterSources, networks: readonly Network[], asked: Route, refuse: Refuse): Route {
  const where = `route to ${middleCut(asked.cidr)}`;
  const cidr = about('Route', () => parseCidr(asked.cidr));
  const never = NEVER.find((range) => containsCidr(range, cidr));
  if (never !== undefined)
    throw refuse(`${where}: nothing is led to ${formatCidr(never)}`, 'give a range of unicast addresses');
  for (const network of networks)
    for (const subnet of network.subnets)
      if (containsCidr(parseCidr(subnet), cidr))
        throw refuse(
          `${where}: it is in the subnet ${subnet} of network ${network.name}, which is led to anyway`,
          'give a range outside the networks of the router',
        );
  if (asked.via.length === 0) throw refuse(`${where}: it has no next hop`, 'write CIDR via IP');
  if (asked.via.length > MAX_HOPS) throw refuse(`${where}: it has more than ${MAX_HOPS} next hops`, 'give fewer');
  const via = asked.via.map((text) =>
    checkHop(sources, networks, { where, family: familyOf(cidr.base) }, text, refuse),
  );
  const twice = via.find((ip, i) => via.indexOf(ip) !== i);
  if (twice !== undefined) throw refuse(`${where}: the next hop ${twice} is given twice`, 'give each once');
  return { cidr: formatCidr(cidr), via };
}

function checkHop(
  { services }: RouterSources,
  networks: readonly Network[],
  route: { readonly where: string; readonly family: 4 | 6 },
  text: string,
  refuse: Refuse,
): string {
  const ip = about(`Route ${route.where}`, () => parseIp(text));
  const canonical = formatIp(ip);
  const bad = (why: string, hint: string): WeftError => refuse(`${route.where}: ${canonical} ${why}`, hint);
  if (familyOf(ip) !== route.family)
    throw bad(`is no IPv${route.family} address`, 'a next hop is of the family of its range');
  for (const network of networks)
    for (const subnet of network.subnets) {
      if (!containsIp(parseCidr(subnet), ip)) continue;
      if (!isUsable(parseCidr(subnet), ip))
        throw bad(`can be no container’s in ${subnet}`, 'give a container’s address');
      if (network.gateways.includes(canonical))
        throw bad(`is the gateway of network ${network.name}`, 'give the address of a container that leads on');
      const service = services
        .get(network.id)
        ?.values()
        .find(({ ips }) => ips.includes(canonical));
      if (service !== undefined)
        throw bad(`is the address of service ${service.name}`, 'give the address of a container that leads on');
      return canonical;
    }
  throw bad('is in none of its networks', 'give an address of a network that the router has');
}

/** Two routers of one network may not lead to one range in two ways. */
function refuseAmbiguous(
  { routers, networks: all }: RouterSources,
  asked: NewRouter,
  networks: readonly Network[],
  routes: readonly Route[],
  refuse: Refuse,
): void {
  const subnetsOf = (ids: readonly string[], but: string): { cidr: string; network: string | null }[] =>
    ids.flatMap((id) => {
      const network = id === but ? undefined : all.get(id);
      return (network?.subnets ?? []).map((cidr) => ({ cidr, network: network?.name ?? id }));
    });
  for (const other of routers.values()) {
    if (other.project !== asked.project || other.name === asked.name || !isLinked(other, asked)) continue;
    for (const { id, name } of networks) {
      if (!other.networkIds.includes(id)) continue;
      const theirs = [
        ...other.routes.map((r) => ({ cidr: r.cidr, network: null })),
        ...subnetsOf(other.networkIds, id),
      ];
      const mine = [...routes.map((r) => ({ cidr: r.cidr, network: null })), ...subnetsOf(asked.networkIds, id)];
      for (const a of mine) {
        const b = theirs.find(({ cidr, network }) => cidr === a.cidr && (network === null || network !== a.network));
        if (b !== undefined)
          throw refuse(
            `router ${other.name} of network ${name} has a way to ${a.cidr} already`,
            'lead to a range by one router of a network',
            'FAILED_PRECONDITION',
          );
      }
    }
  }
}

/** Ranges that nothing is led to. */
const NEVER: readonly Cidr[] = [...SPECIAL_RANGES, TRANSIT_RANGE6];

/**
 * The present router with networks and routes that come and go; one route to a range. What is to go and is not there is gone: the same change
 * may be made twice.
 * @throws INVALID_ARGUMENT a network that is to come and to go
 */
export function editedRouter(
  present: Router,
  change: {
    readonly addNetworks: readonly Network[];
    readonly removeNetworks: readonly Network[];
    readonly addRoutes: readonly Route[];
    readonly removeRoutes: readonly string[];
  },
): NewRouter {
  const refuse = refusal(`Router ${present.name}`);
  for (const { id, name } of change.removeNetworks)
    if (change.addNetworks.some((n) => n.id === id))
      throw refuse(`network ${name} is to come and to go`, 'give it once');
  const gone = change.removeRoutes.map((text) => formatCidr(about('Route', () => parseCidr(text))));
  const added = change.addRoutes.map((r) => ({ ...r, cidr: formatCidr(about('Route', () => parseCidr(r.cidr))) }));
  const away = new Set(change.removeNetworks.map(({ id }) => id));
  const kept = present.networkIds.filter((id) => !away.has(id));
  const replaced = new Set([...gone, ...added.map(({ cidr }) => cidr)]);
  const { project, name, labels } = present;
  return {
    project,
    name,
    networkIds: [...kept, ...change.addNetworks.map(({ id }) => id).filter((id) => !kept.includes(id))],
    routes: [...present.routes.filter(({ cidr }) => !replaced.has(cidr)), ...added],
    labels,
  };
}
