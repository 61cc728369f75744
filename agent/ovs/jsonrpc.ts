/**
 * JSON-RPC 1.0 over a unix socket, as OVSDB (RFC 7047 section 4) and ovs-appctl's sockets speak it: calls with deadlines,
 * notifications, echo both ways.
 */
import net from 'node:net';
import { WeftError } from '../../lib/errors.ts';
import { JsonSplitter } from './framing.ts';

export interface JsonRpcOptions {
  /** Path of the unix socket. */
  readonly path: string;
  /** Milliseconds until connecting is given up. */
  readonly connectTimeoutMs?: number;
  /** Silence in milliseconds after which the peer is probed by an echo; after twice as much it counts as dead. 0: never. */
  readonly idleMs?: number;
  readonly onNotify: (method: string, params: readonly unknown[]) => void;
  /** Called once, whatever ended the connection. */
  readonly onClose: (reason: WeftError) => void;
}

interface Pending {
  readonly method: string;
  readonly resolve: (result: unknown) => void;
  readonly reject: (error: WeftError) => void;
  readonly timer: NodeJS.Timeout;
}

/** One connection's life. Made by `JsonRpc.connect`; it is not reconnected. */
export class JsonRpc {
  readonly #options: JsonRpcOptions;
  readonly #socket: net.Socket;
  readonly #splitter = new JsonSplitter();
  readonly #pending = new Map<number, Pending>();
  readonly #probe: NodeJS.Timeout | null;
  #nextId = 1;
  #heardAt = performance.now();
  #closed: WeftError | null = null;

  private constructor(socket: net.Socket, options: JsonRpcOptions) {
    this.#socket = socket;
    this.#options = options;
    socket.on('data', (chunk) => this.#receive(chunk));
    socket.on('error', (cause) => {
      this.#end(
        new WeftError('UNAVAILABLE', `The connection to ${options.path} failed (${cause.message}).`, { cause }),
      );
    });
    socket.on('close', () => this.#end(this.#unavailable('closed the connection')));
    const idleMs = options.idleMs ?? 5_000;
    this.#probe = idleMs === 0 ? null : setInterval(() => this.#keepAlive(idleMs), Math.max(10, idleMs / 2)).unref();
  }

  /** Rejects with UNAVAILABLE when nobody listens there, or when it takes too long. */
  static connect(options: JsonRpcOptions): Promise<JsonRpc> {
    const { promise, resolve, reject } = Promise.withResolvers<JsonRpc>();
    const socket = net.connect(options.path);
    const fail = (cause: unknown): void => {
      socket.destroy();
      const hint = 'Is Open vSwitch running, and may this process open its socket?';
      reject(new WeftError('UNAVAILABLE', `${options.path} cannot be connected to.`, { hint, cause }));
    };
    const timer = setTimeout(() => fail(new Error('timeout')), options.connectTimeoutMs ?? 5_000);
    socket.once('error', fail);
    socket.once('connect', () => {
      clearTimeout(timer);
      socket.off('error', fail);
      resolve(new JsonRpc(socket, options));
    });
    socket.once('close', () => clearTimeout(timer));
    return promise;
  }

  /**
   * One request. Rejects with DEADLINE_EXCEEDED after `timeoutMs`, UNAVAILABLE when the connection ends, INTERNAL when
   * the peer answers with an error.
   */
  call(method: string, params: readonly unknown[], timeoutMs = 5_000): Promise<unknown> {
    if (this.#closed !== null) return Promise.reject(this.#closed);
    const id = this.#nextId++;
    const { promise, resolve, reject } = Promise.withResolvers<unknown>();
    const timer = setTimeout(() => {
      this.#pending.delete(id);
      reject(
        new WeftError('DEADLINE_EXCEEDED', `${this.#options.path} did not answer ${method} within ${timeoutMs} ms.`),
      );
    }, timeoutMs);
    this.#pending.set(id, { method, resolve, reject, timer });
    this.#socket.write(JSON.stringify({ method, params, id }));
    return promise;
  }

  /** Ends it; pending calls reject with `reason`. Closing twice is harmless. */
  close(reason?: WeftError): void {
    this.#end(
      reason ?? new WeftError('CANCELLED', `The connection to ${this.#options.path} was closed by this process.`),
    );
  }

  #unavailable(what: string): WeftError {
    return new WeftError('UNAVAILABLE', `${this.#options.path} ${what}.`);
  }

  #keepAlive(idleMs: number): void {
    const silent = performance.now() - this.#heardAt;
    if (silent > idleMs * 2) this.#end(this.#unavailable(`has not answered for ${Math.round(silent)} ms`));
    else if (silent >= idleMs) this.#socket.write(JSON.stringify({ method: 'echo', params: [], id: 'echo' }));
  }

  #receive(chunk: Uint8Array): void {
    this.#heardAt = performance.now();
    try {
      for (const message of this.#splitter.push(chunk)) this.#dispatch(message);
    } catch (error) {
      this.#end(WeftError.from(error));
    }
  }

  #dispatch(message: Record<string, unknown>): void {
    const { id, method } = message;
    if (typeof method === 'string') {
      const params = Array.isArray(message['params']) ? (message['params'] as unknown[]) : [];
      if (method === 'echo') this.#socket.write(JSON.stringify({ result: params, error: null, id }));
      else this.#options.onNotify(method, params);
      return;
    }
    const pending = typeof id === 'number' ? this.#pending.get(id) : undefined;
    if (pending === undefined || typeof id !== 'number') return;
    this.#pending.delete(id);
    clearTimeout(pending.timer);
    const error = message['error'];
    if (error === null || error === undefined) pending.resolve(message['result']);
    else {
      const text = typeof error === 'string' ? error.trim() : JSON.stringify(error);
      pending.reject(new WeftError('INTERNAL', `${pending.method} was refused: ${text}.`));
    }
  }

  #end(reason: WeftError): void {
    if (this.#closed !== null) return;
    this.#closed = reason;
    if (this.#probe !== null) clearInterval(this.#probe);
    this.#socket.destroy();
    for (const pending of this.#pending.values()) {
      clearTimeout(pending.timer);
      pending.reject(reason);
    }
    this.#pending.clear();
    this.#options.onClose(reason);
  }
}
