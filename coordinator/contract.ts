/**
 * The seam inside the coordinator: `State` is what etcd says (list-then-watch cache, read-only), `Store` changes it (transactions).
 * Sessions and the API are written against these two and know nothing of etcd.
 */
import type {
  Address,
  AllowedAddress,
  Block,
  Endpoint,
  EndpointSettings,
  ExternalPeer,
  Host,
  Memberships,
  Network,
  Policy,
  Rate,
  Reservation,
  Revision,
  Router,
  Service,
} from '../lib/model.ts';
import type { Priority } from '../lib/rate.ts';

/** Which coordinator has a host's session; a key under that coordinator's lease. */
export interface Presence {
  readonly hostId: string;
  readonly coordinatorId: string;
  readonly sessionId: string;
}

/** A replica that is up; a key under its own lease. */
export interface CoordinatorRecord {
  readonly id: string;
  readonly name: string;
  /** host:port that other coordinators dial. */
  readonly address: string;
  readonly version: string;
  readonly startedAt: string;
}

export type Change =
  | { readonly kind: 'network'; readonly id: string; readonly before: Network | null; readonly after: Network | null }
  | { readonly kind: 'host'; readonly id: string; readonly before: Host | null; readonly after: Host | null }
  | {
      readonly kind: 'block';
      readonly networkId: string;
      readonly cidr: string;
      readonly before: Block | null;
      readonly after: Block | null;
    }
  | {
      readonly kind: 'address';
      readonly networkId: string;
      readonly address: string;
      readonly before: Address | null;
      readonly after: Address | null;
    }
  | {
      readonly kind: 'endpoint';
      readonly networkId: string;
      readonly id: string;
      readonly before: Endpoint | null;
      readonly after: Endpoint | null;
    }
  | {
      readonly kind: 'external';
      readonly networkId: string;
      readonly id: string;
      readonly before: ExternalPeer | null;
      readonly after: ExternalPeer | null;
    }
  | {
      readonly kind: 'settings';
      readonly networkId: string;
      readonly endpointId: string;
      readonly before: EndpointSettings | null;
      readonly after: EndpointSettings | null;
    }
  | {
      readonly kind: 'memberships';
      readonly networkId: string;
      readonly hostId: string;
      readonly before: Memberships | null;
      readonly after: Memberships | null;
    }
  | {
      readonly kind: 'reservation';
      readonly networkId: string;
      readonly name: string;
      readonly before: Reservation | null;
      readonly after: Reservation | null;
    }
  | {
      readonly kind: 'service';
      readonly networkId: string;
      readonly name: string;
      readonly before: Service | null;
      readonly after: Service | null;
    }
  | {
      readonly kind: 'policy';
      readonly networkId: string;
      readonly name: string;
      readonly before: Policy | null;
      readonly after: Policy | null;
    }
  | {
      readonly kind: 'router';
      readonly project: string;
      readonly name: string;
      readonly before: Router | null;
      readonly after: Router | null;
    }
  | {
      readonly kind: 'presence';
      readonly hostId: string;
      readonly before: Presence | null;
      readonly after: Presence | null;
    }
  | {
      readonly kind: 'coordinator';
      readonly id: string;
      readonly before: CoordinatorRecord | null;
      readonly after: CoordinatorRecord | null;
    };

/** All changes of one etcd revision, in order; or a reset after a relist (then read the whole state anew). */
export interface ChangeSet {
  readonly revision: bigint;
  readonly changes: readonly Change[];
  readonly reset: boolean;
}

