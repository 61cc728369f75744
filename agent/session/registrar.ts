/**
 * Registers this host's endpoints with the coordinator: the journal is what should be there, in batches, one call at a time. Output
 * depends on the journal's state, not on who changed it, so a lost call is made again by the next pass.
 */
import { isDeepStrictEqual } from 'node:util';
import type { RegisterEndpointsRequest, RegisterEndpointsResponse } from '../../gen/weft/v1/session.ts';
import { WeftError } from '../../lib/errors.ts';
import type { Log } from '../../lib/log.ts';
import type { Endpoint, Revision } from '../../lib/model.ts';
import type { Journal, LocalEndpoint } from '../contract.ts';

const BATCH = 100;
const RETRY_MS = 1_000;
/** What another host had may be free by now. */
const REFUSED_RETRY_MS = 10_000;

export type Register = (request: Omit<RegisterEndpointsRequest, 'sessionId'>) => Promise<RegisterEndpointsResponse>;

/** An endpoint's record for the mesh. */
export function recordOf(e: LocalEndpoint, hostId: string, ofport: number): Endpoint {
  return {
    id: e.id,
    networkId: e.networkId,
    hostId,
    ips: [e.ip],
    mac: e.mac,
    givenMac: e.givenMac,
    container: e.container === null ? undefined : { id: e.container.id, name: e.container.name },
    state: e.container === null ? 'pending' : 'known',
    labels: { ...e.labels },
    createdAt: e.createdAt,
    ofport,
    aliases: [...e.aliases],
    allowed: [],
    trusted: false,
    express: false,
    kind: 'container',
    revision: 0n,
  };
}

export interface Told {
  /** The journalled object; compared by identity. */
  endpoint: LocalEndpoint;
  /** The record as it was when it was told. */
  readonly told: Endpoint;
}

interface Known extends Told {
  readonly revision: Revision;
}

export class Registrar {
  readonly #journal: Journal;
  readonly #record: (e: LocalEndpoint) => Endpoint;
  readonly #log: Log;
  /** What the coordinator has of us. */
  #known = new Map<string, Known>();
  #register: Register | null = null;
  #busy = false;
  /** Not taken by the mesh as they are; tried again when they change, now and then, and with the next session. */
  readonly #refused = new Map<string, { endpoint: LocalEndpoint; reason: WeftError }>();
  /** The reasons that are in the log. */
  readonly #logged = new Map<string, string>();
  #retry: NodeJS.Timeout | null = null;
  #retryRefused: NodeJS.Timeout | null = null;
  #waiters: { id: string; resolve: (r: Revision) => void; reject: (e: unknown) => void }[] = [];

  constructor(journal: Journal, record: (e: LocalEndpoint) => Endpoint, log: Log) {
    this.#journal = journal;
    this.#record = record;
    this.#log = log;
  }

  /** A session began: `told` is what its Hello carried. Null: it ended. */
  session(register: Register | null, told: ReadonlyMap<string, Told>, revision: Revision): void {
    this.#register = register;
    this.#refused.clear();
    this.#known = new Map(
      [...told]
        // A given MAC may have been refused: that is said only when it is registered by itself, else nothing is written.
        .filter(([, { endpoint }]) => !endpoint.givenMac)
        .map(([id, known]) => [id, { ...known, revision }]),
    );
    if (register === null) {
      const error = new WeftError('UNAVAILABLE', 'the session ended');
      for (const w of this.#waiters.splice(0)) w.reject(error);
    }
    this.kick();
  }

