/** Who is a peer of a network: hosts that hold something of it, and those that reach it without. Pure. */
import type { Peer } from '../gen/weft/v1/session.ts';
import type { Host } from '../lib/model.ts';
import { linkedTo } from '../lib/routers.ts';
import type { State } from './contract.ts';

/** The part of State that peers are made of. */
export type ReachSource = Pick<State, 'hosts' | 'blocks' | 'addresses' | 'endpoints' | 'services' | 'routers'>;

/** Claims that nobody has granted yet stay between the coordinators: only a held address may be sent to. */
export const visible = (address: { readonly state: string }): boolean => address.state === 'held';

/** True when the host holds a block, an address or an endpoint of the network. */
function holds(source: ReachSource, networkId: string, hostId: string): boolean {
  for (const block of source.blocks.get(networkId)?.values() ?? []) if (block.hostId === hostId) return true;
  for (const endpoint of source.endpoints.get(networkId)?.values() ?? []) if (endpoint.hostId === hostId) return true;
  for (const address of source.addresses.get(networkId)?.values() ?? [])
    if (address.hostId === hostId && visible(address)) return true;
  return false;
}

/** Every host leads ports into the network. */
export const isPublished = (source: Pick<ReachSource, 'services'>, networkId: string): boolean =>
  source.services
    .get(networkId)
    ?.values()
    .some((service) => service.publish === EVERYWHERE) === true;

/** Of Service.publish. */
export const EVERYWHERE = 'all';

/** Ports of other hosts lead to no service (docs/services.md). */
export const leads = (host: Host): boolean => host.express;

/** How a host reaches the network: it holds something of it; or it leads ports there, or a router leads there from what it holds. */
interface Way {
  readonly entry: boolean;
  readonly routed: boolean;
}

const HOLDER: Way = { entry: false, routed: false };

export const peer = (host: Host, { entry, routed }: Way = HOLDER): Peer => ({
  hostId: host.id,
  name: host.name,
  vteps: host.vteps,
  entry,
  routed,
});

function holderIds(source: ReachSource, networkId: string): Set<string> {
  const ids = new Set<string>();
  for (const block of source.blocks.get(networkId)?.values() ?? []) ids.add(block.hostId);
  for (const endpoint of source.endpoints.get(networkId)?.values() ?? []) ids.add(endpoint.hostId);
  for (const address of source.addresses.get(networkId)?.values() ?? []) if (visible(address)) ids.add(address.hostId);
  return ids;
}

/** Hosts that hold a block, an address or an endpoint of the network, by id. */
export function holdersOf(source: ReachSource, networkId: string): Map<string, Host> {
  const holders = new Map<string, Host>();
  for (const id of [...holderIds(source, networkId)].sort()) {
    const host = source.hosts.get(id);
    if (host !== undefined) holders.set(id, host);
  }
  return holders;
}

/** All peers of a network by host id. */
export function peersOf(source: ReachSource, networkId: string): Map<string, Peer> {
  const holders = holdersOf(source, networkId);
  const peers = new Map([...holders].map(([id, host]) => [id, peer(host)]));
  const published = isPublished(source, networkId);
  const routing = new Set(
    linkedTo(source.routers.values(), networkId)
      .values()
      .flatMap((id) => holderIds(source, id)),
  );
  if (!published && routing.size === 0) return peers;
  for (const [id, host] of source.hosts) {
    const way = { entry: published && leads(host), routed: routing.has(id) };
    if (!holders.has(id) && (way.entry || way.routed)) peers.set(id, peer(host, way));
  }
  return peers;
}

/** The host as a peer of the network; null when it is none, or has no record. @param published every host leads ports into it */
export function peerOf(source: ReachSource, networkId: string, hostId: string, published: boolean): Peer | null {
  const host = source.hosts.get(hostId);
  if (host === undefined) return null;
  if (holds(source, networkId, hostId)) return peer(host);
  const routed = linkedTo(source.routers.values(), networkId)
    .values()
    .some((id) => holds(source, id, hostId));
  const way = { entry: published && leads(host), routed };
  return way.entry || way.routed ? peer(host, way) : null;
}

export const samePeer = (a: Peer, b: Peer): boolean =>
  a.name === b.name &&
  a.entry === b.entry &&
  a.routed === b.routed &&
  a.vteps.length === b.vteps.length &&
  a.vteps.every((vtep, i) => {
    const other = b.vteps[i];
    return (
      other !== undefined &&
      vtep.address === other.address &&
      vtep.encrypted === other.encrypted &&
      vtep.encaps.join() === other.encaps.join()
    );
  });
