/** The mesh's objects: the protocol's messages are the model (proto/weft/v1/types.proto specifies them). */
export type {
  Address,
  AllowedAddress,
  Block,
  Conflict,
  Container,
  Drift,
  Endpoint,
  EndpointSettings,
  Event,
  ExternalPeer,
  HealthCheck,
  Host,
  Memberships,
  Network,
  Policy,
  PolicyPeer,
  PolicyPort,
  PolicyRule,
  Probe,
  PublishedPort,
  Rate,
  Reservation,
  Revision,
  Route,
  Router,
  Service,
  ServicePort,
  TraceAnswer,
  TraceHop,
  TracePacket,
  TraceTunnel,
  Vtep,
} from '../gen/weft/v1/types.ts';

/** What a host knows of one network of its interest. */
export interface NetworkView {
  readonly networkId: string;
  readonly blocks: ReadonlyMap<string, import('../gen/weft/v1/types.ts').Block>;
  readonly endpoints: ReadonlyMap<string, import('../gen/weft/v1/types.ts').Endpoint>;
  readonly peers: ReadonlyMap<string, import('../gen/weft/v1/session.ts').Peer>;
  readonly addresses: ReadonlyMap<string, import('../gen/weft/v1/types.ts').Address>;
  /** By id. */
  readonly externals: ReadonlyMap<string, import('../gen/weft/v1/types.ts').ExternalPeer>;
  /** By host id; a host that is not there gets every multicast group. */
  readonly memberships: ReadonlyMap<string, import('../gen/weft/v1/types.ts').Memberships>;
  /** By endpoint id. */
  readonly settings: ReadonlyMap<string, import('../gen/weft/v1/types.ts').EndpointSettings>;
  /** By name. */
  readonly reservations: ReadonlyMap<string, import('../gen/weft/v1/types.ts').Reservation>;
  /** By name. */
  readonly services: ReadonlyMap<string, import('../gen/weft/v1/types.ts').Service>;
  /** By name. */
  readonly policies: ReadonlyMap<string, import('../gen/weft/v1/types.ts').Policy>;
}

/** All that a host has been told, merged: the desired state that everything on the host is rendered from. */
export interface View {
  readonly revision: import('../gen/weft/v1/types.ts').Revision;
  /** Catalogue: every network of the host's projects, by id. */
  readonly networks: ReadonlyMap<string, import('../gen/weft/v1/types.ts').Network>;
  /** Catalogue: routers of these, by name. */
  readonly routers: ReadonlyMap<string, import('../gen/weft/v1/types.ts').Router>;
  /** Interest: by network id. */
  readonly interests: ReadonlyMap<string, NetworkView>;
}
