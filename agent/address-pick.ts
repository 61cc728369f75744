/** Choosing among a host's addresses of one network (pure), of both families: numbers and prefixes are those of lib/addr.ts. */
import { byBase, type Cidr, containsIp, halves, isUsable, lastOf, parseCidr, tryParseIp } from '../lib/addr.ts';
import type { Network } from '../lib/model.ts';

/** How long a freed address is kept from automatic picks, ms. */
export const REST_MS = 30_000;

/** What one address is to a pick: taken, or freed at a moment (monotonic ms). Absent = never used. */
export type Slot = { readonly taken: true } | { readonly taken: false; readonly freedAt: number };

/** Addresses of a network that no endpoint may have: gateways, aux addresses, network and broadcast address. */
export interface Reserved {
  readonly subnets: readonly Cidr[];
  readonly ips: ReadonlySet<bigint>;
}

export function reservedOf(network: Network): Reserved {
  const ips = new Set<bigint>();
  for (const text of [...network.gateways, ...Object.values(network.auxAddresses)]) {
    const ip = tryParseIp(text.split('/')[0] ?? '');
    if (ip !== null) ips.add(ip);
  }
  return { subnets: network.subnets.map(parseCidr), ips };
}

export const isAssignable = (reserved: Reserved, ip: bigint): boolean =>
  reserved.subnets.some((subnet) => isUsable(subnet, ip)) && !reserved.ips.has(ip);

/** Held addresses that endpoints may have, and how many of them are free (neither taken nor resting) at `now`. */
export function count(
  blocks: readonly Cidr[],
  reserved: Reserved,
  slots: ReadonlyMap<bigint, Slot>,
  now: number,
): { usable: number; free: number } {
  let usable = 0;
  let free = 0;
  for (const block of blocks)
    for (let ip = block.base; ip <= lastOf(block); ip++) {
      if (!isAssignable(reserved, ip)) continue;
      usable++;
      if (isFree(slots.get(ip), now)) free++;
    }
  return { usable, free };
}

const isFree = (slot: Slot | undefined, now: number): boolean =>
  slot === undefined || (!slot.taken && now - slot.freedAt >= REST_MS);

/**
 * The address that has been free for longest: one never used (lowest first), else the one freed first.
 * @param resting also those freed less than REST_MS ago
 */
export function pick(
  blocks: readonly Cidr[],
  reserved: Reserved,
  slots: ReadonlyMap<bigint, Slot>,
  now: number,
  resting: boolean,
): bigint | null {
  let best: { ip: bigint; freedAt: number } | null = null;
  for (const block of blocks.toSorted(byBase))
    for (let ip = block.base; ip <= lastOf(block); ip++) {
      if (!isAssignable(reserved, ip)) continue;
      const slot = slots.get(ip);
      if (slot === undefined) return ip;
      if (slot.taken || (!resting && !isFree(slot, now))) continue;
      if (best === null || slot.freedAt < best.freedAt) best = { ip, freedAt: slot.freedAt };
    }
  return best?.ip ?? null;
}

/**
 * The parts of a block to keep when its free halves are given away: halves, recursively, that hold anything of `busy`.
 * @param busy addresses that must stay
 * @returns disjoint prefixes, ascending; the block itself when nothing can go
 */
export function partsToKeep(block: Cidr, busy: ReadonlySet<bigint>): readonly Cidr[] {
  const inside = [...busy].some((ip) => containsIp(block, ip));
  if (!inside) return [];
  if (block.prefix === 128) return [block];
  const [low, high] = halves(block);
  const kept = [...partsToKeep(low, busy), ...partsToKeep(high, busy)];
  const whole = kept.length === 2 && kept.every((part) => part.prefix === block.prefix + 1);
  return whole ? [block] : kept;
}

/** The free address nearest to a busy one (so that keeping it costs the fewest parts), or null. */
export function nearestFree(free: readonly bigint[], busy: readonly bigint[]): bigint | null {
  let best: { ip: bigint; distance: bigint } | null = null;
  for (const ip of free)
    for (const other of busy) {
      const distance = ip ^ other;
      if (best === null || distance < best.distance) best = { ip, distance };
    }
  return best?.ip ?? free[0] ?? null;
}
