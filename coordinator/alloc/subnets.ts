/** Picks subnets out of a pool. Pure. */
import { byBase, type Cidr, cidrOf, containsCidr, lastOf, overlaps, parseCidr, sizeOf } from '../../lib/addr.ts';

/** Where automatic subnets come from, and how long they are (as lib/addr.ts counts). */
export interface Pool {
  readonly range: Cidr;
  readonly prefix: number;
}

/** 2048 networks of 4096 addresses. */
export const DEFAULT_POOL: Pool = { range: parseCidr('10.128.0.0/9'), prefix: parseCidr('10.128.0.0/20').prefix };

/**
 * IPv6 subnets of a mesh: /64s of a unique local /48 (RFC 4193) whose forty random bits are the cluster id's, so that they stay
 * what they are without being stored.
 * @param clusterId at least ten hex digits, random
 */
export function ulaPool(clusterId: string): Pool {
  const globalId = BigInt(
    `0x${clusterId
      .replaceAll(/[^0-9a-f]/gi, '')
      .slice(-10)
      .padStart(10, '0')}`,
  );
  return { range: { base: (0xfdn << 120n) | (globalId << 80n), prefix: 48 }, prefix: 64 };
}

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
    const reused = cidrOf(cidr.base, pool.prefix);
    const inPool = containsCidr(pool.range, reused);
    if (inPool && !taken.some((t) => overlaps(t, reused))) return reused;
  }
  return firstFree(pool, taken);
}

function firstFree(pool: Pool, occupied: readonly Cidr[]): Cidr | null {
  const step = sizeOf(pool.prefix);
  const sorted = [...occupied].sort(byBase);
  let base = pool.range.base;
  // One pass: whatever lies before the candidate can never overlap a later one.
  for (const cidr of sorted) {
    if (lastOf(cidr) < base) continue;
    if (cidr.base > base + step - 1n) break;
    base = (lastOf(cidr) / step) * step + step;
  }
  return base + step - 1n <= lastOf(pool.range) ? { base, prefix: pool.prefix } : null;
}
