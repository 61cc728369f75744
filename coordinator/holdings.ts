/**
 * What a host has registered, as its session remembers it. Only the coordinator that has the session writes these keys, so when
 * etcd shows anything else, somebody edited it by hand. The auditor of keys puts that back at once when it sees the edit; what is
 * still wrong a moment later (an edit made while nobody watched) is put back here, and reported as drift.
 */
import { setTimeout as delay } from 'node:timers/promises';
import { isDeepStrictEqual } from 'node:util';
import type { Address, Block, Drift, Endpoint } from '../lib/model.ts';
import type { Change, State, Store } from './contract.ts';
import { Turns } from './turns.ts';

type Kind = 'endpoint' | 'block' | 'address';
type Item = Endpoint | Block | Address;

const KINDS: readonly Kind[] = ['endpoint', 'block', 'address'];
const keyOf = (kind: Kind, item: Item): string => {
  const name =
    kind === 'endpoint' ? (item as Endpoint).id : kind === 'block' ? (item as Block).cidr : (item as Address).address;
  return `${item.networkId} ${name}`;
};

export interface HoldingsDeps {
  readonly state: State;
  readonly store: Store;
  readonly hostId: string;
  /** The etcd key that stands for an object, in words of etcdctl. */
  readonly etcdKey: (kind: Kind, networkId: string, name: string) => string;
  /** Called with what was found different, once it is put back, or not (null). Times are RFC 3339. */
  readonly drifted: (drift: readonly Drift[], detectedAt: string, healedAt: string | null) => void;
  /** False: what differs is told, and left. */
  readonly heal: boolean;
  /** It could not be put back. */
  readonly failed: (error: unknown) => void;
  /** How long a difference must last, milliseconds. */
  readonly graceMs: number;
}

export class Holdings {
  readonly #deps: HoldingsDeps;
  readonly #items: Record<Kind, Map<string, Item>> = { endpoint: new Map(), block: new Map(), address: new Map() };
  readonly #suspects = new Set<string>();
  #busy = 0;
  #timer: NodeJS.Timeout | null = null;
  #closed = false;
  /** Calls that change endpoints, one after the other. */
  readonly #turns = new Turns();

  constructor(deps: HoldingsDeps) {
    this.#deps = deps;
  }

