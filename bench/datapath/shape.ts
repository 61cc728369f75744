/** What bench:datapath compares, and the names of what it measures. Pure. */

/** Weft's own; of each there is the same between two networks that a router joins. */
export const WEFT_PATHS = ['weft-express', 'weft-netdev', 'weft-system'] as const;
export type WeftPath = (typeof WEFT_PATHS)[number];
export const PATHS = [
  'raw',
  'bridge-vxlan',
  'swarm',
  'weft-express',
  'weft-express-routed',
  'weft-netdev',
  'weft-netdev-routed',
  'weft-system',
  'weft-system-routed',
] as const;
export type PathName = (typeof PATHS)[number];
export const routed = (path: WeftPath): PathName => `${path}-routed`;
export type Where = 'native' | 'guest';

/** One round of one path. */
export interface Sample {
  readonly path: PathName;
  readonly where: Where;
  readonly round: number;
  readonly tcp1_gbps: number;
  readonly tcp4_gbps: number;
  readonly rr_p50_us: number;
  readonly rr_p99_us: number;
  readonly udp64_kpps: number;
  readonly cpu_s_per_gbit: number;
  /** Of both TCP runs. */
  readonly retransmits: number;
  /** Sent, whether or not it arrived. */
  readonly udp64_sent_kpps: number;
  /** Busy processors of the machine just before, with nothing measured: what others did, and idle daemons. */
  readonly idle_cpus: number;
  /** Of the bytes carried, how many Open vSwitch says that it received from the sender's side; null where there is none. */
  readonly ovs_share: number | null;
}

export interface Row {
  readonly path: PathName;
  readonly where: Where;
  readonly tcp1_gbps: number;
  readonly tcp4_gbps: number;
  readonly rr_p50_us: number;
  readonly rr_p99_us: number;
  readonly udp64_kpps: number;
  readonly cpu_s_per_gbit: number;
}

/** A path that could not be measured, and why. */
export interface Missing {
  readonly path: PathName;
  readonly where: Where;
  readonly reason: string;
}

export interface Metric {
  readonly key: Exclude<keyof Row, 'path' | 'where'>;
  readonly title: string;
  readonly unit: string;
  readonly better: 'higher' | 'lower';
}

export const METRICS: readonly Metric[] = [
  { key: 'tcp1_gbps', title: 'TCP, 1 stream', unit: 'Gb/s', better: 'higher' },
  { key: 'tcp4_gbps', title: 'TCP, 4 streams', unit: 'Gb/s', better: 'higher' },
  { key: 'rr_p50_us', title: 'TCP round trip, median', unit: 'µs', better: 'lower' },
  { key: 'rr_p99_us', title: 'TCP round trip, 99 %', unit: 'µs', better: 'lower' },
  { key: 'udp64_kpps', title: 'UDP, 64 bytes, received', unit: 'kpps', better: 'higher' },
  { key: 'cpu_s_per_gbit', title: 'CPU per gigabit, whole machine', unit: 's', better: 'lower' },
];

/** Stands beside every figure. */
export const NOTE =
  'Two hosts in network namespaces, one bridge and veths of MTU 1500 between them: a veth underlay carries unsegmented GSO ' +
  'frames, so that rows of 10 Gb/s and more are higher than on a NIC, which has to segment them.';
