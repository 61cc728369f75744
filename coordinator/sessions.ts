/** The sessions of this coordinator: who is connected, and what change sets mean for them. One session per host; the newest wins. */
import { isDeepStrictEqual } from 'node:util';
import type { Answer, Query } from '../gen/weft/v1/session.ts';
import { WeftError } from '../lib/errors.ts';
import type { Log } from '../lib/log.ts';
import type { Address, Drift, Host, Revision } from '../lib/model.ts';
import type { Change, ChangeSet, State, Store } from './contract.ts';
import type { Events } from './events.ts';
import type { Holdings } from './holdings.ts';
import type { Metrics } from './metrics.ts';
import type { Session } from './session.ts';
import type { Topics } from './topics.ts';
import type { Turns } from './turns.ts';
import type { Wire } from './wire.ts';

export interface SessionsDeps {
  readonly state: State;
  readonly store: Store;
  readonly self: { readonly id: string; readonly name: string };
  readonly topics: Topics;
  readonly wire: Wire;
  readonly metrics: Metrics;
  readonly events: Events;
  readonly etcdKey: (kind: 'endpoint' | 'block' | 'address' | 'host', networkId: string, name: string) => string;
  readonly vxlanPort: number;
  /** How long an edit of a host's keys must last before it is put back here, milliseconds. */
  readonly graceMs: number;
  /** Put such edits back; else they are only told. */
  readonly heal: boolean;
  /**
   * A host has seen a revision that etcd does not have. Resolves true when that is so (etcd was restored) and a new epoch has
   * begun; false when etcd has it after all.
   */
  readonly restored?: (seen: Revision) => Promise<boolean>;
  readonly log: Log;
}

/** A host's place here: from its Hello until its stream is over. */
export interface Slot {
  readonly sessionId: string;
  readonly hostId: string;
  readonly holdings: Holdings;
  /** Writes of the host's record. */
  readonly hostWrites: Turns;
  /** Null until the Welcome. */
  session: Session | null;
  /** The presence key has been written: the host counts as connected. */
  present: boolean;
  /** Ends the stream with this reason, now or as soon as the handshake notices. */
  end(reason: WeftError): void;
}

export class Sessions {
  readonly deps: SessionsDeps;
  readonly #slots = new Map<string, Slot>();
  readonly #listeners = new Set<(hostId: string) => void>();
  readonly #grantors = new Set<(claim: Address) => void>();
  #stopping: WeftError | null = null;
  #epoch: bigint;

  constructor(deps: SessionsDeps) {
    this.deps = deps;
    this.#epoch = deps.state.epoch;
  }

