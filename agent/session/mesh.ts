/** `Mesh` over the session: unary calls on the session's own connection, the view, interest, registration, acknowledgements. */
import {
  type AgentMessage,
  type Hello,
  type Query,
  type SessionClient,
  SessionService,
} from '../../gen/weft/v1/session.ts';
import type { Family } from '../../lib/addr.ts';
import { WeftError } from '../../lib/errors.ts';
import type { Log } from '../../lib/log.ts';
import type { Conflict, Endpoint, Event, Host, Revision, View } from '../../lib/model.ts';
import { linkedTo } from '../../lib/routers.ts';
import { callUnary, type Method } from '../../lib/rpc.ts';
import type { ConflictSource, Journal, LocalEndpoint, Mesh } from '../contract.ts';
import { standingOf } from '../express.ts';
import { isLater } from '../view.ts';
import { Applier, type Apply } from './applier.ts';
import { type LiveSession, unconnected } from './live.ts';
import { SessionLoop } from './loop.ts';
import { Registrar, recordOf, type Told } from './registrar.ts';

const CALL_MS = 10_000;
const NOTHING: Revision = { epoch: 0n, number: 0n };

export interface MeshOptions {
  readonly coordinators: readonly string[];
  readonly connect: (address: string) => SessionClient;
  readonly host: () => Host;
  readonly journal: Journal;
  /** From the disk copy. */
  readonly view: View;
  readonly apply: Apply;
  /** Ports of this host lead to services. */
  readonly leads: boolean;
  readonly ofport: (endpointId: string) => number;
  /** Ids of services whose check it fails. */
  readonly unhealthy: (e: LocalEndpoint) => readonly string[];
  readonly onQuery: (query: Query, answer: (message: AgentMessage) => void) => void;
  readonly onSaved: (view: View) => void;
  readonly random: () => number;
  readonly log: Log;
}

export class SessionMesh implements Mesh {
  readonly #o: MeshOptions;
  readonly #loop: SessionLoop;
  readonly #applier: Applier;
  readonly #registrar: Registrar;
  readonly #listeners = new Set<() => void>();
  readonly #pinned = new Set<string>();
  #session: LiveSession | null = null;
  #view: View;
  #told = new Map<string, Told>();
  #interest = new Set<string>();
  /** By network id. */
  readonly #memberships = new Map<string, readonly string[]>();
  /** By who found them. */
  readonly #conflicts = new Map<ConflictSource, readonly Conflict[]>();
  #failure = '';
  #unwatch: (() => void) | null = null;

