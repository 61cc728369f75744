/**
 * Who gets a packet, said once more: plainly, and by nothing of the product but its types. Tests hold the real pipeline to it.
 */
import { contains, type RefEndpoint, type RefMesh } from './policy.ts';

export interface RefRouter {
  /** Ids. */
  readonly networks: readonly string[];
  readonly routes: readonly { readonly cidr: string; readonly via: readonly string[] }[];
}

export interface RefRoutedMesh extends RefMesh {
  readonly routers: readonly RefRouter[];
}

/**
 * Those who may get it: one of them does, if policies let it. Several where a route has several next hops, none where nobody is there, or
 * nothing leads there.
 * @param to an address of a family that the source has
 */
export function receivers(mesh: RefRoutedMesh, source: RefEndpoint, to: string): RefEndpoint[] {
  const subnets = (id: string): readonly string[] => mesh.networks.get(id)?.subnets ?? [];
  const at = (network: string, ip: string): RefEndpoint[] =>
    mesh.endpoints.filter((e) => e.network === network && e.ips.includes(ip));
  if (subnets(source.network).some((subnet) => contains(subnet, to))) return at(source.network, to);
  let best: { length: number; who: RefEndpoint[] } = { length: -1, who: [] };
  const offer = (cidr: string, who: () => RefEndpoint[]): void => {
    const length = Number(cidr.split('/')[1]);
    if (contains(cidr, to) && length > best.length) best = { length, who: who() };
  };
  for (const router of mesh.routers) {
    if (!router.networks.includes(source.network)) continue;
    for (const id of router.networks)
      if (id !== source.network) for (const subnet of subnets(id)) offer(subnet, () => at(id, to));
    for (const { cidr, via } of router.routes)
      offer(cidr, () =>
        via.flatMap((ip) => {
          const id = router.networks.find((network) => subnets(network).some((subnet) => contains(subnet, ip)));
          return id === undefined ? [] : at(id, ip);
        }),
      );
  }
  return best.who;
}
