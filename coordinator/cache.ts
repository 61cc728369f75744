/**
 * What etcd says, in memory: the raw keys and the model made of them. Fed by the watch, one etcd revision at a time; after a
 * relist it is replaced as a whole. A value that cannot be read counts as absent: the audit reports and heals it.
 */
import { WeftError } from '../lib/errors.ts';
import type { Log } from '../lib/log.ts';
import type {
  Address,
  Block,
  Endpoint,
  EndpointSettings,
  ExternalPeer,
  Host,
  Memberships,
  Network,
  Policy,
  Reservation,
  Router,
  Service,
} from '../lib/model.ts';
import type { Change, ChangeSet, CoordinatorRecord, Presence, State } from './contract.ts';
import { type Decoded, decode, type RawKey } from './store/codec.ts';
import { type Key, parseKey } from './store/keys.ts';

/** `after` null = deleted. */
export interface KeyEvent {
  readonly key: string;
  readonly after: RawKey | null;
}

export interface RawChange {
  readonly key: string;
  readonly before: RawKey | null;
  readonly after: RawKey | null;
}

/** The changes of one etcd revision, or (reset) the difference that a relist found. */
export interface RawChangeSet {
  readonly revision: bigint;
  /** For events of a DELETE: the revision that deleted. */
  readonly changes: readonly RawChange[];
  readonly reset: boolean;
  /** Reset because etcd went back in time: the old state says nothing about the new one. */
  readonly restored: boolean;
}

interface Waiter {
  readonly revision: bigint;
  readonly resolve: () => void;
}

type Nested<T> = Map<string, Map<string, T>>;

export class Cache implements State {
  readonly raw = new Map<string, RawKey>();
  /** Keys by kind; what is not of the layout is under "unknown". */
  readonly byKind = new Map<Key['kind'] | 'unknown', Map<string, Key | null>>();
  readonly networks = new Map<string, Network>();
  readonly hosts = new Map<string, Host>();
  readonly blocks: Nested<Block> = new Map();
  readonly addresses: Nested<Address> = new Map();
  readonly endpoints: Nested<Endpoint> = new Map();
  readonly externals: Nested<ExternalPeer> = new Map();
  readonly settings: Nested<EndpointSettings> = new Map();
  readonly memberships: Nested<Memberships> = new Map();
  readonly reservations: Nested<Reservation> = new Map();
  readonly services: Nested<Service> = new Map();
  readonly policies: Nested<Policy> = new Map();
  readonly routers = new Map<string, Router>();
  readonly presences = new Map<string, Presence>();
  readonly coordinators = new Map<string, CoordinatorRecord>();
  readonly #names = new Map<string, string>();
  readonly #hostNames = new Map<string, string>();
  readonly #listeners = new Set<(set: ChangeSet) => void>();
  readonly #rawListeners = new Set<(set: RawChangeSet) => void>();
  readonly #decoded = new WeakMap<RawKey, Decoded | null>();
  readonly #log: Log;
  #waiters = new Set<Waiter>();
  #revision = 0n;
  #epoch = 0n;
  #clusterId = '';

  constructor(log: Log) {
    this.#log = log;
  }

  get epoch(): bigint {
    return this.#epoch;
  }

  get clusterId(): string {
    return this.#clusterId;
  }

  get revision(): bigint {
    return this.#revision;
  }

  /** Somebody waits for a revision that has not come. */
  get waiting(): boolean {
    return this.#waiters.size > 0;
  }

  /** The value of a key, decoded once. */
  read(key: Key, raw: RawKey): Decoded | null {
    const known = this.#decoded.get(raw);
    if (known !== undefined) return known;
    const decoded = decode(key, raw);
    this.#decoded.set(raw, decoded);
    return decoded;
  }

  networkByName(project: string, name: string): Network | undefined {
    const id = this.#names.get(`${project}/${name}`);
    return id === undefined ? undefined : this.networks.get(id);
  }

  hostByName(name: string): Host | undefined {
    const id = this.#hostNames.get(name);
    return id === undefined ? undefined : this.hosts.get(id);
  }

  subscribe(listener: (set: ChangeSet) => void): () => void {
    this.#listeners.add(listener);
    return () => void this.#listeners.delete(listener);
  }

  /** Like subscribe, with every key and what it was before. Called before the others. */
  subscribeRaw(listener: (set: RawChangeSet) => void): () => void {
    this.#rawListeners.add(listener);
    return () => void this.#rawListeners.delete(listener);
  }

