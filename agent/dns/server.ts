/**
 * The sockets of the resolver, UDP and TCP on one address and port. The address may not be there yet, or be somebody else's for a
 * while: it is tried again until it works. Everything that a container can make grow has a bound.
 */
import { createSocket, type RemoteInfo, type Socket as UdpSocket } from 'node:dgram';
import { createServer, isIPv6, type Socket, type Server as TcpServer } from 'node:net';
import type { Clock } from '../../lib/clock.ts';
import type { Log } from '../../lib/log.ts';
import { serveConnection } from './connection.ts';
import type { DnsCounters, Handler } from './handle.ts';

export interface DnsServerOptions {
  readonly address: string;
  /** 0: any, for tests; UDP's and TCP's are then two. */
  readonly port: number;
  readonly handler: Handler;
  readonly counters: DnsCounters;
  readonly clock: Clock;
  readonly log: Log;
  /** Between two tries to listen, ms. */
  readonly retryMs?: number;
  /** A TCP connection without a query is closed after that, ms. */
  readonly idleMs?: number;
  /** TCP connections of everybody, and of one source. */
  readonly maxConnections?: number;
  readonly maxConnectionsOfOne?: number;
}

const DEFAULTS = { retryMs: 1000, idleMs: 5000, maxConnections: 256, maxConnectionsOfOne: 16 };
/** Replies that the kernel has not taken yet. */
const MAX_UNSENT = 1024;
/** Bytes of queries that wait while the agent does something else; the kernel may give less (net.core.rmem_max). */
const RECEIVE_BUFFER = 1024 * 1024;

export interface Ports {
  readonly udp: number;
  readonly tcp: number;
}

export class DnsServer implements AsyncDisposable {
  readonly #o: Required<DnsServerOptions>;
  readonly #closing = new AbortController();
  readonly #connections = new Map<Socket, string>();
  #udp: UdpSocket | null = null;
  #tcp: TcpServer | null = null;
  #up = Promise.withResolvers<Ports>();
  #failure = '';

  constructor(options: DnsServerOptions) {
    this.#o = { ...DEFAULTS, ...options };
    this.#up.promise.catch(() => undefined);
  }

  /** True while both sockets listen. */
  get listening(): boolean {
    return this.#udp !== null && this.#tcp !== null;
  }

  /** TCP connections. */
  get connections(): number {
    return this.#connections.size;
  }

  /** Begins to listen, and goes on trying until `close`. Does not wait. */
  start(): void {
    void this.#listen();
  }

  /** Resolves once both sockets listen. @throws the reason when closed before */
  up(): Promise<Ports> {
    return this.#up.promise;
  }

  async close(): Promise<void> {
    this.#closing.abort(new Error('the DNS server was closed'));
    this.#up.reject(this.#closing.signal.reason);
    await this.#drop();
  }

  [Symbol.asyncDispose](): Promise<void> {
    return this.close();
  }

  async #listen(): Promise<void> {
    const { address, port, log } = this.#o;
    try {
      const udp = await this.#bindUdp();
      this.#udp = udp;
      this.#tcp = await this.#bindTcp();
      if (this.#closing.signal.aborted) return await this.#drop();
      const ports = { udp: udp.address().port, tcp: (this.#tcp.address() as { port: number }).port };
      log.info({ address, ...ports }, 'DNS listens');
      this.#failure = '';
      this.#up.resolve(ports);
    } catch (error) {
      await this.#drop();
      // Once for each reason: it may be so for long.
      const reason = (error as NodeJS.ErrnoException).code ?? String(error);
      if (reason !== this.#failure) log.info({ address, port, err: error }, 'DNS cannot listen yet');
      this.#failure = reason;
      this.#again();
    }
  }

  #again(): void {
    const { clock, retryMs } = this.#o;
    if (this.#closing.signal.aborted) return;
    clock.setTimer(retryMs, () => void this.#listen(), this.#closing.signal);
  }

  /** A socket that failed later, as when its address was taken away: both begin anew. */
  #failed(socket: UdpSocket | TcpServer, error: Error): void {
    if (socket !== this.#udp && socket !== this.#tcp) return;
    this.#o.log.warn({ address: this.#o.address, err: error }, 'DNS socket failed');
    this.#up = Promise.withResolvers<Ports>();
    this.#up.promise.catch(() => undefined);
    void this.#drop().then(() => this.#again());
  }

  async #drop(): Promise<void> {
    const [udp, tcp] = [this.#udp, this.#tcp];
    this.#udp = null;
    this.#tcp = null;
    for (const socket of this.#connections.keys()) socket.destroy();
    await Promise.all([
      udp === null ? undefined : new Promise<void>((resolve) => udp.close(resolve)),
      tcp === null ? undefined : new Promise<void>((resolve) => tcp.close(() => resolve())),
    ]);
  }

  #bindUdp(): Promise<UdpSocket> {
    const { address, port } = this.#o;
    const { promise, resolve, reject } = Promise.withResolvers<UdpSocket>();
    const type = isIPv6(address) ? 'udp6' : 'udp4';
    const socket = createSocket({ type, recvBufferSize: RECEIVE_BUFFER });
    const fail = (error: Error): void => {
      socket.close();
      reject(error);
    };
    socket.once('error', fail);
    socket.bind({ address, port, exclusive: true }, () => {
      socket.removeListener('error', fail);
      socket.on('error', (error) => this.#failed(socket, error));
      resolve(socket);
    });
    socket.on('message', (message, from) => this.#datagram(socket, message, from));
    return promise;
  }

  #datagram(socket: UdpSocket, message: Buffer, from: RemoteInfo): void {
    // Port 0 cannot be replied to, and Node throws at it.
    if (from.port === 0) return this.#o.counters.dropped('udp', 'source');
    const send = (reply: Buffer | null): void => {
      if (reply === null || socket !== this.#udp) return;
      if (socket.getSendQueueCount() >= MAX_UNSENT) return this.#o.counters.dropped('udp', 'limit');
      // A reply that cannot be sent is as one that was lost.
      socket.send(reply, from.port, from.address, () => undefined);
    };
    const reply = this.#o.handler(message, from.address, 'udp');
    if (reply instanceof Promise) void reply.then(send);
    else send(reply);
  }

  #bindTcp(): Promise<TcpServer> {
    const { address, port, maxConnections } = this.#o;
    const { promise, resolve, reject } = Promise.withResolvers<TcpServer>();
    const server = createServer({ allowHalfOpen: true, noDelay: true }, (socket) => this.#connected(socket));
    server.maxConnections = maxConnections;
    server.on('drop', () => this.#o.counters.dropped('tcp', 'limit'));
    server.once('error', reject);
    server.listen({ host: address, port, exclusive: true }, () => {
      server.removeListener('error', reject);
      server.on('error', (error) => this.#failed(server, error));
      resolve(server);
    });
    return promise;
  }

  #connected(socket: Socket): void {
    const { counters, handler, idleMs, maxConnectionsOfOne } = this.#o;
    const source = socket.remoteAddress;
    const ofOne = [...this.#connections.values()].filter((other) => other === source).length;
    if (source === undefined || ofOne >= maxConnectionsOfOne) {
      counters.dropped('tcp', 'limit');
      socket.destroy();
      return;
    }
    this.#connections.set(socket, source);
    socket.on('close', () => this.#connections.delete(socket));
    serveConnection(socket, source, { handler, idleMs, dropped: (why) => counters.dropped('tcp', why) });
  }
}
