/**
 * What hosts are told, as pure functions of what etcd says: the catalogue, and the view of one network.
 * Increments come out of change sets, so that a change costs what it touches and not what the network holds.
 */
import type { Catalogue, NetworkUpdate, Peer } from '../gen/weft/v1/session.ts';
import type { Network, Revision, Router } from '../lib/model.ts';
import { linkedTo } from '../lib/routers.ts';
import type { Change, State } from './contract.ts';
import { EVERYWHERE, isPublished, leads, peer, peerOf, peersOf, type ReachSource, samePeer, visible } from './reach.ts';

/** The part of State that views are made of. */
export type ViewSource = ReachSource &
  Pick<State, 'networks' | 'externals' | 'settings' | 'memberships' | 'reservations' | 'policies'>;

/** Everything of one network; `revision` is that of the newest increment, so that the next one chains on. */
export function completeNetwork(source: ViewSource, networkId: string, revision: Revision): NetworkUpdate {
  return {
    ...emptyUpdate(networkId, revision),
    complete: true,
    blocks: [...(source.blocks.get(networkId)?.values() ?? [])],
    endpoints: [...(source.endpoints.get(networkId)?.values() ?? [])],
    peers: [...peersOf(source, networkId).values()],
    addresses: [...(source.addresses.get(networkId)?.values() ?? [])].filter(visible),
    externals: [...(source.externals.get(networkId)?.values() ?? [])],
    memberships: [...(source.memberships.get(networkId)?.values() ?? [])],
    settings: [...(source.settings.get(networkId)?.values() ?? [])],
    reservations: [...(source.reservations.get(networkId)?.values() ?? [])],
    services: [...(source.services.get(networkId)?.values() ?? [])],
    policies: [...(source.policies.get(networkId)?.values() ?? [])],
  };
}

/** Headers of every network, reserved ones too (`state` tells them apart). */
export function completeCatalogue(source: ViewSource, revision: Revision): Catalogue {
  const networks = [...source.networks.values()].map((network) => header(source, network));
  return {
    complete: true,
    basedOn: undefined,
    revision,
    networks,
    removed: [],
    routers: [...source.routers.values()],
    removedRouters: [],
  };
}

const header = (source: ViewSource, network: Network): Network =>
  isPublished(source, network.id) ? { ...network, published: true } : network;

/** Ids of networks that hosts are told to be published. */
export const publishedNetworks = (source: ViewSource): Set<string> =>
  new Set(source.networks.keys().filter((id) => isPublished(source, id)));

/**
 * The networks that a change set brought, changed or removed; null when it touches none.
 * @param source State after the changes
 * @param published before the changes, as hosts have been told
 */
export function catalogueIncrement(
  source: ViewSource,
  changes: readonly Change[],
  published: ReadonlySet<string>,
  revision: Revision,
): Catalogue | null {
  const networks = new Map<string, Network>();
  const routers = new Map<string, Router>();
  const removed: string[] = [];
  const removedRouters: string[] = [];
  for (const change of changes) {
    if (change.kind === 'router') {
      if (change.after === null) removedRouters.push(change.name);
      else routers.set(change.name, change.after);
    } else if (change.kind === 'network') {
      if (change.after === null) removed.push(change.id);
      else networks.set(change.id, header(source, change.after));
    } else if (isPublishing(change) && isPublished(source, change.networkId) !== published.has(change.networkId)) {
      const network = source.networks.get(change.networkId);
      if (network !== undefined) networks.set(network.id, header(source, network));
    }
  }
  if (networks.size + removed.length + routers.size + removedRouters.length === 0) return null;
  return {
    complete: false,
    basedOn: undefined,
    revision,
    networks: [...networks.values()],
    removed,
    routers: [...routers.values()],
    removedRouters,
  };
}

/** It may be that every host leads ports into the network now, or that none does any more. */
const isPublishing = (change: Change): change is Change & { readonly kind: 'service' } =>
  change.kind === 'service' && [change.before, change.after].some((s) => s?.publish === EVERYWHERE);

/** Changes of one network, and those of hosts, which concern any. */
export interface ChangeGroups {
  readonly networks: ReadonlyMap<string, readonly Change[]>;
  readonly hosts: readonly Change[];
  /** Networks into which routers lead from others, where hosts have come or gone: these hosts; "all" where routers themselves have changed. */
  readonly reaching: ReadonlyMap<string, ReadonlySet<string> | 'all'>;
}

