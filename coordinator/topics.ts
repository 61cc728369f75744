/** All logs of this coordinator, and who follows them. A network's log exists while somebody is interested in it. */
import type { Revision } from '../lib/model.ts';
import type { ChangeSet, State } from './contract.ts';
import { CatalogueLog, NetworkLog, type Topic } from './networklog.ts';
import { groupChanges } from './view.ts';

/** Key of the catalogue among the topics; networks have their id. */
export const CATALOGUE = '';

/** A session, as the logs see it. */
export interface Follower {
  /** The topic has something new. */
  mark(topic: string): void;
}

export class Topics {
  readonly #state: State;
  readonly #limit: number | undefined;
  readonly #catalogue: CatalogueLog;
  readonly #networks = new Map<string, NetworkLog>();
  readonly #followers = new Map<string, Set<Follower>>();
  #epoch: bigint;

  constructor(state: State, limit?: number) {
    this.#state = state;
    this.#limit = limit;
    this.#epoch = state.epoch;
    this.#catalogue = new CatalogueLog(state, this.#now(), limit);
  }

  #now(): Revision {
    return { epoch: this.#state.epoch, number: this.#state.revision };
  }

  /** The log of a topic that somebody follows. */
  get(topic: string): Topic | undefined {
    return topic === CATALOGUE ? this.#catalogue : this.#networks.get(topic);
  }

  /** Ids of networks that have a log. */
  get networks(): ReadonlySet<string> {
    return new Set(this.#networks.keys());
  }

  follow(topic: string, follower: Follower): void {
    let followers = this.#followers.get(topic);
    if (followers === undefined) {
      followers = new Set();
      this.#followers.set(topic, followers);
      if (topic !== CATALOGUE) this.#networks.set(topic, new NetworkLog(this.#state, topic, this.#now(), this.#limit));
    }
    followers.add(follower);
  }

  leave(topic: string, follower: Follower): void {
    const followers = this.#followers.get(topic);
    if (followers === undefined) return;
    followers.delete(follower);
    if (followers.size > 0) return;
    this.#followers.delete(topic);
    this.#networks.delete(topic);
  }

  /** Called once for each change set, after State has changed. */
  apply(set: ChangeSet): void {
    if (set.reset || this.#state.epoch !== this.#epoch) {
      this.#reset();
      return;
    }
    const revision = { epoch: this.#epoch, number: set.revision };
    const { networks, hosts, reaching } = groupChanges(this.#state, set.changes);
    if (this.#catalogue.apply(set.changes, revision)) this.#mark(CATALOGUE);
    const concerned = hosts.length > 0 ? this.#networks.keys() : new Set([...networks.keys(), ...reaching.keys()]);
    for (const id of concerned) {
      const log = this.#networks.get(id);
      if (log?.apply(networks.get(id) ?? [], hosts, revision, reaching.get(id)) === true) this.#mark(id);
    }
  }

  #reset(): void {
    const now = this.#now();
    this.#epoch = now.epoch;
    this.#catalogue.reset(now);
    for (const log of this.#networks.values()) log.reset(now);
    for (const topic of this.#followers.keys()) this.#mark(topic);
  }

  #mark(topic: string): void {
    for (const follower of this.#followers.get(topic) ?? []) follower.mark(topic);
  }
}