/** What etcd says, as of `revision`. Maps are live: read, never keep. */
export interface State {
  readonly epoch: bigint;
  readonly clusterId: string;
  /** Newest etcd revision included (progress notifications count). */
  readonly revision: bigint;
  readonly networks: ReadonlyMap<string, Network>;
  readonly hosts: ReadonlyMap<string, Host>;
  /** network id → CIDR → block */
  readonly blocks: ReadonlyMap<string, ReadonlyMap<string, Block>>;
  /** network id → address → claim */
  readonly addresses: ReadonlyMap<string, ReadonlyMap<string, Address>>;
  /** network id → endpoint id → endpoint */
  readonly endpoints: ReadonlyMap<string, ReadonlyMap<string, Endpoint>>;
  /** network id → id → peer that is not a Weft host */
  readonly externals: ReadonlyMap<string, ReadonlyMap<string, ExternalPeer>>;
  /** network id → endpoint id → what the mesh's side says of it */
  readonly settings: ReadonlyMap<string, ReadonlyMap<string, EndpointSettings>>;
  /** network id → host id → multicast groups */
  readonly memberships: ReadonlyMap<string, ReadonlyMap<string, Memberships>>;
  /** network id → name → reservation */
  readonly reservations: ReadonlyMap<string, ReadonlyMap<string, Reservation>>;
  /** network id → name → service */
  readonly services: ReadonlyMap<string, ReadonlyMap<string, Service>>;
  /** network id → name → policy */
  readonly policies: ReadonlyMap<string, ReadonlyMap<string, Policy>>;
  /** PROJECT/NAME → router */
  readonly routers: ReadonlyMap<string, Router>;
  readonly presences: ReadonlyMap<string, Presence>;
  readonly coordinators: ReadonlyMap<string, CoordinatorRecord>;
  networkByName(project: string, name: string): Network | undefined;
  hostByName(name: string): Host | undefined;
  /** Called once per etcd revision, after the maps have changed. Returns the unsubscriber. */
  subscribe(listener: (set: ChangeSet) => void): () => void;
  /** Resolves once `revision` is included. Rejects with DEADLINE_EXCEEDED. */
  reached(revision: bigint, signal?: AbortSignal): Promise<void>;
}

export interface NetworkSpec {
  readonly project: string;
  /** Empty for a reservation (docker network create, first half). */
  readonly name: string;
  readonly space: string;
  readonly subnets: readonly string[];
  readonly ipRange: string;
  readonly gateways: readonly string[];
  /** An IPv6 subnet beside the IPv4 one. */
  readonly ipv6: boolean;
  /** No IPv4 subnet. A single IPv6 subnet without `ipv6` says the same. */
  readonly ipv6Only?: boolean;
  readonly encap: string;
  readonly vni: number;
  readonly mtu: number;
  readonly internal: boolean;
  readonly encrypted: boolean;
  readonly labels: Readonly<Record<string, string>>;
  readonly options: Readonly<Record<string, string>>;
  readonly originHost: string;
  readonly uplink: string;
  readonly vlanTag: number;
  readonly allowTrust: boolean;
  readonly publishBy: string;
  readonly dnsOrder: string;
  readonly policyDefault: string;
}

