/** The other replicas: connections to them, and hosts that are reached through them. */
import { type ChannelCredentials, Client } from '@grpc/grpc-js';
import { ReplicaService } from '../gen/weft/v1/replica.ts';
import type { Answer, Query } from '../gen/weft/v1/session.ts';
import { WeftError } from '../lib/errors.ts';
import { type CallSettings, callStream, callUnary, channelOptions, type Method } from '../lib/rpc.ts';
import type { CoordinatorRecord, State } from './contract.ts';
import type { Sessions } from './sessions.ts';

/** A remote answer may take as long as the host was given, and the way there and back. */
const MARGIN_MS = 1000;

export interface FanoutDeps {
  readonly state: State;
  readonly sessions: Sessions;
  readonly selfId: string;
  readonly credentials: ChannelCredentials;
}

export class Fanout {
  readonly #deps: FanoutDeps;
  readonly #clients = new Map<string, { readonly address: string; readonly client: Client }>();

  constructor(deps: FanoutDeps) {
    this.#deps = deps;
  }

  /** The other replicas that are up. */
  others(): CoordinatorRecord[] {
    return [...this.#deps.state.coordinators.values()].filter((record) => record.id !== this.#deps.selfId);
  }

  /** One call to another replica. @throws UNAVAILABLE naming it */
  async call<Req, Res>(
    to: CoordinatorRecord,
    method: Method<Req, Res>,
    request: Req,
    settings: CallSettings = {},
  ): Promise<Res> {
    try {
      return await callUnary(this.#client(to), method, request, settings);
    } catch (error) {
      throw naming(to, error);
    }
  }

  async *stream<Req, Res>(
    to: CoordinatorRecord,
    method: Method<Req, Res>,
    request: Req,
    signal: AbortSignal,
  ): AsyncGenerator<Res> {
    try {
      yield* callStream(this.#client(to), method, request, { signal });
    } catch (error) {
      throw naming(to, error);
    }
  }

  /** The replica that has the host's session, null when it is here. @throws FAILED_PRECONDITION when none has */
  locate(hostId: string): CoordinatorRecord | null {
    const { state, sessions, selfId } = this.#deps;
    if (sessions.live(hostId) !== undefined) return null;
    const name = state.hosts.get(hostId)?.name ?? hostId;
    const presence = state.presences.get(hostId);
    if (presence === undefined)
      throw new WeftError('FAILED_PRECONDITION', `Host ${name} is not connected.`, {
        hint: 'is its agent running, and can it reach a coordinator?',
      });
    const record = state.coordinators.get(presence.coordinatorId);
    if (record === undefined || record.id === selfId)
      throw new WeftError('UNAVAILABLE', `Host ${name} is between two sessions.`, { hint: 'try again in a moment' });
    return record;
  }

  /** Whether the host has a session, here or with a replica that is up. */
  connected(hostId: string): boolean {
    try {
      this.locate(hostId);
      return true;
    } catch {
      return false;
    }
  }

  /** Waits for a host that is between two sessions. Says whether it has come. */
  async returned(hostId: string, timeoutMs: number, signal: AbortSignal): Promise<boolean> {
    const { state, sessions } = this.#deps;
    if (signal.aborted || this.connected(hostId)) return !signal.aborted;
    await new Promise<void>((resolve) => {
      const finish = (): void => {
        clearTimeout(timer);
        signal.removeEventListener('abort', finish);
        for (const stop of stops) stop();
        resolve();
      };
      const look = (): void => {
        if (this.connected(hostId)) finish();
      };
      // Its session may come here, or to another replica, which etcd tells.
      const stops = [state.subscribe(look), sessions.onProgress(look)];
      const timer = setTimeout(finish, timeoutMs);
      signal.addEventListener('abort', finish);
    });
    return !signal.aborted && this.connected(hostId);
  }

  /** Puts a query to a host, wherever its session is. */
  async ask(
    hostId: string,
    body: NonNullable<Query['body']>,
    timeoutMs: number,
    signal?: AbortSignal,
  ): Promise<Answer> {
    const at = this.locate(hostId);
    if (at === null) return this.#deps.sessions.ask(hostId, body, timeoutMs, signal);
    const request = { hostId, query: { id: 0n, body }, timeoutMs };
    const settings = { timeoutMs: timeoutMs + MARGIN_MS, ...(signal === undefined ? {} : { signal }) };
    const { answer } = await this.call(at, ReplicaService.askHost, request, settings);
    if (answer === undefined) throw new WeftError('INTERNAL', `Coordinator ${at.name} answered nothing.`);
    return answer;
  }

  #client(to: CoordinatorRecord): Client {
    const known = this.#clients.get(to.id);
    if (known?.address === to.address) return known.client;
    known?.client.close();
    for (const [id, { client }] of this.#clients)
      if (!this.#deps.state.coordinators.has(id)) {
        client.close();
        this.#clients.delete(id);
      }
    const client = new Client(to.address, this.#deps.credentials, channelOptions());
    this.#clients.set(to.id, { address: to.address, client });
    return client;
  }

  close(): void {
    for (const { client } of this.#clients.values()) client.close();
    this.#clients.clear();
  }
}

/** What the replica itself refuses stays as it is; that it cannot be reached names it. */
function naming(to: CoordinatorRecord, error: unknown): WeftError {
  const weft = WeftError.from(error);
  const lost = weft.code === 'UNAVAILABLE' || weft.code === 'UNAUTHENTICATED' || weft.code === 'DEADLINE_EXCEEDED';
  if (!lost || weft.message.startsWith('Host ')) return weft;
  return new WeftError('UNAVAILABLE', `Coordinator ${to.name} (${to.address}) cannot be reached: ${weft.message}`, {
    cause: error,
  });
}
