/** A TCP proxy that cuts, or holds back, what passes through it. */
import { once } from 'node:events';
import net from 'node:net';

export class TcpProxy implements AsyncDisposable {
  readonly #server: net.Server;
  readonly #pairs = new Set<readonly [net.Socket, net.Socket]>();
  #open = true;
  #silent = false;
  /** Bytes from the server after which the connection is cut, once; 0 = never. */
  cutAfter = 0;

  private constructor(server: net.Server) {
    this.#server = server;
  }

  static async start(target: string): Promise<TcpProxy> {
    const [host, port] = target.split(':') as [string, string];
    const server = net.createServer();
    const proxy = new TcpProxy(server);
    server.on('connection', (client) => proxy.#connect(client, net.connect(Number(port), host)));
    await once(server.listen(0, '127.0.0.1'), 'listening');
    return proxy;
  }

  get endpoint(): string {
    return `127.0.0.1:${(this.#server.address() as net.AddressInfo).port}`;
  }

  /** All connections are reset. */
  cut(): void {
    for (const [client, server] of this.#pairs) {
      client.destroy();
      server.destroy();
    }
  }

  /** Refuses connections, and resets those that are there. */
  down(): void {
    this.#open = false;
    this.cut();
  }

  up(): void {
    this.#open = true;
  }

  /** Connections stay, and nothing comes through: what a network without a route looks like. */
  silence(on: boolean): void {
    this.#silent = on;
    for (const pair of this.#pairs)
      for (const socket of pair) {
        if (on) socket.pause();
        else socket.resume();
      }
  }

  async [Symbol.asyncDispose](): Promise<void> {
    this.down();
    await new Promise((resolve) => this.#server.close(resolve));
  }

  #connect(client: net.Socket, server: net.Socket): void {
    const pair = [client, server] as const;
    this.#pairs.add(pair);
    let bytes = 0;
    client.on('data', (chunk) => server.write(chunk));
    server.on('data', (chunk: Buffer) => {
      bytes += chunk.length;
      client.write(chunk);
      if (this.cutAfter === 0 || bytes < this.cutAfter) return;
      this.cutAfter = 0;
      this.cut();
    });
    for (const socket of pair) {
      socket.on('error', () => undefined);
      socket.on('close', () => {
        this.#pairs.delete(pair);
        client.destroy();
        server.destroy();
      });
    }
    if (!this.#open) this.cut();
    if (this.#silent) this.silence(true);
  }
}
