/**
 * The seams inside the agent. Docker handlers (docker/) know `Journal`, `Mesh` and `Datapath`; the session fills `Mesh`, the
 * reconciler fills `Datapath`; main puts them together. What a host holds is in the journal, what it was told is in the view.
 */
import type { Family } from '../lib/addr.ts';
import type { Block, Conflict, Endpoint, Network, PublishedPort, Reservation, Revision, View } from '../lib/model.ts';

/** An endpoint of this host, as journalled. Plain data: JSON on disk. */
export interface LocalEndpoint {
  readonly id: string;
  readonly networkId: string;
  /** Docker's id of the network copy on this host; null for what is not Docker's. */
  readonly dockerNetworkId: string | null;
  /** IPv4 address; empty = none. */
  readonly ip: string;
  /** Prefix length of the IPv4 subnet. */
  readonly prefix: number;
  /** IPv6 address, canonical; empty = none. */
  readonly ip6: string;
  /** Prefix length of the IPv6 subnet. */
  readonly prefix6: number;
  readonly mac: string;
  /** The MAC does not follow from the address by a rule that other hosts know. */
  readonly givenMac: boolean;
  readonly mtu: number;
  readonly createdAt: string;
  /** Join has been called: the container side is in this sandbox. */
  readonly sandbox: string | null;
  readonly container: { readonly id: string; readonly name: string } | null;
  readonly labels: Readonly<Record<string, string>>;
  readonly aliases: readonly string[];
  /** Name of the interface inside the container, once known (eth0). */
  readonly interfaceName: string | null;
  /** By which this host knows it (gateway/addresses.ts); absent: it has no IPv4 address, none was free, or it is older than these are. */
  readonly transit?: string;
  /** What its container routes by it to reach the resolver, CIDR. */
  readonly resolverRoute?: string;
  /** What its container routes by it because of routers, by range. */
  readonly routed?: readonly { readonly cidr: string; readonly via: string }[];
  /** Its container's default route leads by it, and these ports of the host lead to it; absent: another of its networks does, or none. */
  readonly external?: { readonly ports: readonly PublishedPort[] };
  /** Docker was told by driver option to trust it. */
  readonly trust?: boolean;
  /** Driver options about rate and priority (RATE_KEYS), as they were given; judged. */
  readonly asked?: Readonly<Record<string, string>>;
  /** What it is when it is no container (`weft attach`). */
  readonly attached?: Attached;
}

export type Attached =
  | {
      /** A device of the host's namespace that the user made: it is itself the port. */
      readonly kind: 'tap';
      readonly name: string;
      readonly link: string;
      /** As the device was, to be given back. */
      readonly mtu: number;
      readonly up: boolean;
    }
  | {
      /** A network namespace, at `sandbox`: a link of ours goes there, `interfaceName`. */
      readonly kind: 'netns';
      readonly name: string;
      /** Inode of the namespace that the link is in; another one may come to be at the path. */
      readonly inode: string;
    };

/** The user's device that is the endpoint's port; null: Weft's own link is. */
export const deviceOf = (e: Pick<LocalEndpoint, 'attached'>): string | null =>
  e.attached?.kind === 'tap' ? e.attached.link : null;

/** Devices of the user's that are ports. */
export const devicesOf = (journal: Pick<Journal, 'endpoints'>): ReadonlySet<string> =>
  new Set(
    journal.endpoints
      .values()
      .map(deviceOf)
      .filter((name) => name !== null),
  );

/** By which people know it; empty until a container's name is known. */
export const nameOf = (e: Pick<LocalEndpoint, 'container' | 'attached'>): string =>
  e.attached?.name ?? e.container?.name ?? '';

/** Addresses of an endpoint, IPv4 first. */
export const ipsOf = (e: Pick<LocalEndpoint, 'ip' | 'ip6'>): string[] => [e.ip, e.ip6].filter((ip) => ip !== '');

/** An address taken from own blocks or claimed, until ReleaseAddress. */
export interface LocalAddress {
  readonly networkId: string;
  readonly ip: string;
  /**
   * "requested": Docker has it, no endpoint yet. "endpoint": in use. "lent": granted to another host. "resting": freed at `since`.
   * "reserved": of an own block, and nobody's here: whoever uses it claims it.
   */
  readonly state: 'requested' | 'endpoint' | 'lent' | 'resting' | 'reserved';
  /** Epoch milliseconds. */
  readonly since: number;
  /** Host id it is lent to. */
  readonly lentTo: string | null;
  /** Held by itself, not as part of an own block. */
  readonly claimed: boolean;
  /** The reservation that it was claimed by; `mac` may be empty. */
  readonly reserved?: { readonly name: string; readonly mac: string };
}

export interface LocalBlock {
  readonly networkId: string;
  readonly cidr: string;
  /** Every host with an interest has applied it (Join need not wait for it). */
  readonly converged: boolean;
  /** Revision at which the coordinator gave it. */
  readonly revision: { readonly epoch: string; readonly number: string };
}

/** The copy of a mesh network in this host's Docker. */
export interface LocalNetwork {
  readonly networkId: string;
  /** Docker's network id; null between RequestPool and CreateNetwork. */
  readonly dockerNetworkId: string | null;
  readonly name: string;
  /** Local network index, 1..65535: register value and conntrack zone. Never changes while journalled. */
  readonly index: number;
  /** The reservation's or catalogue's record, so that handlers work without the coordinator. */
  readonly network: Network;
  /** Until its name is bound: the reservation whose IPv6 subnet joins it. */
  readonly joins?: string;
}

