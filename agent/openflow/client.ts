/**
 * OpenFlow 1.4 over a bridge's management socket: a connection that comes back by itself, requests with deadlines and
 * their replies or errors by xid. A connection that comes up says nothing of the flows: they may be gone.
 */
import net from 'node:net';
import { WeftError } from '../../lib/errors.ts';
import { Listeners } from '../ovs/listeners.ts';
import { errorText } from './errors.ts';
import {
  type Features,
  type Message,
  readError,
  readFeatures,
  readMultipart,
  splitMessages,
  TYPE,
  VERSION,
  writeHello,
  writeMessage,
} from './messages.ts';
import { writePacketInSetup } from './punted.ts';
import { Writer } from './wire.ts';

export interface OpenFlowOptions {
  /** Path of the bridge's `.mgmt` unix socket. */
  readonly path: string;
  /** Milliseconds of silence after which the switch is probed; after twice as much it counts as dead. Default 5,000. */
  readonly idleMs?: number;
  /** Bounds of the pause between attempts to connect, milliseconds. */
  readonly backoffMs?: readonly [number, number];
  /** Packets for the controller come to this connection (`onMessage`). Default false. */
  readonly packetIns?: boolean;
  /** 0 … 1, for jitter. */
  readonly random?: () => number;
}

/** The switch's refusal of one message. */
export interface Refusal {
  readonly xid: number;
  readonly error: WeftError;
}

interface Pending {
  readonly resolve: (bodies: Message[]) => void;
  readonly reject: (error: WeftError) => void;
  /** Parts of a multipart reply so far. */
  readonly parts: Message[];
}

const HANDSHAKE_MS = 5_000;

export class OpenFlowClient implements AsyncDisposable {
  readonly #options: OpenFlowOptions;
  readonly #up = new Listeners<[features: Features]>();
  readonly #down = new Listeners<[reason: WeftError]>();
  readonly #refusals = new Listeners<[refusal: Refusal]>();
  readonly #messages = new Listeners<[message: Message]>();
  readonly #pending = new Map<number, Pending>();
  #socket: net.Socket | null = null;
  #features: Features | null = null;
  #reason: WeftError | null = null;
  #rest: Buffer = Buffer.alloc(0);
  #xid = 1;
  #attempts = 0;
  #heardAt = 0;
  #retry: NodeJS.Timeout | null = null;
  #probe: NodeJS.Timeout | null = null;
  #state: 'new' | 'running' | 'closed' = 'new';

  constructor(options: OpenFlowOptions) {
    this.#options = options;
  }

