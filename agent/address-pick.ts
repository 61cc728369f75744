/** Choosing among a host's addresses of one network (pure). All addresses are unsigned 32-bit numbers. */
import { type Cidr, containsIp, halves, isUsable, lastOf, parseCidr, tryParseIp } from '../lib/ip.ts';
import type { Network } from '../lib/model.ts';

/** How long a freed address is kept from automatic picks, ms. */
export const REST_MS = 30_000;

/** What one address is to a pick: taken, or freed at a moment (monotonic ms). Absent = never used. */
export type Slot = { readonly taken: true } | { readonly taken: false; readonly freedAt: number };

/** Addresses of a network that no endpoint may have: gateway, aux addresses, network and broadcast address. */
export interface Reserved {
  readonly subnet: Cidr;
  readonly ips: ReadonlySet<number>;
}

/** @throws INVALID_ARGUMENT when the record holds no IPv4 subnet. */
export function reservedOf(network: Network): Reserved {
  const ips = new Set<number>();
  for (const text of [...network.gateways, ...Object.values(network.auxAddresses)]) {
    const ip = tryParseIp(text.split('/')[0] ?? '');
    if (ip !== null) ips.add(ip);
  }
  return { subnet: parseCidr(network.subnets[0] ?? ''), ips };
}

export const isAssignable = (reserved: Reserved, ip: number): boolean =>
  isUsable(reserved.subnet, ip) && !reserved.ips.has(ip);

/** Held addresses that endpoints may have, and how many of them are free (neither taken nor resting) at `now`. */
export function count(
  blocks: readonly Cidr[],
  reserved: Reserved,
  slots: ReadonlyMap<number, Slot>,
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
  slots: ReadonlyMap<number, Slot>,
  now: number,
  resting: boolean,
): number | null {
  let best: { ip: number; freedAt: number } | null = null;
  for (const block of blocks.toSorted((a, b) => a.base - b.base))
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
export function partsToKeep(block: Cidr, busy: ReadonlySet<number>): readonly Cidr[] {
  const inside = [...busy].some((ip) => containsIp(block, ip));
  if (!inside) return [];
  if (block.prefix === 32) return [block];
  const [low, high] = halves(block);
  const kept = [...partsToKeep(low, busy), ...partsToKeep(high, busy)];
  const whole = kept.length === 2 && kept.every((part) => part.prefix === block.prefix + 1);
  return whole ? [block] : kept;
}

/** The free address nearest to a busy one (so that keeping it costs the fewest parts), or null. */
export function nearestFree(free: readonly number[], busy: readonly number[]): number | null {
  let best: { ip: number; distance: number } | null = null;
  for (const ip of free)
    for (const other of busy) {
      const distance = (ip ^ other) >>> 0;
      if (best === null || distance < best.distance) best = { ip, distance };
    }
  return best?.ip ?? free[0] ?? null;
}
