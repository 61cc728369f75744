/**
 * Querying and snooping of one network: when to ask whom, and since when the answers can be relied on. Time is an argument,
 * milliseconds. Pure but for its own memory.
 */
import { GROUP_TIMEOUT_MS, LAST_MEMBER_MS, type LocalGroups, Membership } from './membership.ts';
import { QUERY_INTERVAL_S } from './queries.ts';
import type { Change } from './reports.ts';

/** Asked so often in a row at first, with so much time between, and for an answer within. RFC 3376 §8.6 would take 31 s. */
export const STARTUP_QUERIES = 3;
export const STARTUP_INTERVAL_MS = 2_000;
export const STARTUP_RESPONSE_MS = 1_000;
/** RFC 3376 §8.3: the answers of many spread over this time. */
export const RESPONSE_MS = 10_000;

export interface Ask {
  /** Endpoints; "all" = all of the network. */
  readonly to: 'all' | readonly string[];
  readonly family: 4 | 6 | 'both';
  /** Null: for every group. */
  readonly group: bigint | null;
  readonly maxResponseMs: number;
}

export class SnoopedNetwork {
  readonly #members = new Membership();
  #endpoints: ReadonlySet<string> = new Set();
  #startup = STARTUP_QUERIES;
  #nextQuery: number;
  #known = false;

  /** @param known nobody can have joined before: all that its endpoints say has been heard. They are asked all the same. */
  constructor(now: number, known = false) {
    this.#nextQuery = now;
    this.#known = known;
  }

  /** All have been asked often enough to have answered: whoever did not wants nothing. */
  get known(): boolean {
    return this.#known;
  }

  /** As it was when the last agent ended, not long ago: relied on while everybody is asked again. */
  remember(endpoints: ReadonlyMap<string, readonly string[] | null>, now: number): void {
    this.#known = true;
    this.#endpoints = new Set(endpoints.keys());
    for (const [endpoint, groups] of endpoints) {
      if (groups === null) this.#members.joinAll(endpoint, now + GROUP_TIMEOUT_MS);
      else for (const group of groups) this.#members.join(endpoint, group, now);
    }
    // All are asked at once: who does not answer wants it no more.
    this.#members.shorten(now + STARTUP_QUERIES * STARTUP_INTERVAL_MS + STARTUP_RESPONSE_MS);
  }

  get endpoints(): ReadonlySet<string> {
    return this.#endpoints;
  }

  /** Null while not known: every endpoint gets everything. */
  groups(): LocalGroups | null {
    return this.#known ? this.#members.snapshot() : null;
  }

  /** @returns endpoints that have come, to be asked: a machine that was attached may have joined before. */
  setEndpoints(endpoints: ReadonlySet<string>): { changed: boolean; ask: Ask | null } {
    const come = [...endpoints].filter((id) => !this.#endpoints.has(id));
    this.#endpoints = endpoints;
    const changed = this.#members.keep(endpoints);
    const ask: Ask | null =
      come.length === 0 || this.#startup > 0 // all are asked soon anyway
        ? null
        : { to: come, family: 'both', group: null, maxResponseMs: STARTUP_RESPONSE_MS };
    return { changed, ask };
  }

  /** An endpoint's report. @returns whether somebody now gets something else, and what to ask because of it. */
  report(endpoint: string, family: 4 | 6, changes: readonly (Change & { text: string })[], now: number) {
    let changed = false;
    const asks: Ask[] = [];
    for (const { group, wants, text } of changes) {
      if (wants) changed = this.#members.join(endpoint, text, now) || changed;
      else if (this.#members.leave(endpoint, text, now))
        asks.push({ to: [endpoint], family, group, maxResponseMs: LAST_MEMBER_MS / 2 });
    }
    return { changed, asks };
  }

  /** @returns whether anything ended or became known, and the query that is due. `sent` is to be called once it was sent. */
  tick(now: number): { changed: boolean; ask: Ask | null } {
    let changed = this.#members.expire(now);
    if (this.#startup === 0 && !this.#known && now >= this.#nextQuery - this.#interval() + STARTUP_RESPONSE_MS * 1.5) {
      this.#known = true;
      changed = true;
    }
    if (now < this.#nextQuery) return { changed, ask: null };
    const maxResponseMs = this.#startup > 0 ? STARTUP_RESPONSE_MS : RESPONSE_MS;
    return { changed, ask: { to: 'all', family: 'both', group: null, maxResponseMs } };
  }

  /** The general query has left. One that could not be sent is due again with the next tick. */
  sent(now: number): void {
    if (this.#startup > 0) this.#startup--;
    this.#nextQuery = now + this.#interval();
  }

  /** The switch was not to be heard for a while: nobody is forgotten before having been asked again. */
  restart(now: number): void {
    this.#members.extend(now + GROUP_TIMEOUT_MS / 2);
    this.#startup = STARTUP_QUERIES;
    this.#nextQuery = now;
  }

  #interval(): number {
    return this.#startup > 0 ? STARTUP_INTERVAL_MS : QUERY_INTERVAL_S * 1000;
  }
}
