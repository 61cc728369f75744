/**
 * Who wants which groups, of one network: soft state that reports refresh (RFC 3376 §6, RFC 3810 §7). Time is an argument,
 * milliseconds. Pure but for its own memory.
 */

/** Robustness × query interval + response interval (RFC 3376 §8.4). */
export const GROUP_TIMEOUT_MS = 260_000;
/** Last member query count × interval: how long a group outlives a leave that nobody contradicts (RFC 3376 §8.8). */
export const LAST_MEMBER_MS = 2_000;
/** Groups of one endpoint. Linux lets a socket join 20 unless told otherwise; an endpoint that wants more gets every group. */
export const MOST_GROUPS = 128;

export interface LocalGroups {
  /** Group address → endpoints that want it. */
  readonly groups: ReadonlyMap<string, ReadonlySet<string>>;
  /** Endpoints that get every group. */
  readonly everything: ReadonlySet<string>;
}

export class Membership {
  /** Endpoint → group → when it ends. */
  readonly #endpoints = new Map<string, Map<string, number>>();
  /** Endpoints that wanted too many, and until when. */
  readonly #everything = new Map<string, number>();
  #snapshot: LocalGroups | null = null;

  /** @returns whether anything changed but the time. */
  join(endpoint: string, group: string, now: number): boolean {
    const groups = this.#endpoints.get(endpoint) ?? new Map<string, number>();
    const known = groups.has(group);
    if (!known && groups.size >= MOST_GROUPS) {
      const first = !this.#everything.has(endpoint);
      this.#everything.set(endpoint, now + GROUP_TIMEOUT_MS);
      return this.#changed(first);
    }
    groups.set(group, now + GROUP_TIMEOUT_MS);
    this.#endpoints.set(endpoint, groups);
    return this.#changed(!known);
  }

  /** Wants every group, until the time given or for as long as it asks for too many. */
  joinAll(endpoint: string, until: number): void {
    this.#everything.set(endpoint, until);
    this.#changed(true);
  }

  /** @returns whether it was a member: it is until LAST_MEMBER_MS from now, unless it joins again, and may be asked. */
  leave(endpoint: string, group: string, now: number): boolean {
    const groups = this.#endpoints.get(endpoint);
    const until = groups?.get(group);
    if (groups === undefined || until === undefined) return false;
    groups.set(group, Math.min(until, now + LAST_MEMBER_MS));
    return true;
  }

  /** Forgets endpoints that are not among those given. @returns whether anything changed. */
  keep(endpoints: ReadonlySet<string>): boolean {
    let changed = false;
    for (const map of [this.#endpoints, this.#everything])
      for (const id of map.keys()) if (!endpoints.has(id)) changed = map.delete(id) || changed;
    return this.#changed(changed);
  }

  /** @returns whether anything ended. */
  expire(now: number): boolean {
    let changed = false;
    for (const [endpoint, groups] of this.#endpoints) {
      for (const [group, until] of groups) if (until <= now) changed = groups.delete(group) || changed;
      if (groups.size === 0) this.#endpoints.delete(endpoint);
    }
    for (const [endpoint, until] of this.#everything)
      if (until <= now) changed = this.#everything.delete(endpoint) || changed;
    return this.#changed(changed);
  }

  /** Nothing lasts longer. */
  shorten(until: number): void {
    for (const groups of this.#endpoints.values())
      for (const [group, old] of groups) groups.set(group, Math.min(old, until));
  }

  /** Nothing ends before: reports may have been lost meanwhile. */
  extend(until: number): void {
    for (const groups of this.#endpoints.values())
      for (const [group, old] of groups) groups.set(group, Math.max(old, until));
  }

  /** The same object until something changes. */
  snapshot(): LocalGroups {
    if (this.#snapshot !== null) return this.#snapshot;
    const groups = new Map<string, Set<string>>();
    for (const [endpoint, own] of this.#endpoints) {
      for (const group of own.keys()) {
        const members = groups.get(group) ?? new Set<string>();
        groups.set(group, members.add(endpoint));
      }
    }
    this.#snapshot = { groups, everything: new Set(this.#everything.keys()) };
    return this.#snapshot;
  }

  #changed(changed: boolean): boolean {
    if (changed) this.#snapshot = null;
    return changed;
  }
}
