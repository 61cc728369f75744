/**
 * Registers this host's endpoints with the coordinator: the journal is what should be there, in batches, one call at a time. Output
 * depends on the journal's state, not on who changed it, so a lost call is made again by the next pass.
 */
import { isDeepStrictEqual } from 'node:util';
import type { RegisterEndpointsRequest, RegisterEndpointsResponse } from '../../gen/weft/v1/session.ts';
import { WeftError } from '../../lib/errors.ts';
import type { Log } from '../../lib/log.ts';
import type { Endpoint, Revision } from '../../lib/model.ts';
import { ipsOf, type Journal, type LocalEndpoint } from '../contract.ts';
import type { Standing } from '../express.ts';
import { askedRecord } from '../rates.ts';

const BATCH = 100;
const RETRY_MS = 1_000;
/** What another host had may be free by now. */
const REFUSED_RETRY_MS = 10_000;

/** What of a record changes without the journal. */
const NOT_JOURNALLED = ['ofport', 'trusted', 'express', 'unhealthy'] as const;

export type Register = (request: Omit<RegisterEndpointsRequest, 'sessionId'>) => Promise<RegisterEndpointsResponse>;

/** An endpoint's record for the mesh. @param unhealthy ids of services whose check it fails */
export function recordOf(
  e: LocalEndpoint,
  hostId: string,
  ofport: number,
  standing: Standing,
  unhealthy: readonly string[] = [],
): Endpoint {
  return {
    id: e.id,
    networkId: e.networkId,
    hostId,
    ips: ipsOf(e),
    mac: e.mac,
    givenMac: e.givenMac,
    container: e.container === null ? undefined : { id: e.container.id, name: e.container.name },
    state: e.container === null && e.attached === undefined ? 'pending' : 'known',
    labels: { ...e.labels },
    createdAt: e.createdAt,
    ofport,
    aliases: [...e.aliases],
    allowed: [],
    ...standing,
    kind: e.attached?.kind ?? 'container',
    ports: (e.external?.ports ?? []).map((port) => ({ ...port })),
    unhealthy: [...unhealthy],
    ...askedRecord(e),
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
  /** Of the call under way: ids that it puts or removes. */
  #sent: ReadonlySet<string> = new Set();
  /** Put by a call whose answer was lost: the coordinator may have them. */
  readonly #unsure = new Set<string>();
  #flushes: { ids: Set<string>; resolve: () => void; reject: (e: unknown) => void }[] = [];

  constructor(journal: Journal, record: (e: LocalEndpoint) => Endpoint, log: Log) {
    this.#journal = journal;
    this.#record = record;
    this.#log = log;
  }

  /** A session began: `told` is what its Hello carried. Null: it ended. */
  session(register: Register | null, told: ReadonlyMap<string, Told>, revision: Revision): void {
    this.#register = register;
    this.#refused.clear();
    this.#unsure.clear(); // the hello was complete
    this.#known = new Map(
      [...told]
        // A given MAC may have been refused: that is said only when it is registered by itself, else nothing is written.
        .filter(([, { endpoint }]) => !endpoint.givenMac)
        .map(([id, known]) => [id, { ...known, revision }]),
    );
    if (register === null) {
      this.#fail(new WeftError('UNAVAILABLE', 'the session ended'));
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

  /**
   * Resolves once the coordinator has confirmed or refused all that was pending when this was called, removals too; at once when
   * nothing was. @throws UNAVAILABLE without a session, or what a failed call said
   */
  flushed(): Promise<void> {
    if (this.#register === null) return Promise.reject(new WeftError('UNAVAILABLE', 'no coordinator is connected'));
    const all = [this.#journal.endpoints.keys(), this.#known.keys(), this.#unsure, this.#sent];
    const ids = new Set(all.flatMap((some) => [...some]).filter((id) => this.#pending(id)));
    if (ids.size === 0) return Promise.resolve();
    return new Promise((resolve, reject) => {
      this.#flushes.push({ ids, resolve, reject });
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
        const { revision, refused } = await this.#call(register, [...records.values()], batch.removed);
        // The session may have changed while the call was under way: then what it said no longer counts.
        if (register !== this.#register) continue;
        const at = revision ?? { epoch: 0n, number: 0n };
        const not = new Map(refused.map((r) => [r.endpointId, WeftError.from({ code: r.code, details: r.message })]));
        for (const e of batch.upserts.filter((u) => not.has(u.id))) this.#refuse(e, not.get(e.id));
        for (const e of batch.upserts.filter((u) => !not.has(u.id)))
          this.#known.set(e.id, { endpoint: e, told: records.get(e.id)!, revision: at });
        for (const e of batch.upserts) if (!not.has(e.id)) this.#logged.delete(e.id);
        for (const id of batch.removed) this.#known.delete(id);
        for (const id of [...records.keys(), ...batch.removed]) this.#unsure.delete(id);
      }
    } catch (error) {
      this.#log.warn({ err: error }, 'endpoints not registered');
      this.#fail(error);
      if (this.#register !== null) this.#retry ??= setTimeout(() => this.#again(), RETRY_MS);
    } finally {
      this.#busy = false;
    }
  }

  async #call(register: Register, upserts: Endpoint[], removed: string[]): Promise<RegisterEndpointsResponse> {
    this.#sent = new Set([...upserts.map((e) => e.id), ...removed]);
    try {
      return await register({ upserts, removed });
    } catch (error) {
      if (register === this.#register) for (const { id } of upserts) this.#unsure.add(id);
      throw error;
    } finally {
      this.#sent = new Set();
    }
  }

  #fail(error: unknown): void {
    for (const waiter of [...this.#waiters.splice(0), ...this.#flushes.splice(0)]) waiter.reject(error);
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
      const known = this.#unsure.has(e.id) ? undefined : this.#known.get(e.id);
      if (this.#refused.get(e.id)?.endpoint === e) continue;
      const record = this.#record(e);
      if (known?.endpoint === e && NOT_JOURNALLED.every((key) => isDeepStrictEqual(known.told[key], record[key])))
        continue;
      // A sandbox, an interface's name: nobody else's business.
      if (known !== undefined && isDeepStrictEqual(known.told, record)) known.endpoint = e;
      else upserts.push(e);
      if (upserts.length === BATCH) break;
    }
    const removed = [...new Set([...this.#known.keys(), ...this.#unsure])]
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

  /** The coordinator may have something else of it than the journal. */
  #pending(id: string): boolean {
    if (this.#sent.has(id) || this.#unsure.has(id)) return true;
    const endpoint = this.#journal.endpoints.get(id);
    if (this.#known.get(id)?.endpoint === endpoint) return false;
    return endpoint === undefined || this.#refused.get(id)?.endpoint !== endpoint;
  }

  #settle(): void {
    this.#flushes = this.#flushes.filter((flush) => {
      for (const id of flush.ids) if (!this.#pending(id)) flush.ids.delete(id);
      if (flush.ids.size === 0) flush.resolve();
      return flush.ids.size > 0;
    });
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
