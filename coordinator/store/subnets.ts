/** Subnets for networks: given ones must be free, others come from the pool of their address family. */
import { type Cidr, type Family, formatCidr, formatIp, lengthOf, overlaps, tryParseIp } from '../../lib/addr.ts';
import { WeftError } from '../../lib/errors.ts';
import { pickSubnet, ulaPool } from '../alloc/subnets.ts';
import type { Deps } from './deps.ts';
import { restingSubnets, takenSubnets } from './taken.ts';

/** @throws FAILED_PRECONDITION naming the network that has part of it */
export function refuseOverlap(deps: Deps, project: string, space: string, wanted: Cidr): void {
  const other = takenSubnets(deps.cache, project, space).find((t) => overlaps(t.cidr, wanted));
  if (other === undefined) return;
  throw new WeftError(
    'FAILED_PRECONDITION',
    `the subnet ${formatCidr(wanted)} overlaps ${formatCidr(other.cidr)} of ${other.owner}`,
    { hint: 'choose another subnet, leave --subnet out, or give an address space of its own with --space' },
  );
}

/** Hosts would look for each other in the network, and not on the underlay. @throws FAILED_PRECONDITION naming the host */
export function refuseVteps(deps: Deps, wanted: Cidr): void {
  const inside = vtepsOf(deps).find(({ cidr }) => overlaps(cidr, wanted));
  if (inside === undefined) return;
  throw new WeftError(
    'FAILED_PRECONDITION',
    `the subnet ${formatCidr(wanted)} contains ${formatIp(inside.cidr.base)}, the VTEP of host ${inside.host}`,
    { hint: 'choose a subnet apart from the underlay, or leave --subnet out' },
  );
}

function vtepsOf({ cache }: Deps): { cidr: Cidr; host: string }[] {
  return [...cache.hosts.values()].flatMap(({ name, vteps }) =>
    vteps.flatMap(({ address }) => {
      const ip = tryParseIp(address);
      return ip === null ? [] : [{ cidr: { base: ip, prefix: 128 }, host: name }];
    }),
  );
}

/** @throws RESOURCE_EXHAUSTED when the pool has none left */
export function pickFreeSubnet(deps: Deps, project: string, space: string, family: Family): Cidr {
  const pool = family === 4 ? deps.limits.pool : ulaPool(deps.cache.clusterId);
  const taken = takenSubnets(deps.cache, project, space).map((t) => t.cidr);
  const underlay = vtepsOf(deps).map((t) => t.cidr);
  const picked = pickSubnet(pool, [...taken, ...underlay], restingSubnets(deps.cache, project, space));
  if (picked !== null) return picked;
  const length = lengthOf({ base: pool.range.base, prefix: pool.prefix });
  throw new WeftError('RESOURCE_EXHAUSTED', `the pool ${formatCidr(pool.range)} has no free /${length} left`, {
    hint: 'give a --subnet of your own, or remove networks that are not used',
  });
}