  /** Takes the host's place; a session that has it ends. */
  open(slot: Slot): void {
    if (this.#stopping !== null) throw this.#stopping;
    const older = this.#slots.get(slot.hostId);
    this.#slots.set(slot.hostId, slot);
    older?.end(new WeftError('ABORTED', 'The host has opened a newer session.'));
  }

  /** The stream is over. */
  close(slot: Slot): void {
    slot.holdings.close();
    if (this.#slots.get(slot.hostId) === slot) this.#slots.delete(slot.hostId);
    this.progressed(slot.hostId);
  }

  isCurrent(slot: Slot): boolean {
    return this.#slots.get(slot.hostId) === slot;
  }

  slot(hostId: string): Slot | undefined {
    return this.#slots.get(hostId);
  }

  /** The host's session after its Welcome. */
  live(hostId: string): Session | undefined {
    const session = this.#slots.get(hostId)?.session;
    return session === null || session?.ended === true ? undefined : session;
  }

  /** @throws FAILED_PRECONDITION unless it is that host's live session here. */
  require(hostId: string, sessionId: string): { readonly slot: Slot; readonly session: Session } {
    const slot = this.#slots.get(hostId);
    const session = this.live(hostId);
    if (slot === undefined || session === undefined || slot.sessionId !== sessionId)
      throw new WeftError('FAILED_PRECONDITION', 'This session has ended.', { hint: 'open a new session' });
    return { slot, session };
  }

  /** Hosts whose presence is here, those that are being welcomed too. */
  *present(): IterableIterator<Slot> {
    for (const slot of this.#slots.values()) if (slot.present) yield slot;
  }

  *[Symbol.iterator](): IterableIterator<Session> {
    for (const slot of this.#slots.values()) if (slot.session !== null && !slot.session.ended) yield slot.session;
  }

  get size(): number {
    return [...this].length;
  }

  /** Called whenever a host may have applied more, came, went, or changed its interest. */
  onProgress(listener: (hostId: string) => void): () => void {
    this.#listeners.add(listener);
    return () => this.#listeners.delete(listener);
  }

  progressed(hostId: string): void {
    for (const listener of this.#listeners) listener(hostId);
  }

  /** The host has been welcomed: claims that wait for its answer can be put to it. */
  welcomed(slot: Slot): void {
    this.#claimsOf(slot);
    this.progressed(slot.hostId);
  }

  #claimsOf(slot: Slot): void {
    for (const addresses of this.deps.state.addresses.values())
      for (const address of addresses.values())
        if (address.state === 'claimed' && address.grantorHostId === slot.hostId)
          for (const listener of this.#grantors) listener(address);
  }

  /** The host says what it is now. */
  reported(slot: Slot, host: Host): void {
    const session = slot.session;
    if (session === null) return;
    const want = withClusterSide({ ...host, name: session.host.name }, session.host);
    if (isDeepStrictEqual(want, session.host)) return;
    this.storeHost(slot, want).catch((error: unknown) =>
      this.deps.log.warn({ err: error, host: session.host.name }, 'what a host reports is not stored'),
    );
  }

  /** Called with each claim that a host of this coordinator may have to grant. */
  onClaim(listener: (claim: Address) => void): void {
    this.#grantors.add(listener);
  }

  /** What a change set means for the hosts that are connected here. Logs and sessions' topics are told by Topics. */
  apply(set: ChangeSet): void {
    if (this.deps.state.epoch !== this.#epoch) {
      this.#epoch = this.deps.state.epoch;
      const reason = new WeftError('ABORTED', 'The cluster has been restored from a backup: a new epoch has begun.');
      for (const slot of this.#slots.values()) if (slot.session !== null) slot.end(reason);
    }
    if (set.reset) {
      for (const slot of this.#slots.values()) {
        if (slot.present) this.#checkPresence(slot);
        if (slot.session === null) continue;
        this.#claimsOf(slot);
        slot.holdings.noticedAll();
        this.#checkHostLater(slot);
      }
      return;
    }
    for (const change of set.changes) this.#dispatch(change);
  }

  #dispatch(change: Change): void {
    if (change.kind === 'presence') {
      const slot = this.#slots.get(change.hostId);
      if (slot?.present === true) this.#checkPresence(slot);
    } else if (change.kind === 'host') {
      const slot = this.#slots.get(change.id);
      if (slot?.session) this.#hostChanged(slot);
    } else if (change.kind === 'endpoint' || change.kind === 'block' || change.kind === 'address') {
      const owners = new Set([change.before?.hostId, change.after?.hostId]);
      for (const owner of owners) {
        const slot = owner === undefined ? undefined : this.#slots.get(owner);
        if (slot?.session) slot.holdings.noticed(change);
      }
      if (change.kind === 'address' && change.after?.state === 'claimed')
        for (const listener of this.#grantors) listener(change.after);
    }
  }

  /** The presence of a host that is connected here must say so, else it has gone elsewhere or the lease was lost. */
  #checkPresence(slot: Slot): void {
    const { state, store, log } = this.deps;
    const presence = state.presences.get(slot.hostId);
    if (presence?.sessionId === slot.sessionId) return;
    if (presence !== undefined && presence.coordinatorId !== this.deps.self.id) {
      slot.end(new WeftError('ABORTED', 'The host has opened a session with another coordinator.'));
      return;
    }
    // After a lost lease the store writes them again itself.
    this.#later(slot, () => {
      if (state.presences.has(slot.hostId)) return;
      log.warn({ host: slot.session?.host.name ?? slot.hostId }, 'presence lost, writing it again');
      store.putPresence(slot.hostId, slot.sessionId).catch((error: unknown) => {
        const { message } = WeftError.from(error);
        slot.end(new WeftError('UNAVAILABLE', `The presence of the host cannot be kept: ${message}`));
      });
    });
  }

  #later(slot: Slot, run: () => void): void {
    setTimeout(() => {
      if (this.isCurrent(slot)) run();
    }, this.deps.graceMs).unref();
  }

  #hostChanged(slot: Slot): void {
    const stored = this.deps.state.hosts.get(slot.hostId);
    if (
      stored !== undefined &&
      slot.session !== null &&
      isDeepStrictEqual(stored, withClusterSide(slot.session.host, stored))
    )
      slot.session.stored(stored);
    else this.#checkHostLater(slot);
  }

  #checkHostLater(slot: Slot): void {
    this.#later(slot, () => this.#checkHost(slot));
  }

