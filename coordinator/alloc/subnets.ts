/** Picks subnets out of a pool. Pure. */
import { type Cidr, lastOf, overlaps, sizeOf } from '../../lib/ip.ts';

/** Where automatic subnets come from, and how long they are. */
export interface Pool {
  readonly range: Cidr;
  readonly prefix: number;
}

/** 2048 networks of 4096 addresses. */
export const DEFAULT_POOL: Pool = { range: { base: 0x0a80_0000, prefix: 9 }, prefix: 20 };

/** A subnet that was freed a short while ago. */
export interface RestingSubnet {
  readonly cidr: Cidr;
  /** Orders them: the one that was freed first is taken first when nothing else is left. */
  readonly since: string;
}

/**
 * The lowest free subnet of the pool that overlaps nothing taken and nothing resting; when there is none, the one that rests
 * longest. Null: the pool is exhausted.
 */
export function pickSubnet(pool: Pool, taken: readonly Cidr[], resting: readonly RestingSubnet[]): Cidr | null {
  const fresh = firstFree(pool, [...taken, ...resting.map((r) => r.cidr)]);
  if (fresh !== null) return fresh;
  const sorted = [...resting].sort((a, b) => (a.since < b.since ? -1 : Number(a.since > b.since)));
  for (const { cidr } of sorted) {
    const reused: Cidr = { base: cidr.base - (cidr.base % sizeOf(pool.prefix)), prefix: pool.prefix };
    const inPool = reused.base >= pool.range.base && lastOf(reused) <= lastOf(pool.range);
    if (inPool && !taken.some((t) => overlaps(t, reused))) return reused;
  }
  return firstFree(pool, taken);
}

function firstFree(pool: Pool, occupied: readonly Cidr[]): Cidr | null {
  const step = sizeOf(pool.prefix);
  const sorted = [...occupied].sort((a, b) => a.base - b.base);
  let base = pool.range.base;
  // One pass: whatever lies before the candidate can never overlap a later one.
  for (const cidr of sorted) {
    if (lastOf(cidr) < base) continue;
    if (cidr.base > base + step - 1) break;
    base = Math.floor(lastOf(cidr) / step) * step + step;
  }
  return base + step - 1 <= lastOf(pool.range) ? { base, prefix: pool.prefix } : null;
}
