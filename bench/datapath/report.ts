/** Medians, ratios and tables of what was measured. Pure. */
import { table } from '../figures.ts';
import {
  METRICS,
  type Metric,
  type Missing,
  NOTE,
  PATHS,
  type PathName,
  type Row,
  routed,
  type Sample,
  WEFT_PATHS,
  type Where,
} from './shape.ts';

/** The middle one, or the mean of the two. @throws for an empty list */
export function median(values: readonly number[]): number {
  const sorted = values.toSorted((a, b) => a - b);
  const [low, high] = [sorted[(sorted.length - 1) >> 1], sorted[sorted.length >> 1]];
  if (low === undefined || high === undefined) throw new Error('nothing was measured');
  return (low + high) / 2;
}

/** Three figures are more than such a machine can tell apart. */
export const rounded = (value: number): number => Number(value.toPrecision(3));

/** A row of medians for each path that has samples, in the order of PATHS, native ones first. */
export function rowsOf(samples: readonly Sample[]): Row[] {
  return (['native', 'guest'] as const).flatMap((where) =>
    PATHS.flatMap((path) => {
      const mine = samples.filter((s) => s.path === path && s.where === where);
      if (mine.length === 0) return [];
      const of = (key: Metric['key']): number => rounded(median(mine.map((s) => s[key])));
      return [
        {
          path,
          where,
          tcp1_gbps: of('tcp1_gbps'),
          tcp4_gbps: of('tcp4_gbps'),
          rr_p50_us: of('rr_p50_us'),
          rr_p99_us: of('rr_p99_us'),
          udp64_kpps: of('udp64_kpps'),
          cpu_s_per_gbit: of('cpu_s_per_gbit'),
        },
      ];
    }),
  );
}

/** How many times better a row is than another path of the same place; above 1 is better, for latency and CPU too. Null without it. */
export function ratio(rows: readonly Row[], row: Row, to: PathName, metric: Metric): number | null {
  const base = rows.find((r) => r.path === to && r.where === row.where);
  if (base === undefined) return null;
  const [mine, theirs] = [row[metric.key], base[metric.key]];
  // CPU may be nothing where others kept the machine busy.
  if (mine === 0 || theirs === 0) return null;
  return rounded(metric.better === 'higher' ? mine / theirs : theirs / mine);
}

export interface Ratios {
  readonly path: PathName;
  readonly where: Where;
  readonly to: PathName;
  readonly ratios: Readonly<Record<Metric['key'], number | null>>;
}

/** Every row's ratios to raw and to Swarm. */
export const ratiosOf = (rows: readonly Row[]): Ratios[] =>
  (['raw', 'swarm'] as const).flatMap((to) =>
    rows
      .filter((row) => rows.some((base) => base.path === to && base.where === row.where))
      .map((row) => ({
        path: row.path,
        where: row.where,
        to,
        ratios: Object.fromEntries(METRICS.map((m) => [m.key, ratio(rows, row, to, m)])) as Ratios['ratios'],
      })),
  );

export interface Aim {
  readonly what: string;
  readonly aim: number;
  readonly is: number | null;
}

/** What Weft should reach of Swarm, and between networks of what it reaches within one, and what it does; null where one of the two was not measured. */
export function aimsOf(rows: readonly Row[]): Aim[] {
  const of = (path: PathName, where: Where, key: Metric['key'], to: PathName): number | null => {
    const row = rows.find((r) => r.path === path && r.where === where);
    const metric = METRICS.find((m) => m.key === key);
    return row === undefined || metric === undefined ? null : ratio(rows, row, to, metric);
  };
  const full = ['tcp1_gbps', 'tcp4_gbps', 'rr_p50_us', 'udp64_kpps'] as const;
  const aim = (path: PathName, where: Where, key: Metric['key'], value: number, to: PathName = 'swarm'): Aim => ({
    what: `${path} (${where}) to ${to}, ${key}`,
    aim: value,
    is: of(path, where, key, to),
  });
  return [
    ...full.map((key) => aim('weft-express', 'native', key, 1)),
    ...full.map((key) => aim('weft-system', 'guest', key, 1)),
    ...(['tcp1_gbps', 'tcp4_gbps'] as const).map((key) => aim('weft-netdev', 'native', key, 0.6)),
    ...WEFT_PATHS.flatMap((path) =>
      full.map((key) => aim(routed(path), path === 'weft-system' ? 'guest' : 'native', key, 0.95, path)),
    ),
  ];
}

/** More than this, with nothing measured, and the figures are of a machine that others used too. */
const QUIET_CPUS = 0.3;

export interface Quiet {
  readonly idle_cpus: number;
  readonly quiet: boolean;
}

/** Busy processors before each measurement, the median; and what to think of it. */
export function quiet(samples: readonly Sample[]): Quiet {
  const idle = rounded(median(samples.map((s) => s.idle_cpus)));
  return { idle_cpus: idle, quiet: idle <= QUIET_CPUS };
}

/** The whole report, for a terminal. */
export function reportText(rows: readonly Row[], missing: readonly Missing[], rounds: number, load: Quiet): string {
  const parts: string[] = [];
  for (const where of ['native', 'guest'] as const) {
    const mine = rows.filter((r) => r.where === where);
    if (mine.length === 0) continue;
    const head = ['', ...METRICS.map((m) => `${m.key.replace(/_[^_]+$/, '').replace('cpu_s_per', 'cpu')} ${m.unit}`)];
    const lines = mine.map((row) => [row.path, ...METRICS.map((m) => row[m.key])]);
    parts.push(
      `${where}, medians of ${rounds} ${rounds === 1 ? 'round' : 'rounds'} taken in turns\n${table(head, lines)}`,
    );
    for (const to of ['raw', 'swarm'] as const) {
      if (!mine.some((r) => r.path === to)) continue;
      const times = mine.map((row) => [row.path, ...METRICS.map((m) => `${ratio(rows, row, to, m) ?? '-'} ×`)]);
      parts.push(`${where}, compared with ${to} (above 1 is better, for latency and CPU too)\n${table(head, times)}`);
    }
  }
  for (const m of missing) parts.push(`left out: ${m.path} (${m.where}): ${m.reason}`);
  if (!load.quiet)
    parts.push(
      `The machine was not quiet: ${load.idle_cpus} CPUs were busy before each measurement. Compare nothing with other runs.`,
    );
  const aims = aimsOf(rows).map((a) => `${a.what}: ≥ ${a.aim}, is ${a.is ?? 'not measured'}`);
  return [...parts, NOTE, ['aims', ...aims].join('\n')].join('\n\n');
}