/** Sorts the changes of a set by the network that they concern. @param source State after the changes */
export function groupChanges(source: Pick<State, 'routers'>, changes: readonly Change[]): ChangeGroups {
  const networks = new Map<string, Change[]>();
  const hosts: Change[] = [];
  for (const change of changes) {
    if (change.kind === 'host') {
      const { before, after } = change;
      const same = before !== null && after !== null && samePeer(peer(before), peer(after));
      if (!same || leads(before) !== leads(after)) hosts.push(change);
    } else if ('networkId' in change) {
      const list = networks.get(change.networkId);
      if (list === undefined) networks.set(change.networkId, [change]);
      else list.push(change);
    }
  }
  return { networks, hosts, reaching: reachingOf(source, changes) };
}

function reachingOf({ routers }: Pick<State, 'routers'>, changes: readonly Change[]): ChangeGroups['reaching'] {
  const reaching = new Map<string, Set<string> | 'all'>();
  for (const change of changes)
    if (change.kind === 'router')
      for (const id of [change.before, change.after].flatMap((r) => r?.networkIds ?? [])) reaching.set(id, 'all');
  if (routers.size === 0) return reaching;
  for (const change of changes) {
    if (change.kind !== 'block' && change.kind !== 'address' && change.kind !== 'endpoint') continue;
    // Who holds what is as before.
    if (change.kind !== 'address' && change.before !== null && change.before.hostId === change.after?.hostId) continue;
    for (const id of linkedTo(routers.values(), change.networkId)) {
      const hosts = reaching.get(id) ?? new Set();
      reaching.set(id, hosts);
      if (hosts !== 'all')
        for (const record of [change.before, change.after]) if (record !== null) hosts.add(record.hostId);
    }
  }
  return reaching;
}

/**
 * What a change set means for one network's view; null when nothing.
 * @param source State after the changes
 * @param peers peers before the changes, as the last update said
 * @param reaching as ChangeGroups has it
 */
export function networkIncrement(
  source: ViewSource,
  networkId: string,
  changes: readonly Change[],
  hosts: readonly Change[],
  peers: ReadonlyMap<string, Peer>,
  revision: Revision,
  reaching: ReadonlySet<string> | 'all' = new Set(),
): NetworkUpdate | null {
  const update = emptyUpdate(networkId, revision);
  const touched = new Set<string>(reaching === 'all' ? [] : reaching);
  for (const change of changes) {
    addRecord(update, change);
    if (change.kind === 'block' || change.kind === 'address' || change.kind === 'endpoint') {
      if (change.before !== null) touched.add(change.before.hostId);
      if (change.after !== null) touched.add(change.after.hostId);
    }
  }
  const published = isPublished(source, networkId);
  for (const change of hosts)
    if (change.kind === 'host' && (peers.has(change.id) || change.before === null || published)) touched.add(change.id);
  // Of all hosts it is asked anew who is a peer.
  const all = reaching === 'all' || changes.some(isPublishing) ? peersOf(source, networkId) : null;
  for (const hostId of all === null ? touched : new Set([...peers.keys(), ...all.keys()])) {
    const before = peers.get(hostId) ?? null;
    const after = all === null ? peerOf(source, networkId, hostId, published) : (all.get(hostId) ?? null);
    if (after === null) {
      if (before !== null) update.removedPeers.push(hostId);
    } else if (before === null || !samePeer(before, after)) update.peers.push(after);
  }
  return isEmpty(update) ? null : update;
}

function addRecord(update: NetworkUpdate, change: Change): void {
  if (change.kind === 'block') {
    if (change.after === null) update.removedBlocks.push(change.cidr);
    else update.blocks.push(change.after);
  } else if (change.kind === 'endpoint') {
    if (change.after === null) update.removedEndpoints.push(change.id);
    else update.endpoints.push(change.after);
  } else if (change.kind === 'address') {
    if (change.after !== null && visible(change.after)) update.addresses.push(change.after);
    else if (change.before !== null && visible(change.before)) update.removedAddresses.push(change.address);
  } else if (change.kind === 'external') {
    if (change.after === null) update.removedExternals.push(change.id);
    else update.externals.push(change.after);
  } else if (change.kind === 'memberships') {
    if (change.after === null) update.removedMemberships.push(change.hostId);
    else update.memberships.push(change.after);
  } else if (change.kind === 'settings') {
    if (change.after === null) update.removedSettings.push(change.endpointId);
    else update.settings.push(change.after);
  } else if (change.kind === 'reservation') {
    if (change.after === null) update.removedReservations.push(change.name);
    else update.reservations.push(change.after);
  } else if (change.kind === 'service') {
    if (change.after === null) update.removedServices.push(change.name);
    else update.services.push(change.after);
  } else if (change.kind === 'policy') {
    if (change.after === null) update.removedPolicies.push(change.name);
    else update.policies.push(change.after);
  }
}

