/** Metrics of one daemon, and the small HTTP server that shows them: /metrics, /healthz, /readyz. */
import { createServer, type Server } from 'node:http';
import type { AddressInfo } from 'node:net';
import { Counter, collectDefaultMetrics, Gauge, Histogram, Registry } from 'prom-client';
import { WeftError } from './errors.ts';
import { parseHostPort } from './hostport.ts';

export { Counter, Gauge, Histogram, Registry };

/** An empty registry (prom-client's global one is never used). */
export function makeRegistry(component: string, version: string): Registry {
  const registry = new Registry();
  registry.setDefaultLabels({ component });
  const info = new Gauge({
    name: 'weft_build_info',
    help: 'Always 1.',
    labelNames: ['version'],
    registers: [registry],
  });
  info.set({ version }, 1);
  return registry;
}

/** Memory, CPU and event loop of the process. Starts timers: for daemons, not for tests. */
export const addProcessMetrics = (registry: Registry): void => collectDefaultMetrics({ register: registry });

export interface MetricsServerOptions {
  /** host:port; port 0 = any. */
  readonly listen: string;
  readonly registry: Registry;
  /** Null when ready, else why not (one line). */
  readonly ready: () => string | null;
}

export class MetricsServer {
  readonly #options: MetricsServerOptions;
  readonly #server: Server;

  constructor(options: MetricsServerOptions) {
    this.#options = options;
    this.#server = createServer({ requestTimeout: 5000, headersTimeout: 5000 }, (request, response) => {
      const send = (status: number, text: string, type = 'text/plain; charset=utf-8'): void => {
        response.writeHead(status, { 'content-type': type }).end(text);
      };
      this.#answer(request.method ?? '', request.url ?? '', send).catch((error: unknown) =>
        send(500, `${WeftError.from(error).message}\n`),
      );
    });
  }

  /** @returns the port that it listens on. @throws UNAVAILABLE when the address is taken. */
  async start(): Promise<number> {
    const { host, port } = parseHostPort(this.#options.listen);
    await new Promise<void>((resolve, reject) => {
      const fail = (error: Error): void =>
        reject(new WeftError('UNAVAILABLE', `Metrics cannot listen on ${this.#options.listen}: ${error.message}.`));
      this.#server.once('error', fail);
      this.#server.listen(port, host, () => {
        this.#server.removeListener('error', fail);
        resolve();
      });
    });
    return (this.#server.address() as AddressInfo).port;
  }

  async close(): Promise<void> {
    if (!this.#server.listening) return;
    await new Promise<void>((resolve) => {
      this.#server.close(() => resolve());
      this.#server.closeAllConnections();
    });
  }

  [Symbol.asyncDispose](): Promise<void> {
    return this.close();
  }

  async #answer(
    method: string,
    url: string,
    send: (status: number, text: string, type?: string) => void,
  ): Promise<void> {
    if (method !== 'GET' && method !== 'HEAD') return send(405, 'only GET\n');
    const [path = ''] = url.split('?');
    switch (path) {
      case '/metrics':
        return send(200, await this.#options.registry.metrics(), this.#options.registry.contentType);
      case '/healthz':
        return send(200, 'ok\n');
      case '/readyz': {
        const why = this.#options.ready();
        return why === null ? send(200, 'ok\n') : send(503, `${why}\n`);
      }
      default:
        return send(404, 'try /metrics, /healthz or /readyz\n');
    }
  }
}
