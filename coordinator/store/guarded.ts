/** What every transaction that adds an address to a network compares: the network is there, and its guard is as the cache has it. */
import { WeftError } from '../../lib/errors.ts';
import type { Network, Revision } from '../../lib/model.ts';
import { mustAgree } from '../alloc/reservations.ts';
import { type Deps, fresh, modOf, revisionOf } from './deps.ts';
import { keys } from './keys.ts';
import { blockOf, ownerName } from './taken.ts';
import type { Compare, Op } from './txn.ts';

export const guardOf = (network: Network): string => keys.blockguard(network.project, network.id);

const gone = (id: string): WeftError =>
  new WeftError('NOT_FOUND', `there is no network ${id}`, { hint: 'list them: weft network ls' });

/** @throws NOT_FOUND when etcd does not have it either */
export async function findNetwork(deps: Deps, id: string): Promise<Network> {
  const network = await fresh(deps, () => deps.cache.networks.get(id));
  if (network === undefined) throw gone(id);
  return network;
}

/**
 * @param by what the guard's value says, for people
 * @throws NOT_FOUND the network has gone meanwhile
 */
export function guarded(deps: Deps, network: Network, by: string): { compares: Compare[]; ops: Op[] } {
  const guard = guardOf(network);
  if (!deps.cache.networks.has(network.id)) throw gone(network.id);
  return {
    compares: [
      { key: keys.network(network.project, network.id), exists: true },
      { key: guard, mod: modOf(deps.cache, guard) },
    ],
    ops: [{ put: guard, value: by }],
  };
}

/**
 * @param agreed address → host that has agreed to it
 * @throws ABORTED another host would have to
 */
export function refuseUnagreed(
  { cache }: Deps,
  network: Network,
  ips: readonly string[],
  agreed: ReadonlyMap<string, string>,
): void {
  for (const ip of ips) {
    const host = mustAgree(cache.addresses.get(network.id)?.get(ip), blockOf(cache, network.id, ip)?.hostId);
    if (host !== null && agreed.get(ip) !== host)
      throw new WeftError('ABORTED', `the address ${ip} of ${ownerName(network)} has come to another host meanwhile`, {
        hint: 'try again',
      });
  }
}

/** Removes a record of the network that keeps addresses from others. Not there: done. @throws NOT_FOUND the network */
export async function removeGuarded(
  deps: Deps,
  networkId: string,
  name: string,
  keyOf: (network: Network) => string,
): Promise<Revision> {
  const network = await findNetwork(deps, networkId);
  const key = keyOf(network);
  return deps.committer.run(guardOf(network), () => {
    if (!deps.cache.raw.has(key)) return { done: revisionOf(deps, deps.cache.revision) };
    const { compares, ops } = guarded(deps, network, name);
    const txn = {
      compares: [...compares, { key, mod: modOf(deps.cache, key) }],
      ops: [...ops, { del: key }],
    };
    return { txn, result: (revision) => revisionOf(deps, revision) };
  });
}
