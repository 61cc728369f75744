/** What one host's part of a trace reads: what the host holds and was told, and the real things as they are. */
import type { View } from '../../lib/model.ts';
import type { LocalEndpoint, LocalNetwork } from '../contract.ts';
import type { AttachedProgram } from '../plan/maps.ts';
import type { NameSource } from '../policies/resolve.ts';
import type { Wiring } from '../wiring.ts';

/** Where the host's kernel sends a packet. */
export interface Route {
  /** The destination is the host's own address. */
  readonly local: boolean;
  /** Name of the link. */
  readonly device: string;
  /** By which address of the host; empty: not said. */
  readonly source: string;
}

export interface TraceSources {
  readonly hostName: string;
  readonly hostId: string;
  /** Name of the bridge. */
  readonly bridge: string;
  readonly wiring: Pick<Wiring, 'backend' | 'express' | 'services' | 'vtep' | 'encaps'>;
  readonly endpoints: ReadonlyMap<string, LocalEndpoint>;
  readonly networks: ReadonlyMap<string, LocalNetwork>;
  readonly view: View;
  /** What names in rules stand for. */
  readonly names: NameSource;
  /** OpenFlow port of an endpoint; null while it has none. */
  ofport(endpointId: string): number | null;
  /** OpenFlow port of a port of br-weft by its name; null: there is none. */
  port(name: string): number | null;
  /** `ofproto/trace` of a flow, with the state of connections that conntrack finds, one for each time it is asked. Rejects. */
  trace(flow: string, states: readonly string[]): Promise<string>;
  /** An entry of a map (bpf/encode.ts); null: it is not there. Rejects. */
  lookup(map: string, key: string): Promise<string | null>;
  /** Numbers of links by name; what is not there is left out. */
  ifindexes(names: readonly string[]): Promise<ReadonlyMap<string, number>>;
  /** Program of Weft's where frames of a link come in; null: none. */
  program(ifindex: number): Promise<AttachedProgram>;
  /** `nft -j list table inet weft`. Rejects. */
  nft(): Promise<string>;
  /** Null: there is no route. */
  route(ip: string): Promise<Route | null>;
}
