/** The agent of this host, over its unix socket: whoever may open that may ask. */
import { createConnection } from 'node:net';
import {
  AgentClient,
  AgentService,
  type AttachRequest,
  type AttachResponse,
  type LocalTraceRequest,
} from '../gen/weft/v1/agent.ts';
import type { TraceAnswer } from '../gen/weft/v1/types.ts';
import { WeftError } from '../lib/errors.ts';
import { callUnary, channelOptions, insecureChannelCredentials } from '../lib/rpc.ts';

export class Agent {
  readonly #path: string;
  readonly #signal: AbortSignal;
  readonly #client: AgentClient;

  /** @param path of the socket, absolute */
  constructor(path: string, signal: AbortSignal) {
    this.#path = path;
    this.#signal = signal;
    this.#client = new AgentClient(`unix:${path}`, insecureChannelCredentials(), channelOptions({ serverName: null }));
  }

  attach(request: AttachRequest, timeoutMs: number): Promise<AttachResponse> {
    return this.#call((settings) => callUnary(this.#client, AgentService.attach, request, settings), timeoutMs);
  }

  async detach(endpoint: string, timeoutMs: number): Promise<void> {
    await this.#call((settings) => callUnary(this.#client, AgentService.detach, { endpoint }, settings), timeoutMs);
  }

  trace(request: LocalTraceRequest, timeoutMs: number): Promise<TraceAnswer> {
    return this.#call((settings) => callUnary(this.#client, AgentService.trace, request, settings), timeoutMs);
  }

  close(): void {
    this.#client.close();
  }

  async #call<T>(
    run: (settings: { timeoutMs: number; signal: AbortSignal }) => Promise<T>,
    timeoutMs: number,
  ): Promise<T> {
    await this.#reachable();
    return await run({ timeoutMs, signal: this.#signal });
  }

  /** gRPC would only say that it has no connection. */
  async #reachable(): Promise<void> {
    const why = await new Promise<string | null>((resolve) => {
      const socket = createConnection(this.#path, () => {
        socket.destroy();
        resolve(null);
      });
      socket.on('error', (error: NodeJS.ErrnoException) => resolve(error.code ?? error.message));
    });
    if (why === null) return;
    if (why === 'EACCES')
      throw new WeftError('PERMISSION_DENIED', `The agent's socket ${this.#path} may not be used by this user.`, {
        hint: 'run it as root',
      });
    const what = why === 'ECONNREFUSED' ? 'nothing listens there' : why === 'ENOENT' ? 'it does not exist' : why;
    throw new WeftError('UNAVAILABLE', `No agent of this host answers on ${this.#path}: ${what}.`, {
      hint: 'run it on the host itself, where weft-agent runs; --socket says where its socket is',
    });
  }
}
