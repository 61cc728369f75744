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
}

/** What HTB gives (docs/rates.md): to each its guaranteed part, and what the others leave to the highest. */
export function expected(load: Load): Partial<Record<ClassName, number>> {
  const names = ORDER.filter((name) => load[name] !== undefined);
  const left = 1 - names.reduce((sum, name) => sum + SHARES[name], 0);
  return Object.fromEntries(names.map((name, i) => [name, SHARES[name] + (i === 0 ? left : 0)]));
}

/** @param bits per second that arrived */
export function sharesOf(load: Load, shaped: boolean, round: number, bits: Partial<Record<ClassName, number>>): Shares {
  const names = ORDER.filter((name) => load[name] !== undefined);
  const total = names.reduce((sum, name) => sum + (bits[name] ?? 0), 0);
  const got = Object.fromEntries(names.map((name) => [name, thousandth((bits[name] ?? 0) / total)]));
  const want = expected(load);
  const off = names.map((name) => Math.abs((bits[name] ?? 0) / total / (want[name] ?? 1) - 1));
  return {
    load,
    shaped,
    round,
    total: Math.round(total / 1e5) / 10,
    got,
    worst: shaped ? thousandth(Math.max(...off)) : null,
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
      ['shares, %', '', 'round', 'Mbit/s', ...ORDER, 'expected', 'furthest, %'],
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
      ]),
    ),
    '',
    `shaped, every share within 10 % of the expected one: ${held} of ${shaped.length}`,
  ].join('\n');
}

const thousandth = (value: number): number => Math.round(value * 1000) / 1000;
