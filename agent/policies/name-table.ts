/**
 * Addresses that names in policies stand for: those that the resolver has answered, each until its time is over. Bounded in every way that
 * somebody outside may make it grow. Pure, but for what it holds.
 */

/** An answer holds for its TTL, but for so long at least and at most, ms. */
export const HOLD = { least: 60_000, most: 3_600_000 } as const;
/** Of one answer; of one name, or of all names below one, in a network; of the host. */
export const MOST = { answer: 64, name: 512, host: 8192 } as const;

export interface Answered {
  /** Canonical. */
  readonly ip: string;
  /** Seconds. */
  readonly ttl: number;
}

/** What a name in a network has: address → epoch ms when it ends. */
type Held = Map<string, number>;

/** Network id → name, as policies write it → address → epoch ms when it ends. */
export type NamesOnDisk = Readonly<Record<string, Readonly<Record<string, Readonly<Record<string, number>>>>>>;

export interface Ended {
  readonly networkId: string;
  readonly name: string;
  readonly ip: string;
}

export class NameTable {
  readonly #held = new Map<string, Map<string, Held>>();
  #count = 0;

  get size(): number {
    return this.#count;
  }

  /** In order; empty for what nobody has asked for. */
  addresses(networkId: string, name: string): string[] {
    return [...(this.#held.get(networkId)?.get(name)?.keys() ?? [])].sort();
  }

  /** @param now epoch ms. @returns true when there are addresses that were not there before */
  learn(networkId: string, name: string, answered: readonly Answered[], now: number): boolean {
    let fresh = false;
    for (const { ip, ttl } of answered.slice(0, MOST.answer)) {
      const until = now + Math.min(HOLD.most, Math.max(HOLD.least, ttl * 1000));
      fresh = this.#put(networkId, name, ip, until) || fresh;
    }
    return fresh;
  }

  /** What is over. It stays until `end`. */
  due(now: number): Ended[] {
    return this.#all().filter(({ until }) => until <= now);
  }

  /** Epoch ms when the next one ends; null: there is none. */
  get next(): number | null {
    return this.#all().reduce<number | null>((next, { until }) => Math.min(until, next ?? until), null);
  }

  end({ networkId, name, ip }: Ended): void {
    const names = this.#held.get(networkId);
    const held = names?.get(name);
    if (held?.delete(ip) !== true) return;
    this.#count--;
    if (held.size === 0) names?.delete(name);
    if (names?.size === 0) this.#held.delete(networkId);
  }

  /** It is in use: it stays for a while. */
  renew({ networkId, name, ip }: Ended, now: number): void {
    const held = this.#held.get(networkId)?.get(name);
    if (held?.has(ip) === true) held.set(ip, now + HOLD.least);
  }

  toDisk(): NamesOnDisk {
    const ofNames = (names: Map<string, Held>) =>
      Object.fromEntries([...names].map(([name, held]) => [name, Object.fromEntries(held)]));
    return Object.fromEntries([...this.#held].map(([id, names]) => [id, ofNames(names)]));
  }

  /** Whatever a clock or a hand did to it: nothing lives longer than what is learned now. */
  fromDisk(saved: NamesOnDisk, now: number): void {
    for (const [networkId, names] of Object.entries(saved))
      for (const [name, held] of Object.entries(names))
        for (const [ip, until] of Object.entries(held))
          if (Number.isFinite(until)) this.#put(networkId, name, ip, Math.min(until, now + HOLD.most));
  }

  #put(networkId: string, name: string, ip: string, until: number): boolean {
    const names = this.#held.get(networkId) ?? new Map<string, Held>();
    const held = names.get(name) ?? new Map<string, number>();
    const old = held.get(ip);
    if (old !== undefined) {
      held.set(ip, Math.max(old, until));
      return false;
    }
    // Its own oldest makes room; those of other names never do.
    if (held.size >= MOST.name) this.end({ networkId, name, ip: firstToEnd(held) });
    else if (this.#count >= MOST.host) return false;
    this.#held.set(networkId, names);
    names.set(name, held);
    held.set(ip, until);
    this.#count++;
    return true;
  }

  #all(): (Ended & { readonly until: number })[] {
    return [...this.#held].flatMap(([networkId, names]) =>
      [...names].flatMap(([name, held]) => [...held].map(([ip, until]) => ({ networkId, name, ip, until }))),
    );
  }
}

const firstToEnd = (held: Held): string => [...held].reduce((a, b) => (b[1] < a[1] ? b : a))[0];
