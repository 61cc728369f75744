/**
 * One live session: what a host has been sent, what it has applied, what it has been asked. It holds no messages: only cursors
 * into the logs and the set of topics that have something new, so a slow reader costs nothing and is caught up in one message.
 */
import type { Ack, Answer, CoordinatorMessage, Query, Welcome } from '../gen/weft/v1/session.ts';
import { CODES, type Code, WeftError } from '../lib/errors.ts';
import type { Conflict, Host } from '../lib/model.ts';
import { CATALOGUE, type Follower, type Topics } from './topics.ts';
import { kindOf, type MessageKind, type Wire } from './wire.ts';

/** The writing half of the stream. */
export interface Sink {
  /** False = send no more until drained() is called. */
  write(message: CoordinatorMessage): boolean;
}

export interface SessionDeps {
  readonly topics: Topics;
  readonly wire: Wire;
  /** Newest revision that State includes. */
  readonly revision: () => bigint;
  readonly epoch: bigint;
  readonly sent: (kind: MessageKind, bytes: number) => void;
  /** What this session has applied, or its interest, may have changed. */
  readonly progressed: (session: Session) => void;
}

/** Sent and not acknowledged: revision of the oldest change in it, and the message's number in the session. */
interface Outstanding {
  readonly first: bigint;
  readonly message: bigint;
}

const MAX_OUTSTANDING = 64;
const MAX_QUERIES = 1000;
const CODE_NAMES = new Map<number, Code>(Object.entries(CODES).map(([name, n]) => [n, name as Code]));

export class Session implements Follower {
  readonly id: string;
  readonly hostId: string;
  conflicts: readonly Conflict[] = [];
  /** Sentences about what of its Hello is not accepted. */
  refused: readonly string[] = [];
  /** The step that failed on the host and why; empty when none. */
  failure = '';
  /** Missed the bound of a WaitPeers; until it acknowledges again, nobody waits for it. */
  slow = false;
  /** Bytes and messages sent in this session by kind. */
  readonly sent = new Map<MessageKind, { messages: number; bytes: number }>();

  #host: Host;
  /** What the host has been told. */
  #draining: boolean;
  readonly #deps: SessionDeps;
  readonly #sink: Sink;
  readonly #cursors = new Map<string, bigint | null>();
  readonly #dirty = new Set<string>();
  readonly #queries = new Map<bigint, { resolve: (a: Answer) => void; reject: (e: WeftError) => void }>();
  readonly #ending = Promise.withResolvers<WeftError>();
  #outstanding: Outstanding[] = [];
  #acked: bigint;
  /** Catalogue, network, sync and settings messages sent. */
  #messages = 0n;
  /** The number of the Sync among them. */
  #syncSent: bigint | null = null;
  #synced = false;
  #blocked = false;
  #scheduled = false;
  #ended = false;
  #nextQuery = 1n;

  /** @param acked what the host says that it has applied before this session (for display; it proves nothing). */
  constructor(id: string, host: Host, acked: bigint, sink: Sink, deps: SessionDeps) {
    this.id = id;
    this.hostId = host.id;
    this.#host = host;
    this.#draining = host.draining;
    this.#acked = acked;
    this.#sink = sink;
    this.#deps = deps;
  }

  /** Sends the welcome, and everything that the host is interested in, then Sync. */
  start(welcome: Welcome, interest: Iterable<string>): void {
    this.#write({ body: { $case: 'welcome', value: welcome } });
    this.#follow(CATALOGUE);
    for (const id of interest) this.#follow(id);
    this.#pump();
  }

  /** The host's record as last stored. */
  get host(): Host {
    return this.#host;
  }

