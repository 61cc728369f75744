/**
 * Which sizes of underlay packets get through a tunnel, one way: the search, without anybody to send. A round tries some sizes of each
 * path at once, so that the number of rounds does not depend on the number of hosts. Pure.
 */

/** Headers and the mark of a probe take up to 90 bytes. */
const LEAST = 128;
/** Sizes of a path in a round. */
const SIZES = 24;
/** What underlays of the usual kinds carry: Ethernet, PPPoE, tunnels within tunnels, clouds. */
const USUAL = [
  1280, 1372, 1380, 1400, 1410, 1420, 1422, 1430, 1440, 1442, 1450, 1460, 1462, 1480, 1492, 1500, 8900, 9000, 9001,
];

/** What is known of a path: `low` gets through (0: nothing has yet), `high` does not. */
export interface Search {
  readonly low: number;
  readonly high: number;
  /** A host or a router has said that something was too long. */
  readonly told: boolean;
  readonly rounds: number;
}

/** @param largest worth trying, bytes */
export const begin = (largest: number): Search => ({ low: 0, high: largest + 1, told: false, rounds: 0 });

/** What to try next, ascending; empty: nothing more. */
export function nextSizes({ low, high, rounds }: Search): number[] {
  if (high - low <= 1 || (rounds > 0 && low === 0)) return [];
  const from = rounds === 0 ? Math.min(LEAST, high - 1) : low + 1;
  const room = high - from;
  const step = room / SIZES;
  const even = Array.from({ length: SIZES }, (_, i) => Math.floor(from + i * step));
  const usual = rounds === 0 ? USUAL.flatMap((size) => [size, size + 1]) : [];
  const all = [...even, ...usual, from, high - 1].filter((size) => size >= from && size < high);
  return [...new Set(all)].sort((a, b) => a - b);
}

/** @param tried in this round. @param heard of the path so far; @param refused of them */
export function learn(
  s: Search,
  tried: readonly number[],
  heard: ReadonlySet<number>,
  refused: ReadonlySet<number>,
): Search {
  const low = Math.max(s.low, ...tried.filter((size) => heard.has(size)));
  const high = Math.min(s.high, ...tried.filter((size) => size > low));
  return { low, high, told: s.told || refused.size > 0, rounds: s.rounds + 1 };
}

/** As an agent says it of an echo. */
export function outcome({ low, told }: Search, largest: number): { largest: number; problem: string } {
  if (low === 0) return { largest: 0, problem: 'no VXLAN frame gets through' };
  if (low >= largest) return { largest: low, problem: '' };
  return { largest: low, problem: told ? `carries ${low} bytes` : `black hole above ${low} bytes` };
}
