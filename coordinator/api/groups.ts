/** Multicast groups as hosts report them. Pure. */
import { canonicalIp } from '../../lib/addr.ts';
import { WeftError } from '../../lib/errors.ts';

const MAX_GROUPS = 1000;

/**
 * Sorted, each once. Groups that are never pruned are left out (224.0.0.0/24, RFC 4541 §2.1.2; ff02::/16 and smaller scopes).
 * @returns null when there are more than can be kept: the host then gets every group
 * @throws INVALID_ARGUMENT an address that is no group
 */
export function checkedGroups(groups: readonly string[]): string[] | null {
  const all = new Set<string>();
  for (const text of groups) {
    const group = canonicalIp(text);
    if (!/^(22[4-9]|23\d)\.|^ff[0-9a-f]{2}:/.test(group))
      throw new WeftError('INVALID_ARGUMENT', `${group} is not a multicast group.`);
    if (!/^224\.0\.0\.|^ff0[0-2]:/.test(group)) all.add(group);
  }
  return all.size > MAX_GROUPS ? null : [...all].sort();
}
