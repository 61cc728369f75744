/** One level of growth: what is held, and what the paths carry beside bare veth in the same rounds. */
import { type Ends, type Measured, measure } from '../datapath/measure.ts';
import type { DataPath } from '../datapath/plain.ts';
import { median, rounded } from '../datapath/report.ts';
import type { PathName } from '../datapath/shape.ts';
import { type HeldMemory, memoryOn } from './counts.ts';

/** A pair of containers, and the host of its client. */
export interface Pair extends DataPath {
  readonly host: string;
}

export interface Carried extends HeldMemory {
  readonly path: PathName;
  readonly tcp1_gbps: number;
  readonly rr_p50_us: number;
  readonly udp64_kpps: number;
  /** Times as good as bare veth in the same rounds: above 1 is better, for latency too. */
  readonly toRaw: { readonly tcp1: number; readonly rr_p50: number; readonly udp64: number };
}

export interface Level {
  readonly endpoints: number;
  readonly networks: number;
  /** Busy processors before each measurement. */
  readonly idle_cpus: number;
  readonly paths: readonly Carried[];
}

type Key = 'tcp1_gbps' | 'rr_p50_us' | 'udp64_kpps' | 'idle_cpus';
const of = (all: readonly Measured[], key: Key): number => median(all.map((m) => m[key]));

/** Bare veth and each pair in turns. */
export async function levelOf(
  raw: Ends,
  pairs: readonly Pair[],
  size: { readonly endpoints: number; readonly networks: number },
  { rounds, seconds }: { readonly rounds: number; readonly seconds: number },
): Promise<Level> {
  const bare: Measured[] = [];
  const mine = new Map<Pair, Measured[]>(pairs.map((pair) => [pair, []]));
  for (let round = 0; round < rounds; round++) {
    bare.push(await measure(raw, seconds));
    for (const [pair, all] of mine) all.push(await measure(pair.ends, seconds));
  }
  const paths: Carried[] = [];
  for (const [pair, all] of mine) {
    const better = (key: Key): number => rounded(of(all, key) / of(bare, key));
    paths.push({
      path: pair.path,
      tcp1_gbps: rounded(of(all, 'tcp1_gbps')),
      rr_p50_us: rounded(of(all, 'rr_p50_us')),
      udp64_kpps: rounded(of(all, 'udp64_kpps')),
      toRaw: {
        tcp1: better('tcp1_gbps'),
        rr_p50: rounded(of(bare, 'rr_p50_us') / of(all, 'rr_p50_us')),
        udp64: better('udp64_kpps'),
      },
      ...(await memoryOn(pair.host)),
    });
  }
  const idle = rounded(of([...bare, ...[...mine.values()].flat()], 'idle_cpus'));
  return { ...size, idle_cpus: idle, paths };
}

export const HEAD = [
  'path',
  'endpoints',
  'networks',
  'TCP Gb/s',
  'to raw',
  'p50 µs',
  'to raw',
  'UDP kpps',
  'to raw',
  'flows',
  'map entries',
  'vswitchd MiB',
];

/** Rows of a table, path by path. */
export const cellsOf = (levels: readonly Level[]): (string | number)[][] =>
  levels
    .flatMap((level) => level.paths.map((p) => ({ level, p })))
    .toSorted((a, b) => a.p.path.localeCompare(b.p.path))
    .map(({ level, p }) => [
      p.path,
      level.endpoints,
      level.networks,
      p.tcp1_gbps,
      p.toRaw.tcp1,
      p.rr_p50_us,
      p.toRaw.rr_p50,
      p.udp64_kpps,
      p.toRaw.udp64,
      p.flows,
      p.mapEntries,
      p.vswitchdMiB,
    ]);
