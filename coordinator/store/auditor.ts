/** Finds drift of etcd's keys as it happens, in the state now and then, and when asked; heals it and tells. */
import { setTimeout as delay } from 'node:timers/promises';
import { rfc3339 } from '../../lib/clock.ts';
import { WeftError } from '../../lib/errors.ts';
import type { Drift } from '../../lib/model.ts';
import type { RawChange, RawChangeSet } from '../cache.ts';
import { applied, auditKeys, changedAgain, type Finding, foreignChanges, isIndexKey } from './audit.ts';
import type { RawKey } from './codec.ts';
import type { Deps } from './deps.ts';
import { keys, ROOT } from './keys.ts';
import { type Compare, chunks, MAX_OPS, type Op, type Txn } from './txn.ts';
import { listAll, type PrefixWatch } from './watch.ts';

/** Times are RFC 3339; `healedAt` null = it could not or should not be healed. */
export type DriftListener = (drift: Drift, detectedAt: string, healedAt: string | null) => void;

const PERIOD_MS = 10_000;
const BATCH = 40;

type Healable = Finding & { readonly heal: Txn };

export class KeyAuditor {
  readonly #deps: Deps;
  readonly #watch: PrefixWatch;
  readonly #heal: boolean;
  readonly #listeners = new Set<DriftListener>();
  readonly #stop = new AbortController();
  #work: Promise<unknown> = Promise.resolve();
  #told = new Set<string>();
  /** Foreign changes that were not undone because nothing is healed, by key. */
  readonly #open = new Map<string, Finding>();
  #unsubscribe: () => void = () => {};

  constructor(deps: Deps, watch: PrefixWatch, heal: boolean) {
    this.#deps = deps;
    this.#watch = watch;
    this.#heal = heal;
  }

  start(): void {
    this.#unsubscribe = this.#deps.cache.subscribeRaw((set) => this.#changed(set));
    void this.#enqueue(this.#audited(), this.#heal);
    this.#periodic();
  }

  async close(): Promise<void> {
    this.#stop.abort();
    this.#unsubscribe();
    await this.#work;
  }

  /** Of several coordinators only the one that heals tells, so that each drift is told once. */
  onDrift(listener: DriftListener): () => void {
    this.#listeners.add(listener);
    return () => void this.#listeners.delete(listener);
  }

