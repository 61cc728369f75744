/**
 * What the kernel side of the datapath is to know: plain data, rendered from the same view as the flows. Addresses are numbers
 * (IPv4 as in lib/ip, IPv6 and MACs as bigint), links are ifindexes of the host's namespace. encode.ts says how it lies in the maps.
 */

/** An address of either family. */
export type BpfAddress =
  | { readonly family: 4; readonly address: number }
  | { readonly family: 6; readonly address: bigint };

/** Where a frame goes to reach another machine. */
export interface BpfVtep {
  readonly vtep: BpfAddress;
  /** An external peer may speak otherwise than its network: ifindex of the tunnel device, and key. Null = as the network does. */
  readonly device: number | null;
  readonly key: number | null;
}

/** A local endpoint that is joined to the kernel side. */
export interface BpfPort {
  /** wft…: the host's side of the container's veth. */
  readonly ifindex: number;
  /** wfk…: the kernel's side of the pair whose other end is the endpoint's OVS port; 0: the link is that port itself. */
  readonly slow: number;
  /** Local network index, 1..4094. */
  readonly index: number;
  readonly mac: bigint;
  /** Source addresses that take the express path; what is sent from others goes to OVS, which judges. Null = none. */
  readonly ip4: number | null;
  readonly ip6: bigint | null;
  /** Link-local address. */
  readonly linkLocal: bigint | null;
  readonly express: boolean;
  /** DSCP of what it sends, 0..63; absent: as it says itself. */
  readonly dscp?: number;
  /** Of an endpoint with a rate: wfg… and wfh…, between which its frames wait. Absent: they do not. */
  readonly gate?: { readonly entry: number; readonly exit: number };
}

/** A network of this host. */
export interface BpfNet {
  readonly index: number;
  /** weft-vxlan, weft-geneve or weft-gre. */
  readonly device: number;
  readonly vni: number;
  /** What Open vSwitch sends unsegmented is to be cut to this: it goes by the MTU of its own port. 0 = not said. */
  readonly mtu: number;
}

/** Where a MAC address (or, in a block, a range of them) is. */
export type BpfPlace =
  | {
      readonly kind: 'local';
      /** wft… of the endpoint. */
      readonly ifindex: number;
      /** Deliver with this destination MAC: for alias MACs. Null = as it is. */
      readonly rewrite: bigint | null;
      /** The host itself, by the switch's end of its link: answers to who came in by a published service. */
      readonly host?: true;
      /** Delivered by the link's own queue, which holds a rate, and not past it. */
      readonly paced?: true;
    }
  | ({ readonly kind: 'remote' } & BpfVtep);

export interface BpfFdb {
  readonly index: number;
  readonly mac: bigint;
  readonly place: BpfPlace;
  readonly express: boolean;
}

/** Default MACs of a block share a prefix: the longest one counts, and an exact entry before any. */
export interface BpfBlock {
  readonly index: number;
  readonly mac: bigint;
  /** Bits of the MAC that are fixed, 1..48. */
  readonly bits: number;
  /** Null: nobody is there (the rest of a local block): such frames go to OVS. */
  readonly place: (BpfPlace & { kind: 'remote' }) | null;
  readonly express: boolean;
}

/** A VTEP from which frames of a network are let in, by the device and the key with which they come. */
export interface BpfSource {
  readonly index: number;
  readonly vtep: BpfAddress;
  readonly device: number;
  readonly key: number;
  /** Not a Weft host: source MACs that nobody is known to have go to OVS. */
  readonly external: boolean;
  /** Its MACs are learned from what it sends. */
  readonly learn: boolean;
}

/** Receivers of copies. Id = the network's index (1..4094): everybody; above: a multicast group's. */
export interface BpfList {
  readonly id: number;
  /** At most MAX_COPIES. */
  readonly vteps: readonly BpfVtep[];
}

/** A multicast MAC whose copies go to a list of its own, where OVS says so; MAC zero: all MACs that have none. */
export interface BpfGroup {
  readonly index: number;
  readonly mac: bigint;
  readonly list: number;
}

/** Who answers for a service: an endpoint of the service's network, on any host. */
export interface BpfBackend {
  /** Of the service's family; others are left out. */
  readonly address: BpfAddress;
  readonly mac: bigint;
  readonly port: number;
}

/** One port of one virtual address. What containers of the network send to it is translated on their own links, both ways. */
export interface BpfService {
  /** Unlike all others of the host; the same as long as the port of the service exists. 1..2^32-1. */
  readonly id: number;
  /** Local network index, 1..4094; 0: the address is a transit address, by which a port of the host leads to it. */
  readonly index: number;
  /** Index of the backends' network, where `index` is 0. */
  readonly net?: number;
  readonly address: BpfAddress;
  /** IP protocol: 6 or 17. */
  readonly protocol: 6 | 17;
  readonly port: number;
  /** Seconds for which a client stays with its backend; 0 = each connection by itself. */
  readonly affinity: number;
  /** Healthy ones: new connections go to one of them, evenly by chance. None: they are dropped, and counted. */
  readonly backends: readonly BpfBackend[];
}

