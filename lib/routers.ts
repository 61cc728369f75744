/** Which networks routers lead to from which. Pure. */
import type { Router } from './model.ts';

/** They have a network in common. */
export const isLinked = (a: Pick<Router, 'networkIds'>, b: Pick<Router, 'networkIds'>): boolean =>
  a.networkIds.some((id) => b.networkIds.includes(id));

/** Ids of networks that a router leads to from this one, and back: routers are not passed one after the other. */
export function linkedTo(routers: Iterable<Pick<Router, 'networkIds'>>, networkId: string): Set<string> {
  const linked = new Set<string>();
  for (const { networkIds } of routers)
    if (networkIds.includes(networkId)) for (const id of networkIds) if (id !== networkId) linked.add(id);
  return linked;
}
