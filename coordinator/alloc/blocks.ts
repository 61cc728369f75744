/** Picks address blocks: aligned parts of a network's range that hosts allocate from. Pure. */
import {
  blockPrefix,
  type Cidr,
  cidrOf,
  containsCidr,
  containsIp,
  halves,
  isUsable,
  lastOf,
  overlaps,
  parseCidr,
  parseIp,
  sizeOf,
} from '../../lib/ip.ts';
import type { Network } from '../../lib/model.ts';

/** What the pickers know of a network. */
export interface AddressPlan {
  readonly subnet: Cidr;
  /** Blocks are cut from here: the ip-range, or the whole subnet. */
  readonly range: Cidr;
  /** Addresses that no endpoint may have: network, broadcast, gateway, auxiliary addresses. */
  readonly reserved: ReadonlySet<number>;
}

export function addressPlan(network: Network): AddressPlan {
  const subnet = parseCidr(network.subnets[0]!);
  const range = network.ipRange === '' ? subnet : parseCidr(network.ipRange);
  const special = [...network.gateways, ...Object.values(network.auxAddresses)].map((text) => parseIp(text));
  const ends = subnet.prefix < 31 ? [subnet.base, lastOf(subnet)] : [];
  return { subnet, range, reserved: new Set([...ends, ...special]) };
}

/** True for addresses that an endpoint may have. */
export const isAssignable = (plan: AddressPlan, ip: number): boolean =>
  isUsable(plan.subnet, ip) && !plan.reserved.has(ip);

/** Addresses of the block that an endpoint may have. */
export function usableCount(plan: AddressPlan, block: Cidr): number {
  let count = sizeOf(block.prefix);
  for (const ip of plan.reserved) if (containsIp(block, ip)) count--;
  return count;
}

/** The largest aligned parts of `range` that overlap nothing taken, in ascending order. */
export function freeParts(range: Cidr, taken: readonly Cidr[]): readonly Cidr[] {
  const inside = taken.filter((t) => overlaps(t, range));
  if (inside.length === 0) return [range];
  if (inside.some((t) => containsCidr(t, range))) return [];
  return halves(range).flatMap((half) => freeParts(half, inside));
}

/**
 * A free block of the network's usual length; when there is none, the largest there is (down to /32). Blocks without one
 * address that an endpoint may have are not worth anything and are skipped.
 * @returns null when nothing is free
 */
export function pickBlock(plan: AddressPlan, taken: readonly Cidr[]): Cidr | null {
  const usual = blockPrefix(plan.range);
  let best: Cidr | null = null;
  for (const part of freeParts(plan.range, taken)) {
    for (const block of cut(part, usual)) {
      if (usableCount(plan, block) === 0) continue;
      if (block.prefix === usual) return block;
      if (best === null || block.prefix < best.prefix) best = block;
      break;
    }
  }
  return best;
}

/**
 * The largest free aligned block, at most of the usual length, that contains the address. Outside the ip-range it is the address
 * alone: nothing else there may be given out automatically.
 * @returns null when the address is taken, or may not be an endpoint's
 */
export function pickBlockContaining(plan: AddressPlan, taken: readonly Cidr[], ip: number): Cidr | null {
  if (!isAssignable(plan, ip)) return null;
  const usual = containsIp(plan.range, ip) ? blockPrefix(plan.range) : 32;
  for (let prefix = usual; prefix <= 32; prefix++) {
    const block = cidrOf(ip, prefix);
    if (!taken.some((t) => overlaps(t, block))) return block;
  }
  return null;
}

function* cut(part: Cidr, prefix: number): Generator<Cidr> {
  if (part.prefix >= prefix) return yield part;
  const size = sizeOf(prefix);
  for (let base = part.base; base <= lastOf(part); base += size) yield { base, prefix };
}

/** True when every part lies inside the block and none overlaps another: what a host may keep of it. */
export function isPartition(block: Cidr, parts: readonly Cidr[]): boolean {
  const sorted = [...parts].sort((a, b) => a.base - b.base);
  return sorted.every((part, i) => containsCidr(block, part) && (i === 0 || lastOf(sorted[i - 1]!) < part.base));
}
