/**
 * The view: what the coordinator has told this host, merged. Pure. A session first fills a staging view; only when Sync says that it
 * is complete does it replace the current one, so that half a view never removes anything (invariant I6).
 */
import type { Catalogue, NetworkUpdate, Peer } from '../gen/weft/v1/session.ts';
import { WeftError } from '../lib/errors.ts';
import type { Network, NetworkView, Revision, Router, View } from '../lib/model.ts';

export const EMPTY_VIEW: View = {
  revision: { epoch: 0n, number: 0n },
  networks: new Map(),
  routers: new Map(),
  interests: new Map(),
};

const gap = (what: string): WeftError =>
  new WeftError('ABORTED', `an increment of ${what} does not follow what this host has`);

export const sameRevision = (a: Revision | undefined, b: Revision | undefined): boolean =>
  (a?.epoch ?? 0n) === (b?.epoch ?? 0n) && (a?.number ?? 0n) === (b?.number ?? 0n);

export const isLater = (a: Revision, b: Revision): boolean =>
  a.epoch !== b.epoch ? a.epoch > b.epoch : a.number > b.number;

const later = (a: Revision, b: Revision | undefined): Revision => (b !== undefined && isLater(b, a) ? b : a);

function merge<T>(
  base: ReadonlyMap<string, T>,
  complete: boolean,
  upserts: readonly T[],
  key: (t: T) => string,
  removed: readonly string[],
): ReadonlyMap<string, T> {
  if (!complete && upserts.length === 0 && removed.length === 0) return base;
  const out = new Map<string, T>(complete ? [] : base);
  for (const k of removed) out.delete(k);
  for (const t of upserts) out.set(key(t), t);
  return out;
}

/** What a view is built from, with the revisions at which each part stands (increments are chained to them). */
export interface Draft {
  readonly view: View;
  readonly catalogueAt: Revision | null;
  readonly networkAt: ReadonlyMap<string, Revision>;
}

export const EMPTY_DRAFT: Draft = { view: EMPTY_VIEW, catalogueAt: null, networkAt: new Map() };

/** @throws ABORTED when the increment does not follow: the session must end and start again complete. */
export function withCatalogue(draft: Draft, message: Catalogue): Draft {
  if (!message.complete && (draft.catalogueAt === null || !sameRevision(draft.catalogueAt, message.basedOn)))
    throw gap('the catalogue');
  const at = message.revision ?? { epoch: 0n, number: 0n };
  const networks = merge(
    draft.view.networks,
    message.complete,
    message.networks,
    (n: Network) => n.id,
    message.removed,
  );
  const routers = merge(
    draft.view.routers,
    message.complete,
    message.routers,
    (r: Router) => r.name,
    message.removedRouters,
  );
  const revision = later(at, draft.view.revision);
  return { ...draft, view: { ...draft.view, networks, routers, revision }, catalogueAt: at };
}

/** @throws ABORTED when the increment does not follow. */
export function withNetwork(draft: Draft, message: NetworkUpdate): Draft {
  const id = message.networkId;
  const at = draft.networkAt.get(id);
  if (!message.complete && (at === undefined || !sameRevision(at, message.basedOn))) throw gap(`network ${id}`);
  const base: NetworkView = draft.view.interests.get(id) ?? {
    networkId: id,
    blocks: new Map(),
    endpoints: new Map(),
    peers: new Map(),
    addresses: new Map(),
    externals: new Map(),
    memberships: new Map(),
    settings: new Map(),
    reservations: new Map(),
    services: new Map(),
    policies: new Map(),
  };
  const c = message.complete;
  const next: NetworkView = {
    networkId: id,
    blocks: merge(base.blocks, c, message.blocks, (b) => b.cidr, message.removedBlocks),
    endpoints: merge(base.endpoints, c, message.endpoints, (e) => e.id, message.removedEndpoints),
    peers: merge(base.peers, c, message.peers, (p: Peer) => p.hostId, message.removedPeers),
    addresses: merge(base.addresses, c, message.addresses, (a) => a.address, message.removedAddresses),
    externals: merge(base.externals, c, message.externals, (x) => x.id, message.removedExternals),
    memberships: merge(base.memberships, c, message.memberships, (m) => m.hostId, message.removedMemberships),
    settings: merge(base.settings, c, message.settings, (s) => s.endpointId, message.removedSettings),
    reservations: merge(base.reservations, c, message.reservations, (r) => r.name, message.removedReservations),
    services: merge(base.services, c, message.services, (s) => s.name, message.removedServices),
    policies: merge(base.policies, c, message.policies, (p) => p.name, message.removedPolicies),
  };
  const revision = message.revision ?? { epoch: 0n, number: 0n };
  return {
    ...draft,
    view: {
      ...draft.view,
      interests: new Map(draft.view.interests).set(id, next),
      revision: later(revision, draft.view.revision),
    },
    networkAt: new Map(draft.networkAt).set(id, revision),
  };
}

/** Forgets a network that this host has no interest in any more. */
export function withoutInterest(draft: Draft, networkId: string): Draft {
  if (!draft.view.interests.has(networkId)) return draft;
  const interests = new Map(draft.view.interests);
  interests.delete(networkId);
  const networkAt = new Map(draft.networkAt);
  networkAt.delete(networkId);
  return { ...draft, view: { ...draft.view, interests }, networkAt };
}

export function withRevision(draft: Draft, revision: Revision | undefined): Draft {
  return { ...draft, view: { ...draft.view, revision: later(draft.view.revision, revision) } };
}
