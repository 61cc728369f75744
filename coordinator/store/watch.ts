/**
 * List-then-watch of a prefix over etcd3's raw stream: list at one revision R, watch from R+1, list anew when history is compacted
 * or etcd has gone back in time. Progress is believed only where etcd sends it in order (events and the watcher's own
 * notifications); a reply to a progress request is a sign of life and no more: etcd before 3.4.25 may send it ahead of events.
 */
import { setTimeout as delay } from 'node:timers/promises';
import type { IKeyValue, IWatchResponse } from 'etcd3';
import { WeftError } from '../../lib/errors.ts';
import type { Log } from '../../lib/log.ts';
import type { KeyEvent } from '../cache.ts';
import { type EtcdClient, isCompacted } from './client.ts';
import type { RawKey } from './codec.ts';

export interface WatchSink {
  readonly revision: bigint;
  reset(revision: bigint, all: ReadonlyMap<string, RawKey>): void;
  apply(revision: bigint, events: readonly KeyEvent[]): void;
  advance(revision: bigint): void;
}

export interface WatchOptions {
  readonly client: EtcdClient;
  readonly prefix: string;
  readonly sink: WatchSink;
  readonly log: Log;
  /** Milliseconds without any message before progress is asked for (and again before the stream is given up); 3000. */
  readonly idleMs?: number;
  /** Milliseconds between comparisons with a linearizable read; 5000. */
  readonly verifyMs?: number;
  /** Writes a key under the prefix: once its event is here, so is all before it. Returns its revision. */
  readonly barrier: () => Promise<bigint>;
  /** etcd has gone back in time (restored from a backup): called before the new state is taken. */
  readonly restored?: () => Promise<void>;
}

type Stream = Awaited<ReturnType<EtcdClient['watchStream']>>;
const PAGE = 1000;

export class PrefixWatch {
  readonly #o: WatchOptions;
  readonly #stop = new AbortController();
  #run: Promise<void> = Promise.resolve();
  #relist = false;
  #breakStream: ((reason: Error) => void) | null = null;
  /** How often it has listed, and how often a stream has failed: for tests and metrics. */
  lists = 0;
  failures = 0;

  constructor(options: WatchOptions) {
    this.#o = options;
  }

  /** Resolves when the first list is in the sink. @throws UNAVAILABLE when etcd cannot be reached. */
  async start(): Promise<void> {
    await this.#list();
    this.#o.client.onRotate(() => this.#breakStream?.(new Error('another member of etcd is asked now')));
    this.#run = Promise.all([this.#loop(), this.#verifyLoop()]).then(() => undefined);
  }

  async close(): Promise<void> {
    this.#stop.abort();
    this.#breakStream?.(new Error('closed'));
    await this.#run;
  }

  /** Opens a new stream, from where it is. */
  interrupt(why: string): void {
    this.#breakStream?.(new Error(why));
  }

  /** Reads everything anew (a lost event was found). */
  relist(why: string): void {
    this.#relist = true;
    this.#breakStream?.(new Error(why));
  }