  constructor(options: MeshOptions) {
    this.#o = options;
    this.#view = options.view;
    this.#applier = new Applier(options.apply, (view, failure) => this.#applied(view, failure));
    this.#registrar = new Registrar(options.journal, (e) => this.recordOf(e), options.log);
    this.#loop = new SessionLoop({
      coordinators: options.coordinators,
      connect: options.connect,
      hello: () => this.#hello(),
      handlers: { onView: (view) => this.#receive(view), onQuery: options.onQuery },
      onSession: (session) => this.#began(session),
      random: options.random,
      log: options.log,
    });
  }

  start(): void {
    this.#unwatch = this.#o.journal.onChange(() => this.#journalChanged());
    this.#applier.want(this.#view);
    this.#loop.start();
  }

  async close(): Promise<void> {
    this.#unwatch?.();
    this.#applier.close();
    this.#registrar.close();
    await this.#loop.close();
  }

  get connected(): boolean {
    return this.#session !== null;
  }
  get inSync(): boolean {
    return this.#session?.synced === true && this.#applier.applied !== null && this.#view === this.#applier.applied;
  }
  /** A complete view of this session is the current one: what is not in it may be removed. */
  get complete(): boolean {
    if (this.#session?.synced !== true) return false;
    // Where routers lead is known with the catalogue, and what is there comes after it.
    const { interests, networks } = this.#view;
    return this.#interest.values().every((id) => interests.has(id) || !networks.has(id));
  }
  get hostId(): string {
    return this.#o.host().id;
  }
  get hostName(): string {
    return this.#o.host().name;
  }
  get draining(): boolean {
    return this.#session?.welcome?.host?.draining === true;
  }
  get coordinator(): string {
    return this.#loop.coordinator;
  }
  /** Why there is no session, or why the view is not applied; empty when all is well. */
  get failure(): string {
    return this.connected ? this.#failure : this.#loop.failure;
  }
  get appliedRevision(): Revision {
    return this.#applier.applied?.revision ?? NOTHING;
  }

  view(): View {
    return this.#view;
  }
  onView(listener: () => void): () => void {
    this.#listeners.add(listener);
    return () => this.#listeners.delete(listener);
  }

  async requestBlock(networkId: string, family: Family) {
    const r = await this.#given(() =>
      this.#call(SessionService.requestBlock, { networkId, containing: '', ipv6: family === 6 }),
    );
    return { blocks: r.blocks, revision: r.revision ?? NOTHING };
  }
  async releaseBlocks(networkId: string, cidrs: readonly string[]) {
    await this.#call(SessionService.releaseBlocks, { networkId, cidrs: [...cidrs] });
  }
  async claimAddress(networkId: string, ip: string, { ownRecord } = { ownRecord: false }) {
    const r = await this.#given(() => this.#call(SessionService.claimAddress, { networkId, address: ip, ownRecord }));
    return { block: r.block ?? null, revision: r.revision ?? NOTHING, reservation: r.reservation ?? null };
  }
  async releaseAddresses(networkId: string, ips: readonly string[]) {
    await this.#call(SessionService.releaseAddresses, { networkId, addresses: [...ips] });
  }
  reserveNetwork(r: Parameters<Mesh['reserveNetwork']>[0]) {
    return this.#call(SessionService.reserveNetwork, { ...r, options: { ...r.options } });
  }
  async bindNetwork(b: Parameters<Mesh['bindNetwork']>[0]) {
    const r = await this.#call(SessionService.bindNetwork, {
      ...b,
      labels: { ...b.labels },
      options: { ...b.options },
      auxAddresses: { ...b.auxAddresses },
    });
    if (r.network === undefined) throw new WeftError('INTERNAL', 'the coordinator answered without a network');
    return { network: r.network, won: r.won, winnerHost: r.winnerHost };
  }
  async removeNetwork(networkId: string) {
    await this.#call(SessionService.removeNetwork, { networkId });
  }

  async interested(networkId: string, signal: AbortSignal): Promise<void> {
    // From there routers lead to others: what is sent to them needs them known.
    const has = (view: View) =>
      [networkId, ...linkedTo(view.routers.values(), networkId)].every(
        (id) => view.interests.has(id) || !view.networks.has(id),
      ) && view.interests.has(networkId);
    if (this.#session === null && !has(this.#view)) throw unconnected();
    this.#pinned.add(networkId);
    this.#sendInterest();
    try {
      await this.#applier.until(has, signal);
    } finally {
      this.#pinned.delete(networkId);
    }
  }

  registered(endpointId: string): Promise<Revision> {
    return this.#registrar.registered(endpointId);
  }

  /** Resolves once all that the journal has now is registered. @throws as Registrar.flushed() */
  flushed(): Promise<void> {
    return this.#registrar.flushed();
  }

  async waitPeers(networkId: string, revision: Revision, timeoutMs: number): Promise<readonly string[]> {
    const r = await this.#call(SessionService.waitPeers, { networkId, revision, timeoutMs }, timeoutMs + 1_000);
    return r.laggards;
  }

  async registerMemberships(networkId: string, groups: readonly string[] | null): Promise<void> {
    if (groups === null) this.#memberships.delete(networkId);
    else this.#memberships.set(networkId, groups);
    if (this.#session === null) return;
    await this.#sendMemberships(networkId, groups);
  }

  async #sendMemberships(networkId: string, groups: readonly string[] | null): Promise<void> {
    try {
      const request = { networkId, groups: [...(groups ?? [])], unknown: groups === null };
      await this.#call(SessionService.registerMemberships, request);
    } catch (error) {
      // The next session says it again; a network that is gone has no groups.
      if (WeftError.from(error).code !== 'NOT_FOUND') throw error;
      this.#memberships.delete(networkId);
    }
  }

  /** A coordinator forgets them with the session. */
  #repeatMemberships(): void {
    for (const [networkId, groups] of this.#memberships)
      this.#sendMemberships(networkId, groups).catch((error: unknown) =>
        this.#o.log.warn({ err: error, network: networkId }, 'multicast memberships are not registered'),
      );
  }

  reportConflicts(source: ConflictSource, conflicts: readonly Conflict[]): void {
    if (JSON.stringify(conflicts) === JSON.stringify(this.#conflicts.get(source) ?? [])) return;
    this.#conflicts.set(source, conflicts);
    this.#report();
  }
  get conflicts(): readonly Conflict[] {
    return [...this.#conflicts.values()].flat();
  }

  /** The host's own record changed (versions became known). */
  hostChanged(): void {
    this.#report();
  }

  /** A drift or another event of this host, for `weft events`. */
  event(event: Event): void {
    this.#session?.send({ body: { $case: 'event', value: event } });
  }

  /** What the mesh is to know of an endpoint of this host. */
  recordOf(e: LocalEndpoint): Endpoint {
    const network = this.#o.journal.networks.get(e.networkId)?.network;
    const standing = standingOf(e, network, this.#view);
    return recordOf(e, this.hostId, this.#o.ofport(e.id), standing, this.#o.unhealthy(e));
  }

  /** Port numbers, or who is healthy, may have changed: register again what is affected. */
  recordsChanged(): void {
    this.#registrar.kick();
  }

  #hello(): Hello {
    const { endpoints, blocks, addresses } = this.#o.journal;
    const hostId = this.hostId;
    const told = (e: LocalEndpoint): Told => ({ endpoint: e, told: this.recordOf(e) });
    this.#told = new Map([...endpoints].map(([id, e]) => [id, told(e)]));
    this.#interest = this.#wantedInterest();
    return {
      host: this.#o.host(),
      protocol: 1,
      applied: this.appliedRevision,
      interest: [...this.#interest],
      endpoints: [...this.#told.values()].map((known) => known.told),
      blocks: [...blocks.values()].map((b) => ({
        networkId: b.networkId,
        cidr: b.cidr,
        hostId,
        revision: BigInt(b.revision.number),
      })),
      addresses: [...addresses.values()]
        .filter((a) => a.claimed)
        .map((a) => ({
          networkId: a.networkId,
          address: a.ip,
          hostId,
          state: 'held',
          grantorHostId: '',
          reason: '',
          revision: 0n,
        })),
    };
  }

  #began(session: LiveSession | null): void {
    this.#session = session;
    const at = this.appliedRevision;
    if (session === null) return this.#registrar.session(null, new Map(), at);
    const told = this.#told;
    this.#registrar.session((r) => this.#call(SessionService.registerEndpoints, r), told, { epoch: 0n, number: 0n });
    this.#report();
    this.#sendInterest();
    this.#repeatMemberships();
  }

  #receive(view: View): void {
    this.#view = view;
    this.#o.onSaved(view);
    for (const listener of this.#listeners) listener();
    this.#applier.want(view);
    // Before it is acknowledged: what follows from it then counts as not yet applied.
    this.#sendInterest();
  }

  #applied(view: View, failure: string): void {
    this.#failure = failure;
    // Open vSwitch has been looked at: the hello may have been earlier, without port numbers.
    this.#registrar.kick();
    const session = this.#session;
    if (session?.synced !== true || isLater(view.revision, this.#view.revision)) return;
    session.ack(this.#applier.applied, this.#applier.applied?.revision ?? NOTHING, failure);
  }

  #report(): void {
    this.#session?.send({
      body: { $case: 'report', value: { conflicts: [...this.conflicts], host: this.#o.host() } },
    });
  }

  #journalChanged(): void {
    this.#registrar.kick();
    this.#sendInterest();
  }

  #wantedInterest(): Set<string> {
    const { endpoints, blocks } = this.#o.journal;
    const wanted = new Set(this.#pinned);
    for (const e of endpoints.values()) wanted.add(e.networkId);
    for (const b of blocks.values()) wanted.add(b.networkId);
    const used = [...wanted];
    for (const id of used)
      for (const other of linkedTo(this.#view.routers.values(), id))
        if (this.#view.networks.has(other)) wanted.add(other);
    if (this.#o.leads) for (const n of this.#view.networks.values()) if (n.published) wanted.add(n.id);
    return wanted;
  }

  #sendInterest(): void {
    const session = this.#session;
    if (session === null) return;
    const [before, wanted] = [this.#interest, this.#wantedInterest()];
    // Whatever ends changes the view, by which this is called again.
    this.#interest = wanted;
    for (const id of wanted) if (!before.has(id)) session.interest(id, true);
    for (const id of before) if (!wanted.has(id)) session.interest(id, false);
  }

  /** What comes after the end of its session is not the host's: the next session's hello, which lacks it, has given it up. */
  async #given<R>(call: () => Promise<R>): Promise<R> {
    const session = this.#session;
    const answer = await call();
    if (this.#session !== session) throw unconnected();
    return answer;
  }

  #call<Q extends { sessionId: string }, R>(
    method: Method<Q, R>,
    request: Omit<Q, 'sessionId'>,
    timeoutMs = CALL_MS,
  ): Promise<R> {
    const session = this.#session;
    if (session === null) return Promise.reject(unconnected());
    return callUnary(session.client, method, { ...request, sessionId: session.sessionId } as Q, { timeoutMs });
  }
}
