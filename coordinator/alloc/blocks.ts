/** Picks address blocks: aligned parts of a network's range that hosts allocate from. Pure. */
import {
  blockPrefix,
  blockSpace,
  byBase,
  type Cidr,
  cidrOf,
  containsCidr,
  containsIp,
  type Family,
  familyOf,
  familyOfText,
  halves,
  isUsable,
  lastOf,
  overlaps,
  parseCidr,
  parseIp,
  sizeOf,
  subnetOf,
} from '../../lib/addr.ts';
import type { Network } from '../../lib/model.ts';

/** What the pickers know of one address family of a network. */
export interface AddressPlan {
  readonly subnet: Cidr;
  /** Blocks are cut from here: the ip-range, or the whole subnet (of an IPv6 one, its low 32 bits). */
  readonly range: Cidr;
  /** Addresses that no endpoint may have: network, broadcast, gateway, auxiliary addresses. */
  readonly reserved: ReadonlySet<bigint>;
}

/** @returns null where the network has no subnet of that family */
export function addressPlan(network: Network, family: Family): AddressPlan | null {
  const subnet = subnetOf(network, family);
  if (subnet === null) return null;
  const given = network.ipRange !== '' && familyOfText(network.ipRange) === family;
  const range = given ? parseCidr(network.ipRange) : blockSpace(subnet);
  const special = [...network.gateways, ...Object.values(network.auxAddresses)]
    .map((text) => parseIp(text))
    .filter((ip) => familyOf(ip) === family);
  const ends = subnet.prefix >= 127 ? [] : family === 6 ? [subnet.base] : [subnet.base, lastOf(subnet)];
  return { subnet, range, reserved: new Set([...ends, ...special]) };
}

/** The plans that a network has, IPv4 first. */
export const addressPlans = (network: Network): AddressPlan[] =>
  ([4, 6] as const).map((family) => addressPlan(network, family)).filter((plan) => plan !== null);

/** True for addresses that an endpoint may have. */
export const isAssignable = (plan: AddressPlan, ip: bigint): boolean =>
  isUsable(plan.subnet, ip) && !plan.reserved.has(ip);

/** Addresses of the block that an endpoint may have. */
export function usableCount(plan: AddressPlan, block: Cidr): number {
  let count = Number(sizeOf(block.prefix));
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
 * A free block of the network's usual length; when there is none, the largest there is (down to single addresses). Blocks without one
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
export function pickBlockContaining(plan: AddressPlan, taken: readonly Cidr[], ip: bigint): Cidr | null {
  if (!isAssignable(plan, ip)) return null;
  const usual = containsIp(plan.range, ip) ? blockPrefix(plan.range) : 128;
  for (let prefix = usual; prefix <= 128; prefix++) {
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
  const sorted = [...parts].sort(byBase);
  return sorted.every((part, i) => containsCidr(block, part) && (i === 0 || lastOf(sorted[i - 1]!) < part.base));
}
