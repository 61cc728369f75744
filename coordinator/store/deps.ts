/** What every operation of the store works with. */
import type { Clock } from '../../lib/clock.ts';
import type { Log } from '../../lib/log.ts';
import type { Revision } from '../../lib/model.ts';
import { DEFAULT_POOL, type Pool } from '../alloc/subnets.ts';
import { DEFAULT_VNIS, type VniRange } from '../alloc/vnis.ts';
import type { Cache } from '../cache.ts';
import type { EtcdClient } from './client.ts';
import type { CoordinatorLease } from './lease.ts';
import type { Committer } from './txn.ts';

/** Constants of the cluster: every coordinator must have the same. */
export interface Limits {
  readonly pool: Pool;
  readonly vnis: VniRange;
  /** How long a freed VNI or subnet is not picked again. */
  readonly restSeconds: number;
  /** How long a reservation waits for its name. */
  readonly reserveSeconds: number;
}

export const DEFAULT_LIMITS: Limits = { pool: DEFAULT_POOL, vnis: DEFAULT_VNIS, restSeconds: 600, reserveSeconds: 60 };

export interface Deps {
  readonly client: EtcdClient;
  readonly cache: Cache;
  readonly committer: Committer;
  readonly lease: CoordinatorLease;
  readonly coordinatorId: string;
  readonly clock: Clock;
  readonly log: Log;
  readonly limits: Limits;
  /** 16 lower-case hex digits, new each time. */
  readonly newId: () => string;
}

export const revisionOf = (deps: Deps, number: bigint): Revision => ({ epoch: deps.cache.epoch, number });

/** mod_revision of a key as the cache has it; 0 = not there. */
export const modOf = (cache: Cache, key: string): bigint => cache.raw.get(key)?.mod ?? 0n;

/**
 * What the cache has, or has after it has caught up with etcd: a thing that another coordinator made a moment ago is there, even
 * if its event is still under way.
 */
export async function fresh<T>(deps: Deps, look: () => T | undefined): Promise<T | undefined> {
  const known = look();
  if (known !== undefined) return known;
  await deps.cache.reached(await deps.committer.barrier());
  return look();
}

/** A lease of its own for some keys: etcd deletes them when it ends. @throws UNAVAILABLE */
export async function grantLease(deps: Deps, seconds: number): Promise<string> {
  const reply = await deps.client.call((etcd, options) => etcd.leaseClient.leaseGrant({ TTL: seconds }, options));
  return reply.ID;
}

/** Best effort: a lease that nothing hangs on ends by itself. */
export async function revokeLease(deps: Deps, ID: string): Promise<void> {
  if (ID === '0') return;
  await deps.client.once((etcd, options) => etcd.leaseClient.leaseRevoke({ ID }, options)).catch(() => undefined);
}
