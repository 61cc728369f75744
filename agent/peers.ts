/** VTEPs that this host sends to, by whose they are. Pure. */
import type { Conflict, View } from '../lib/model.ts';

/** VTEP → name of its host. @param held of hosts that hold something of a network, not of those that only lead ports into it */
export function vtepsOf(view: View, { held } = { held: false }): Map<string, string> {
  const out = new Map<string, string>();
  for (const interest of view.interests.values())
    for (const peer of interest.peers.values())
      if (!held || !peer.entry) for (const v of peer.vteps) out.set(v.address, peer.name);
  return out;
}

/** VTEP → name of the external peer. */
export const externalsOf = (view: View): Map<string, string> =>
  new Map(
    [...view.interests.values()].flatMap((interest) =>
      [...interest.externals.values()].map((peer) => [peer.vtep, `external peer ${peer.name}`] as const),
    ),
  );

/** @param missing VTEP → why it cannot be reached, end of a sentence */
export function unreachable(host: string, view: View, missing: ReadonlyMap<string, string>): Conflict[] {
  const names = new Map([...externalsOf(view), ...vtepsOf(view)]);
  return [...missing]
    .map(([vtep, reason]) => {
      const whose = names.get(vtep);
      return `${host} cannot reach the VTEP ${vtep}${whose === undefined ? '' : ` of ${whose}`}: ${reason}.`;
    })
    .sort()
    .map((message) => ({ host, network: '', message }));
}
