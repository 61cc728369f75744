/**
 * Docker asks for the pools of the two families one after the other, and says of neither which network it is for: each is a
 * reservation of its own, and the one with the IPv6 subnet joins the other when the network is made.
 */
import { familyOfText, formatCidr, formatIp, ofFamily } from '../../lib/addr.ts';
import { WeftError } from '../../lib/errors.ts';
import type { Network } from '../../lib/model.ts';
import type { NetworkBind } from '../contract.ts';
import { type Deps, modOf } from './deps.ts';
import { keys } from './keys.ts';
import { pickFreeSubnet } from './subnets.ts';
import { indexKeys } from './taken.ts';
import type { Compare, Op } from './txn.ts';

export interface Joined {
  readonly network: Network;
  readonly compares: readonly Compare[];
  /** Deletes what is left of the other reservation. */
  readonly ops: readonly Op[];
}

/**
 * The reservation with the IPv6 subnet that it is to have.
 * @throws NOT_FOUND the other reservation has expired; RESOURCE_EXHAUSTED the pool
 */
export function withIpv6(deps: Deps, reserved: Network, bind: Pick<NetworkBind, 'joins' | 'ipv6'>): Joined {
  const none = { network: reserved, compares: [], ops: [] };
  if (ofFamily(reserved.subnets, 6).length > 0 || (bind.joins === '' && !bind.ipv6)) return none;
  if (bind.joins !== '') return join(deps, reserved, bind.joins);
  const subnet = pickFreeSubnet(deps, reserved.project, reserved.space, 6);
  const guard = keys.pool(reserved.project, reserved.space);
  const network: Network = {
    ...reserved,
    subnets: [...reserved.subnets, formatCidr(subnet)],
    gateways: [...reserved.gateways, formatIp(subnet.base + 1n)],
    ipv6: true,
  };
  return { network, compares: [{ key: guard, mod: modOf(deps.cache, guard) }], ops: [] };
}

function join(deps: Deps, reserved: Network, id: string): Joined {
  const other = deps.cache.networks.get(id);
  if (other === undefined || other.state !== 'reserved' || other.originHost !== reserved.originHost)
    throw new WeftError('NOT_FOUND', `there is no reservation ${id} for the IPv6 subnet`, {
      hint: 'it may have expired: create the network again',
    });
  if (reserved.ipRange !== '' && other.ipRange !== '')
    throw new WeftError('UNIMPLEMENTED', 'a network has one ip-range, of IPv4 or of IPv6', { hint: 'leave one out' });
  const network: Network = {
    ...reserved,
    subnets: [...reserved.subnets, ...other.subnets],
    gateways: [...reserved.gateways, ...other.gateways],
    ipRange: reserved.ipRange || other.ipRange,
    ipv6: true,
  };
  const kept = new Set(indexKeys(network));
  const record = keys.network(other.project, id);
  return {
    network,
    compares: [{ key: record, mod: modOf(deps.cache, record) }],
    ops: [record, ...indexKeys(other)].filter((key) => !kept.has(key)).map((key) => ({ del: key })),
  };
}

/** What deletes a reservation that was to join a network whose name another one has. */
export function release(deps: Deps, id: string): Op[] {
  const other = id === '' ? undefined : deps.cache.networks.get(id);
  if (other === undefined || other.state !== 'reserved') return [];
  return [keys.network(other.project, id), ...indexKeys(other)].map((key) => ({ del: key }));
}

/** Gateways with those that the user gave in place of the ones of their family. */
export function gatewaysWith(gateways: readonly string[], given: readonly string[]): string[] {
  const named = given.filter((text) => text !== '');
  return ([4, 6] as const).flatMap((family) => {
    const own = ofFamily(named, family);
    return own.length > 0 ? own : gateways.filter((text) => familyOfText(text) === family);
  });
}
