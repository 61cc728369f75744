/** Opens the state of the mesh: State and Store of the coordinator's contract on etcd. */
import { randomBytes } from 'node:crypto';
import { type Clock, rfc3339, systemClock } from '../../lib/clock.ts';
import type { Log } from '../../lib/log.ts';
import type { Revision } from '../../lib/model.ts';
import { Cache } from '../cache.ts';
import type { State, Store } from '../contract.ts';
import { KeyAuditor } from './auditor.ts';
import * as blocks from './blocks.ts';
import { EtcdClient, type EtcdOptions } from './client.ts';
import { ensureCluster, raiseEpoch, raiseEpochAfterRestore } from './cluster.ts';
import { encode } from './codec.ts';
import { DEFAULT_LIMITS, type Deps, type Limits } from './deps.ts';
import { editNetwork } from './edit-network.ts';
import * as endpoints from './endpoints.ts';
import * as hosts from './hosts.ts';
import { keys, ROOT } from './keys.ts';
import { CoordinatorLease } from './lease.ts';
import { putMemberships } from './memberships.ts';
import * as networks from './networks.ts';
import { addPeer, removePeer } from './peers.ts';
import * as policies from './policies.ts';
import * as reservations from './reservations.ts';
import * as routers from './routers.ts';
import * as services from './services.ts';
import { updateSettings } from './settings.ts';
import { Committer } from './txn.ts';
import { PrefixWatch } from './watch.ts';

export interface OpenOptions extends EtcdOptions {
  readonly coordinator: {
    readonly id: string;
    readonly name: string;
    readonly address: string;
    readonly version: string;
  };
  readonly log: Log;
  readonly clock?: Clock;
  /** Constants of the cluster; only tests have others. */
  readonly limits?: Partial<Limits>;
  /** Heal drift of keys as soon as it is seen; true. */
  readonly heal?: boolean;
  /** Seconds; 5. */
  readonly leaseTtl?: number;
  readonly idleMs?: number;
  readonly verifyMs?: number;
}

export interface OpenedStore extends AsyncDisposable {
  readonly state: State;
  readonly store: Store;
  readonly auditor: KeyAuditor;
  /** What the reaper works with. */
  readonly deps: Deps;
  /** Counters for metrics. */
  readonly watch: PrefixWatch;
  /** This coordinator's lease: "lost" means that its presences are gone for the others. */
  readonly lease: CoordinatorLease;
  /**
   * For a host that has applied a revision which this coordinator does not know: starts a new cluster epoch above `seen` when
   * etcd has really lost it (restored from a backup). Returns the present epoch.
   */
  raiseEpoch(seen: Revision): Promise<bigint>;
  close(): Promise<void>;
}

/**
 * Connects, reads everything, takes a lease, announces the coordinator and starts to watch.
 * @throws UNAVAILABLE when etcd cannot be reached within 5 s
 */
export async function openStore(options: OpenOptions): Promise<OpenedStore> {
  const { log, coordinator } = options;
  const clock = options.clock ?? systemClock();
  const client = new EtcdClient(options);
  const cache = new Cache(log);
  const committer = new Committer({ client, cache, coordinatorId: coordinator.id });
  const lease = new CoordinatorLease({ client, committer, clock, log, ttl: options.leaseTtl ?? 5 });
  const deps: Deps = {
    client,
    cache,
    committer,
    lease,
    coordinatorId: coordinator.id,
    clock,
    log,
    limits: { ...DEFAULT_LIMITS, ...options.limits },
    newId: () => randomBytes(8).toString('hex'),
  };
  const watch = new PrefixWatch({
    client,
    prefix: ROOT,
    sink: cache,
    log,
    barrier: () => committer.barrier(),
    restored: () => raiseEpochAfterRestore(deps),
    ...(options.idleMs === undefined ? {} : { idleMs: options.idleMs }),
    ...(options.verifyMs === undefined ? {} : { verifyMs: options.verifyMs }),
  });
  const auditor = new KeyAuditor(deps, watch, options.heal ?? true);
  const close = async (): Promise<void> => {
    await auditor.close();
    await lease.close();
    await watch.close();
    client.close();
  };
  try {
    await ensureCluster(deps);
    await watch.start();
    await lease.start();
    const record = { ...coordinator, startedAt: rfc3339(clock) };
    await announce(deps, keys.coordinator(coordinator.id), encode.coordinator(record));
    auditor.start();
  } catch (error) {
    await close();
    throw error;
  }
  return {
    state: cache,
    store: makeStore(deps),
    auditor,
    deps,
    watch,
    lease,
    raiseEpoch: (seen) => raiseEpoch(deps, seen),
    close,
    [Symbol.asyncDispose]: close,
  };
}

