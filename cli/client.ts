/** The coordinators as one: the first that answers is used, reads go on to the next when one cannot answer. */
import { type Client, connectivityState } from '@grpc/grpc-js';
import { ControlClient, ControlService } from '../gen/weft/v1/control.ts';
import type { Event } from '../gen/weft/v1/types.ts';
import { WeftError } from '../lib/errors.ts';
import {
  type CallSettings,
  callStream,
  callUnary,
  channelCredentials,
  channelOptions,
  type Method,
} from '../lib/rpc.ts';
import { readTls } from '../lib/tls.ts';
import type { Target } from './context.ts';

/** How long one coordinator may take to complete the handshake before the next is tried. */
const CONNECT_MS = 3000;

type Service = typeof ControlService;
export type MethodName = Exclude<keyof Service, 'watchEvents'>;
export type RequestOf<M extends MethodName> = Parameters<Service[M]['requestSerialize']>[0];
export type ResponseOf<M extends MethodName> = ReturnType<Service[M]['responseDeserialize']>;

const READS: ReadonlySet<MethodName> = new Set([
  'getNetwork',
  'listNetworks',
  'listHosts',
  'listEndpoints',
  'listPeers',
  'listReservations',
  'listRouters',
  'listServices',
  'listPolicies',
  'getStatus',
  'waitApplied',
  'trace',
]);

interface Entry {
  readonly address: string;
  readonly client: ControlClient;
}

export class Mesh {
  readonly #clients: readonly Entry[];
  readonly #signal: AbortSignal;
  /** Index of the coordinator in use. */
  #current = 0;

  private constructor(clients: readonly Entry[], signal: AbortSignal) {
    this.#clients = clients;
    this.#signal = signal;
  }

  /** @throws UNAVAILABLE when no coordinator answers, saying why for each. */
  static async connect(target: Target, signal: AbortSignal): Promise<Mesh> {
    const tls = await readTls(target.tls);
    const made = channelCredentials(tls);
    const clients = target.coordinators.map((address) => ({
      address,
      client: new ControlClient(address.startsWith('[') ? `ipv6:${address}` : address, made, channelOptions()),
    }));
    const mesh = new Mesh(clients, signal);
    try {
      await mesh.#connectFrom(0);
    } catch (error) {
      mesh.close();
      throw error;
    }
    return mesh;
  }

  /** One call; rejects with WeftError. A read that a coordinator answers with UNAVAILABLE is asked of the next. */
  async call<M extends MethodName>(
    name: M,
    request: RequestOf<M>,
    settings: CallSettings = {},
  ): Promise<ResponseOf<M>> {
    const method = ControlService[name] as unknown as Method<RequestOf<M>, ResponseOf<M>>;
    for (;;) {
      try {
        return await callUnary(this.#client, method, request, { signal: this.#signal, ...settings });
      } catch (error) {
        const next = this.#current + 1;
        const more = READS.has(name) && WeftError.from(error).code === 'UNAVAILABLE' && next < this.#clients.length;
        if (!more) throw error;
        await this.#connectFrom(next).catch(() => Promise.reject(error));
      }
    }
  }

  events(follow: boolean): AsyncIterable<Event> {
    const request = { localOnly: false, follow };
    return callStream(this.#client, ControlService.watchEvents, request, { signal: this.#signal });
  }

  close(): void {
    for (const { client } of this.#clients) client.close();
  }

  get #client(): Client {
    const entry = this.#clients[this.#current];
    if (entry === undefined) throw new WeftError('INTERNAL', 'There is no coordinator to call.');
    return entry.client;
  }

  async #connectFrom(first: number): Promise<void> {
    const failures: string[] = [];
    for (let index = first; index < this.#clients.length; index++) {
      const { address, client } = this.#clients[index] ?? {};
      if (client === undefined) break;
      const failure = await reach(client, this.#signal);
      if (failure === null) {
        this.#current = index;
        return;
      }
      failures.push(`${address}: ${failure}`);
    }
    throw new WeftError('UNAVAILABLE', `No coordinator can be reached. ${failures.join('; ')}.`, {
      hint: 'is a coordinator running there, and is the certificate of the same authority?',
    });
  }
}

/** Null when the channel is up, else why it is not. */
async function reach(client: ControlClient, signal: AbortSignal): Promise<string | null> {
  const channel = client.getChannel();
  const deadline = Date.now() + CONNECT_MS;
  for (;;) {
    const state = channel.getConnectivityState(true);
    if (state === connectivityState.READY) return null;
    if (state === connectivityState.TRANSIENT_FAILURE || state === connectivityState.SHUTDOWN) break;
    if (signal.aborted) throw new WeftError('CANCELLED', 'Interrupted.');
    const changed = await new Promise<boolean>((resolve) => {
      channel.watchConnectivityState(state, deadline, (error) => resolve(error === undefined));
    });
    if (!changed) return `no answer within ${CONNECT_MS / 1000} s`;
  }
  // A call on a channel that has failed fails at once, and says why.
  try {
    await callUnary(client, ControlService.getStatus, {}, { timeoutMs: 1000, signal });
    return null;
  } catch (error) {
    const { message } = WeftError.from(error);
    return plain(message);
  }
}

/** Of what grpc-js says, the part that is about the network. */
function plain(message: string): string {
  const text = message
    .replace(/^.*Last error: (?:Error: )?/s, '')
    .replace(/\. Resolution note:.*$/s, '')
    .replace(/ \(\d{4}-[^)]*\)/, '')
    .replaceAll(/\s+/g, ' ')
    .trim();
  return text === 'Failed to connect' ? 'the connection was closed in the handshake' : text;
}