/** Two updates that follow each other, as one: the later word on each object counts. */
export function mergeNetwork(a: NetworkUpdate, b: NetworkUpdate): NetworkUpdate {
  const blocks = mergeRecords(a.blocks, a.removedBlocks, b.blocks, b.removedBlocks, (x) => x.cidr);
  const endpoints = mergeRecords(a.endpoints, a.removedEndpoints, b.endpoints, b.removedEndpoints, (x) => x.id);
  const peers = mergeRecords(a.peers, a.removedPeers, b.peers, b.removedPeers, (x) => x.hostId);
  const addresses = mergeRecords(a.addresses, a.removedAddresses, b.addresses, b.removedAddresses, (x) => x.address);
  const externals = mergeRecords(a.externals, a.removedExternals, b.externals, b.removedExternals, (x) => x.id);
  const memberships = mergeRecords(
    a.memberships,
    a.removedMemberships,
    b.memberships,
    b.removedMemberships,
    (x) => x.hostId,
  );
  const settings = mergeRecords(a.settings, a.removedSettings, b.settings, b.removedSettings, (x) => x.endpointId);
  const reservations = mergeRecords(
    a.reservations,
    a.removedReservations,
    b.reservations,
    b.removedReservations,
    (x) => x.name,
  );
  const services = mergeRecords(a.services, a.removedServices, b.services, b.removedServices, (x) => x.name);
  const policies = mergeRecords(a.policies, a.removedPolicies, b.policies, b.removedPolicies, (x) => x.name);
  return {
    networkId: a.networkId,
    complete: a.complete,
    basedOn: a.basedOn,
    revision: b.revision,
    blocks: blocks.present,
    removedBlocks: a.complete ? [] : blocks.removed,
    endpoints: endpoints.present,
    removedEndpoints: a.complete ? [] : endpoints.removed,
    peers: peers.present,
    removedPeers: a.complete ? [] : peers.removed,
    addresses: addresses.present,
    removedAddresses: a.complete ? [] : addresses.removed,
    externals: externals.present,
    removedExternals: a.complete ? [] : externals.removed,
    memberships: memberships.present,
    removedMemberships: a.complete ? [] : memberships.removed,
    settings: settings.present,
    removedSettings: a.complete ? [] : settings.removed,
    reservations: reservations.present,
    removedReservations: a.complete ? [] : reservations.removed,
    services: services.present,
    removedServices: a.complete ? [] : services.removed,
    policies: policies.present,
    removedPolicies: a.complete ? [] : policies.removed,
  };
}

/** Like mergeNetwork, of the catalogue. */
export function mergeCatalogue(a: Catalogue, b: Catalogue): Catalogue {
  const networks = mergeRecords(a.networks, a.removed, b.networks, b.removed, (x) => x.id);
  const routers = mergeRecords(a.routers, a.removedRouters, b.routers, b.removedRouters, (x) => x.name);
  return {
    complete: a.complete,
    basedOn: a.basedOn,
    revision: b.revision,
    networks: networks.present,
    removed: a.complete ? [] : networks.removed,
    routers: routers.present,
    removedRouters: a.complete ? [] : routers.removed,
  };
}

function mergeRecords<T>(
  present: readonly T[],
  removed: readonly string[],
  laterPresent: readonly T[],
  laterRemoved: readonly string[],
  key: (value: T) => string,
): { present: T[]; removed: string[] } {
  const records = new Map(present.map((value) => [key(value), value]));
  const gone = new Set(removed);
  for (const id of laterRemoved) {
    records.delete(id);
    gone.add(id);
  }
  for (const value of laterPresent) {
    records.set(key(value), value);
    gone.delete(key(value));
  }
  return { present: [...records.values()], removed: [...gone] };
}

/** Number of objects in an update: what it costs to keep. */
export const weightOf = (u: NetworkUpdate): number =>
  u.blocks.length +
  u.removedBlocks.length +
  u.endpoints.length +
  u.removedEndpoints.length +
  u.peers.length +
  u.removedPeers.length +
  u.addresses.length +
  u.removedAddresses.length +
  u.externals.length +
  u.removedExternals.length +
  u.memberships.length +
  u.removedMemberships.length +
  u.settings.length +
  u.removedSettings.length +
  u.reservations.length +
  u.removedReservations.length +
  u.services.length +
  u.removedServices.length +
  u.policies.length +
  u.removedPolicies.length;

const isEmpty = (u: NetworkUpdate): boolean => weightOf(u) === 0;

const emptyUpdate = (networkId: string, revision: Revision): NetworkUpdate => ({
  networkId,
  complete: false,
  basedOn: undefined,
  revision,
  blocks: [],
  removedBlocks: [],
  endpoints: [],
  removedEndpoints: [],
  peers: [],
  removedPeers: [],
  addresses: [],
  removedAddresses: [],
  externals: [],
  removedExternals: [],
  memberships: [],
  removedMemberships: [],
  settings: [],
  removedSettings: [],
  reservations: [],
  removedReservations: [],
  services: [],
  removedServices: [],
  policies: [],
  removedPolicies: [],
});
