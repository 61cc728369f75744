/** Where routers lead from a network of this host, out of the catalogue: as its bridge has to know it, and as its containers do. Pure. */
import {
  containsIp,
  type Family,
  familyOf,
  familyOfText,
  formatCidr,
  halves,
  lengthOf,
  ofFamily,
  parseCidr,
  parseIp,
  subnetOf,
} from '../../lib/addr.ts';
import type { Network, Route, Router, View } from '../../lib/model.ts';
import type { LocalEndpoint, LocalNetwork } from '../contract.ts';
import type { Hop, RouteModel, Routing } from '../flows/model.ts';
import { routerMac } from '../gateway/addresses.ts';

type Networks = ReadonlyMap<string, LocalNetwork>;

/** Null: no router leads from there. @param mtuOf what is taken in a network, bytes */
export function routingOf(
  view: Pick<View, 'routers' | 'networks'>,
  hostId: string,
  networks: Networks,
  network: Network,
  mtuOf: (network: Network) => number,
): Routing | null {
  const routers = of(view.routers.values(), network);
  if (routers.length === 0) return null;
  const others = new Map<string, LocalNetwork>();
  const routes: RouteModel[] = [];
  for (const router of routers) {
    const here = membersOf(router, networks);
    for (const row of here) {
      if (row.network.id === network.id || others.has(row.network.id)) continue;
      others.set(row.network.id, row);
      const hop: Hop = { network: row.index, ip: null, mtu: mtuOf(row.network) };
      for (const cidr of row.network.subnets)
        if (subnetOf(network, familyOfText(cidr)) !== null) routes.push({ to: parseCidr(cidr), hops: [hop] });
    }
    for (const route of router.routes) {
      const hops = hopsOf(route, network, here, mtuOf);
      if (hops.length > 0) routes.push({ to: parseCidr(route.cidr), hops });
    }
  }
  const gateways = (n: Network): bigint[] => n.gateways.map(parseIp);
  return {
    mac: routerMac(hostId),
    own: gateways(network),
    answering: [...gateways(network), ...[...others.values()].flatMap((row) => gateways(row.network))],
    subnets: network.subnets.map(parseCidr),
    routes: routes.sort(byRange),
  };
}

const of = (routers: Iterable<Router>, { id, encap }: Network): Router[] =>
  encap === 'vlan'
    ? []
    : [...routers].filter((r) => r.networkIds.includes(id)).sort((a, b) => (a.name < b.name ? -1 : 1));

const membersOf = (router: Router, networks: Networks): LocalNetwork[] =>
  router.networkIds.flatMap((id) => {
    const row = networks.get(id);
    return row === undefined ? [] : [row];
  });

function hopsOf(
  route: Route,
  network: Network,
  here: readonly LocalNetwork[],
  mtuOf: (network: Network) => number,
): Hop[] {
  if (subnetOf(network, familyOfText(route.cidr)) === null) return [];
  return route.via.flatMap((text): Hop[] => {
    const ip = parseIp(text);
    const at = here.find((row) => row.network.subnets.some((cidr) => containsIp(parseCidr(cidr), ip)));
    return at === undefined ? [] : [{ network: at.index, ip, mtu: mtuOf(at.network) }];
  });
}

const byRange = (a: RouteModel, b: RouteModel): number =>
  a.to.base < b.to.base ? -1 : a.to.base > b.to.base ? 1 : a.to.prefix - b.to.prefix;

/**
 * The default route itself is Docker's, which sets it and takes it away. A container that has none gets the two halves of everything.
 * @param alone the container is in no other network, by which Docker may lead it out
 */
function rangesOf(cidr: string, network: Network, alone: boolean): string[] {
  const range = parseCidr(cidr);
  if (lengthOf(range) > 0) return [cidr];
  return alone && network.internal ? halves(range).map(formatCidr) : [];
}

/** A range that a container reaches by a gateway. */
export interface ContainerRoute {
  readonly cidr: string;
  readonly via: string;
}

/**
 * What an endpoint's container routes by it besides: its default route may lead by another of its networks, or nowhere.
 * @param others endpoints of the same container: a range that one of them has is not routed twice (theirs come first)
 */
export function containerRoutes(
  view: Pick<View, 'routers' | 'networks'>,
  e: Pick<LocalEndpoint, 'networkId' | 'ip' | 'ip6'>,
  network: Network,
  others: readonly Pick<LocalEndpoint, 'networkId' | 'routed'>[],
): ContainerRoute[] {
  const taken = new Set(others.flatMap((o) => (o.routed ?? []).map(({ cidr }) => cidr)));
  const links = new Set(others.flatMap((o) => view.networks.get(o.networkId)?.subnets ?? []).concat(network.subnets));
  const gateways: Record<Family, string | undefined> = {
    4: e.ip === '' ? undefined : ofFamily(network.gateways, 4)[0],
    6: e.ip6 === '' ? undefined : ofFamily(network.gateways, 6)[0],
  };
  const routes = new Map<string, ContainerRoute>();
  for (const router of of(view.routers.values(), network)) {
    const subnets = router.networkIds.flatMap((id) =>
      id === network.id ? [] : (view.networks.get(id)?.subnets ?? []),
    );
    for (const cidr of [...subnets, ...router.routes.map((r) => r.cidr)]) {
      const via = gateways[familyOf(parseCidr(cidr).base)];
      if (via === undefined) continue;
      for (const one of rangesOf(cidr, network, others.length === 0))
        if (!taken.has(one) && !links.has(one)) routes.set(one, { cidr: one, via });
    }
  }
  return [...routes.values()].sort((a, b) => (a.cidr < b.cidr ? -1 : 1));
}
