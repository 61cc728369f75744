/** A whole coordinator, put together on a store: what main runs, and tests run several of. */

import { WeftError } from '../lib/errors.ts';
import type { Log } from '../lib/log.ts';
import { makeRegistry, type Registry } from '../lib/metrics.ts';
import type { Drift, Revision } from '../lib/model.ts';
import { channelCredentials, serverCredentials } from '../lib/rpc.ts';
import type { TlsMaterial } from '../lib/tls.ts';
import { Blocks } from './blocks.ts';
import { Claims } from './claims.ts';
import type { State, Store } from './contract.ts';
import { Events } from './events.ts';
import { Fanout } from './fanout.ts';
import { makeMetrics } from './metrics.ts';
import type { Auditor, Parts } from './parts.ts';
import { Reservations } from './reservations.ts';
import { GrpcServer } from './server.ts';
import { Services } from './services.ts';
import { Sessions, type SessionsDeps } from './sessions.ts';
import { Topics } from './topics.ts';
import { Wire } from './wire.ts';

export interface CoordinatorOptions {
  readonly self: { readonly id: string; readonly name: string; readonly version: string };
  readonly state: State;
  readonly store: Store;
  readonly auditor:
    | (Auditor & { onDrift(listener: (drift: Drift, detectedAt: string, healedAt: string | null) => void): () => void })
    | null;
  readonly restored?: (seen: Revision) => Promise<boolean>;
  readonly etcdKey: SessionsDeps['etcdKey'];
  readonly tls: TlsMaterial;
  readonly vxlanPort: number;
  readonly log: Log;
  /** Put back what somebody edited by hand; true. */
  readonly heal?: boolean;
  /** Increments that a log keeps, in objects; for tests. */
  readonly logLimit?: number;
  /** For tests. */
  readonly graceMs?: number;
}

const GRACE_MS = 500;
/** How long hosts may take to let go of their streams when the coordinator stops. */
const LEAVE_MS = 1000;

export class Coordinator {
  readonly registry: Registry;
  readonly parts: Parts;
  readonly topics: Topics;
  readonly #server: GrpcServer;
  readonly #unsubscribe: (() => void)[] = [];
  #closing: Promise<void> | null = null;

  constructor(options: CoordinatorOptions) {
    const { state, store, self, log } = options;
    this.registry = makeRegistry('coordinator', self.version);
    const metrics = makeMetrics(this.registry, {
      sessions: () => sessions,
      revision: () => state.revision,
      networks: () => state.networks.size,
      endpoints: () => [...state.endpoints.values()].reduce((n, byId) => n + byId.size, 0),
    });
    this.topics = new Topics(state, options.logLimit);
    const wire = new Wire(metrics.encoded);
    const events = new Events(state, () => new Date());
    const sessions = new Sessions({
      state,
      store,
      self,
      topics: this.topics,
      wire,
      metrics,
      events,
      etcdKey: options.etcdKey,
      vxlanPort: options.vxlanPort,
      graceMs: options.graceMs ?? GRACE_MS,
      heal: options.heal ?? true,
      ...(options.restored === undefined ? {} : { restored: options.restored }),
      log,
    });
    const fanout = new Fanout({ state, sessions, selfId: self.id, credentials: channelCredentials(options.tls) });
    const blocks = new Blocks({ state, store, sessions, fanout, log });
    const reservations = new Reservations({ state, store, fanout, log });
    const services = new Services({ state, store, fanout, log });
    const claims = new Claims({ state, store, sessions, blocks, reservations, log });
    const { auditor } = options;
    const shared = { state, store, auditor, self, sessions, wire, events, metrics, log };
    this.parts = { ...shared, fanout, blocks, claims, reservations, services };
    this.#server = new GrpcServer(this.parts, serverCredentials(options.tls));
    // Logs before sessions: what a session sends next must have been logged.
    const stop = state.subscribe((set) => {
      this.topics.apply(set);
      sessions.apply(set);
      events.apply(set);
    });
    this.#unsubscribe.push(stop);
    if (auditor !== null)
      this.#unsubscribe.push(
        auditor.onDrift((drift, detectedAt, healedAt) => {
          metrics.drift(drift.kind);
          const { kind, object, change } = drift;
          events.add({
            type: 'drift',
            host: 'etcd',
            action: change,
            kind,
            object,
            detectedAt,
            healedAt: healedAt ?? '',
            message: change,
          });
        }),
      );
  }

  /** @returns the ports. @throws UNAVAILABLE when an address is taken */
  async listen(addresses: readonly string[]): Promise<number[]> {
    const ports = [];
    for (const address of addresses) ports.push(await this.#server.listen(address));
    this.#server.serving(true);
    return ports;
  }

  /** Tells the hosts to go to another coordinator, then stops serving. The store is its owner's to close, after this. */
  close(): Promise<void> {
    this.#closing ??= this.#close();
    return this.#closing;
  }

  async #close(): Promise<void> {
    const { sessions, fanout } = this.parts;
    this.#server.serving(false);
    sessions.stop(new WeftError('UNAVAILABLE', 'This coordinator is stopping.', { hint: 'connect to another one' }));
    await sessions.idle(LEAVE_MS);
    await this.#server.close();
    fanout.close();
    for (const unsubscribe of this.#unsubscribe) unsubscribe();
  }
}
