/**
 * Keeps Docker's networks as the catalogue has them. Every wake-up plans anew from what Docker says now; nothing is locked while
 * Docker is called, whose callbacks (RequestPool, CreateNetwork …) come back into this process.
 */
import { setTimeout as delay } from 'node:timers/promises';
import { WeftError } from '../../lib/errors.ts';
import type { Log } from '../../lib/log.ts';
import type { Conflict, Drift, Network } from '../../lib/model.ts';
import type { Clock } from '../clock.ts';
import type { Journal, Mesh } from '../contract.ts';
import type { DockerApi, DockerNetwork } from './api.ts';
import type { Copies } from './copies.ts';
import { missingDrift, NetworkSteps, type NetworksLoopOptions, type OnDrift } from './network-steps.ts';
import { dockerName, type NetworkStep, type NetworksPlan, planNetworks } from './networks.ts';

const PERIOD_MS = 10_000;
const RETRY_MS = 1_000;
/** A creation under way, or a name just got, is younger than this. */
const YOUNG_MS = 60_000;
/** Docker lists a network this long after its CreateNetwork was answered, at the latest. */
const UNLISTED_MS = 5_000;
/** Docker stops listing a network that it removes before it calls DeleteNetwork, at most so long. */
const GOING_MS = 250;
const REFUSED_SHOWN_MS = 600_000;
/** Plans in one pass: remove, create, refresh. */
const ROUNDS = 4;

export class NetworksLoop {
  readonly #journal: Journal;
  readonly #mesh: Mesh;
  readonly #api: DockerApi;
  readonly #copies: Copies;
  readonly #clock: Clock;
  readonly #log: Log;
  readonly #heal: boolean;
  readonly #onDrift: OnDrift;
  readonly #steps: NetworkSteps;
  readonly #started: number;
  #catalogue: ReadonlyMap<string, Network> | null = null;
  #complete = false;
  #running: Promise<void> | null = null;
  #next: Promise<void> | null = null;
  #timer: NodeJS.Timeout | null = null;
  #stop: (() => void)[] = [];
  #closed = false;
  #reported = '';
  /** Networks that Docker does not list any more, without a DeleteNetwork: mesh id to when that was first seen (monotonic ms). */
  readonly #missingSince = new Map<string, number>();
  /** Drift that is left, and has been told. */
  #told = new Set<string>();
  #failure: string | null = null;
  /** What the last pass that ended well was made from. */
  #applied: { readonly networks: ReadonlyMap<string, Network>; readonly complete: boolean } | null = null;

  constructor(options: NetworksLoopOptions) {
    this.#journal = options.journal;
    this.#mesh = options.mesh;
    this.#api = options.api;
    this.#copies = options.copies;
    this.#clock = options.clock;
    this.#log = options.log;
    this.#heal = options.heal;
    this.#steps = new NetworkSteps(options);
    this.#onDrift = options.onDrift;
    this.#started = options.clock.monotonic();
  }

  /** The step that failed in the last pass, and why; null when all is as it should be. */
  get failure(): string | null {
    return this.#failure;
  }