  /** The record has changed: what the cluster decides of it, the host is told. */
  stored(host: Host): void {
    this.#host = host;
    if (this.#ended || host.draining === this.#draining) return;
    this.#draining = host.draining;
    const number = this.#deps.revision();
    this.#expect(number);
    this.#write({ body: { $case: 'settings', value: { revision: { epoch: this.#deps.epoch, number }, host } } });
  }

  get epoch(): bigint {
    return this.#deps.epoch;
  }

  get interest(): ReadonlySet<string> {
    const ids = new Set(this.#cursors.keys());
    ids.delete(CATALOGUE);
    return ids;
  }

  interestedIn(networkId: string): boolean {
    return networkId !== CATALOGUE && this.#cursors.has(networkId);
  }

  /** The host has applied the complete view of this session. */
  get inSync(): boolean {
    return this.#synced;
  }

  get ended(): boolean {
    return this.#ended;
  }

  /** Resolves when the session is over, with the reason. */
  get ending(): Promise<WeftError> {
    return this.#ending.promise;
  }

  /** Last revision acknowledged, or that of an earlier session while this one is not in sync. */
  get acked(): bigint {
    return this.#acked;
  }

  /** Everything up to this revision that concerns the host has been applied; 0 while it is not in sync. */
  get applied(): bigint {
    if (!this.#synced) return 0n;
    let missing: bigint | null = null;
    for (const { first } of this.#outstanding) if (missing === null || first < missing) missing = first;
    for (const topic of this.#dirty) {
      const first = this.#deps.topics.get(topic)?.firstAfter(this.#cursors.get(topic) ?? null) ?? null;
      if (first !== null && (missing === null || first < missing)) missing = first;
    }
    if (missing === null) return this.#deps.revision();
    return missing === 0n ? 0n : missing - 1n;
  }

  get lagging(): boolean {
    return !this.#synced || this.failure !== '' || this.#outstanding.length > 0 || this.#dirty.size > 0;
  }

  setInterest(networkId: string, interested: boolean): void {
    if (this.#ended || networkId === CATALOGUE || interested === this.#cursors.has(networkId)) return;
    if (interested) {
      this.#follow(networkId);
      this.#schedule();
    } else {
      this.#cursors.delete(networkId);
      this.#dirty.delete(networkId);
      this.#deps.topics.leave(networkId, this);
    }
    this.#deps.progressed(this);
  }

  #follow(topic: string): void {
    if (this.#cursors.has(topic)) return;
    this.#deps.topics.follow(topic, this);
    this.#cursors.set(topic, null);
    this.#dirty.add(topic);
  }

  mark(topic: string): void {
    if (this.#ended || !this.#cursors.has(topic)) return;
    this.#dirty.add(topic);
    this.#schedule();
  }

  /** Change sets that arrive together go out together. */
  #schedule(): void {
    if (this.#scheduled || this.#blocked || this.#ended) return;
    this.#scheduled = true;
    setImmediate(() => {
      this.#scheduled = false;
      this.#pump();
    });
  }

  /** The stream takes messages again. */
  drained(): void {
    this.#blocked = false;
    this.#pump();
  }

  #pump(): void {
    while (!this.#blocked && !this.#ended) {
      const topic = this.#next();
      if (topic === null) break;
      this.#dirty.delete(topic);
      const cursor = this.#cursors.get(topic) ?? null;
      const stretch = this.#deps.topics.get(topic)?.since(cursor) ?? null;
      if (stretch === null) continue;
      this.#cursors.set(topic, stretch.last);
      // Of a network that comes to concern the host, it lacks all.
      this.#expect(cursor === null ? 0n : stretch.first);
      this.#write(stretch.message);
    }
    if (this.#syncSent === null && this.#dirty.size === 0 && !this.#blocked && !this.#ended) {
      const number = this.#deps.revision();
      this.#syncSent = this.#expect(number);
      const revision = { epoch: this.#deps.epoch, number };
      this.#write({ body: { $case: 'sync', value: { revision } } });
    }
  }

  /** The catalogue before the first Sync; after it in the order of revisions, so that an acknowledgement covers what was sent before. */
  #next(): string | null {
    if (this.#syncSent === null && this.#dirty.has(CATALOGUE)) return CATALOGUE;
    let best: string | null = null;
    let bestHead = 0n;
    for (const topic of this.#dirty) {
      const head = this.#deps.topics.get(topic)?.head ?? 0n;
      if (best === null || head < bestHead) {
        best = topic;
        bestHead = head;
      }
    }
    return best;
  }

  /** Counts a message that the host is to acknowledge. @returns its number. */
  #expect(first: bigint): bigint {
    const message = ++this.#messages;
    const list = this.#outstanding;
    const last = list.at(-1);
    // A host that acknowledges nothing is remembered in bounded space.
    if (last !== undefined && list.length >= MAX_OUTSTANDING)
      list[list.length - 1] = { first: least(last.first, first), message };
    else list.push({ first, message });
    return message;
  }

  #write(message: CoordinatorMessage): void {
    const kind = kindOf(message);
    const bytes = this.#deps.wire.encode(message).length;
    const count = this.sent.get(kind) ?? { messages: 0, bytes: 0 };
    this.sent.set(kind, { messages: count.messages + 1, bytes: count.bytes + bytes });
    this.#deps.sent(kind, bytes);
    if (!this.#sink.write(message)) this.#blocked = true;
  }

  ack(ack: Ack): void {
    if (this.#ended) return;
    this.failure = ack.failure;
    const applied = ack.applied;
    if (applied !== undefined && applied.epoch === this.#deps.epoch) {
      if (applied.number > this.#acked || !this.#synced) this.#acked = applied.number;
      this.#outstanding = this.#outstanding.filter((sent) => sent.message > ack.messages);
      if (this.#syncSent !== null && ack.messages >= this.#syncSent) this.#synced = true;
      if (ack.failure === '') this.slow = false;
    }
    this.#deps.progressed(this);
  }

  /**
   * Asks the host and waits for its answer.
   * @throws what the host answered; DEADLINE_EXCEEDED; UNAVAILABLE when the session ends.
   */
  async ask(body: NonNullable<Query['body']>, timeoutMs: number, signal?: AbortSignal): Promise<Answer> {
    if (this.#ended) throw this.#gone();
    if (this.#queries.size >= MAX_QUERIES)
      throw new WeftError('UNAVAILABLE', `Too many questions to host ${this.host.name} are open.`);
    const id = this.#nextQuery++;
    const waiting = Promise.withResolvers<Answer>();
    this.#queries.set(id, waiting);
    const abort = (): void => waiting.reject(new WeftError('CANCELLED', 'The call was cancelled.'));
    const timer = setTimeout(() => {
      const text = `Host ${this.host.name} did not answer within ${timeoutMs / 1000} s.`;
      waiting.reject(new WeftError('DEADLINE_EXCEEDED', text));
    }, timeoutMs);
    signal?.addEventListener('abort', abort, { once: true });
    try {
      this.#write({ body: { $case: 'query', value: { id, body } } });
      const answer = await waiting.promise;
      if (answer.code === 0) return answer;
      const [message, hint] = answer.message.split('\nhint: ');
      const code = CODE_NAMES.get(answer.code) ?? 'INTERNAL';
      throw new WeftError(code, message ?? answer.message, hint === undefined ? {} : { hint });
    } finally {
      clearTimeout(timer);
      signal?.removeEventListener('abort', abort);
      this.#queries.delete(id);
    }
  }

  answer(answer: Answer): void {
    this.#queries.get(answer.id)?.resolve(answer);
  }

  #gone(): WeftError {
    return new WeftError('UNAVAILABLE', `The session of host ${this.host.name} has ended.`);
  }

  end(reason: WeftError): void {
    if (this.#ended) return;
    this.#ended = true;
    for (const topic of this.#cursors.keys()) this.#deps.topics.leave(topic, this);
    this.#cursors.clear();
    this.#dirty.clear();
    for (const query of this.#queries.values()) query.reject(this.#gone());
    this.#ending.resolve(reason);
  }
}

/** Math.min takes no bigint. */
const least = (a: bigint, b: bigint): bigint => [a, b].reduce((x, y) => (y < x ? y : x));
