/** The cluster key: identity and epoch of the mesh. */
import { WeftError } from '../../lib/errors.ts';
import type { Revision } from '../../lib/model.ts';
import { type Cluster, decode, encode } from './codec.ts';
import type { Deps } from './deps.ts';
import { keys } from './keys.ts';

/** Writes it at the first start of the first coordinator; before the watch, so that no state is ever without it. */
export async function ensureCluster(deps: Deps): Promise<void> {
  const key = keys.cluster();
  for (let attempt = 0; attempt < 2; attempt++) {
    const cluster: Cluster = { id: deps.newId(), epoch: 1n };
    const put = { compares: [{ key, mod: 0n }], ops: [{ put: key, value: encode.cluster(cluster) }] };
    await deps.client.call(async () => deps.committer.send(put));
    const request = { key: Buffer.from(key) };
    const reply = await deps.client.call((etcd, options) => etcd.kv.range(request, options));
    const kv = reply.kvs[0];
    // Deleted by hand in between: once more.
    if (kv === undefined) continue;
    const raw = { value: kv.value.toString(), create: 0n, mod: 0n, lease: '0' };
    if (decode({ kind: 'cluster' }, raw) !== null) return;
    throw new WeftError('FAILED_PRECONDITION', `the key ${key} of etcd cannot be read: ${raw.value}`, {
      hint: 'this etcd holds something else, or the key was damaged: restore it, like {"id":"…","epoch":"1"}',
    });
  }
  throw new WeftError('ABORTED', `the key ${key} of etcd keeps going away`);
}

/**
 * A new epoch above that of `seen`, if etcd really has lost that revision. Once: whoever finds the epoch above already has nothing
 * to do.
 */
export async function raiseEpoch(deps: Deps, revision: Revision): Promise<bigint> {
  const key = keys.cluster();
  const seen = revision.epoch;
  const known = revision.epoch <= deps.cache.epoch;
  if (known && (await deps.client.newestRevision(key)) >= revision.number) return deps.cache.epoch;
  return deps.committer.run<bigint>(key, () => {
    const raw = deps.cache.raw.get(key);
    const present: Cluster = { id: deps.cache.clusterId, epoch: deps.cache.epoch };
    if (present.epoch > seen) return { done: present.epoch };
    const value = encode.cluster({ id: present.id, epoch: seen + 1n });
    return {
      txn: { compares: [{ key, mod: raw?.mod ?? 0n }], ops: [{ put: key, value }] },
      result: () => seen + 1n,
    };
  });
}

/** After etcd went back in time: an epoch above the one that this coordinator knew. Reads etcd itself, not the cache. */
export async function raiseEpochAfterRestore(deps: Deps): Promise<void> {
  const key = keys.cluster();
  for (let attempt = 0; attempt < 5; attempt++) {
    const reply = await deps.client.call((etcd, options) => etcd.kv.range({ key: Buffer.from(key) }, options));
    const kv = reply.kvs[0];
    const mod = BigInt(kv?.mod_revision ?? 0);
    const raw = { value: kv?.value.toString() ?? '', create: 0n, mod, lease: '0' };
    const decoded = decode({ kind: 'cluster' }, raw);
    const stored = decoded?.kind === 'cluster' ? decoded.value : { id: deps.cache.clusterId, epoch: 0n };
    if (stored.epoch > deps.cache.epoch) return;
    const value = encode.cluster({ id: stored.id, epoch: deps.cache.epoch + 1n });
    const { succeeded } = await deps.committer.send({ compares: [{ key, mod }], ops: [{ put: key, value }] });
    if (succeeded) {
      deps.log.warn({ epoch: String(deps.cache.epoch + 1n) }, 'etcd was restored from a backup: a new epoch begins');
      return;
    }
  }
}
