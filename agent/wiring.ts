/** How this host carries frames: decided once at start, from configuration and probes. Pure. */
import type { Completion } from './link/driver.ts';
import type { TunnelEncap } from './link/names.ts';

export interface Wiring {
  /** OVS datapath type of br-weft. */
  readonly datapathType: 'system' | 'netdev';
  /** Tunnel ports of Open vSwitch, or tunnel devices of the kernel behind eBPF. */
  readonly backend: 'ovs-tunnel' | 'kernel-tunnel';
  /** Endpoints' links belong to the kernel, and Open vSwitch has a second pair for what it must decide. Only with kernel-tunnel. */
  readonly express: boolean;
  /** Virtual addresses of services are translated: on the express path, or where links are ports of Open vSwitch in the kernel. */
  readonly services: boolean;
  /** This host's VTEP, IPv4 or IPv6. */
  readonly vtep: string;
  /** Encapsulations that this host can carry. */
  readonly encaps: readonly TunnelEncap[];
  /** UDP destination ports. */
  readonly udpPorts: { readonly vxlan: number; readonly geneve: number };
  /** MTU of the underlay interface, bytes; 0 = unknown. */
  readonly underlayMtu: number;
  readonly complete: Completion;
  /** Of the outer headers. */
  readonly outer: OuterHeaders;
}

export interface OuterHeaders {
  /** 1..255, or as in the inner header. */
  readonly ttl: number | 'inherit';
  /** 0..63, or as in the inner header. */
  readonly dscp: number | 'inherit';
  /** UDP checksum over the whole. */
  readonly checksum: boolean;
}

/** Local network indexes that fit into an 802.1Q tag. */
export const MAX_TAGGED_INDEX = 4094;
