/**
 * Logs of increments: one for the catalogue, one for each network that somebody here is interested in. Sessions hold a cursor
 * (revision number of what they were sent last) into each log; the log answers with the one message that brings them up to date:
 * the next increment, several coalesced, or the complete thing when the cursor is older than what is kept. Messages are shared
 * objects, so that all sessions at one cursor share one encoding.
 */
import type { Catalogue, CoordinatorMessage, NetworkUpdate, Peer } from '../gen/weft/v1/session.ts';
import type { Revision } from '../lib/model.ts';
import type { Change } from './contract.ts';
import { peersOf } from './reach.ts';
import {
  catalogueIncrement,
  completeCatalogue,
  completeNetwork,
  mergeCatalogue,
  mergeNetwork,
  networkIncrement,
  publishedNetworks,
  type ViewSource,
  weightOf,
} from './view.ts';

/** Objects that a log keeps before it drops its oldest increments. */
export const LOG_LIMIT = 4096;

/** One message that brings a cursor to `last`. */
export interface Stretch {
  readonly message: CoordinatorMessage;
  readonly complete: boolean;
  /** Revision of the oldest change in it. */
  readonly first: bigint;
  /** The cursor after it. */
  readonly last: bigint;
}

/** What sessions see of a log. */
export interface Topic {
  /** Revision of the newest increment. */
  readonly head: bigint;
  /** Revision of the oldest change that a session at `cursor` lacks; null when it lacks none. */
  firstAfter(cursor: bigint | null): bigint | null;
  /** @param cursor null = nothing has been sent yet. Returns null when there is nothing to send. */
  since(cursor: bigint | null): Stretch | null;
}

interface Update {
  complete: boolean;
  basedOn: Revision | undefined;
  revision: Revision | undefined;
}

abstract class Log<U extends Update> implements Topic {
  protected readonly source: ViewSource;
  protected epoch: bigint;
  readonly #limit: number;
  #entries: { readonly update: U; readonly based: bigint; readonly at: bigint; readonly weight: number }[] = [];
  #weight = 0;
  /** Cursors before it get everything. */
  #base: bigint;
  #head: bigint;
  /** Messages by the cursor that they start from (-1 = complete); valid for the present head. */
  #ready = new Map<bigint, Stretch>();

  constructor(source: ViewSource, at: Revision, limit: number) {
    this.source = source;
    this.epoch = at.epoch;
    this.#base = at.number;
    this.#head = at.number;
    this.#limit = limit;
  }

  protected abstract all(revision: Revision): U;
  protected abstract merge(a: U, b: U): U;
  protected abstract wrap(update: U): CoordinatorMessage;
  protected abstract weigh(update: U): number;

  get head(): bigint {
    return this.#head;
  }

  get length(): number {
    return this.#entries.length;
  }

