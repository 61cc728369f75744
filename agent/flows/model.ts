/** What the renderer needs to know: plain data, no ids of Docker, etcd or OVSDB. Pure. */
import type { Cidr as Cidr6 } from '../../lib/addr.ts';
import type { Cidr } from '../../lib/ip.ts';
import type { BpfService } from '../bpf/model.ts';
import type { Egress } from '../gateway/egress.ts';
import type { PolicyModel } from './policy-model.ts';

export interface LocalPort {
  /** The endpoint's id: its links are named after it. */
  readonly id: string;
  readonly ofport: number;
  readonly mac: bigint;
  /** IPv4; null = none. */
  readonly ip: number | null;
  /** Null = none. */
  readonly ip6: bigint | null;
  /** The MAC that other hosts send its IPv6 to; null: they know its own. */
  readonly alias: bigint | null;
  /** Nothing that only Open vSwitch enforces concerns it. */
  readonly express: boolean;
  /** What it may send from besides. */
  readonly allowed: readonly Allowed[];
  /** May send from any MAC and address; these are learned. */
  readonly trusted: boolean;
  /** By which the host knows it, as an IPv4 number; absent: the host does not reach it. */
  readonly transit?: number;
  /** The user's own device is the port: it has no links named after it. */
  readonly direct?: true;
  /** It has a rate, which queues hold. */
  readonly paced?: true;
  /** DSCP of what it sends; absent: as it says itself. */
  readonly dscp?: number;
}

/** An address that an endpoint may have besides its own; neither IP: any address of the network, with that MAC. */
export interface Allowed {
  readonly ip: number | null;
  readonly ip6: bigint | null;
  /** Null: the endpoint's own. */
  readonly mac: bigint | null;
}

/** A MAC that several endpoints may have. */
export interface SharedMac {
  readonly mac: bigint;
  /** OpenFlow ports. */
  readonly locals: readonly number[];
  readonly remotes: readonly Remote[];
}

export interface Entry {
  readonly mac: bigint;
  /** Null: a block answers for it, or it has none. */
  readonly ip: number | null;
  readonly ip6: bigint | null;
  readonly express: boolean;
}

export type Encap = 'vxlan' | 'geneve' | 'gre' | 'vlan';
export type TunnelEncap = Exclude<Encap, 'vlan'>;

/** What is behind one VTEP, in one network. */
export interface Remote {
  /** Empty: an external peer. */
  readonly hostId: string;
  /** Address of the VTEP, canonical text: IPv4 or IPv6. */
  readonly vtep: string;
  /** How it speaks: the network's own encapsulation and VNI, or what an external peer was given. */
  readonly encap: TunnelEncap;
  readonly key: number;
  readonly blocks: readonly Cidr[];
  /** IPv6, of addresses that their last 32 bits tell apart. */
  readonly blocks6: readonly Cidr6[];
  /** Endpoints whose MAC or address their host's blocks do not describe. */
  readonly entries: readonly Entry[];
  /** MACs in its blocks that may not take the express path. */
  readonly withheld: readonly bigint[];
  /** What it sends from is learned: an external peer that says so, or a host with trusted endpoints in the network. */
  readonly learn: boolean;
  /** Not a Weft host: it answers for itself, and is asked. */
  readonly external: boolean;
}

/** Receivers of a multicast MAC: OpenFlow ports here, and other hosts. */
export interface Receivers {
  readonly locals: readonly number[];
  readonly remotes: readonly Remote[];
}

export interface GroupModel extends Receivers {
  readonly mac: bigint;
}

export interface MulticastModel {
  /** Groups that somebody wants, ascending by MAC. */
  readonly groups: readonly GroupModel[];
  /** Who gets a group that nobody is known to want: those of whom it is not known. */
  readonly rest: Receivers;
}

/**
 * A port of a virtual address. The kernel side translates what is sent to it; Open vSwitch answers ARP, neighbour discovery and ping for
 * the address, by the host's own MAC, and drops what the kernel side has not translated.
 */
export type ServiceModel = Omit<BpfService, 'index'>;

/** Ports of hosts lead to services of the network. */
export interface Published {
  /** This host's MAC there (entryMac). */
  readonly entry: bigint;
  /** Those that ports of this host lead to, by their transit address. */
  readonly services: readonly ServiceModel[];
  /** Hosts that nothing but entered frames come from, and nothing but their answers goes to: they are no remotes. */
  readonly hosts: readonly Pick<Remote, 'hostId' | 'vtep'>[];
}

