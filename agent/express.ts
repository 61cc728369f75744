/** What an endpoint may do beyond its own address, and whether it may take the express path. Pure. */
import type { Network, View } from '../lib/model.ts';
import { deviceOf, type LocalEndpoint } from './contract.ts';
import { isJudged } from './policies/resolve.ts';

/** Label or driver option by which an endpoint is made trusted. */
export const TRUST = 'weft.trust';

export interface Standing {
  /** May send from any MAC and address. */
  readonly trusted: boolean;
  /** Only forwarding and port security concern it, which the kernel side does as well. */
  readonly express: boolean;
}

/** Asked for it, by driver option or label; only in a network that was made for it. */
export const isTrusted = (e: LocalEndpoint, network: Network | undefined): boolean =>
  network?.allowTrust === true && (e.trust === true || e.labels[TRUST] === 'true');

/** @param view with what the mesh's side has set on it */
export function standingOf(e: LocalEndpoint, network: Network | undefined, view: View): Standing {
  const trusted = isTrusted(e, network);
  const shares = (view.interests.get(e.networkId)?.settings.get(e.id)?.allowed.length ?? 0) > 0;
  // A vlan's frames go by its uplink, through Open vSwitch.
  const carried = network?.encap !== 'vlan' && deviceOf(e) === null;
  const judged = isJudged(e, network, view.interests.get(e.networkId));
  return { trusted, express: carried && !trusted && !shares && !judged };
}