  async #loop(): Promise<void> {
    let pause = 20;
    while (!this.#stop.signal.aborted) {
      try {
        await this.#check();
        await this.#stream(() => {
          pause = 20;
        });
      } catch (err) {
        if (this.#stop.signal.aborted) return;
        this.failures++;
        this.#o.log.warn({ err, revision: String(this.#o.sink.revision) }, 'the watch of etcd starts again');
        await this.#wait(pause * (0.5 + Math.random()));
        pause = Math.min(pause * 2, 1000);
      }
    }
  }

  /** Before each stream: is our revision in etcd's history? */
  async #check(): Promise<void> {
    if (!this.#relist) this.#relist = (await this.#newest()) < this.#o.sink.revision;
    if (this.#relist) await this.#list();
  }

  #newest(): Promise<bigint> {
    return this.#o.client.newestRevision(this.#o.prefix);
  }

  async #list(): Promise<void> {
    for (;;) {
      try {
        const { client, prefix, sink } = this.#o;
        // So that nobody sees revisions go back within an epoch.
        if ((await this.#newest()) < sink.revision) await this.#o.restored?.();
        const { revision, all } = await listAll(client, prefix);
        this.#relist = false;
        this.lists++;
        this.#o.sink.reset(revision, all);
        return;
      } catch (error) {
        // Compacted between two pages: once more, at a newer revision.
        if (!isCompacted(error)) throw error;
      }
    }
  }

  /** One stream's life: always ends by throwing. */
  async #stream(alive: () => void): Promise<never> {
    const { client, sink, prefix } = this.#o;
    const { member } = client;
    const stream = await client.watchStream();
    let idle: NodeJS.Timeout | undefined;
    try {
      return await new Promise<never>((_, reject) => {
        this.#breakStream = reject;
        if (this.#stop.signal.aborted) reject(new Error('closed'));
        const heard = (): void => {
          clearTimeout(idle);
          idle = setTimeout(() => this.#idle(stream, member, reject, (t) => (idle = t)), this.#o.idleMs ?? 3000);
        };
        const reader = new ResponseReader(sink);
        stream.on('error', reject);
        stream.on('end', () => reject(new Error('etcd ended the watch')));
        stream.on('data', (reply: IWatchResponse) => {
          heard();
          if (reply.canceled) return void this.#canceled(reply).then(reject, reject);
          alive();
          try {
            reader.take(reply);
          } catch (error) {
            this.#relist = true;
            reject(error as Error);
          }
        });
        heard();
        const range = { key: Buffer.from(prefix), range_end: endOfPrefix(prefix) };
        const start = { start_revision: String(sink.revision + 1n), progress_notify: true, fragment: true };
        stream.write({ create_request: { ...range, ...start } });
      });
    } finally {
      this.#breakStream = null;
      clearTimeout(idle);
      stream.cancel();
    }
  }

  #idle(stream: Stream, member: number, reject: (error: Error) => void, set: (timer: NodeJS.Timeout) => void): void {
    stream.write({ progress_request: {} });
    set(
      setTimeout(() => {
        this.#o.client.rotate(member);
        reject(new Error('etcd is silent'));
      }, this.#o.idleMs ?? 3000),
    );
  }

  async #canceled(reply: IWatchResponse): Promise<Error> {
    if (reply.compact_revision !== '0') {
      this.#relist = true;
      return new Error(`the history before revision ${reply.compact_revision} is compacted`);
    }
    // An expired token is only renewed by a unary call.
    if (reply.cancel_reason.includes('auth token')) await this.#newest();
    return new Error(`etcd cancelled the watch: ${reply.cancel_reason}`);
  }

  /** Compares with a linearizable read now and then: neither a lost event nor a restored etcd stays unnoticed. */
  async #verifyLoop(): Promise<void> {
    let behind = 0;
    while (!this.#stop.signal.aborted) {
      await this.#wait(this.#o.verifyMs ?? 5000);
      try {
        behind = (await this.#verified()) ? 0 : behind + 1;
      } catch (err) {
        this.#o.log.debug({ err }, 'the watch cannot be verified now');
        continue;
      }
      if (behind === 0 || this.#stop.signal.aborted) continue;
      this.#o.client.rotate(this.#o.client.member);
      if (behind > 1) this.#relist = true;
      this.#breakStream?.(new Error('the watch is behind etcd'));
    }
  }

  async #verified(): Promise<boolean> {
    const { sink } = this.#o;
    const before = sink.revision;
    const newest = await this.#newest();
    // Restored from a backup: what we know is from a future that is gone.
    if (newest < before) {
      this.relist('etcd has gone back in time');
      return true;
    }
    if (await this.#arrives(newest, 1000)) return true;
    return this.#arrives(await this.#o.barrier(), 3000);
  }

  async #arrives(revision: bigint, ms: number): Promise<boolean> {
    const end = performance.now() + ms;
    while (this.#o.sink.revision < revision && performance.now() < end && !this.#stop.signal.aborted)
      await this.#wait(50);
    return this.#o.sink.revision >= revision;
  }

  async #wait(ms: number): Promise<void> {
    await delay(ms, undefined, { signal: this.#stop.signal }).catch(() => undefined);
  }
}

/** Puts fragments together, groups by revision, and drops what is known. */
class ResponseReader {
  readonly #sink: WatchSink;
  #fragments: IWatchResponse['events'] = [];

  constructor(sink: WatchSink) {
    this.#sink = sink;
  }

  take(reply: IWatchResponse): void {
    if (reply.created) return;
    const events = this.#fragments.concat(reply.events);
    if (reply.fragment) {
      this.#fragments = events;
      return;
    }
    this.#fragments = [];
    if (events.length === 0) {
      // -1: the answer to a progress request, which may overtake events.
      if (reply.watch_id !== '-1') this.#sink.advance(BigInt(reply.header.revision));
      return;
    }
    let group: KeyEvent[] = [];
    let revision = 0n;
    for (const event of events) {
      const mod = BigInt(event.kv.mod_revision);
      if (mod < revision) throw new WeftError('INTERNAL', 'etcd sent events out of order');
      if (mod !== revision) this.#flush(revision, group);
      if (mod !== revision) group = [];
      revision = mod;
      group.push({ key: event.kv.key.toString(), after: event.type === 'Put' ? rawOf(event.kv) : null });
    }
    this.#flush(revision, group);
  }

  #flush(revision: bigint, events: readonly KeyEvent[]): void {
    if (events.length > 0 && revision > this.#sink.revision) this.#sink.apply(revision, events);
  }
}

/** All keys of the prefix at one revision, in pages. @throws ABORTED (isCompacted) when history goes away meanwhile. */
export async function listAll(
  client: EtcdClient,
  prefix: string,
): Promise<{ revision: bigint; all: Map<string, RawKey> }> {
  const all = new Map<string, RawKey>();
  const end = endOfPrefix(prefix);
  let key: Buffer = Buffer.from(prefix);
  let revision = '0';
  for (;;) {
    const request = { key, range_end: end, limit: PAGE, revision };
    const page = await client.call((etcd, options) => etcd.kv.range(request, options));
    if (revision === '0') revision = page.header.revision;
    for (const kv of page.kvs) all.set(kv.key.toString(), rawOf(kv));
    const last = page.kvs.at(-1);
    if (!page.more || last === undefined) return { revision: BigInt(revision), all };
    key = Buffer.concat([last.key, Buffer.from([0])]);
  }
}

const rawOf = (kv: IKeyValue): RawKey => ({
  value: kv.value.toString(),
  create: BigInt(kv.create_revision),
  mod: BigInt(kv.mod_revision),
  lease: kv.lease,
});

/** First key after all that start with the prefix. */
export function endOfPrefix(prefix: string): Buffer {
  const end = Buffer.from(prefix);
  end[end.length - 1]! += 1;
  return end;
}
