/** dockerode on this host's dockerd (API 1.41 and later: https://docs.docker.com/engine/api/): deadlines, error codes, one end. */
import { Agent } from 'node:http';
import { Readable } from 'node:stream';
import { inspect } from 'node:util';
import Docker from 'dockerode';
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

/** docker-modem prints the options of every request for its debug log, read or not: with this, not the agent and all its sockets. */
class TerseAgent extends Agent {
  [inspect.custom](): string {
    return 'Agent';
  }
}

/** The part of docker-modem that is used beside dockerode's methods. */
interface Modem {
  dial(
    request: {
      path: string;
      method: 'GET';
      statusCodes: Readonly<Record<number, true>>;
      abortSignal: AbortSignal;
    },
    done: (error: Error | null, answer: unknown) => void,
  ): void;
}

export class DockerClient {
  readonly #agent = new TerseAgent({ keepAlive: true, maxSockets: 16 });
  readonly #docker: Docker;
  /** Ends the calls under way. */
  readonly #pending = new Set<(error: WeftError) => void>();
  #closed = false;

  constructor(socketPath: string) {
    // Host and protocol are given so that DOCKER_HOST in the environment does not send the agent to another dockerd.
    const target = { socketPath, host: '', protocol: 'http' as const };
    const options = { ...target, version: `v${API}`, agent: this.#agent };
    this.#docker = new Docker(options);
  }

  /** Ends all calls (UNAVAILABLE), and refuses later ones. */
  close(): void {
    this.#closed = true;
    for (const end of this.#pending) end(new WeftError('UNAVAILABLE', 'the agent stops'));
    this.#agent.destroy();
  }

  /**
   * One call. It ends at the deadline whatever becomes of the request: docker-modem never hears of an answer that is cut off in
   * its middle.
   * @throws DEADLINE_EXCEEDED; UNAVAILABLE when dockerd does not listen; else Docker's own sentence with the status's code
   */
  async call<T>(work: (docker: Docker, abortSignal: AbortSignal) => Promise<T>, deadlineMs: number): Promise<T> {
    if (this.#closed) throw new WeftError('UNAVAILABLE', 'the agent stops');
    const abort = new AbortController();
    const ended = Promise.withResolvers<never>();
    const end = (error: WeftError): void => {
      ended.reject(error);
      abort.abort();
    };
    const timer = setTimeout(
      () => end(new WeftError('DEADLINE_EXCEEDED', `dockerd has not answered within ${deadlineMs / 1000} s`)),
      deadlineMs,
    );
    this.#pending.add(end);
    try {
      return await Promise.race([ended.promise, work(this.#docker, abort.signal)]);
    } catch (error) {
      throw refusalOf(error);
    } finally {
      clearTimeout(timer);
      this.#pending.delete(end);
    }
  }

  /** GET, where dockerode's method knows no abortSignal. */
  get(path: string, deadlineMs: number): Promise<unknown> {
    return this.call(({ modem }, abortSignal) => dial(modem, path, abortSignal), deadlineMs);
  }

  /** The endless answer of /events, until the signal. */
  async events(query: Readonly<Record<string, string>>, abortSignal: AbortSignal): Promise<Readable> {
    // Its type has `since` as a number, which does not hold nanoseconds.
    const options: object = { ...query, abortSignal };
    const stream: unknown = await this.#docker.getEvents(options).catch((error: unknown) => {
      throw refusalOf(error);
    });
    if (!(stream instanceof Readable)) throw new WeftError('INTERNAL', 'dockerd sent no stream of events');
    return stream;
  }
}

function dial(modem: Modem, path: string, abortSignal: AbortSignal): Promise<unknown> {
  const { promise, resolve, reject } = Promise.withResolvers<unknown>();
  modem.dial({ path, method: 'GET', statusCodes: { 200: true }, abortSignal }, (error, answer) =>
    error === null || error === undefined ? resolve(answer) : reject(error),
  );
  return promise;
}

/** docker-modem's errors have the status and the answer's JSON. */
function refusalOf(error: unknown): WeftError {
  const { statusCode, json, message } = error as { statusCode?: unknown; json?: unknown; message?: unknown };
  if (typeof statusCode !== 'number') {
    const weft = WeftError.from(error);
    if (weft.code !== 'UNAVAILABLE' || error instanceof WeftError) return weft;
    return new WeftError('UNAVAILABLE', `the Docker daemon of this host does not answer: ${weft.message}`, {
      hint: 'is dockerd running there? its log says why not',
      cause: error,
    });
  }
  const own = (json as { message?: unknown } | null | undefined)?.message;
  const sentence = typeof own === 'string' ? own : typeof message === 'string' ? message : `status ${statusCode}`;
  return new WeftError(STATUS[statusCode] ?? 'INTERNAL', sentence);
}
