/**
 * Asks the host's resolvers what is not ours to answer. Each question goes out from a socket of its own, with an id of its own, so that
 * a stranger would have to guess both to be believed (RFC 5452); nothing is kept, since the host's resolver does that. What
 * does not fit into a datagram is asked for again by TCP.
 */
import { randomInt } from 'node:crypto';
import { createSocket } from 'node:dgram';
import { connect, isIPv6 } from 'node:net';
import type { Upstream, Upstreams } from './upstreams.ts';
import { framed, isReplyTo, isTruncated, RCODE, rcodeOf, withId } from './wire.ts';

export interface ForwarderOptions {
  readonly upstreams: Upstreams;
  /** Own listening address, which is never asked. */
  readonly own: Upstream;
  /** Per resolver, ms. */
  readonly timeoutMs?: number;
  /** Questions that wait for an answer at once, of everybody and of one source. */
  readonly maxWaiting?: number;
  readonly maxWaitingOfOne?: number;
}

const TIMEOUT_MS = 2000;
const MAX_WAITING = 512;
const MAX_WAITING_OF_ONE = 64;
/** Of a resolver that cannot or does not want to: the next one may. */
const TRY_NEXT: ReadonlySet<number> = new Set([RCODE.SERVFAIL, RCODE.NOTIMP, RCODE.REFUSED]);

export class Forwarder implements Disposable {
  readonly #o: Required<ForwarderOptions>;
  readonly #waiting = new Map<string, number>();
  readonly #closed = new AbortController();
  #total = 0;

  constructor(options: ForwarderOptions) {
    this.#o = { timeoutMs: TIMEOUT_MS, maxWaiting: MAX_WAITING, maxWaitingOfOne: MAX_WAITING_OF_ONE, ...options };
  }

  /** Questions that wait for an answer. */
  get waiting(): number {
    return this.#total;
  }

  /**
   * @param query a valid one, as it came
   * @param source who asks; each has its share of what waits at once
   * @returns the reply with the query's id; null: no resolver answered, there is none, or too many questions wait. Never rejects.
   */
  async forward(query: Buffer, source: string): Promise<Buffer | null> {
    const ofOne = this.#waiting.get(source) ?? 0;
    if (this.#closed.signal.aborted || this.#total >= this.#o.maxWaiting || ofOne >= this.#o.maxWaitingOfOne)
      return null;
    this.#total++;
    this.#waiting.set(source, ofOne + 1);
    try {
      return await this.#ask(query);
    } finally {
      this.#total--;
      const left = (this.#waiting.get(source) ?? 1) - 1;
      if (left > 0) this.#waiting.set(source, left);
      else this.#waiting.delete(source);
    }
  }

  [Symbol.dispose](): void {
    this.#closed.abort();
  }

  async #ask(query: Buffer): Promise<Buffer | null> {
    const { own, upstreams } = this.#o;
    const id = query.readUInt16BE(0);
    let last: Buffer | null = null;
    for (const upstream of await upstreams().catch(() => [])) {
      if (upstream.address === own.address && upstream.port === own.port) continue;
      const reply = await this.#askOne(withId(query, randomInt(0x1_0000)), upstream);
      if (reply === null) continue;
      last = withId(reply, id);
      if (!TRY_NEXT.has(rcodeOf(reply))) break;
    }
    return last;
  }

  async #askOne(query: Buffer, upstream: Upstream): Promise<Buffer | null> {
    const { timeoutMs } = this.#o;
    const reply = await byUdp(query, upstream, within(timeoutMs, this.#closed.signal));
    if (reply === null || !isTruncated(reply)) return reply;
    // A resolver without TCP has still told something.
    return (await byTcp(query, upstream, within(timeoutMs, this.#closed.signal))) ?? reply;
  }
}

const within = (ms: number, signal: AbortSignal): AbortSignal => AbortSignal.any([signal, AbortSignal.timeout(ms)]);

/** @returns the first true reply; null: none came before the signal, or nobody listens there */
function byUdp(query: Buffer, upstream: Upstream, signal: AbortSignal): Promise<Buffer | null> {
  const { promise, resolve } = Promise.withResolvers<Buffer | null>();
  const socket = createSocket({ type: isIPv6(upstream.address) ? 'udp6' : 'udp4' });
  let open = true;
  const done = (reply: Buffer | null): void => {
    if (!open) return;
    open = false;
    signal.removeEventListener('abort', abort);
    socket.close();
    resolve(reply);
  };
  const abort = (): void => done(null);
  signal.addEventListener('abort', abort, { once: true });
  if (signal.aborted) abort();
  else {
    socket.on('error', abort);
    socket.on('message', (message) => {
      if (isReplyTo(message, query)) done(message);
    });
    // Connected, so that nobody else's datagrams arrive, and a refusal does.
    // The callback is told of a failure too (node: lib/dgram.js, doConnect), which its type does not say.
    socket.connect(upstream.port, upstream.address, (failed?: Error) => {
      if (failed) abort();
      else if (open) socket.send(query, (error) => (error === null ? undefined : abort()));
    });
  }
  return promise;
}

function byTcp(query: Buffer, upstream: Upstream, signal: AbortSignal): Promise<Buffer | null> {
  const { promise, resolve } = Promise.withResolvers<Buffer | null>();
  const socket = connect({ host: upstream.address, port: upstream.port });
  const chunks: Buffer[] = [];
  const done = (reply: Buffer | null): void => {
    signal.removeEventListener('abort', abort);
    socket.destroy();
    resolve(reply);
  };
  const abort = (): void => done(null);
  signal.addEventListener('abort', abort, { once: true });
  socket.on('error', abort);
  socket.on('close', abort);
  socket.on('data', (chunk) => {
    chunks.push(chunk);
    const all = Buffer.concat(chunks);
    if (all.length < 2 || all.length < 2 + all.readUInt16BE(0)) return;
    const reply = all.subarray(2, 2 + all.readUInt16BE(0));
    done(isReplyTo(reply, query) ? reply : null);
  });
  socket.write(framed(query));
  return promise;
}
