/** State of the coordinator's contract in memory: `commit` is one etcd revision. */
import type { Change, ChangeSet, CoordinatorRecord, Presence, State } from '../../coordinator/contract.ts';
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
} from '../../lib/model.ts';

type Nested<T> = Map<string, Map<string, T>>;

/** One object to write; `after` null = delete. */
export type Write =
  | { readonly network: string; readonly after: Network | null }
  | { readonly host: string; readonly after: Host | null }
  | { readonly block: string; readonly of: string; readonly after: Block | null }
  | { readonly address: string; readonly of: string; readonly after: Address | null }
  | { readonly endpoint: string; readonly of: string; readonly after: Endpoint | null }
  | { readonly external: string; readonly of: string; readonly after: ExternalPeer | null }
  | { readonly settings: string; readonly of: string; readonly after: EndpointSettings | null }
  | { readonly memberships: string; readonly of: string; readonly after: Memberships | null }
  | { readonly reservation: string; readonly of: string; readonly after: Reservation | null }
  | { readonly service: string; readonly of: string; readonly after: Service | null }
  | { readonly policy: string; readonly of: string; readonly after: Policy | null }
  | { readonly router: string; readonly after: Router | null }
  | { readonly presence: string; readonly after: Presence | null };

export class FakeState implements State {
  epoch = 1n;
  readonly clusterId = 'fake';
  revision = 1n;
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
  readonly #listeners = new Set<(set: ChangeSet) => void>();
  readonly #waiters = new Set<() => void>();

  networkByName(project: string, name: string): Network | undefined {
    return this.networks.values().find((network) => network.project === project && network.name === name);
  }

  hostByName(name: string): Host | undefined {
    return this.hosts.values().find((host) => host.name === name);
  }

  subscribe(listener: (set: ChangeSet) => void): () => void {
    this.#listeners.add(listener);
    return () => void this.#listeners.delete(listener);
  }

  reached(revision: bigint, signal?: AbortSignal): Promise<void> {
    return new Promise((resolve, reject) => {
      const look = (): void => {
        if (this.revision < revision) return;
        this.#waiters.delete(look);
        resolve();
      };
      this.#waiters.add(look);
      signal?.addEventListener('abort', () => reject(signal.reason as Error));
      look();
    });
  }

  commit(...writes: Write[]): bigint {
    this.revision++;
    const changes = writes.map((write) => this.#write(write));
    this.#tell({ revision: this.revision, changes, reset: false });
    return this.revision;
  }

  /** As after a relist. */
  reset(): void {
    this.#tell({ revision: this.revision, changes: [], reset: true });
  }

  #tell(set: ChangeSet): void {
    for (const listener of this.#listeners) listener(set);
    for (const look of this.#waiters) look();
  }

  #write(write: Write): Change {
    if ('network' in write)
      return { kind: 'network', id: write.network, ...put(this.networks, write.network, write.after) };
    if ('host' in write) return { kind: 'host', id: write.host, ...put(this.hosts, write.host, write.after) };
    if ('presence' in write)
      return { kind: 'presence', hostId: write.presence, ...put(this.presences, write.presence, write.after) };
    if ('router' in write)
      return {
        kind: 'router',
        project: 'default',
        name: write.router,
        ...put(this.routers, `default/${write.router}`, write.after),
      };
    if ('block' in write)
      return {
        kind: 'block',
        networkId: write.of,
        cidr: write.block,
        ...put(inner(this.blocks, write.of), write.block, write.after),
      };
    if ('address' in write) {
      const change = put(inner(this.addresses, write.of), write.address, write.after);
      return { kind: 'address', networkId: write.of, address: write.address, ...change };
    }
    if ('external' in write) {
      const change = put(inner(this.externals, write.of), write.external, write.after);
      return { kind: 'external', networkId: write.of, id: write.external, ...change };
    }
    if ('settings' in write) {
      const change = put(inner(this.settings, write.of), write.settings, write.after);
      return { kind: 'settings', networkId: write.of, endpointId: write.settings, ...change };
    }
    if ('memberships' in write) {
      const change = put(inner(this.memberships, write.of), write.memberships, write.after);
      return { kind: 'memberships', networkId: write.of, hostId: write.memberships, ...change };
    }
    if ('reservation' in write) {
      const change = put(inner(this.reservations, write.of), write.reservation, write.after);
      return { kind: 'reservation', networkId: write.of, name: write.reservation, ...change };
    }
    if ('service' in write) {
      const change = put(inner(this.services, write.of), write.service, write.after);
      return { kind: 'service', networkId: write.of, name: write.service, ...change };
    }
    if ('policy' in write) {
      const change = put(inner(this.policies, write.of), write.policy, write.after);
      return { kind: 'policy', networkId: write.of, name: write.policy, ...change };
    }
    const change = put(inner(this.endpoints, write.of), write.endpoint, write.after);
    return { kind: 'endpoint', networkId: write.of, id: write.endpoint, ...change };
  }
}

function inner<T>(nested: Nested<T>, key: string): Map<string, T> {
  const known = nested.get(key) ?? new Map<string, T>();
  nested.set(key, known);
  return known;
}

function put<T>(map: Map<string, T>, key: string, after: T | null): { before: T | null; after: T | null } {
  const before = map.get(key) ?? null;
  if (after === null) map.delete(key);
  else map.set(key, after);
  return { before, after };
}