async function announce(deps: Deps, key: string, value: string): Promise<void> {
  deps.lease.keep(key, value);
  await deps.committer.run(key, () => {
    const raw = deps.cache.raw.get(key);
    const lease = deps.lease.id;
    if (raw?.value === value && raw.lease === lease) return { done: undefined };
    const txn = { compares: [{ key, mod: raw?.mod ?? 0n }], ops: [{ put: key, value, lease }] };
    return { txn, result: () => undefined };
  });
}

function makeStore(deps: Deps): Store {
  return {
    createNetwork: (spec) => networks.createNetwork(deps, spec),
    bindNetwork: (id, bind) => networks.bindNetwork(deps, id, bind),
    editNetwork: (id, edit) => editNetwork(deps, id, edit),
    deleteNetwork: (id) => networks.deleteNetwork(deps, id),
    putHost: async (host) => hosts.putHost(deps, host),
    deleteHost: (id) => hosts.deleteHost(deps, id),
    putPresence: (hostId, sessionId) => hosts.putPresence(deps, hostId, sessionId),
    deletePresence: (hostId, sessionId) => hosts.deletePresence(deps, hostId, sessionId),
    allocateBlock: (networkId, hostId, containing) => blocks.allocateBlock(deps, networkId, hostId, containing),
    shrinkBlock: (networkId, cidr, hostId, keep) => blocks.shrinkBlock(deps, networkId, cidr, hostId, keep),
    claimAddress: (claim) => blocks.claimAddress(deps, claim),
    answerClaim: (claim, granted, reason) => blocks.answerClaim(deps, claim, granted, reason),
    releaseAddresses: (networkId, hostId, addresses) => blocks.releaseAddresses(deps, networkId, hostId, addresses),
    holdReserved: (networkId, address, hostId) => reservations.holdReserved(deps, networkId, address, hostId),
    holdOwn: (networkId, address, hostId) => reservations.holdOwn(deps, networkId, address, hostId),
    createReservation: (reservation, agreed) => reservations.createReservation(deps, reservation, agreed),
    removeReservation: (networkId, name) => reservations.removeReservation(deps, networkId, name),
    createService: (service, agreed) => services.createService(deps, service, agreed),
    removeService: (networkId, name) => services.removeService(deps, networkId, name),
    applyPolicies: (wanted) => policies.applyPolicies(deps, wanted),
    removePolicy: (networkId, name) => policies.removePolicy(deps, networkId, name),
    createRouter: (wanted) => routers.createRouter(deps, wanted),
    updateRouter: (project, name, edit) => routers.updateRouter(deps, project, name, edit),
    removeRouter: (project, name) => routers.removeRouter(deps, project, name),
    caughtUp: async () => deps.cache.reached(await deps.committer.barrier()),
    registerEndpoints: (hostId, upserts, removed) => endpoints.registerEndpoints(deps, hostId, upserts, removed),
    addPeer: (peer) => addPeer(deps, peer),
    removePeer: (networkId, id) => removePeer(deps, networkId, id),
    updateSettings: (networkId, endpointId, change, granted) =>
      updateSettings(deps, networkId, endpointId, change, granted),
    putMemberships: (hostId, sessionId, networkId, groups) =>
      putMemberships(deps, hostId, sessionId, networkId, groups),
    replaceHoldings: (hostId, holdings) => endpoints.replaceHoldings(deps, hostId, holdings),
  };
}