  start(): void {
    this.#stop.push(
      this.#mesh.onView(() => {
        this.#copies.changed();
        const { networks } = this.#mesh.view();
        if (networks === this.#catalogue && this.#mesh.complete === this.#complete) return;
        this.#catalogue = networks;
        this.#complete = this.#mesh.complete;
        this.kick();
      }),
    );
    this.kick();
  }

  async close(): Promise<void> {
    this.#closed = true;
    for (const stop of this.#stop) stop();
    if (this.#timer !== null) clearTimeout(this.#timer);
    await this.#running;
  }

  /** Looks again soon. */
  kick(): void {
    this.reconcile().catch(() => undefined); // kept in `failure`, and tried again
  }

  /**
   * Resolves when a pass that began after the call is done.
   * @throws the first step's error (the pass is tried again by itself)
   */
  reconcile(): Promise<void> {
    if (this.#closed) return Promise.resolve();
    if (this.#running === null) return this.#begin();
    // One more pass after the one that runs, for all who ask meanwhile.
    this.#next ??= this.#running.then(
      () => this.#begin(),
      () => this.#begin(),
    );
    return this.#next;
  }

  /** Docker has the catalogue's networks when it resolves: at once, unless something has changed. @throws as reconcile() */
  applied(): Promise<void> {
    const { networks } = this.#mesh.view();
    const same = this.#applied?.networks === networks && this.#applied.complete === this.#mesh.complete;
    return same && this.#running === null ? Promise.resolve() : this.reconcile();
  }

  #begin(): Promise<void> {
    this.#next = null;
    if (this.#closed) return Promise.resolve();
    if (this.#timer !== null) clearTimeout(this.#timer);
    this.#timer = null;
    const pass = this.#pass().finally(() => {
      this.#running = null;
      this.#sleep(this.#going().size > 0 ? GOING_MS : this.#failure === null ? PERIOD_MS : RETRY_MS);
    });
    this.#running = pass;
    return pass;
  }

  #sleep(ms: number): void {
    if (this.#closed) return;
    this.#timer ??= setTimeout(() => {
      this.#timer = null;
      this.kick();
    }, ms);
  }

  async #pass(): Promise<void> {
    const from = { networks: this.#mesh.view().networks, complete: this.#mesh.complete };
    const failures: WeftError[] = [];
    let conflicts: NetworksPlan['conflicts'] = [];
    try {
      for (let round = 0; round < ROUNDS; round++) {
        const actual = await this.#api.networks();
        this.#look(actual);
        const plan = this.#plan(actual, this.#heal);
        conflicts = plan.conflicts;
        failures.length = 0;
        let done = 0;
        for (const step of plan.steps) {
          if (this.#closed) return;
          try {
            await this.#steps.apply(step);
            done++;
          } catch (error) {
            failures.push(this.#failed(step, error));
          }
        }
        if (done > 0) continue;
        if (!this.#heal) this.#tellStanding(actual);
        break;
      }
      const orphans = this.#copies.orphans();
      if (orphans.length > 0) await this.#journal.write(orphans);
    } catch (error) {
      failures.push(WeftError.from(error)); // dockerd does not answer
    }
    const failure = failures[0]?.message ?? null;
    if (failure !== this.#failure && failure !== null)
      this.#log.warn({ failure }, 'docker networks: not as they should be');
    this.#failure = failure;
    this.#applied = failure === null ? from : null;
    this.#report(conflicts, failures);
    if (failures[0] !== undefined) throw failures[0];
  }

  #plan(actual: readonly DockerNetwork[], heal: boolean): NetworksPlan {
    const now = this.#clock.monotonic();
    const catalogue = this.#mesh.view().networks;
    for (const [id, at] of this.#copies.removed)
      if (!catalogue.has(id) || now - at > YOUNG_MS) this.#copies.removed.delete(id);
    return planNetworks({
      catalogue,
      actual,
      rows: this.#journal.networks,
      inSync: this.#mesh.complete,
      removed: new Set(this.#copies.removed.keys()),
      heal,
      starting: now - this.#started < YOUNG_MS,
      young: this.#young(now),
      unlisted: this.#going().union(
        new Set(
          this.#copies.createdAt
            .entries()
            .filter(([, at]) => now - at < UNLISTED_MS)
            .map(([id]) => id),
        ),
      ),
    });
  }

  /** Notes what Docker does not list any more. */
  #look(actual: readonly DockerNetwork[]): void {
    const listed = new Set(actual.map((network) => network.id));
    const missing = this.#journal.networks
      .values()
      .filter((row) => row.dockerNetworkId !== null && !listed.has(row.dockerNetworkId))
      .map((row) => row.networkId)
      .toArray();
    for (const id of this.#missingSince.keys()) if (!missing.includes(id)) this.#missingSince.delete(id);
    for (const id of missing) if (!this.#missingSince.has(id)) this.#missingSince.set(id, this.#clock.monotonic());
  }

  /** Mesh ids of networks that Docker is removing, or may be: their DeleteNetwork is being answered, or may be on its way. */
  #going(): Set<string> {
    const going = new Set(this.#copies.deleting);
    const now = this.#clock.monotonic();
    for (const [id, since] of this.#missingSince)
      if (now - since < GOING_MS && !this.#copies.refused.has(id)) going.add(id);
    return going;
  }

  #young(now: number): Set<string> {
    const young = new Set<string>();
    for (const [id, at] of this.#copies.touchedAt) if (now - at < YOUNG_MS) young.add(id);
    const revision = this.#mesh.view().revision.number;
    for (const row of this.#journal.networks.values()) {
      const finished = row.dockerNetworkId !== null && row.network.state === 'bound';
      if (finished && revision >= row.network.revision) young.delete(row.networkId);
      // Of an earlier life of the agent: dockerd repeats a call whose answer was lost, for a while.
      if (!finished && now - this.#started < YOUNG_MS) young.add(row.networkId);
    }
    return young;
  }

  #failed(step: NetworkStep, error: unknown): WeftError {
    const e = WeftError.from(error);
    const name = step.kind === 'create' || step.kind === 'remove' ? step.name : nameOf(step);
    return new WeftError(e.code, `docker network ${name}: ${step.kind} failed: ${e.message}`, { cause: error });
  }

  #report(conflicts: NetworksPlan['conflicts'], failures: readonly WeftError[]): void {
    const host = this.#mesh.hostName;
    const now = this.#clock.monotonic();
    const all: Conflict[] = conflicts.map((c) => ({ host, network: c.network, message: c.message }));
    const catalogue = this.#mesh.view().networks;
    for (const [id, refused] of this.#copies.refused)
      if (now - refused.at > REFUSED_SHOWN_MS || (refused.inCatalogue && !catalogue.has(id)))
        this.#copies.refused.delete(id);
      else all.push({ host, network: refused.network, message: refused.message });
    for (const failure of failures)
      if (failure.code === 'FAILED_PRECONDITION' || failure.code === 'ALREADY_EXISTS')
        all.push({ host, network: '', message: failure.message });
    const text = JSON.stringify(all);
    if (text === this.#reported) return;
    this.#reported = text;
    this.#mesh.reportConflicts('docker', all);
  }

  /** What is not as it should be, read anew, once the pass that may be running is done; nothing is changed. */
  async drift(): Promise<Drift[]> {
    await this.#running?.catch(() => undefined);
    let actual = await this.#api.networks();
    this.#look(actual);
    if (this.#going().size > 0) {
      await delay(GOING_MS);
      actual = await this.#api.networks();
      this.#look(actual);
    }
    return this.#driftIn(actual);
  }

  #driftIn(actual: readonly DockerNetwork[]): Drift[] {
    const found = this.#plan(actual, true).steps.flatMap((step): Drift[] => {
      const drift = { kind: 'dockerNetwork', object: nameOf(step), want: '', have: '' };
      if (step.kind === 'create') return [missingDrift(step.network)];
      if (step.kind === 'forget' && step.missing && !this.#heal) return [missingDrift(step.row.network)];
      if (step.kind === 'remove') return [{ ...drift, change: 'extra', have: step.why }];
      return [];
    });
    return [...new Map(found.map((drift) => [keyOf(drift), drift])).values()];
  }

  /** What is left as it is, is told once. */
  #tellStanding(actual: readonly DockerNetwork[]): void {
    const found = this.#driftIn(actual).filter((drift) => drift.change === 'missing');
    for (const drift of found) if (!this.#told.has(keyOf(drift))) this.#onDrift(drift, this.#clock.now(), null);
    this.#told = new Set(found.map(keyOf));
  }
}

const keyOf = ({ object, change }: Drift): string => `${change} ${object}`;

function nameOf(step: NetworkStep): string {
  switch (step.kind) {
    case 'create':
    case 'remove':
      return step.name;
    case 'bind':
      return step.docker.name;
    case 'adopt':
      return dockerName(step.network);
    case 'refresh':
    case 'forget':
      return step.row.name || step.row.networkId;
  }
}
