/**
 * Multicast groups of a host in a network, under the lease that its presence has: when the host or its coordinator goes, they go
 * too, and the host gets every group again. Kept like the presence: put again under a new lease.
 */
import { WeftError } from '../../lib/errors.ts';
import type { Memberships, Revision } from '../../lib/model.ts';
import { encode } from './codec.ts';
import { type Deps, fresh, modOf, revisionOf } from './deps.ts';
import { keys } from './keys.ts';

export async function putMemberships(
  deps: Deps,
  hostId: string,
  sessionId: string,
  networkId: string,
  groups: readonly string[] | null,
): Promise<Revision> {
  const network = await fresh(deps, () => deps.cache.networks.get(networkId));
  if (network === undefined) throw new WeftError('NOT_FOUND', `there is no network ${networkId}`);
  const { cache, lease } = deps;
  const key = keys.memberships(network.project, networkId, hostId);
  const presence = keys.presence(hostId);
  const record = keys.network(network.project, networkId);
  return deps.committer.run(`presence ${hostId}`, () => {
    if (cache.presences.get(hostId)?.sessionId !== sessionId)
      throw new WeftError('ABORTED', `the session of host ${hostId} is another coordinator's`);
    const raw = cache.raw.get(key);
    if (groups === null) {
      lease.forget(key);
      if (raw === undefined) return { done: revisionOf(deps, cache.revision) };
      const txn = { compares: [{ key, mod: raw.mod }], ops: [{ del: key }] };
      return { txn, result: (revision) => revisionOf(deps, revision) };
    }
    const memberships: Memberships = { networkId, hostId, groups: [...groups], revision: 0n };
    const value = encode.memberships(memberships);
    const id = lease.id;
    if (!cache.networks.has(networkId)) throw new WeftError('NOT_FOUND', `there is no network ${networkId}`);
    if (raw?.value === value && raw.lease === id) return { done: revisionOf(deps, cache.revision) };
    const compares = [
      { key: presence, mod: modOf(cache, presence) },
      { key: record, exists: true as const },
      { key, mod: raw?.mod ?? 0n },
    ];
    const result = (revision: bigint): Revision => {
      lease.keep(key, value);
      return revisionOf(deps, revision);
    };
    return { txn: { compares, ops: [{ put: key, value, lease: id }] }, result };
  });
}

/** Keys of the memberships that the cache has of a host. */
export function membershipKeys(deps: Deps, hostId: string): string[] {
  const { cache } = deps;
  const found: string[] = [];
  for (const [id, byHost] of cache.memberships)
    if (byHost.has(hostId)) found.push(keys.memberships(cache.networks.get(id)?.project ?? 'default', id, hostId));
  return found;
}

/** Forgets and deletes what an earlier session of the host said: until it says it again it gets every group. */
export async function dropMemberships(deps: Deps, hostId: string): Promise<void> {
  for (const key of membershipKeys(deps, hostId)) {
    deps.lease.forget(key);
    await deps.committer.run(`presence ${hostId}`, () => {
      const raw = deps.cache.raw.get(key);
      if (raw === undefined) return { done: undefined };
      return { txn: { compares: [{ key, mod: raw.mod }], ops: [{ del: key }] }, result: () => undefined };
    });
  }
}
