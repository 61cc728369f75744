/**
 * The coordinator's lease: keys under it say "this replica is up" and "it has this host's session". It counts as lost when no
 * keepalive has been confirmed for TTL minus a margin by the monotonic clock, whatever etcd says; then a new lease is taken and
 * its keys are put again.
 */
import { setTimeout as delay } from 'node:timers/promises';
import type { Clock } from '../../lib/clock.ts';
import { WeftError } from '../../lib/errors.ts';
import type { Log } from '../../lib/log.ts';
import type { EtcdClient } from './client.ts';
import type { Committer, Txn } from './txn.ts';

export interface LeaseOptions {
  readonly client: EtcdClient;
  readonly committer: Committer;
  readonly clock: Clock;
  readonly log: Log;
  /** Seconds; 5. */
  readonly ttl?: number;
}

type Stream = Awaited<ReturnType<EtcdClient['keepAliveStream']>>;
const MARGIN_MS = 1000;
const ANSWER_MS = 1500;

export class CoordinatorLease {
  readonly #o: LeaseOptions;
  readonly #ttl: number;
  readonly #stop = new AbortController();
  readonly #kept = new Map<string, string>();
  readonly #lostListeners = new Set<() => void>();
  #id: string | null = null;
  #confirmed = 0;
  #stream: Stream | null = null;
  #answer: PromiseWithResolvers<number> | null = null;
  #loop: Promise<void> = Promise.resolve();

  constructor(options: LeaseOptions) {
    this.#o = options;
    this.#ttl = options.ttl ?? 5;
  }

  /** Takes the first lease. @throws UNAVAILABLE */
  async start(): Promise<void> {
    await this.#grant();
    this.#o.client.onRotate(() => this.#drop());
    this.#loop = this.#run();
  }

  /** @throws UNAVAILABLE while there is none */
  get id(): string {
    if (this.#id === null || !this.held)
      throw new WeftError('UNAVAILABLE', 'the coordinator has lost its lease in etcd', {
        hint: 'it takes a new one soon',
      });
    return this.#id;
  }

  get held(): boolean {
    return this.#id !== null && this.#o.clock.monotonic() < this.#confirmed + this.#ttl * 1000 - MARGIN_MS;
  }

  /** Called when the lease is lost: what it meant (leadership, sessions) is over. */
  onLost(listener: () => void): () => void {
    this.#lostListeners.add(listener);
    return () => void this.#lostListeners.delete(listener);
  }

  /** The key is put again whenever a new lease is taken, unless it has another's value by then. */
  keep(key: string, value: string): void {
    this.#kept.set(key, value);
  }

  forget(key: string): void {
    this.#kept.delete(key);
  }

  kept(key: string): string | undefined {
    return this.#kept.get(key);
  }

  /** Puts a kept key again under the present lease (it was deleted by hand). */
  async restore(key: string): Promise<boolean> {
    const value = this.#kept.get(key);
    if (value === undefined) return false;
    const txn: Txn = { compares: [{ key, mod: 0n }], ops: [{ put: key, value, lease: this.id }] };
    return (await this.#o.committer.send(txn)).succeeded;
  }

  /** Revokes it: its keys are gone at once, not after the TTL. */
  async close(): Promise<void> {
    this.#stop.abort();
    this.#drop();
    await this.#loop;
    const ID = this.#id;
    this.#id = null;
    if (ID === null) return;
    const { client } = this.#o;
    await client
      .once((etcd, options) => etcd.leaseClient.leaseRevoke({ ID }, options), Date.now() + 1000)
      .catch(() => undefined);
  }

  async #run(): Promise<void> {
    while (!this.#stop.signal.aborted) {
      const alive = this.#id === null ? await this.#again() : await this.#beat();
      await this.#wait(alive ? (this.#ttl * 1000) / 5 : 200 + Math.random() * 200);
    }
  }

  async #beat(): Promise<boolean> {
    const sent = this.#o.clock.monotonic();
    const { member } = this.#o.client;
    try {
      const ttl = await this.#keepAlive(this.#id!);
      if (ttl > 0) {
        this.#confirmed = sent;
        return true;
      }
      this.#lost('etcd says that it has expired');
    } catch (err) {
      this.#drop();
      if (this.#stop.signal.aborted) return false;
      this.#o.client.rotate(member);
      this.#o.log.debug({ err }, 'no keepalive of the lease');
      if (!this.held) this.#lost('no keepalive was confirmed in time');
    }
    return false;
  }

  async #again(): Promise<boolean> {
    try {
      await this.#grant();
      for (const [key, value] of this.#kept) await this.#putAgain(key, value);
      this.#o.log.info({ lease: this.#id, keys: this.#kept.size }, 'the coordinator has a new lease');
      return true;
    } catch (err) {
      if (!this.#stop.signal.aborted) this.#o.log.warn({ err }, 'no new lease yet');
      return false;
    }
  }

  /** Absent, or ours under the old lease. */
  async #putAgain(key: string, value: string): Promise<void> {
    const lease = this.#id;
    if (lease === null) return;
    const { committer } = this.#o;
    const raw = committer.cache.raw.get(key);
    if (raw !== undefined && raw.value !== value) return this.forget(key);
    const put = [{ put: key, value, lease }];
    const first = await committer.send({ compares: [{ key, mod: raw?.mod ?? 0n }], ops: put });
    // The old lease's end may have deleted it meanwhile.
    if (!first.succeeded && raw !== undefined) await committer.send({ compares: [{ key, mod: 0n }], ops: put });
  }

  async #grant(): Promise<void> {
    const sent = this.#o.clock.monotonic();
    const request = { TTL: this.#ttl };
    const reply = await this.#o.client.call((etcd, options) => etcd.leaseClient.leaseGrant(request, options));
    this.#id = reply.ID;
    this.#confirmed = sent;
  }

  #lost(why: string): void {
    this.#o.log.warn({ lease: this.#id, why }, 'the lease of the coordinator is lost');
    this.#id = null;
    for (const listener of this.#lostListeners) listener();
  }

  /** @returns seconds that the lease now has; 0 = it is gone */
  async #keepAlive(id: string): Promise<number> {
    const answer = Promise.withResolvers<number>();
    this.#answer = answer;
    const timer = setTimeout(() => answer.reject(new Error('no answer')), ANSWER_MS);
    try {
      this.#stream ??= await this.#open();
      this.#stream.write({ ID: id });
      return await answer.promise;
    } finally {
      clearTimeout(timer);
      this.#answer = null;
    }
  }

  async #open(): Promise<Stream> {
    const stream = await this.#o.client.keepAliveStream();
    const gone = (error: Error): void => {
      if (this.#stream !== stream) return;
      this.#stream = null;
      this.#answer?.reject(error);
    };
    stream.on('error', gone);
    stream.on('end', () => gone(new Error('etcd ended the keepalive stream')));
    stream.on('data', (reply) => this.#answer?.resolve(Number(reply.TTL)));
    return stream;
  }

  #drop(): void {
    const stream = this.#stream;
    this.#stream = null;
    stream?.cancel();
    this.#answer?.reject(new Error('the keepalive stream is given up'));
  }

  async #wait(ms: number): Promise<void> {
    await delay(ms, undefined, { signal: this.#stop.signal }).catch(() => undefined);
  }
}
