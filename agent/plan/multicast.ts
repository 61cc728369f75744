/** From who wants which groups, here and on other hosts, to who gets copies. Pure. */
import { tryParseIp } from '../../lib/ip.ts';
import { tryParseIp6 } from '../../lib/ip6.ts';
import type { NetworkView } from '../../lib/model.ts';
import type { GroupModel, LocalPort, MulticastModel, Receivers, Remote } from '../flows/model.ts';
import { groupMac } from '../multicast/frame.ts';
import type { LocalGroups } from '../multicast/membership.ts';

/** What the agent knows of multicast on this host. */
export interface Snooped {
  /** By network id; null: not known (yet), every endpoint gets everything. A network that is absent is not snooped at all. */
  readonly locals: ReadonlyMap<string, LocalGroups | null>;
}

/**
 * Null: no pruning at all, everything goes to everybody.
 * @param local of this host; null: not known (yet); undefined: not snooped
 * @param ports of this host; a trusted one may be a router, and gets everything
 * @param memberships of other hosts; one that is not there gets everything, and so does an external peer
 */
export function multicastModel(
  local: LocalGroups | null | undefined,
  ports: readonly Pick<LocalPort, 'id' | 'ofport' | 'trusted'>[],
  remotes: readonly Remote[],
  memberships: NetworkView['memberships'],
): MulticastModel | null {
  if (local === undefined) return null;
  const byMac = new Map<bigint, { ids: Set<string>; hosts: Set<string> }>();
  const at = (group: string): { ids: Set<string>; hosts: Set<string> } => {
    const mac = macOf(group) ?? 0n;
    const entry = byMac.get(mac) ?? { ids: new Set<string>(), hosts: new Set<string>() };
    byMac.set(mac, entry);
    return entry;
  };
  for (const [group, endpoints] of local?.groups ?? []) for (const id of endpoints) at(group).ids.add(id);
  for (const { hostId } of remotes)
    for (const group of memberships.get(hostId)?.groups ?? []) at(group).hosts.add(hostId);
  byMac.delete(0n);
  const receivers = (ids: ReadonlySet<string>, hosts: ReadonlySet<string>): Receivers => ({
    locals: ports
      .filter(({ id, trusted }) => local === null || trusted || local.everything.has(id) || ids.has(id))
      .map(({ ofport }) => ofport)
      .sort((a, b) => a - b),
    remotes: remotes.filter(({ hostId }) => !memberships.has(hostId) || hosts.has(hostId)),
  });
  const groups = [...byMac].map(([mac, { ids, hosts }]): GroupModel => ({ mac, ...receivers(ids, hosts) }));
  return { groups: groups.sort((a, b) => (a.mac < b.mac ? -1 : 1)), rest: receivers(new Set(), new Set()) };
}

/** Groups may share a MAC: then they share receivers. Null for what is no group that may be pruned. */
function macOf(group: string): bigint | null {
  const v4 = tryParseIp(group);
  if (v4 !== null) return v4 >>> 28 === 14 ? groupMac(4, BigInt(v4)) : null;
  const v6 = tryParseIp6(group);
  return v6 !== null && v6 >> 120n === 0xffn ? groupMac(6, v6) : null;
}
