/** Which networks lead out of the mesh by their hosts, and by which addresses of theirs. Pure. */
import { type Cidr, lowOf, ofFamily, parseIp, subnetOf } from '../../lib/addr.ts';
import type { Network } from '../../lib/model.ts';
import { BY_DOCKER } from '../../lib/network-options.ts';

export interface Egress {
  /** Gateway addresses that the bridge answers for; null: none of that family. */
  readonly ip: number | null;
  readonly ip6: bigint | null;
  /** What is in them is not looked for outside. */
  readonly subnets: readonly Cidr[];
}

type Described = Pick<Network, 'encap' | 'internal' | 'publishBy' | 'gateways' | 'subnets'>;

/** Null: no way out by the host (internal, a vlan with gateways of its own, or Docker's own bridge leads out). */
export function egressOf(network: Described): Egress | null {
  if (network.encap === 'vlan' || network.internal || network.publishBy === BY_DOCKER) return null;
  const gateways = gatewaysOf(network);
  if (gateways === null) return null;
  const subnets = ([4, 6] as const).map((family) => subnetOf(network, family)).filter((subnet) => subnet !== null);
  return { ...gateways, subnets };
}

/** Gateway addresses that stand for the host; null: none, or none of that family. A vlan's are machines there. */
export function gatewaysOf(network: Pick<Network, 'encap' | 'gateways'>): Pick<Egress, 'ip' | 'ip6'> | null {
  const [four, six] = ([4, 6] as const).map((family) => ofFamily(network.gateways, family)[0]);
  if (network.encap === 'vlan' || (four === undefined && six === undefined)) return null;
  return { ip: four === undefined ? null : lowOf(parseIp(four)), ip6: six === undefined ? null : parseIp(six) };
}

/** What Docker is told when a container joins. Empty: no default route of that family. */
export interface JoinGateway {
  readonly gateway: string;
  readonly gateway6: string;
  /** Otherwise dockerd gives the container a second interface, on docker_gwbridge. */
  readonly disableDockers: boolean;
}

/** @param e endpoint's addresses, empty = none */
export function joinGateway(network: Described, e: { readonly ip: string; readonly ip6: string }): JoinGateway {
  // A vlan's gateways are machines there; the mesh has them only where the user has given them.
  const leads = !network.internal && (network.encap === 'vlan' || egressOf(network) !== null);
  const of = (family: 4 | 6, own: string): string =>
    leads && own !== '' ? (ofFamily(network.gateways, family)[0] ?? '') : '';
  return {
    gateway: of(4, e.ip),
    gateway6: of(6, e.ip6),
    disableDockers: network.internal || network.publishBy !== BY_DOCKER,
  };
}
