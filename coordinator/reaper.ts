/**
 * The one loop that only one coordinator runs: it clears away what nobody will. The leader key hangs on the coordinator's lease,
 * and every write compares its create revision: a leader that has lost it without knowing changes nothing. Ages are counted by the
 * monotonic clock from when this process first saw a thing, so a jump of the wall clock frees nothing early. What dead hosts hold
 * is not touched: that is for `weft host rm`.
 */
import type { Cache } from './cache.ts';
import { auditKeys } from './store/audit.ts';
import type { Deps } from './store/deps.ts';
import { keys, parseKey } from './store/keys.ts';
import { indexKeys } from './store/taken.ts';
import { type Compare, chunks, type Op, type Txn } from './store/txn.ts';

export interface ReaperOptions {
  /** Between two rounds; 5000. */
  readonly periodMs?: number;
  /** A claim that its grantor has not answered; 30000. */
  readonly claimMs?: number;
}

export class Reaper {
  readonly #deps: Deps;
  readonly #periodMs: number;
  readonly #claimMs: number;
  readonly #stop = new AbortController();
  /** Key and revision → monotonic time when first seen. */
  #seen = new Map<string, number>();
  #round: Promise<void> = Promise.resolve();

  constructor(deps: Deps, options: ReaperOptions = {}) {
    this.#deps = deps;
    this.#periodMs = options.periodMs ?? 5000;
    this.#claimMs = options.claimMs ?? 30_000;
  }

  start(): void {
    this.#deps.clock.setTimer(
      this.#periodMs * (0.75 + Math.random() / 2),
      () => {
        this.#round = this.#again();
      },
      this.#stop.signal,
    );
  }

  async #again(): Promise<void> {
    try {
      await this.round();
    } catch (err) {
      this.#deps.log.warn({ err }, 'the reaper could not do its round');
    }
    if (!this.#stop.signal.aborted) this.start();
  }

  async close(): Promise<void> {
    this.#stop.abort();
    await this.#round;
    const { cache, committer, coordinatorId } = this.#deps;
    const key = keys.leader('reaper');
    const raw = cache.raw.get(key);
    if (raw?.value !== coordinatorId) return;
    const txn: Txn = { compares: [{ key, create: raw.create }], ops: [{ del: key }] };
    await committer.send(txn).catch(() => undefined);
  }

  [Symbol.asyncDispose](): Promise<void> {
    return this.close();
  }

  /** One round: become the leader, or be it, and clear away. @returns whether this coordinator leads */
  async round(): Promise<boolean> {
    const fence = await this.#lead();
    if (fence === null) {
      this.#seen.clear();
      return false;
    }
    const work = this.#due();
    for (const part of work) {
      const { succeeded, revision } = await this.#deps.committer.send({
        compares: [fence, ...part.compares],
        ops: part.ops,
      });
      if (succeeded) await this.#deps.cache.reached(revision);
    }
    return true;
  }

  /** The compare that holds as long as this coordinator leads; null when another does. @throws UNAVAILABLE */
  async #lead(): Promise<Compare | null> {
    const { cache, committer, coordinatorId, lease } = this.#deps;
    const key = keys.leader('reaper');
    const raw = cache.raw.get(key);
    if (raw !== undefined)
      return raw.value === coordinatorId && raw.lease === lease.id ? { key, create: raw.create } : null;
    const put: Op = { put: key, value: coordinatorId, lease: lease.id };
    const { succeeded, revision } = await committer.send({ compares: [{ key, mod: 0n }], ops: [put] });
    if (!succeeded) return null;
    await cache.reached(revision);
    const create = cache.raw.get(key)?.create;
    return create === undefined ? null : { key, create };
  }

  #due(): readonly Txn[] {
    const { cache, limits } = this.#deps;
    const now = this.#deps.clock.monotonic();
    const seen = new Map<string, number>();
    const old = (key: string, ms: number): boolean => {
      const id = `${key} ${cache.raw.get(key)?.mod ?? 0n}`;
      const first = this.#seen.get(id) ?? now;
      seen.set(id, first);
      return now - first >= ms;
    };
    const reserveMs = limits.reserveSeconds * 1000;
    const txns = [
      ...staleClaims(cache, (key) => old(key, this.#claimMs)),
      // With a lease they go by themselves; these have lost it.
      ...staleReservations(cache, (key) => old(key, 2 * reserveMs)),
      ...staleQuarantine(cache, (key) => old(key, limits.restSeconds * 1000)),
      ...staleSettings(cache, (key) => old(key, reserveMs)),
      ...orphans(cache, (key) => old(key, reserveMs)),
    ];
    this.#seen = seen;
    return txns;
  }
}

type Old = (key: string) => boolean;

const removal = (cache: Cache, texts: readonly string[]): Txn => ({
  compares: texts.map((key): Compare => ({ key, mod: cache.raw.get(key)?.mod ?? 0n })),
  ops: texts.map((del): Op => ({ del })),
});

function staleClaims(cache: Cache, old: Old): Txn[] {
  const stale: string[] = [];
  for (const [text, key] of cache.byKind.get('address') ?? []) {
    if (key?.kind !== 'address') continue;
    const claim = cache.addresses.get(key.networkId)?.get(key.address);
    if (claim?.state === 'claimed' && old(text)) stale.push(text);
  }
  return chunks(stale, 50).map((part) => removal(cache, part));
}

function staleReservations(cache: Cache, old: Old): Txn[] {
  const txns: Txn[] = [];
  for (const network of cache.networks.values()) {
    const record = keys.network(network.project, network.id);
    if (network.state !== 'reserved' || cache.raw.get(record)?.lease !== '0' || !old(record)) continue;
    const mine = indexKeys(network).filter((key) => cache.raw.get(key)?.value === network.id);
    txns.push(removal(cache, [record, ...mine]));
  }
  return txns;
}

function staleQuarantine(cache: Cache, old: Old): Txn[] {
  const resting = [
    ...(cache.byKind.get('restingVni')?.keys() ?? []),
    ...(cache.byKind.get('restingSubnet')?.keys() ?? []),
  ];
  const stale = resting.filter((key) => cache.raw.get(key)?.lease === '0' && old(key));
  return chunks(stale, 50).map((part) => removal(cache, part));
}

/** Of endpoints that are gone: not at once, for what was deleted by hand comes back and has its settings then. */
function staleSettings(cache: Cache, old: Old): Txn[] {
  const stale: string[] = [];
  for (const [text, key] of cache.byKind.get('settings') ?? [])
    if (key?.kind === 'settings' && cache.endpoints.get(key.networkId)?.has(key.endpointId) !== true && old(text))
      stale.push(text);
  return chunks(stale, 50).map((part) => removal(cache, part));
}

/** What the key audit would remove too, wherever it does not heal. */
function orphans(cache: Cache, old: Old): Txn[] {
  return auditKeys(cache.raw, (key, raw) => cache.read(key, raw))
    .filter(({ drift, heal }) => drift.change === 'extra' && heal !== null && parseKey(drift.object) !== null)
    .filter(({ drift }) => old(drift.object))
    .map(({ heal }) => heal!);
}
