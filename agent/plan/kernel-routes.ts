/** What of routing the kernel side does itself: from an endpoint's network to another's endpoints. The rest is said to be Open vSwitch's. Pure. */
import { blockSpace, type Cidr, containsIp, isIp4, lastOf, lengthOf, lowOf } from '../../lib/addr.ts';
import type { BpfAddress, BpfNeighbour, BpfRoute } from '../bpf/model.ts';
import type { NetworkModel, RouteModel } from '../flows/model.ts';
import { isRouted, neighboursOf } from '../flows/routes.ts';

/** @param carried networks whose frames the kernel side can carry, by index */
export function kernelRoutes(n: NetworkModel, carried: ReadonlySet<number>): BpfRoute[] {
  const { routing, index } = n;
  if (routing === undefined || n.locals.length === 0) return [];
  const to = ({ base, prefix }: Cidr, network: number | null, mtu: number): BpfRoute => ({
    index,
    to: addressOf(base),
    bits: lengthOf({ base, prefix }),
    network,
    mtu,
  });
  const single = (base: bigint): BpfRoute => to({ base, prefix: 128 }, null, 0);
  const direct = (r: RouteModel): boolean =>
    r.hops.length === 1 && r.hops.every((h) => h.ip === null && h.network !== index && carried.has(h.network));
  const routes = routing.routes.flatMap((r) => {
    const [hop] = r.hops;
    if (hop === undefined || !direct(r)) return [to(r.to, null, 0)];
    const whole = to(r.to, hop.network, hop.mtu);
    if (!isIp4(r.to.base)) {
      // Only these tell by their last 32 bits whose they are.
      const space = blockSpace(r.to);
      return space.prefix === r.to.prefix ? [whole] : [to(r.to, null, 0), to(space, hop.network, hop.mtu)];
    }
    return r.to.prefix < 127 ? [whole, single(lastOf(r.to))] : [whole];
  });
  const answering = routing.answering.filter((ip) =>
    routing.routes.some((r) => isIp4(r.to.base) === isIp4(ip) && containsIp(r.to, ip)),
  );
  return [...routes, ...answering.map(single)];
}

export const kernelNeighbours = (n: NetworkModel): BpfNeighbour[] =>
  isRouted(n) ? [...neighboursOf(n)].map(([ip, mac]) => ({ index: n.index, address: addressOf(ip), mac })) : [];

const addressOf = (ip: bigint): BpfAddress =>
  isIp4(ip) ? { family: 4, address: lowOf(ip) } : { family: 6, address: ip };