/** One way to go on, of a packet that is routed. */
export interface Hop {
  /** Local index of the network that the packet goes on in; may be the one that it comes from. */
  readonly network: number;
  /** Who gets it there, of the route's family; null: who it is for. */
  readonly ip: bigint | null;
  /** Greatest IP packet that is taken there. */
  readonly mtu: number;
}

export interface RouteModel {
  /** Of two that contain an address, the longer prefix is taken. */
  readonly to: Cidr6;
  /** Never empty; several: connections are spread over them. */
  readonly hops: readonly Hop[];
}

/** Of a network: where routers lead from it. */
export interface Routing {
  /** This host's source MAC of what it has routed (routerMac). */
  readonly mac: bigint;
  /** Addresses of gateways, as lib/addr.ts has them: those that ARP and neighbour discovery are answered for. */
  readonly own: readonly bigint[];
  /** Those that answer a ping: its own, and of the networks that it leads to. */
  readonly answering: readonly bigint[];
  /** The network's own: never looked for elsewhere. */
  readonly subnets: readonly Cidr6[];
  readonly routes: readonly RouteModel[];
}

/** One network as this host's bridge sees it. */
export interface NetworkModel {
  /** Local network index. */
  readonly index: number;
  readonly vni: number;
  readonly encap: Encap;
  /** Of its endpoints here. */
  readonly mtu: number;
  /** Encapsulation "vlan": OpenFlow port of the physical interface (null = not there), and the 802.1Q tag on it. */
  readonly uplink: { readonly port: number | null; readonly tag: number } | null;
  /** Families of its subnets. */
  readonly ipv4: boolean;
  readonly ipv6: boolean;
  /** The way out of the mesh by this host; absent or null: there is none. */
  readonly egress?: Egress | null;
  readonly locals: readonly LocalPort[];
  readonly remotes: readonly Remote[];
  /** Addresses that several endpoints may have: who has one now is asked. */
  readonly asked: readonly Pick<Allowed, 'ip' | 'ip6'>[];
  readonly macs: readonly SharedMac[];
  /** Addresses that endpoints may have besides their own, and the one MAC that they have then. Absent: none. */
  readonly neighbours?: readonly { readonly ip: bigint; readonly mac: bigint }[];
  /** Absent: none. */
  readonly services?: readonly ServiceModel[];
  /** Absent: no service of the network is published anywhere. */
  readonly published?: Published;
  /** Absent or null: everything between its endpoints is allowed, and nothing of it tracked. */
  readonly policies?: PolicyModel | null;
  /** Addresses (its gateways') that the host asks endpoints from whether they answer; absent: it asks none. */
  readonly checks?: Pick<Egress, 'ip' | 'ip6'>;
  /** Absent: no router leads from here. Where there is no endpoint, it says which addresses are routed to. */
  readonly routing?: Routing;
  /** Hosts that are only where a router leads here from: nothing but what they have routed comes from them, and nothing goes to them. */
  readonly routers?: readonly Pick<Remote, 'hostId' | 'vtep'>[];
  /** A router leads here from a network of this host, which may have no endpoint here itself. */
  readonly reached?: true;
  /** Null: not known, everything goes to everybody. */
  readonly multicast: MulticastModel | null;
}

/** OpenFlow ports by which frames reach other hosts; null = not there (yet): nothing leaves, nothing arrives. */
export type Tunnels =
  | { readonly kind: 'ovs'; readonly ports: Readonly<Partial<Record<TunnelEncap, number | null>>> }
  | { readonly kind: 'kernel'; readonly port: number | null };

export interface BridgeModel {
  readonly tunnels: Tunnels;
  readonly networks: readonly NetworkModel[];
  /** OpenFlow port of the link to the host; null = not there (yet). */
  readonly gateway?: number | null;
  /** Greatest number of a meter; 0 = the datapath has none: nothing is capped. */
  readonly maxMeters: number;
  /**
   * The datapath cannot set an advertisement's flags and type of option: openvswitch of the kernel has no
   * OVS_KEY_ATTR_ND_EXTENSIONS (Open vSwitch, include/linux/openvswitch.h). False unless told.
   */
  readonly relaysNd?: boolean;
  /** TCP's segments pass the bridge before they are cut: a frame's length says nothing of them. False unless told. */
  readonly wholeSegments?: boolean;
}