  /** Remembers what etcd has for the host, once its Hello has been reconciled with it. */
  remember(): void {
    for (const kind of KINDS)
      for (const items of this.#table(kind).values())
        for (const item of items.values())
          if (item.hostId === this.#deps.hostId) this.#items[kind].set(keyOf(kind, item), item);
  }

  set(kind: Kind, item: Item): void {
    this.#items[kind].set(keyOf(kind, item), item);
  }

  delete(kind: Kind, networkId: string, name: string): void {
    this.#items[kind].delete(`${networkId} ${name}`);
  }

  deleteEndpoint(id: string): void {
    for (const [key, item] of this.#items.endpoint) if ((item as Endpoint).id === id) this.#items.endpoint.delete(key);
  }

  /** The network of an endpoint that the host has registered. */
  networkOfEndpoint(id: string): string | undefined {
    return this.#items.endpoint.values().find((item) => (item as Endpoint).id === id)?.networkId;
  }

  /** Runs a call that changes the host's keys; nothing is judged meanwhile. */
  async during<T>(call: () => Promise<T>): Promise<T> {
    this.#busy++;
    try {
      return await call();
    } finally {
      this.#busy--;
      this.#judgeLater();
    }
  }

  /** Like during, after those before it. */
  inTurn<T>(call: () => Promise<T>): Promise<T> {
    return this.#turns.run(() => this.during(call));
  }

  /** A change in etcd to something that this host holds or held. */
  noticed(change: Change): void {
    if (change.kind !== 'endpoint' && change.kind !== 'block' && change.kind !== 'address') return;
    const item = change.after ?? change.before;
    if (item === null) return;
    this.#suspects.add(`${change.kind} ${keyOf(change.kind, item)}`);
    this.#judgeLater();
  }

  /** Compares everything (after etcd was listed anew). */
  noticedAll(): void {
    for (const suspect of this.#everything()) this.#suspects.add(suspect);
    this.#judgeLater();
  }

  /** All that the host holds, here or in etcd. */
  #everything(): Set<string> {
    const all = new Set<string>();
    for (const kind of KINDS) {
      for (const key of this.#items[kind].keys()) all.add(`${kind} ${key}`);
      for (const items of this.#table(kind).values())
        for (const item of items.values())
          if (item.hostId === this.#deps.hostId) all.add(`${kind} ${keyOf(kind, item)}`);
    }
    return all;
  }

  close(): void {
    this.#closed = true;
    if (this.#timer !== null) clearTimeout(this.#timer);
  }

  #table(kind: Kind): ReadonlyMap<string, ReadonlyMap<string, Item>> {
    const { state } = this.#deps;
    return kind === 'endpoint' ? state.endpoints : kind === 'block' ? state.blocks : state.addresses;
  }

  #stored(kind: Kind, key: string): Item | null {
    const [networkId = '', name = ''] = key.split(' ');
    return this.#table(kind).get(networkId)?.get(name) ?? null;
  }

  #judgeLater(): void {
    if (this.#timer !== null || this.#busy > 0 || this.#closed || this.#suspects.size === 0) return;
    this.#timer = setTimeout(() => {
      this.#timer = null;
      this.#judge();
    }, this.#deps.graceMs);
    this.#timer.unref();
  }

  #judge(): void {
    if (this.#busy > 0 || this.#closed || this.#suspects.size === 0) return;
    const drift: Drift[] = [];
    for (const suspect of this.#suspects) {
      const [kind, networkId, name] = suspect.split(' ') as [Kind, string, string];
      const found = this.#compare(kind, networkId, name);
      if (found !== null) drift.push(found);
    }
    this.#suspects.clear();
    if (drift.length === 0) return;
    const { drifted, failed, heal } = this.#deps;
    const detectedAt = now();
    if (!heal) return drifted(drift, detectedAt, null);
    this.#putBack().then(
      () => drifted(drift, detectedAt, now()),
      (error: unknown) => {
        drifted(drift, detectedAt, null);
        failed(error);
      },
    );
  }

  /** Compares everything, twice: what is being changed at this moment is no drift. Nothing is put back. */
  async drift(): Promise<Drift[]> {
    const first = this.#compareAll();
    if (first.length === 0) return [];
    await delay(this.#deps.graceMs);
    const before = new Set(first.map((drift) => `${drift.object} ${drift.change}`));
    return this.#compareAll().filter((drift) => before.has(`${drift.object} ${drift.change}`));
  }

  #compareAll(): Drift[] {
    if (this.#busy > 0 || this.#closed) return [];
    return [...this.#everything()].flatMap((suspect) => {
      const [kind, networkId, name] = suspect.split(' ') as [Kind, string, string];
      return this.#compare(kind, networkId, name) ?? [];
    });
  }

  #compare(kind: Kind, networkId: string, name: string): Drift | null {
    const key = `${networkId} ${name}`;
    const stored = this.#stored(kind, key);
    const have = stored?.hostId === this.#deps.hostId ? stored : null;
    const want = this.#items[kind].get(key) ?? null;
    if (want !== null && !this.#deps.state.networks.has(networkId)) {
      // Removed with its network: that is no edit.
      this.#items[kind].delete(key);
      return null;
    }
    if (want === null && have === null) return null;
    // A claim under way is between its two hosts.
    if (want === null && kind === 'address' && (have as Address).state !== 'held') return null;
    if (want !== null && have !== null && sameItem(want, have)) return null;
    const change = have === null ? 'missing' : want === null ? 'extra' : 'differs';
    return {
      kind: 'etcdKey',
      object: this.#deps.etcdKey(kind, networkId, name),
      change,
      want: text(want),
      have: text(stored),
    };
  }

  async #putBack(): Promise<void> {
    const { store, hostId } = this.#deps;
    const items = this.#items;
    await this.during(async () => {
      this.#suspects.clear();
      // What the host never had is taken away: the store takes it for a holding that the host forgot.
      for (const block of this.#extra('block') as Block[])
        await store.shrinkBlock(block.networkId, block.cidr, hostId, []);
      for (const { networkId, address, state } of this.#extra('address') as Address[])
        if (state === 'held') await store.releaseAddresses(networkId, hostId, [address]);
      await store.replaceHoldings(hostId, {
        endpoints: [...items.endpoint.values()] as Endpoint[],
        blocks: [...items.block.values()] as Block[],
        addresses: [...items.address.values()] as Address[],
      });
      this.#suspects.clear();
      // What was refused belongs to somebody else now: the host hears of it with its next session.
      for (const kind of KINDS)
        for (const key of items[kind].keys()) if (this.#stored(kind, key)?.hostId !== hostId) items[kind].delete(key);
    });
  }

  #extra(kind: Kind): Item[] {
    const found: Item[] = [];
    for (const items of this.#table(kind).values())
      for (const item of items.values())
        if (item.hostId === this.#deps.hostId && !this.#items[kind].has(keyOf(kind, item))) found.push(item);
    return found;
  }
}

const now = (): string => new Date().toISOString();
const withoutRevision = (item: Item): Item => ({ ...item, revision: 0n });
const sameItem = (a: Item, b: Item): boolean =>
  isDeepStrictEqual(JSON.parse(text(withoutRevision(a))), JSON.parse(text(withoutRevision(b))));
const text = (item: Item | null): string =>
  item === null
    ? ''
    : JSON.stringify(item, (key, value) =>
        key === 'revision' ? undefined : typeof value === 'bigint' ? `${value}` : value,
      );
