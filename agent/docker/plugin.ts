/**
 * The HTTP server that dockerd calls: network driver and IPAM driver on one unix socket. systemd may hold the socket (socket
 * activation): dockerd then waits through a restart of the agent instead of failing after 15 s.
 */
import { once } from 'node:events';
import { chmod, mkdir, rm } from 'node:fs/promises';
import { createServer, type IncomingMessage, type Server, type ServerResponse } from 'node:http';
import { connect } from 'node:net';
import { dirname } from 'node:path';
import { WeftError } from '../../lib/errors.ts';
import type { Log } from '../../lib/log.ts';

/** Answers one method; what it throws becomes Docker's error message. */
export type Handler = {
  /** Fields that a call of this method has, always, as text. */
  readonly needs: readonly string[];
  readonly answer: (request: never) => Promise<object> | object;
};
export type Handlers = Readonly<Record<string, Handler>>;

const MAX_BODY = 1 << 20;
const CONTENT_TYPE = 'application/vnd.docker.plugins.v1.1+json';
/** How long close() waits for calls under way, ms. */
const DRAIN_MS = 5_000;

export interface PluginOptions {
  /** Own socket path; unused when a socket was passed in by socket activation. */
  readonly path: string;
  /** Environment to look for LISTEN_PID and LISTEN_FDS in (sd_listen_fds(3)). */
  readonly env: Readonly<Record<string, string | undefined>>;
  readonly pid: number;
  readonly handlers: Handlers;
  readonly log: Log;
  /** Called after each call, with its duration in milliseconds. */
  readonly onCall?: ((path: string, ms: number) => void) | undefined;
}

export class PluginServer {
  readonly #options: PluginOptions;
  readonly #server: Server;
  #calls = 0;
  #idle: (() => void) | null = null;
  #ownPath = false;

  constructor(options: PluginOptions) {
    this.#options = options;
    this.#server = createServer((request, response) => void this.#serve(request, response));
    // dockerd keeps connections open; one that we close as it sends would cost it a retry.
    this.#server.keepAliveTimeout = 0;
    this.#server.requestTimeout = 0;
    this.#server.headersTimeout = 0;
  }

  /** @throws FAILED_PRECONDITION when another process answers on the socket. */
  async start(): Promise<void> {
    const fd = activatedFd(this.#options.env, this.#options.pid);
    if (fd === null) {
      await clearStale(this.#options.path);
      await mkdir(dirname(this.#options.path), { recursive: true });
      this.#ownPath = true;
    }
    this.#server.listen(fd === null ? { path: this.#options.path } : { fd });
    await once(this.#server, 'listening');
    if (fd === null) await chmod(this.#options.path, 0o600);
  }

  /** Takes no new calls, waits (bounded) for those under way. */
  async close(): Promise<void> {
    if (!this.#server.listening) return;
    const closed = once(this.#server, 'close');
    this.#server.close();
    if (this.#calls > 0) {
      let timer: NodeJS.Timeout | undefined;
      await new Promise<void>((resolve) => {
        this.#idle = resolve;
        timer = setTimeout(resolve, DRAIN_MS);
      });
      clearTimeout(timer);
    }
    this.#server.closeAllConnections();
    await closed;
    if (this.#ownPath) await rm(this.#options.path, { force: true });
  }

  async #serve(request: IncomingMessage, response: ServerResponse): Promise<void> {
    const started = performance.now();
    const method = (request.url ?? '').replace(/^\//, '');
    this.#calls++;
    let body: unknown = null;
    let status = 200;
    let answer: object;
    let failure: WeftError | null = null;
    try {
      const handler = Object.hasOwn(this.#options.handlers, method) ? this.#options.handlers[method] : undefined;
      const text = await readBody(request);
      if (handler === undefined || request.method !== 'POST') {
        status = 404;
        throw new WeftError('NOT_FOUND', `Weft's plugin has no method "${method}"`);
      }
      body = parseBody(text, handler.needs);
      answer = await handler.answer(body as never);
    } catch (error) {
      failure = WeftError.from(error);
      const sentence = sentenceOf(failure);
      // Network drivers are asked for "Err", IPAM drivers for "Error".
      answer = { Err: sentence, Error: sentence };
    }
    const ms = performance.now() - started;
    // Connection: nobody may be there any more; that is dockerd's business.
    response.on('error', () => undefined);
    response.writeHead(status, { 'content-type': CONTENT_TYPE });
    response.end(JSON.stringify(answer));
    this.#options.onCall?.(method, ms);
    const fields = { method, ms: Math.round(ms * 100) / 100, request: body };
    if (failure === null) this.#options.log.debug({ ...fields, answer }, 'docker call');
    else
      this.#options.log.warn(
        { ...fields, code: failure.code, reason: sentenceOf(failure), ...stackOf(failure) },
        'docker call failed',
      );
    this.#calls--;
    if (this.#calls === 0) this.#idle?.();
  }
}

/** What is wrong, and what to do: Docker shows one string. */
export const sentenceOf = (error: WeftError): string =>
  error.hint === null ? error.message : `${error.message} (${error.hint})`;

/** Only what nobody expected needs its stack. */
const stackOf = (error: WeftError): object => (error.code === 'INTERNAL' ? { err: error.cause ?? error } : {});

/** First passed descriptor (3), when the sockets were passed to this very process. */
export function activatedFd(env: Readonly<Record<string, string | undefined>>, pid: number): number | null {
  return Number(env['LISTEN_PID']) === pid && Number(env['LISTEN_FDS']) >= 1 ? 3 : null;
}

async function readBody(request: IncomingMessage): Promise<string> {
  const chunks: Buffer[] = [];
  let size = 0;
  for await (const chunk of request as AsyncIterable<Buffer>) {
    size += chunk.length;
    if (size <= MAX_BODY) chunks.push(chunk); // the rest is read and dropped, so that the answer can be
  }
  if (size > MAX_BODY) throw new WeftError('INVALID_ARGUMENT', `the request is larger than ${MAX_BODY} bytes`);
  return Buffer.concat(chunks).toString('utf8');
}

/**
 * Activate and the capability calls have an empty body. So has every call that dockerd repeats because its connection was cut
 * (the agent was killed in the middle): its client sends a body only once.
 */
function parseBody(text: string, needs: readonly string[]): object {
  if (text === '' && needs.length > 0)
    throw new WeftError('ABORTED', 'the agent was restarted, and dockerd has repeated a call without its content', {
      hint: 'try again',
    });
  if (text === '') return {};
  let body: unknown;
  try {
    body = JSON.parse(text);
  } catch (error) {
    throw new WeftError('INVALID_ARGUMENT', 'the request is not JSON', { cause: error });
  }
  if (typeof body !== 'object' || body === null || Array.isArray(body))
    throw new WeftError('INVALID_ARGUMENT', 'the request is not a JSON object');
  for (const field of needs)
    if (typeof (body as Record<string, unknown>)[field] !== 'string')
      throw new WeftError('INVALID_ARGUMENT', `the request has no field ${field}`);
  return body;
}

/** Removes a socket file that nobody listens on (left by a killed process). */
async function clearStale(path: string): Promise<void> {
  const alive = await new Promise<boolean>((resolve) => {
    const socket = connect(path, () => {
      socket.destroy();
      resolve(true);
    });
    socket.on('error', () => resolve(false));
  });
  if (alive)
    throw new WeftError('FAILED_PRECONDITION', `another process answers on ${path}`, {
      hint: 'is another agent running on this host?',
    });
  await rm(path, { force: true });
}
