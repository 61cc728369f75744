/** HTTP with JSON over dockerd's unix socket (API 1.41 and later: https://docs.docker.com/engine/api/). */
import { Agent, type IncomingMessage, request } from 'node:http';
import { createInterface } from 'node:readline';
import { type Code, WeftError } from '../../lib/errors.ts';

/** 20.10's version; later daemons accept it. */
const API = '1.41';

const STATUS: Readonly<Record<number, Code>> = {
  400: 'INVALID_ARGUMENT',
  403: 'FAILED_PRECONDITION',
  404: 'NOT_FOUND',
  409: 'ALREADY_EXISTS',
  501: 'UNIMPLEMENTED',
};

export interface DockerRequest {
  readonly method: 'GET' | 'POST' | 'DELETE';
  readonly path: string;
  readonly query?: Readonly<Record<string, string>>;
  readonly body?: object;
  /** API version; a daemon that knows newer things shows them only to those who ask for them. */
  readonly api?: string;
}

export class DockerHttp {
  readonly #socketPath: string;
  readonly #agent = new Agent({ keepAlive: true, maxSockets: 16 });

  constructor(socketPath: string) {
    this.#socketPath = socketPath;
  }

  close(): void {
    this.#agent.destroy();
  }

  /**
   * One call, JSON in and out (null for an empty answer).
   * @throws DEADLINE_EXCEEDED; UNAVAILABLE when dockerd does not listen; else Docker's own sentence with the status's code
   */
  async call(r: DockerRequest, deadlineMs: number): Promise<unknown> {
    const signal = AbortSignal.timeout(deadlineMs);
    try {
      const response = await this.#send(r, signal, this.#agent);
      const text = await bodyOf(response);
      const body: unknown = text === '' ? null : JSON.parse(text);
      const status = response.statusCode ?? 0;
      if (status >= 200 && status < 300) return body;
      throw refusal(status, body);
    } catch (error) {
      if (!signal.aborted) throw WeftError.from(error);
      throw new WeftError('DEADLINE_EXCEEDED', `dockerd has not answered within ${deadlineMs / 1000} s`, {
        cause: error,
      });
    }
  }

  /** Lines of an endless answer, on a connection of its own. `opened` is called when the answer begins. */
  async *lines(r: DockerRequest, signal: AbortSignal, opened: () => void): AsyncGenerator<string> {
    const response = await this.#send(r, signal, false);
    if (response.statusCode !== 200) throw refusal(response.statusCode ?? 0, await bodyOf(response));
    opened();
    try {
      yield* createInterface({ input: response });
    } finally {
      response.destroy();
    }
  }

  #send(r: DockerRequest, signal: AbortSignal, agent: Agent | false): Promise<IncomingMessage> {
    const query = new URLSearchParams(r.query).toString();
    const body = r.body === undefined ? '' : JSON.stringify(r.body);
    return new Promise((resolve, reject) => {
      const outgoing = request(
        {
          socketPath: this.#socketPath,
          method: r.method,
          path: `/v${r.api ?? API}${r.path}${query === '' ? '' : `?${query}`}`,
          headers: { host: 'docker', 'content-type': 'application/json', 'content-length': Buffer.byteLength(body) },
          agent,
          signal,
        },
        resolve,
      );
      outgoing.on('error', reject);
      outgoing.end(body);
    });
  }
}

async function bodyOf(response: IncomingMessage): Promise<string> {
  const chunks: Buffer[] = [];
  for await (const chunk of response as AsyncIterable<Buffer>) chunks.push(chunk);
  return Buffer.concat(chunks).toString('utf8');
}

function refusal(status: number, body: unknown): WeftError {
  const message = (body as { message?: unknown } | null)?.message;
  return new WeftError(
    STATUS[status] ?? 'INTERNAL',
    typeof message === 'string' ? message : `dockerd answered with status ${status}`,
  );
}
