/** What the renderer needs to know: plain data, no ids of Docker, etcd or OVSDB. Pure. */
import type { Cidr } from '../../lib/ip.ts';

export interface LocalPort {
  readonly ofport: number;
  readonly mac: bigint;
  readonly ip: number;
}

export interface Entry {
  readonly mac: bigint;
  readonly ip: number;
}

/** What is behind one VTEP, in one network. */
export interface Remote {
  /** IPv4 address of the VTEP, as a number. */
  readonly vtep: number;
  readonly blocks: readonly Cidr[];
  /** Endpoints whose MAC or address their host's blocks do not describe. */
  readonly entries: readonly Entry[];
}

/** One network as this host's bridge sees it. */
export interface NetworkModel {
  /** Local network index. */
  readonly index: number;
  readonly vni: number;
  readonly locals: readonly LocalPort[];
  readonly remotes: readonly Remote[];
}

export interface BridgeModel {
  /** OpenFlow port of the tunnel; null = not there (yet): nothing goes to or comes from other hosts. */
  readonly tunnel: number | null;
  readonly networks: readonly NetworkModel[];
}