  /** A host's record is its own but for what the cluster decides (draining); what else was edited is put back. */
  #checkHost(slot: Slot): void {
    const session = slot.session;
    if (session === null) return;
    const stored = this.deps.state.hosts.get(slot.hostId) ?? null;
    const want = withClusterSide(session.host, stored ?? session.host);
    if (stored !== null && isDeepStrictEqual(stored, want)) {
      session.stored(stored);
      return;
    }
    // A report that is being stored is no edit.
    if (slot.hostWrites.busy) return;
    const drift: Drift = {
      kind: 'etcdKey',
      object: this.deps.etcdKey('host', '', slot.hostId),
      change: stored === null ? 'missing' : 'differs',
      want: JSON.stringify(want),
      have: stored === null ? '' : JSON.stringify(stored),
    };
    const { name } = session.host;
    const detectedAt = rfc3339();
    if (!this.deps.heal) return this.drifted(name, [drift], detectedAt, null);
    this.storeHost(slot, want).then(
      () => this.drifted(name, [drift], detectedAt, rfc3339()),
      (error: unknown) => {
        this.drifted(name, [drift], detectedAt, null);
        this.deps.log.error({ err: error, host: name }, 'host record cannot be put back');
      },
    );
  }

  /** Writes the host's record, one write at a time. */
  async storeHost(slot: Slot, host: Host): Promise<void> {
    const session = slot.session;
    if (session === null) return;
    await slot.hostWrites.run(async () => {
      session.stored(withClusterSide(host, this.deps.state.hosts.get(slot.hostId) ?? host));
      await this.deps.store.putHost(session.host);
    });
    this.#checkHost(slot);
  }

  /** @param healedAt RFC 3339 like `detectedAt`; null = it was left, or could not be put back */
  drifted(host: string, drift: readonly Drift[], detectedAt: string, healedAt: string | null): void {
    const { events, metrics, log } = this.deps;
    for (const { kind, object, change } of drift) {
      metrics.drift(kind);
      log.warn({ host, kind, object, change, healed: healedAt !== null }, 'edited by hand');
      events.add({
        type: 'drift',
        host,
        action: change,
        kind,
        object,
        detectedAt,
        healedAt: healedAt ?? '',
        message: change,
      });
    }
  }

  /**
   * Puts a query to a host that is connected here. An audit also finds what etcd has of the host and should not, or lacks.
   * @throws what the host answered; UNAVAILABLE when it is not here
   */
  async ask(
    hostId: string,
    body: NonNullable<Query['body']>,
    timeoutMs: number,
    signal?: AbortSignal,
  ): Promise<Answer> {
    const session = this.live(hostId);
    if (session === undefined) {
      const name = this.deps.state.hosts.get(hostId)?.name ?? hostId;
      throw new WeftError('UNAVAILABLE', `Host ${name} is not connected to coordinator ${this.deps.self.name}.`);
    }
    const [answer, drift] = await Promise.all([
      session.ask(body, timeoutMs, signal),
      body.$case === 'audit' ? this.#slots.get(hostId)?.holdings.drift() : [],
    ]);
    if (answer.body?.$case !== 'audit' || drift === undefined || drift.length === 0) return answer;
    return { ...answer, body: { $case: 'audit', value: { drift: [...answer.body.value.drift, ...drift] } } };
  }

  /** Resolves once no host is left, or after the time. */
  idle(timeoutMs: number): Promise<void> {
    if (this.#slots.size === 0) return Promise.resolve();
    return new Promise((resolve) => {
      const finish = (): void => {
        clearTimeout(timer);
        stop();
        resolve();
      };
      const timer = setTimeout(finish, timeoutMs);
      const stop = this.onProgress(() => {
        if (this.#slots.size === 0) finish();
      });
    });
  }

  /** Tells every host to go elsewhere. */
  stop(reason: WeftError): void {
    this.#stopping = reason;
    for (const slot of this.#slots.values()) slot.end(reason);
  }
}

const rfc3339 = (): string => new Date().toISOString();

/** The record with what others than the host decide. */
export const withClusterSide = (own: Host, stored: Host): Host => ({
  ...own,
  draining: stored.draining,
  createdAt: stored.createdAt === '' ? own.createdAt : stored.createdAt,
});