/** Every method is one etcd transaction (retried on conflict with fresh state), and resolves when State includes its effect. */
export interface Store {
  /** Resolves when State includes everything that etcd had when this was called. */
  caughtUp(): Promise<void>;
  createNetwork(spec: NetworkSpec): Promise<Network>;
  /**
   * Gives a reservation its name; without one, only its options (they decide how it travels). `won` false: the name belongs to `network` already, and the reservation has been released.
   */
  bindNetwork(id: string, bind: NetworkBind): Promise<{ network: Network; won: boolean }>;
  /** FAILED_PRECONDITION names the endpoints (`CONTAINER on HOST`). Quarantines VNI and subnet. */
  /**
   * Changes a bound network while it is in use.
   * @throws NOT_FOUND; INVALID_ARGUMENT, FAILED_PRECONDITION what the network cannot have: nothing is changed
   */
  editNetwork(id: string, edit: NetworkEdit): Promise<Network>;
  deleteNetwork(id: string): Promise<Revision>;
  putHost(host: Host): Promise<Revision>;
  /** Host record with all it holds (blocks, addresses, endpoints). */
  deleteHost(id: string): Promise<Revision>;
  /** Presence under this coordinator's lease; replaces another coordinator's. */
  putPresence(hostId: string, sessionId: string): Promise<void>;
  /** Only when it is still this session's. */
  deletePresence(hostId: string, sessionId: string): Promise<void>;
  /** A free block for the host (the one that contains `containing`, when given, else of that family): null when none is free. */
  allocateBlock(networkId: string, hostId: string, wanted: WantedBlock): Promise<Block | null>;
  /** Replaces a host's block by parts of it (none = release), compared on the block being that host's. */
  shrinkBlock(networkId: string, cidr: string, hostId: string, keep: readonly string[]): Promise<void>;
  /** Writes the claim (state "claimed"). ALREADY_EXISTS when another claim or holder has it. */
  claimAddress(claim: Omit<Address, 'revision' | 'state' | 'reason'>): Promise<Address>;
  /** The grantor's answer: "held" or "refused" with its reason; only while the claim is as given. */
  answerClaim(claim: Address, granted: boolean, reason: string): Promise<void>;
  /**
   * A reserved address becomes the host's, at once: nobody has it.
   * @throws ABORTED there is no reservation of it; ALREADY_EXISTS another host holds it
   */
  holdReserved(networkId: string, address: string, hostId: string): Promise<Address>;
  /** A record of its own for an address of a block that the host has. @throws FAILED_PRECONDITION it is not the host's */
  holdOwn(networkId: string, address: string, hostId: string): Promise<Address>;
  /**
   * @param agreed address → host that has agreed to it: whose block it is in, or that holds it
   * @throws ALREADY_EXISTS name, address or MAC taken; ABORTED somebody else would have to agree
   */
  createReservation(reservation: NewReservation, agreed: ReadonlyMap<string, string>): Promise<Reservation>;
  /** @throws NOT_FOUND the network */
  removeReservation(networkId: string, name: string): Promise<Revision>;
  /**
   * Virtual addresses that are not given are picked outside all blocks, where nobody need agree.
   * @param agreed as for createReservation
   * @throws ALREADY_EXISTS name, address or port of the hosts taken; ABORTED somebody else would have to agree
   */
  createService(service: NewService, agreed: ReadonlyMap<string, string>): Promise<ServiceOutcome>;
  /** @throws NOT_FOUND the network */
  removeService(networkId: string, name: string): Promise<Revision>;
  /**
   * Makes policies, or replaces those of the same name and network; one that is as wanted is not written. Up to 64 in a transaction:
   * when a later one fails, the error says how many are in place.
   * @returns in the order of `policies`
   * @throws NOT_FOUND a network; RESOURCE_EXHAUSTED it would have too many
   */
  applyPolicies(policies: readonly NewPolicy[]): Promise<readonly PolicyOutcome[]>;
  /** @throws NOT_FOUND the network */
  removePolicy(networkId: string, name: string): Promise<Revision>;
  /** @throws ALREADY_EXISTS the name; NOT_FOUND a network; FAILED_PRECONDITION what RouterSources say now */
  createRouter(router: NewRouter): Promise<Router>;
  /** @param edit makes the new one of the present one, judged; the same object: nothing is written. @throws NOT_FOUND the router; what `edit` throws */
  updateRouter(project: string, name: string, edit: (present: Router) => Router): Promise<Router>;
  /** @throws NOT_FOUND */
  removeRouter(project: string, name: string): Promise<Revision>;
  /** Deletes claims or held addresses of that host. */
  releaseAddresses(networkId: string, hostId: string, addresses: readonly string[]): Promise<void>;
  /**
   * Writes a host's endpoints; those of other hosts are never touched (PERMISSION_DENIED), those of networks that are gone are
   * refused (NOT_FOUND).
   */
  registerEndpoints(hostId: string, upserts: readonly Endpoint[], removed: readonly string[]): Promise<Revision>;
  /**
   * @throws ALREADY_EXISTS a peer of that name or VTEP; FAILED_PRECONDITION a MAC or address that an endpoint or block has, or a
   * VTEP of a host
   */
  addPeer(peer: Omit<ExternalPeer, 'id' | 'revision' | 'createdAt'>): Promise<ExternalPeer>;
  /** @throws NOT_FOUND */
  removePeer(networkId: string, id: string): Promise<Revision>;
  /**
   * Changes what the mesh's side says of an endpoint.
   * @param granted what hosts have said yes to; where another's leave is needed, nothing is written, and it is named
   * @throws NOT_FOUND; INVALID_ARGUMENT no address for endpoints; FAILED_PRECONDITION an address or MAC that is another's own
   */
  updateSettings(
    networkId: string,
    endpointId: string,
    change: SettingsChange,
    granted: readonly Grantor[],
  ): Promise<Allowing>;
  /**
   * Multicast groups on the host, under its presence's lease; null = not known.
   * @throws ABORTED unless that session has the host's presence; NOT_FOUND the network
   */
  putMemberships(
    hostId: string,
    sessionId: string,
    networkId: string,
    groups: readonly string[] | null,
  ): Promise<Revision>;
  /** Makes etcd hold exactly this for the host (hello of a session). Returns sentences about what could not be (conflicts). */
  replaceHoldings(
    hostId: string,
    holdings: { endpoints: readonly Endpoint[]; blocks: readonly Block[]; addresses: readonly Address[] },
  ): Promise<{ revision: Revision; refused: readonly string[] }>;
}