  /** Without a signal it waits 5 s. */
  reached(revision: bigint, signal: AbortSignal = AbortSignal.timeout(5000)): Promise<void> {
    if (this.#revision >= revision) return Promise.resolve();
    return new Promise((resolve, reject) => {
      const abort = (): void => {
        this.#waiters.delete(waiter);
        const text = `revision ${revision} has not arrived from etcd in time (${this.#revision} has)`;
        reject(
          new WeftError('DEADLINE_EXCEEDED', text, {
            hint: 'the change itself may be done: look before you repeat it',
          }),
        );
      };
      const waiter: Waiter = {
        revision,
        resolve: () => {
          signal.removeEventListener('abort', abort);
          resolve();
        },
      };
      if (signal.aborted) return abort();
      this.#waiters.add(waiter);
      signal.addEventListener('abort', abort, { once: true });
    });
  }

  /** All events of one revision. */
  apply(revision: bigint, events: readonly KeyEvent[]): void {
    const epoch = this.#epoch;
    const changes: Change[] = [];
    const rawChanges: RawChange[] = [];
    for (const event of events) this.#set(event.key, event.after, changes, rawChanges);
    this.#revision = revision;
    const reset = epoch !== 0n && this.#epoch !== epoch;
    this.#publish({ revision, changes: rawChanges, reset: false, restored: false }, { revision, changes, reset });
  }

  /** Nothing of ours has changed up to `revision`. */
  advance(revision: bigint): void {
    if (revision > this.#revision) this.apply(revision, []);
  }

  /** The whole of etcd at `revision`, after a relist. */
  reset(revision: bigint, all: ReadonlyMap<string, RawKey>): void {
    const restored = revision < this.#revision;
    const changes: Change[] = [];
    const rawChanges: RawChange[] = [];
    for (const key of this.raw.keys()) if (!all.has(key)) this.#set(key, null, changes, rawChanges);
    for (const [key, raw] of all) {
      const old = this.raw.get(key);
      // After a restore the same revision may be another write.
      if (old?.mod !== raw.mod || old.value !== raw.value || old.lease !== raw.lease)
        this.#set(key, raw, changes, rawChanges);
    }
    this.#revision = revision;
    this.#publish({ revision, changes: rawChanges, reset: true, restored }, { revision, changes, reset: true });
  }

  #publish(raw: RawChangeSet, set: ChangeSet): void {
    for (const listener of this.#rawListeners) this.#guarded(() => listener(raw));
    for (const listener of this.#listeners) this.#guarded(() => listener(set));
    for (const waiter of this.#waiters) {
      if (waiter.revision > this.#revision) continue;
      this.#waiters.delete(waiter);
      waiter.resolve();
    }
  }

  // A listener's mistake must not stop the watch, nor the other listeners.
  #guarded(call: () => void): void {
    try {
      call();
    } catch (err) {
      this.#log.error({ err, revision: String(this.#revision) }, 'a subscriber of the state failed');
    }
  }

  #set(text: string, after: RawKey | null, changes: Change[], rawChanges: RawChange[]): void {
    const before = this.raw.get(text) ?? null;
    if (after === null) this.raw.delete(text);
    else this.raw.set(text, after);
    rawChanges.push({ key: text, before, after });
    const key = parseKey(text);
    this.#index(text, key, after !== null);
    if (key === null) return;
    const decoded = after === null ? null : this.read(key, after);
    if (after !== null && decoded === null)
      this.#log.warn({ key: text }, 'a key of etcd has a value that cannot be read');
    const change = this.#model(key, decoded);
    if (change !== null) changes.push(change);
  }

  #index(text: string, key: Key | null, present: boolean): void {
    const kind = key?.kind ?? 'unknown';
    const of = this.byKind.get(kind) ?? new Map<string, Key | null>();
    this.byKind.set(kind, of);
    if (present) of.set(text, key);
    else of.delete(text);
  }

  #model(key: Key, decoded: Decoded | null): Change | null {
    switch (key.kind) {
      case 'network': {
        const after = decoded?.kind === 'network' ? decoded.value : null;
        const before = replace(this.networks, key.id, after);
        const nameOf = (n: Network | null): string | null => (n?.state === 'bound' ? `${n.project}/${n.name}` : null);
        reindex(this.#names, nameOf(before), nameOf(after), key.id);
        return differs(before, after) ? { kind: 'network', id: key.id, before, after } : null;
      }
      case 'host': {
        const after = decoded?.kind === 'host' ? decoded.value : null;
        const before = replace(this.hosts, key.id, after);
        reindex(this.#hostNames, before?.name ?? null, after?.name ?? null, key.id);
        return differs(before, after) ? { kind: 'host', id: key.id, before, after } : null;
      }
      case 'block': {
        const after = decoded?.kind === 'block' ? decoded.value : null;
        const { networkId, cidr } = key;
        const before = replaceIn(this.blocks, networkId, cidr, after);
        return differs(before, after) ? { kind: 'block', networkId, cidr, before, after } : null;
      }
      case 'address': {
        const after = decoded?.kind === 'address' ? decoded.value : null;
        const { networkId, address } = key;
        const before = replaceIn(this.addresses, networkId, address, after);
        return differs(before, after) ? { kind: 'address', networkId, address, before, after } : null;
      }
      case 'endpoint': {
        const after = decoded?.kind === 'endpoint' ? decoded.value : null;
        const { networkId, id } = key;
        const before = replaceIn(this.endpoints, networkId, id, after);
        return differs(before, after) ? { kind: 'endpoint', networkId, id, before, after } : null;
      }
      case 'external': {
        const after = decoded?.kind === 'external' ? decoded.value : null;
        const { networkId, id } = key;
        const before = replaceIn(this.externals, networkId, id, after);
        return differs(before, after) ? { kind: 'external', networkId, id, before, after } : null;
      }
      case 'settings': {
        const after = decoded?.kind === 'settings' ? decoded.value : null;
        const { networkId, endpointId } = key;
        const before = replaceIn(this.settings, networkId, endpointId, after);
        return differs(before, after) ? { kind: 'settings', networkId, endpointId, before, after } : null;
      }
      case 'memberships': {
        const after = decoded?.kind === 'memberships' ? decoded.value : null;
        const { networkId, hostId } = key;
        const before = replaceIn(this.memberships, networkId, hostId, after);
        return differs(before, after) ? { kind: 'memberships', networkId, hostId, before, after } : null;
      }
      case 'reservation': {
        const after = decoded?.kind === 'reservation' ? decoded.value : null;
        const { networkId, name } = key;
        const before = replaceIn(this.reservations, networkId, name, after);
        return differs(before, after) ? { kind: 'reservation', networkId, name, before, after } : null;
      }
      case 'service': {
        const after = decoded?.kind === 'service' ? decoded.value : null;
        const { networkId, name } = key;
        const before = replaceIn(this.services, networkId, name, after);
        return differs(before, after) ? { kind: 'service', networkId, name, before, after } : null;
      }
      case 'policy': {
        const after = decoded?.kind === 'policy' ? decoded.value : null;
        const { networkId, name } = key;
        const before = replaceIn(this.policies, networkId, name, after);
        return differs(before, after) ? { kind: 'policy', networkId, name, before, after } : null;
      }
      case 'router': {
        const after = decoded?.kind === 'router' ? decoded.value : null;
        const { project, name } = key;
        const before = replace(this.routers, `${project}/${name}`, after);
        return differs(before, after) ? { kind: 'router', project, name, before, after } : null;
      }
      case 'presence': {
        const after = decoded?.kind === 'presence' ? decoded.value : null;
        const before = replace(this.presences, key.hostId, after);
        return differs(before, after) ? { kind: 'presence', hostId: key.hostId, before, after } : null;
      }
      case 'coordinator': {
        const after = decoded?.kind === 'coordinator' ? decoded.value : null;
        const before = replace(this.coordinators, key.id, after);
        return differs(before, after) ? { kind: 'coordinator', id: key.id, before, after } : null;
      }
      case 'cluster':
        if (decoded?.kind === 'cluster') {
          this.#epoch = decoded.value.epoch;
          this.#clusterId = decoded.value.id;
        }
        return null;
      case 'name':
      case 'vni':
      case 'vlan':
      case 'subnet':
      case 'hostname':
      case 'leader':
      case 'stamp':
      case 'pool':
      case 'blockguard':
      case 'portguard':
      case 'restingVni':
      case 'restingSubnet':
        return null;
    }
  }
}

const differs = (before: unknown, after: unknown): boolean => before !== null || after !== null;

function replace<T>(map: Map<string, T>, id: string, after: T | null): T | null {
  const before = map.get(id) ?? null;
  if (after === null) map.delete(id);
  else map.set(id, after);
  return before;
}

function replaceIn<T>(maps: Nested<T>, networkId: string, id: string, after: T | null): T | null {
  let map = maps.get(networkId);
  if (map === undefined) {
    if (after === null) return null;
    map = new Map();
    maps.set(networkId, map);
  }
  const before = replace(map, id, after);
  if (map.size === 0) maps.delete(networkId);
  return before;
}

function reindex(index: Map<string, string>, before: string | null, after: string | null, id: string): void {
  if (before !== null && before !== after && index.get(before) === id) index.delete(before);
  // The first one keeps a name that a second record claims by mistake.
  if (after !== null && (!index.has(after) || before === after)) index.set(after, id);
}
