/** What `bench:underlay` measures, and what of it is worth reading. Pure. */
import { SHARES } from '../../agent/shaping/classes.ts';
import { hundredth, table } from '../figures.ts';

export type ClassName = 'high' | 'normal' | 'low';
const ORDER: readonly ClassName[] = ['high', 'normal', 'low'];

/** Classes that want everything, and by what. */
export type Load = Partial<Readonly<Record<ClassName, 'tcp' | 'udp'>>>;
export type When = 'idle' | 'unshaped' | 'shaped';

/** Round trips of high priority, milliseconds. */
export interface Latency {
  readonly when: When;
  readonly round: number;
  readonly sent: number;
  readonly lost: number;
  readonly p50: number;
  readonly p99: number;
  readonly max: number;
  /** Of those that came back, ascending. */
  readonly times: readonly number[];
}

export interface Shares {
  readonly load: Load;
  readonly shaped: boolean;
  readonly round: number;
  /** Mbit/s. */
  readonly total: number;
  /** Of the total. */
  readonly got: Partial<Readonly<Record<ClassName, number>>>;
  /** The furthest that a class's share is from the expected one, of the expected one; null: nothing is expected. */
  readonly worst: number | null;
  /** The least that a class got of its guaranteed part of the rate; null: nothing is guaranteed. */
  readonly least: number | null;
}

/** What HTB gives (docs/rates.md): to each its guaranteed part, and what the others leave to the highest. */
export function expected(load: Load): Partial<Record<ClassName, number>> {
  const names = ORDER.filter((name) => load[name] !== undefined);
  const left = 1 - names.reduce((sum, name) => sum + SHARES[name], 0);
  return Object.fromEntries(names.map((name, i) => [name, SHARES[name] + (i === 0 ? left : 0)]));
}

/**
 * @param bits per second that arrived
 * @param rate bits per second of frames inside the tunnel, all classes together; null: not shaped
 */
export function sharesOf(
  load: Load,
  rate: number | null,
  round: number,
  bits: Partial<Record<ClassName, number>>,
): Shares {
  const names = ORDER.filter((name) => load[name] !== undefined);
  const total = names.reduce((sum, name) => sum + (bits[name] ?? 0), 0);
  const got = Object.fromEntries(names.map((name) => [name, thousandth((bits[name] ?? 0) / total)]));
  const want = expected(load);
  const off = names.map((name) => Math.abs((bits[name] ?? 0) / total / (want[name] ?? 1) - 1));
  const parts = names.map((name) => (bits[name] ?? 0) / ((rate ?? 1) * SHARES[name]));
  return {
    load,
    shaped: rate !== null,
    round,
    total: Math.round(total / 1e5) / 10,
    got,
    worst: rate === null ? null : thousandth(Math.max(...off)),
    least: rate === null ? null : thousandth(Math.min(...parts)),
  };
}

/** @param pings null: lost */
export function latencyOf(when: When, round: number, pings: readonly (number | null)[]): Latency {
  const times = pings.filter((ms) => ms !== null).toSorted((a, b) => a - b);
  const at = (q: number): number => hundredth(times[Math.max(0, Math.ceil(q * times.length) - 1)] ?? Number.NaN);
  return {
    when,
    round,
    sent: pings.length,
    lost: pings.length - times.length,
    p50: at(0.5),
    p99: at(0.99),
    max: at(1),
    times,
  };
}

export const loadText = (load: Load): string =>
  ORDER.flatMap((name) => (load[name] === undefined ? [] : [`${name}${load[name] === 'udp' ? ' (UDP)' : ''}`])).join(
    ' + ',
  );

export const percent = (share: number | undefined): string => (share === undefined ? '' : (100 * share).toFixed(1));

export const WORDS: Readonly<Record<When, string>> = {
  idle: 'nothing else is sent',
  unshaped: 'low wants all, not shaped',
  shaped: 'low wants all, shaped',
};

export function textOf(latency: readonly Latency[], shares: readonly Shares[]): string {
  const shaped = shares.filter((s) => s.shaped);
  const held = shaped.filter((s) => (s.worst ?? 1) <= 0.1).length;
  return [
    table(
      ['round trip of high priority, ms', 'round', 'p50', 'p99', 'max', 'lost'],
      latency.map((l) => [WORDS[l.when], l.round, l.p50, l.p99, l.max, `${l.lost} of ${l.sent}`]),
    ),
    '',
    table(
      ['shares, %', '', 'round', 'Mbit/s', ...ORDER, 'expected', 'furthest, %', 'least, %'],
      shares.map((s) => [
        loadText(s.load),
        s.shaped ? 'shaped' : 'not shaped',
        s.round,
        s.total,
        ...ORDER.map((name) => percent(s.got[name])),
        s.shaped
          ? Object.values(expected(s.load))
              .map((share) => Math.round(share * 100))
              .join(' : ')
          : '',
        percent(s.worst ?? undefined),
        percent(s.least ?? undefined),
      ]),
    ),
    '',
    `shaped, every share within 10 % of the expected one: ${held} of ${shaped.length}`,
    `shaped, the least that a class got of its guaranteed part: ${percent(Math.min(...shaped.map((r) => r.least ?? 1)))} %`,
  ].join('\n');
}

const thousandth = (value: number): number => Math.round(value * 1000) / 1000;