  /** Reads all keys of etcd anew. Returns what was wrong, healed or not. @throws UNAVAILABLE */
  async audit(heal: boolean): Promise<Drift[]> {
    const { client, cache } = this.#deps;
    const { revision, all } = await listAll(client, ROOT);
    await cache.reached(await this.#deps.committer.barrier());
    // A key that is newer in etcd than here, at a revision that is here: an event was lost.
    if ([...all].some(([key, raw]) => raw.mod <= revision && (cache.raw.get(key)?.mod ?? raw.mod) < raw.mod))
      this.#watch.relist('an event was lost');
    // Records that were changed by hand come back first; index keys are judged by them, as they then are.
    const open = [...this.#open.values()].filter((one) => this.#stands(one, all) && !isIndexKey(one.drift.object));
    const findings = auditKeys(applied(all, open));
    await this.#enqueue(open, heal);
    await this.#enqueue(findings, heal);
    return [...open, ...findings].map((one) => one.drift);
  }

  /** A foreign change that nothing has been done about. */
  #stands(one: Finding, all: ReadonlyMap<string, RawKey>): boolean {
    const stands = one.heal?.compares.every((c) => !('mod' in c) || (all.get(c.key)?.mod ?? 0n) === c.mod) ?? false;
    if (!stands) this.#open.delete(one.drift.object);
    return stands;
  }

  #changed(set: RawChangeSet): void {
    const { raw, presences } = this.#deps.cache;
    const findings = foreignChanges(set, raw, (hostId) => presences.has(hostId));
    if (!this.#heal)
      for (const one of findings) this.#open.set(one.drift.object, changedAgain(this.#open.get(one.drift.object), one));
    if (set.reset) findings.push(...this.#audited());
    void this.#enqueue(findings, this.#heal);
    const ours = set.changes.some((change) => change.key === keys.stamp());
    for (const change of set.changes) this.#keptKey(change, ours, set.reset);
  }

  /** A key of this coordinator's living lease: deleted by hand, or another coordinator's now. */
  #keptKey({ key, before, after }: RawChange, ours: boolean, reset: boolean): void {
    const { lease, clock } = this.#deps;
    if (lease.kept(key) === undefined || !lease.held) return;
    if (after !== null) {
      if (ours && after.value !== lease.kept(key)) lease.forget(key);
      return;
    }
    // A coordinator deleted it in order: memberships go with their network.
    if (ours && !reset) return lease.forget(key);
    const detectedAt = rfc3339(clock);
    void this.#enqueueWork(async () => {
      if (lease.kept(key) === undefined || !lease.held || !(await lease.restore(key))) return;
      const want = before?.value ?? '';
      this.#tell({ kind: 'etcdKey', object: key, change: 'missing', want, have: '' }, detectedAt, rfc3339(clock));
    });
  }

  #periodic(): void {
    this.#deps.clock.setTimer(
      PERIOD_MS * (0.75 + Math.random() / 2),
      () => {
        this.#standing();
        this.#periodic();
      },
      this.#stop.signal,
    );
  }

  #audited(): Finding[] {
    const { cache } = this.#deps;
    return auditKeys(cache.raw, (key, raw) => cache.read(key, raw));
  }

  /** What stays as it is (cannot or should not be healed) is told once. */
  #standing(): void {
    const findings = this.#audited();
    const lasting = findings.filter((one) => !this.#heal || one.heal === null);
    const idOf = ({ drift }: Finding): string => `${drift.object} ${drift.change} ${drift.have}`;
    const told = this.#told;
    this.#told = new Set(lasting.map(idOf));
    const news = findings.filter((one) => !told.has(idOf(one)));
    void this.#enqueue(news, this.#heal);
  }

  #enqueue(findings: readonly Finding[], heal: boolean): Promise<void> {
    if (findings.length === 0) return Promise.resolve();
    const detectedAt = rfc3339(this.#deps.clock);
    return this.#enqueueWork(() => this.#right(findings, heal, detectedAt));
  }

  #enqueueWork(work: () => Promise<void>): Promise<void> {
    const done = this.#work.then(work).catch((err: unknown) => {
      if (!this.#stop.signal.aborted) this.#deps.log.warn({ err }, 'drift of etcd keys could not be healed');
    });
    this.#work = done;
    return done;
  }

  async #right(findings: readonly Finding[], heal: boolean, detectedAt: string): Promise<void> {
    const lasting = findings.filter((one) => !heal || one.heal === null);
    for (const { drift } of lasting) this.#tell(drift, detectedAt, null);
    const healable = findings.filter((one): one is Healable => heal && one.heal !== null);
    for (const part of chunks(healable, BATCH)) await this.#healAll(part, detectedAt);
  }

  /** Together when it can be; else one by one. Not succeeded: another coordinator was faster, or the key has moved on. */
  async #healAll(part: readonly Healable[], detectedAt: string): Promise<void> {
    const together = part.length > 1 ? merge(part.map((one) => one.heal)) : null;
    const all = together !== null && (await this.#send(together));
    for (const { drift, heal } of part)
      if (all || (await this.#send(heal))) this.#tell(drift, detectedAt, rfc3339(this.#deps.clock));
  }

  /** @returns true when this coordinator did it */
  async #send(txn: Txn): Promise<boolean> {
    const end = this.#deps.clock.monotonic() + 10_000;
    for (;;) {
      try {
        const { succeeded, revision } = await this.#deps.committer.send(txn);
        if (succeeded) await this.#deps.cache.reached(revision);
        return succeeded;
      } catch (error) {
        const late = this.#stop.signal.aborted || this.#deps.clock.monotonic() > end;
        if (WeftError.from(error).code !== 'UNAVAILABLE' || late) throw error;
        await delay(100);
      }
    }
  }

  #tell(drift: Drift, detectedAt: string, healedAt: string | null): void {
    this.#deps.log.warn({ drift, detectedAt, healedAt }, 'a key of etcd is not as it should be');
    for (const listener of this.#listeners) listener(drift, detectedAt, healedAt);
  }
}

/** Null when two of them change the same key, which etcd does not take. */
function merge(txns: readonly Txn[]): Txn | null {
  const ops = new Map<string, Op>();
  const compares = new Map<string, Compare>();
  for (const txn of txns) {
    for (const op of txn.ops) {
      const key = 'put' in op ? op.put : 'del' in op ? op.del : null;
      if (key === null || ops.has(key)) return null;
      ops.set(key, op);
    }
    for (const compare of txn.compares) compares.set(JSON.stringify(compare, bigintText), compare);
  }
  return compares.size > MAX_OPS ? null : { ops: [...ops.values()], compares: [...compares.values()] };
}

const bigintText = (_: string, value: unknown): unknown => (typeof value === 'bigint' ? String(value) : value);