/** Where packets to a prefix go on; of two that match, the longer one counts. */
export interface BpfRoute {
  /** Of the network that they come from. */
  readonly index: number;
  /** Its host bits are zero. */
  readonly to: BpfAddress;
  /** Bits of it that are fixed: 0..32, 0..128. */
  readonly bits: number;
  /** The network of the one whom they are for, whose MAC follows from the address unless a neighbour says otherwise; null: Open vSwitch knows. */
  readonly network: number | null;
  /** Greatest IP packet that is taken there. */
  readonly mtu: number;
}

/** An address of a network that is routed to, and its MAC: where that does not follow from it. */
export interface BpfNeighbour {
  readonly index: number;
  readonly address: BpfAddress;
  readonly mac: bigint;
}

export interface BpfConfig {
  /** weft-tk: the kernel's side of the pair whose other end is OVS's tunnel port. */
  readonly tunnelPort: number;
  /** Outer TTL; null: as the frame's. */
  readonly ttl: number | null;
  /** Outer DSCP, 0..63; null: as the frame's. */
  readonly dscp: number | null;
  /** Checksums of the outer UDP (or GRE) header over IPv4; over IPv6 there always is one. */
  readonly checksum: boolean;
  /** Outer packets are not to be fragmented. */
  readonly dontFragment: boolean;
  /** Outer source addresses (the host's own VTEP); null: the kernel's choice. */
  readonly source4: number | null;
  readonly source6: bigint | null;
  /** The host's own MAC in the mesh, of what comes in by a published service; 0 = there is none. */
  readonly entry: bigint;
  /** The host's own MAC of what it has routed; absent: it routes nothing. */
  readonly router?: bigint;
}

export interface BpfModel {
  readonly config: BpfConfig;
  readonly ports: readonly BpfPort[];
  readonly nets: readonly BpfNet[];
  readonly fdb: readonly BpfFdb[];
  readonly blocks: readonly BpfBlock[];
  readonly sources: readonly BpfSource[];
  readonly lists: readonly BpfList[];
  readonly groups: readonly BpfGroup[];
  readonly services: readonly BpfService[];
  /** IPv6 addresses of networks, beside those of services, that solicitations are answered for: on ports of Open vSwitch's. Absent: none. */
  readonly answered?: readonly { readonly index: number; readonly address: BpfAddress }[];
  /** Absent: none. */
  readonly routes?: readonly BpfRoute[];
  readonly neighbours?: readonly BpfNeighbour[];
}

/** Programs, by where they belong (clsact ingress, if nothing else is said). */
export type BpfProgram =
  /** wft… */
  | 'from_container'
  /** wft… of an endpoint with a rate */
  | 'to_gate'
  /** wfh… */
  | 'from_gate'
  /** wfk… */
  | 'from_ovs'
  /** weft-vxlan, weft-geneve, weft-gre */
  | 'from_tunnel'
  /** weft-tk */
  | 'to_tunnel'
  /** weft-go: ports of the host that lead to services. */
  | 'from_host'
  /** wfo… and weft-to: OVS has read the frame before; the host's own network stack must not. */
  | 'sink'
  /** wft… that is a port of Open vSwitch's in the kernel: before it takes a frame, and after it has sent one (egress). */
  | 'service_out'
  | 'service_in';

/** `forward`: frames are carried beside Open vSwitch; `services`: only translated, on its own ports. */
export type BpfSide = 'forward' | 'services';

export type BpfHook = 'ingress' | 'egress';

export const hookOf = (program: BpfProgram): BpfHook => (program === 'service_in' ? 'egress' : 'ingress');

/** Where a link has room for one program of ours. */
export interface BpfPlaceOnLink {
  readonly ifindex: number;
  readonly hook: BpfHook;
}

/** Identity of such a place among all. */
export const placeId = ({ ifindex, hook }: BpfPlaceOnLink): string => `${ifindex} ${hook}`;

/** A program that is to be attached to a link. */
export interface BpfAttachment {
  readonly ifindex: number;
  /** For people. */
  readonly link: string;
  readonly program: BpfProgram;
}

/** Copies of one frame that the kernel side makes. */
export const MAX_COPIES = 1024;

/** What the kernel side counts, in the order of its counters. */
export const REASONS = [
  'unknown_port',
  'security',
  'slow',
  'express_local',
  'express_remote',
  'express_rx',
  'unknown_vni',
  'foreign_vtep',
  'foreign_source',
  'tunnel_to_ovs',
  'tunnel_short',
  'unknown_unicast',
  'ovs_to_tunnel',
  'copies',
  'unknown_network',
  'ovs_to_container',
  'failed',
  'service',
  'service_reply',
  'no_backend',
  'service_fragment',
  'service_entry',
  'service_exit',
  'routed',
] as const;

export type BpfReason = (typeof REASONS)[number];

/** Frames and bytes of one endpoint that took the express path. */
export interface BpfTraffic {
  readonly txPackets: bigint;
  readonly txBytes: bigint;
  readonly rxPackets: bigint;
  readonly rxBytes: bigint;
}

export interface BpfCounters {
  readonly reasons: Readonly<Record<BpfReason, bigint>>;
  /** By ifindex of wft…. */
  readonly traffic: ReadonlyMap<number, BpfTraffic>;
  /** Connections that have been given a backend, by the port's key (serviceKey() in encode.ts); none = not in it. */
  readonly connections: ReadonlyMap<string, bigint>;
}