  /** Starts connecting, and keeps at it until `close`. */
  start(): void {
    if (this.#state !== 'new') return;
    this.#state = 'running';
    this.#connect();
  }

  /** Handshake done. */
  get connected(): boolean {
    return this.#features !== null;
  }

  /** Of the connected switch. */
  get features(): Features | null {
    return this.#features;
  }

  /** Why there is no connection; null while there is one, or when none was tried. */
  get reason(): WeftError | null {
    return this.#reason;
  }

  /** Each time that the switch is connected, with flows in an unknown state; at once if it is now. */
  onUp(listener: (features: Features) => void): () => void {
    if (this.#features !== null) listener(this.#features);
    return this.#up.add(listener);
  }

  onDown(listener: (reason: WeftError) => void): () => void {
    return this.#down.add(listener);
  }

  /** Messages that answer no request. */
  onMessage(listener: (message: Message) => void): () => void {
    return this.#messages.add(listener);
  }

  /** Errors for messages that nobody waits for (those inside of a bundle). */
  onRefusal(listener: (refusal: Refusal) => void): () => void {
    return this.#refusals.add(listener);
  }

  /** Resolves when connected, tries at once if it waits for another try; UNAVAILABLE after `timeoutMs`. */
  async ready(timeoutMs = 5_000): Promise<void> {
    if (this.connected) return;
    if (this.#retry !== null) {
      clearTimeout(this.#retry);
      this.#connect();
    }
    const { promise, resolve, reject } = Promise.withResolvers<void>();
    const remove = this.#up.add(() => resolve());
    const timer = setTimeout(() => reject(this.#unavailable()), timeoutMs);
    try {
      await promise;
    } finally {
      clearTimeout(timer);
      remove();
    }
  }

  /** `count` transaction ids in a row; the first is returned. */
  allocate(count = 1): number {
    if (this.#xid + count > 0x7fff_ffff) this.#xid = 1;
    const first = this.#xid;
    this.#xid += count;
    return first;
  }

  /**
   * The reply to `xid`, all parts of it. Call before the request is sent. Rejects with the switch's error, UNAVAILABLE
   * when the connection ends, DEADLINE_EXCEEDED after `timeoutMs`.
   */
  reply(xid: number, timeoutMs: number): Promise<Message[]> {
    if (!this.connected) return Promise.reject(this.#unavailable());
    const { promise, resolve, reject } = Promise.withResolvers<Message[]>();
    const late = (): void =>
      reject(
        new WeftError('DEADLINE_EXCEEDED', `${this.#options.path} did not answer within ${timeoutMs} ms.`, {
          hint: HINT,
        }),
      );
    const timer = setTimeout(late, timeoutMs);
    this.#pending.set(xid, { resolve, reject, parts: [] });
    return promise.finally(() => {
      clearTimeout(timer);
      this.#pending.delete(xid);
    });
  }

  /**
   * Hands whole messages to the socket, after those of others have left; resolves when its buffer has room again.
   * Rejects with UNAVAILABLE without a connection; one that ends meanwhile is told by `reply`.
   */
  async send(bytes: Buffer): Promise<void> {
    const socket = this.#socket;
    if (socket?.writableNeedDrain === true) await drained(socket);
    if (socket === null || socket !== this.#socket || !this.connected) throw this.#unavailable();
    // One write: echo replies, and messages of others, must not get between.
    if (!socket.write(bytes)) await drained(socket);
  }

  /** One request with one answer. */
  async request(write: (writer: Writer, xid: number) => void, timeoutMs = 5_000): Promise<Message[]> {
    const xid = this.allocate();
    const writer = new Writer();
    write(writer, xid);
    const reply = this.reply(xid, timeoutMs);
    const [answer] = await Promise.all([reply, this.send(writer.bytes())]);
    return answer;
  }

  /** Resolves when everything sent before has been carried out. */
  async barrier(timeoutMs?: number): Promise<void> {
    await this.request((writer, xid) => writeMessage(writer, TYPE.barrierRequest, xid), timeoutMs);
  }

  close(): void {
    if (this.#state === 'closed') return;
    this.#state = 'closed';
    if (this.#retry !== null) clearTimeout(this.#retry);
    this.#lost(new WeftError('CANCELLED', `The connection to ${this.#options.path} was closed by this process.`));
  }

  [Symbol.asyncDispose](): Promise<void> {
    this.close();
    return Promise.resolve();
  }

  #unavailable(): WeftError {
    const why = this.#reason === null ? '' : ` ${this.#reason.message}`;
    return new WeftError('UNAVAILABLE', `${this.#options.path} is not connected.${why}`, { hint: HINT });
  }

  #connect(): void {
    this.#retry = null;
    const socket = net.connect(this.#options.path);
    this.#socket = socket;
    this.#rest = Buffer.alloc(0);
    this.#heardAt = performance.now();
    const end = (reason: WeftError): void => {
      if (this.#socket === socket) this.#lost(reason);
    };
    socket.on('connect', () => {
      const writer = new Writer(128);
      writeHello(writer, this.allocate());
      if (this.#options.packetIns === true) writePacketInSetup(writer, () => this.allocate());
      writeMessage(writer, TYPE.featuresRequest, this.allocate());
      socket.write(writer.bytes());
    });
    socket.on('data', (chunk) => {
      if (this.#socket !== socket) return;
      try {
        this.#receive(chunk);
      } catch (error) {
        end(WeftError.from(error));
      }
    });
    socket.on('error', (cause) => {
      end(
        new WeftError('UNAVAILABLE', `The connection to ${this.#options.path} failed (${cause.message}).`, {
          hint: HINT,
          cause,
        }),
      );
    });
    socket.on('close', () => end(new WeftError('UNAVAILABLE', `${this.#options.path} closed the connection.`)));
    const idleMs = this.#options.idleMs ?? 5_000;
    this.#probe = setInterval(() => this.#keepAlive(idleMs), Math.max(10, idleMs / 2)).unref();
  }

  #keepAlive(idleMs: number): void {
    const silent = performance.now() - this.#heardAt;
    const limit = this.connected ? idleMs * 2 : Math.max(HANDSHAKE_MS, idleMs * 2);
    if (silent > limit) {
      this.#lost(new WeftError('UNAVAILABLE', `${this.#options.path} has not answered for ${Math.round(silent)} ms.`));
    } else if (silent >= idleMs && this.connected) {
      const writer = new Writer(16);
      writeMessage(writer, TYPE.echoRequest, this.allocate());
      this.#socket?.write(writer.bytes());
    }
  }

  #receive(chunk: Buffer): void {
    this.#heardAt = performance.now();
    const { messages, rest } = splitMessages(this.#rest.length === 0 ? chunk : Buffer.concat([this.#rest, chunk]));
    this.#rest = rest;
    for (const message of messages) this.#dispatch(message);
  }

  #dispatch(message: Message): void {
    const { type, xid, body } = message;
    if (type === TYPE.hello) {
      if (message.version < VERSION) throw new WeftError('UNIMPLEMENTED', 'The switch does not speak OpenFlow 1.4.');
    } else if (type === TYPE.echoRequest) {
      const writer = new Writer(body.length + 16);
      writeMessage(writer, TYPE.echoReply, xid, () => writer.raw(body));
      this.#socket?.write(writer.bytes());
    } else if (type === TYPE.featuresReply && this.#features === null) {
      this.#attempts = 0;
      this.#reason = null;
      this.#features = readFeatures(body);
      this.#up.emit(this.#features);
    } else if (type === TYPE.error) this.#refused(xid, body);
    else this.#answer(message);
  }

  #refused(xid: number, body: Buffer): void {
    const error = errorText(readError(body));
    const pending = this.#pending.get(xid);
    if (pending !== undefined) pending.reject(error);
    else if (this.connected) this.#refusals.emit({ xid, error });
    else throw error;
  }

  #answer(message: Message): void {
    const pending = this.#pending.get(message.xid);
    if (pending === undefined) {
      if (message.type !== TYPE.echoReply) this.#messages.emit(message);
      return;
    }
    pending.parts.push(message);
    if (message.type === TYPE.multipartReply && readMultipart(message.body).more) return;
    pending.resolve(pending.parts);
  }

  #lost(reason: WeftError): void {
    const wasUp = this.connected;
    const socket = this.#socket;
    this.#socket = null;
    this.#features = null;
    this.#reason = reason;
    if (this.#probe !== null) clearInterval(this.#probe);
    socket?.destroy();
    for (const pending of this.#pending.values()) pending.reject(reason);
    this.#pending.clear();
    if (this.#state === 'running') {
      const [least, most] = this.#options.backoffMs ?? [20, 500];
      const pause =
        Math.min(most, least * 2 ** Math.min(this.#attempts++, 20)) *
        (0.5 + (this.#options.random ?? Math.random)() / 2);
      this.#retry = setTimeout(() => this.#connect(), pause);
    }
    if (wasUp) this.#down.emit(reason);
  }
}

const HINT = 'Is ovs-vswitchd running, and is the bridge there?';

/** Resolves on `drain`, and on `close`: whoever waits for an answer learns of that by its own promise. */
function drained(socket: net.Socket): Promise<void> {
  const { promise, resolve } = Promise.withResolvers<void>();
  const done = (): void => {
    socket.off('drain', done);
    socket.off('close', done);
    resolve();
  };
  socket.on('drain', done);
  socket.on('close', done);
  return promise;
}