/** Allowed addresses that come and go; of the others null, or absent: as it is. */
export interface SettingsChange {
  readonly allow: readonly AllowedAddress[];
  readonly disallow: readonly AllowedAddress[];
  readonly draining: boolean | null;
  /** "unset": what its container and network say counts again. */
  readonly rate?: Rate | 'unset' | null;
  readonly priority?: Priority | 'unset' | null;
}

/** A host whose leave an allowed address needs: it gives addresses of its blocks to containers without asking anybody. */
export interface Grantor {
  readonly ip: string;
  readonly hostId: string;
}

/** Done, or addresses that lie in blocks of hosts which have to be asked first. */
export type Allowing = { readonly revision: Revision } | { readonly ask: readonly Grantor[] };

/** Judged and canonical; an empty MAC may be made the holder's by what is stored. */
export type NewReservation = Omit<Reservation, 'id' | 'createdAt' | 'revision'>;

/** Judged and canonical. Of a family of the network that `ips` does not have, an address is picked, unless it is headless. */
export type NewService = Omit<Service, 'id' | 'createdAt' | 'revision'>;

/** Done, or the family of which every address lies in a block of some host, who has to be asked. */
export type ServiceOutcome = { readonly made: Service } | { readonly crowded: 4 | 6 };

/** Judged and canonical. */
export type NewPolicy = Omit<Policy, 'id' | 'createdAt' | 'revision'>;

/** Judged and canonical. */
export type NewRouter = Omit<Router, 'id' | 'createdAt' | 'revision'>;

export interface PolicyOutcome {
  readonly policy: Policy;
  readonly outcome: 'created' | 'updated' | 'unchanged';
}

/** An address that must be in it, or the family of a block that may be any. */
export type WantedBlock = { readonly containing: string } | { readonly family: 4 | 6 };

/** What of a network can be changed while it is in use; as checkEdit made it. */
export type NetworkEdit = Partial<Pick<Network, 'egressIps' | 'policyDefault' | 'rate'>>;

export interface NetworkBind {
  readonly name: string;
  readonly labels: Readonly<Record<string, string>>;
  readonly options: Readonly<Record<string, string>>;
  readonly internal: boolean;
  readonly attachable: boolean;
  /** Empty: the one it has. */
  readonly gateway: string;
  readonly gateway6: string;
  /** Id of the reservation whose IPv6 subnet joins this one; empty = none. */
  readonly joins: string;
  /** IPv6 is asked for, and no subnet of it was reserved: one is allocated. */
  readonly ipv6: boolean;
  readonly auxAddresses: Readonly<Record<string, string>>;
}