export interface Tables {
  readonly endpoint: LocalEndpoint;
  readonly address: LocalAddress;
  readonly block: LocalBlock;
  readonly network: LocalNetwork;
}
export type TableName = keyof Tables;

/** Key of a journal row: endpoint id; network id/ip; network id/cidr; network id. */
export type Key = string;

export type JournalWrite = {
  readonly [T in TableName]: { readonly table: T; readonly key: Key; readonly value: Tables[T] | null };
}[TableName];

/** What this host holds: in memory, and on disk before `write` resolves. */
export interface Journal {
  readonly endpoints: ReadonlyMap<Key, LocalEndpoint>;
  readonly addresses: ReadonlyMap<Key, LocalAddress>;
  readonly blocks: ReadonlyMap<Key, LocalBlock>;
  readonly networks: ReadonlyMap<Key, LocalNetwork>;
  /**
   * All of them or none, visible in memory at once, appended to the file before it resolves. `durable` also syncs the disk: for
   * what another host relies on (lent addresses, blocks given back).
   */
  write(writes: readonly JournalWrite[], options?: { durable?: boolean }): Promise<void>;
  /** Called after each write. */
  onChange(listener: () => void): () => void;
}

/** The mesh as Docker's handlers see it. Calls reject with UNAVAILABLE at once when no coordinator is connected. */
export interface Mesh {
  /** A complete view has arrived and been applied in this session. */
  readonly inSync: boolean;
  /** The current view is a complete one of this session, applied or not: what is not in it may be removed. */
  readonly complete: boolean;
  readonly connected: boolean;
  readonly hostId: string;
  readonly hostName: string;
  /** Host is being drained: refuse new endpoints. */
  readonly draining: boolean;
  view(): View;
  /** Called after the view changed. */
  onView(listener: () => void): () => void;
  requestBlock(networkId: string, family: Family): Promise<{ blocks: readonly Block[]; revision: Revision }>;
  releaseBlocks(networkId: string, cidrs: readonly string[]): Promise<void>;
  /** @param options.ownRecord of an own block, in use: a record of its own for it */
  claimAddress(
    networkId: string,
    ip: string,
    options?: { readonly ownRecord: boolean },
  ): Promise<{ block: Block | null; revision: Revision; reservation: Reservation | null }>;
  releaseAddresses(networkId: string, ips: readonly string[]): Promise<void>;
  reserveNetwork(r: {
    pool: string;
    subPool: string;
    ipv6: boolean;
    options: Readonly<Record<string, string>>;
  }): Promise<Network>;
  bindNetwork(b: {
    networkId: string;
    name: string;
    labels: Readonly<Record<string, string>>;
    options: Readonly<Record<string, string>>;
    internal: boolean;
    attachable: boolean;
    gateway: string;
    gateway6: string;
    auxAddresses: Readonly<Record<string, string>>;
    joins: string;
    ipv6: boolean;
  }): Promise<{ network: Network; won: boolean; winnerHost: string }>;
  removeNetwork(networkId: string): Promise<void>;
  /** Makes sure that the host has the network's blocks, endpoints and peers (interest); resolves when they have been applied. */
  interested(networkId: string, signal: AbortSignal): Promise<void>;
  /** Registers the journal's endpoint now; resolves with its revision once etcd has it. Registration also runs by itself, in batches, after every journal change. */
  registered(endpointId: string): Promise<Revision>;
  /** Waits until every connected, interested host has applied the revision; names of those that had not. */
  waitPeers(networkId: string, revision: Revision, timeoutMs: number): Promise<readonly string[]>;
  /**
   * Tells which multicast groups this host's endpoints have joined in the network; null = not known, it gets every group. Replaces
   * what was said before, is said again in each session, and is forgotten with the network.
   */
  registerMemberships(networkId: string, groups: readonly string[] | null): Promise<void>;
  /** What is not as the mesh has it; replaces the previous report of that source. */
  reportConflicts(source: ConflictSource, conflicts: readonly Conflict[]): void;
}

/** Names that mean something else in Docker; peers that cannot be reached; this host's own VTEP; its way out; endpoints' links, and routes in containers; services. */
export type ConflictSource =
  | 'docker'
  | 'peers'
  | 'underlay'
  | 'underlay queue'
  | 'gateway'
  | 'links'
  | 'routes'
  | 'services';

/** The datapath as Docker's handlers see it. */
export interface Datapath {
  /** @throws FAILED_PRECONDITION with the reason when this host cannot carry the network. */
  carries(networkId: string): Promise<void>;
  /**
   * Veth pair, OVS port and flows of a journalled endpoint are there when it resolves.
   * @returns name of the container-side link, still in the host's namespace.
   */
  attach(endpointId: string): Promise<{ containerLink: string }>;
  /** Everything of an endpoint that has left the journal goes, soon; revisions are acknowledged only after that. */
  detach(endpointId: string): Promise<void>;
  /** Something changed outside (Docker event): look again soon. */
  kick(): void;
}

/** The mesh's record of an endpoint of this host. */
export type EndpointRecord = Endpoint;