  /** Resolves once the coordinator has the endpoint as it is in the journal now. */
  registered(id: string): Promise<Revision> {
    if (this.#register === null) return Promise.reject(new WeftError('UNAVAILABLE', 'no coordinator is connected'));
    return new Promise((resolve, reject) => {
      this.#waiters.push({ id, resolve, reject });
      this.kick();
    });
  }

  kick(): void {
    if (!this.#busy) void this.#run();
  }

  async #run(): Promise<void> {
    this.#busy = true;
    try {
      while (this.#register !== null) {
        const batch = this.#batch();
        this.#settle();
        if (batch === null) return;
        const register = this.#register;
        const records = new Map(batch.upserts.map((e) => [e.id, this.#record(e)]));
        const { revision, refused } = await register({
          upserts: [...records.values()],
          removed: batch.removed,
        });
        // The session may have changed while the call was under way: then what it said no longer counts.
        if (register !== this.#register) continue;
        const at = revision ?? { epoch: 0n, number: 0n };
        const not = new Map(refused.map((r) => [r.endpointId, WeftError.from({ code: r.code, details: r.message })]));
        for (const e of batch.upserts.filter((u) => not.has(u.id))) this.#refuse(e, not.get(e.id));
        for (const e of batch.upserts.filter((u) => !not.has(u.id)))
          this.#known.set(e.id, { endpoint: e, told: records.get(e.id)!, revision: at });
        for (const e of batch.upserts) if (!not.has(e.id)) this.#logged.delete(e.id);
        for (const id of batch.removed) this.#known.delete(id);
      }
    } catch (error) {
      this.#log.warn({ err: error }, 'endpoints not registered');
      for (const w of this.#waiters.splice(0)) w.reject(error);
      if (this.#register !== null) this.#retry ??= setTimeout(() => this.#again(), RETRY_MS);
    } finally {
      this.#busy = false;
    }
  }

  #again(): void {
    this.#retry = null;
    this.kick();
  }

  close(): void {
    this.#register = null;
    for (const timer of [this.#retry, this.#retryRefused]) if (timer !== null) clearTimeout(timer);
  }

  #batch(): { upserts: LocalEndpoint[]; removed: string[] } | null {
    for (const known of [this.#refused, this.#logged])
      for (const id of known.keys()) if (!this.#journal.endpoints.has(id)) known.delete(id);
    const upserts: LocalEndpoint[] = [];
    for (const e of this.#journal.endpoints.values()) {
      const known = this.#known.get(e.id);
      if (this.#refused.get(e.id)?.endpoint === e) continue;
      const record = this.#record(e);
      if (known?.endpoint === e && known.told.ofport === record.ofport) continue;
      // A sandbox, an interface's name: nobody else's business.
      if (known !== undefined && isDeepStrictEqual(known.told, record)) known.endpoint = e;
      else upserts.push(e);
      if (upserts.length === BATCH) break;
    }
    const removed = [...this.#known.keys()]
      .filter((id) => !this.#journal.endpoints.has(id))
      .slice(0, BATCH - upserts.length);
    return upserts.length + removed.length === 0 ? null : { upserts, removed };
  }

  #refuse(endpoint: LocalEndpoint, error: WeftError | undefined): void {
    const reason = error ?? new WeftError('FAILED_PRECONDITION', 'the mesh does not take the endpoint');
    if (this.#logged.get(endpoint.id) !== reason.message)
      this.#log.warn({ endpoint: endpoint.id, code: reason.code, reason: reason.message }, 'endpoint refused');
    this.#logged.set(endpoint.id, reason.message);
    this.#refused.set(endpoint.id, { endpoint, reason });
    this.#retryRefused ??= setTimeout(() => {
      this.#retryRefused = null;
      this.#refused.clear();
      this.kick();
    }, REFUSED_RETRY_MS);
  }

  #settle(): void {
    this.#waiters = this.#waiters.filter((w) => {
      if (!this.#journal.endpoints.has(w.id)) {
        w.reject(new WeftError('NOT_FOUND', `endpoint ${w.id} is gone`));
        return false;
      }
      const known = this.#known.get(w.id);
      const refused = this.#refused.get(w.id);
      if (refused !== undefined && refused.endpoint === this.#journal.endpoints.get(w.id)) {
        w.reject(refused.reason);
        return false;
      }
      if (known === undefined || known.endpoint !== this.#journal.endpoints.get(w.id)) return true;
      w.resolve(known.revision);
      return false;
    });
  }
}