  protected append(update: U, at: bigint): void {
    const weight = this.weigh(update);
    update.basedOn = { epoch: this.epoch, number: this.#head };
    this.#entries.push({ update, based: this.#head, at, weight });
    this.#weight += weight;
    this.#head = at;
    this.#ready.clear();
    while (this.#weight > this.#limit && this.#entries.length > 0) {
      const oldest = this.#entries.shift();
      if (oldest === undefined) break;
      this.#weight -= oldest.weight;
      this.#base = oldest.at;
    }
  }

  /** Everybody gets everything again. */
  protected restart(at: Revision): void {
    this.#entries = [];
    this.#weight = 0;
    this.epoch = at.epoch;
    this.#base = at.number;
    this.#head = at.number;
    this.#ready.clear();
  }

  firstAfter(cursor: bigint | null): bigint | null {
    if (cursor === null) return 0n;
    if (cursor >= this.#head) return null;
    return this.#entries[this.#indexAfter(cursor)]?.at ?? cursor + 1n;
  }

  since(cursor: bigint | null): Stretch | null {
    if (cursor !== null && cursor >= this.#head) return null;
    const key = cursor === null || cursor < this.#base ? -1n : cursor;
    const ready = this.#ready.get(key);
    if (ready !== undefined) return ready;
    const made = key === -1n ? this.#complete() : (this.#increment(key) ?? this.#complete());
    this.#ready.set(key, made);
    return made;
  }

  #complete(): Stretch {
    const update = this.all({ epoch: this.epoch, number: this.#head });
    return { message: this.wrap(update), complete: true, first: this.#head, last: this.#head };
  }

  #increment(cursor: bigint): Stretch | null {
    const from = this.#indexAfter(cursor);
    const first = this.#entries[from];
    if (first === undefined) return null;
    let update = first.update;
    for (let i = from + 1; i < this.#entries.length; i++) {
      const next = this.#entries[i];
      if (next !== undefined) update = this.merge(update, next.update);
    }
    return { message: this.wrap(update), complete: false, first: first.at, last: this.#head };
  }

  /** Index of the increment that starts at the cursor; searched from the end, where almost everybody is. */
  #indexAfter(cursor: bigint): number {
    for (let i = this.#entries.length - 1; i >= 0; i--) if (this.#entries[i]?.based === cursor) return i;
    return this.#entries.length;
  }
}

/** Headers of all networks. */
export class CatalogueLog extends Log<Catalogue> {
  /** Ids. */
  #published: Set<string>;

  constructor(source: ViewSource, at: Revision, limit = LOG_LIMIT) {
    super(source, at, limit);
    this.#published = publishedNetworks(source);
  }

  /** @returns true when there is something new to send. */
  apply(changes: readonly Change[], revision: Revision): boolean {
    const update = catalogueIncrement(this.source, changes, this.#published, revision);
    if (update === null) return false;
    for (const id of update.removed) this.#published.delete(id);
    for (const { id, published } of update.networks)
      if (published) this.#published.add(id);
      else this.#published.delete(id);
    this.append(update, revision.number);
    return true;
  }

  reset(at: Revision): void {
    this.#published = publishedNetworks(this.source);
    this.restart(at);
  }

  protected override all(revision: Revision): Catalogue {
    return completeCatalogue(this.source, revision);
  }

  protected override merge(a: Catalogue, b: Catalogue): Catalogue {
    return mergeCatalogue(a, b);
  }

  protected override wrap(value: Catalogue): CoordinatorMessage {
    return { body: { $case: 'catalogue', value } };
  }

  protected override weigh(update: Catalogue): number {
    return update.networks.length + update.removed.length + update.routers.length + update.removedRouters.length;
  }
}

/** One network's blocks, endpoints, peers and addresses. */
export class NetworkLog extends Log<NetworkUpdate> {
  readonly networkId: string;
  #peers: Map<string, Peer>;

  constructor(source: ViewSource, networkId: string, at: Revision, limit = LOG_LIMIT) {
    super(source, at, limit);
    this.networkId = networkId;
    this.#peers = peersOf(source, networkId);
  }

  /** @returns true when there is something new to send. */
  apply(
    changes: readonly Change[],
    hosts: readonly Change[],
    revision: Revision,
    reaching?: ReadonlySet<string> | 'all',
  ): boolean {
    const update = networkIncrement(this.source, this.networkId, changes, hosts, this.#peers, revision, reaching);
    if (update === null) return false;
    for (const id of update.removedPeers) this.#peers.delete(id);
    for (const peer of update.peers) this.#peers.set(peer.hostId, peer);
    this.append(update, revision.number);
    return true;
  }

  reset(at: Revision): void {
    this.#peers = peersOf(this.source, this.networkId);
    this.restart(at);
  }

  protected override all(revision: Revision): NetworkUpdate {
    return completeNetwork(this.source, this.networkId, revision);
  }

  protected override merge(a: NetworkUpdate, b: NetworkUpdate): NetworkUpdate {
    return mergeNetwork(a, b);
  }

  protected override wrap(value: NetworkUpdate): CoordinatorMessage {
    return { body: { $case: 'network', value } };
  }

  protected override weigh(update: NetworkUpdate): number {
    return weightOf(update);
  }
}
