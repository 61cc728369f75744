/** Open vSwitch's configuration as a driver: what is there, and steps applied as one transaction. It decides nothing. */
import { WeftError } from '../../lib/errors.ts';
import { compile } from './compile.ts';
import type { Ovsdb } from './ovsdb.ts';
import { type OvsState, type OvsStep, stateOf } from './steps.ts';

export type { Ingress, OvsBridge, OvsPort, OvsState, OvsStep, PortType } from './steps.ts';

export interface PortResult {
  /** null when the device could not be opened. */
  readonly ofport: number | null;
  /** ovs-vswitchd's own words. */
  readonly error: string | null;
}

export interface ApplyResult {
  /** For each port that was added or set. A port in error is in the database, and comes up when its device appears. */
  readonly ports: ReadonlyMap<string, PortResult>;
}

export class OvsDriver {
  readonly #db: Ovsdb;
  /** As the monitor told it last: asked for often, by port. */
  #known: { readonly version: number; readonly state: OvsState } | null = null;

  /** @param db started and closed by the caller. */
  constructor(db: Ovsdb) {
    this.#db = db;
  }

  /** The state as the monitor tells it: no round trip. All bridges, ours and others'. */
  observe(): OvsState {
    const { version } = this.#db;
    if (this.#known?.version !== version) this.#known = { version, state: stateOf(this.#db.rows) };
    return this.#known.state;
  }

  /** The state read anew from the database. */
  async observeFresh(timeoutMs?: number): Promise<OvsState> {
    return stateOf(await this.#db.fetchRows(timeoutMs));
  }

  /** Any row changed, also by our own steps. */
  onChange(listener: () => void): () => void {
    return this.#db.onChange(listener);
  }

  /**
   * All steps in one transaction, done when ovs-vswitchd has applied it. Adding what exists sets it, deleting what is
   * gone is fine. Throws UNAVAILABLE (no connection, or ovs-vswitchd is silent), NOT_FOUND (a bridge or port to be set
   * that is not there), ABORTED (others keep changing the same rows).
   */
  async apply(steps: readonly OvsStep[], options: { timeoutMs?: number } = {}): Promise<ApplyResult> {
    const timeoutMs = options.timeoutMs ?? 5_000;
    if (!this.#db.connected) await this.#db.transact([]); // says why
    for (let attempt = 1; ; attempt++) {
      const { operations, expects } = compile(steps, this.#db.rows);
      try {
        // An empty list still waits: a caller that repeats its steps wants to know that they are applied.
        const results = await this.#db.transact(operations, { waitApplied: true, timeoutMs });
        if (expects.every((index) => results[index]?.count === 1)) return this.#resultOf(steps);
        throw new WeftError('ABORTED', 'Rows of Open vSwitch were removed by somebody else at the same moment.');
      } catch (error) {
        if (WeftError.from(error).code !== 'ABORTED' || attempt >= 4) throw error;
      }
    }
  }

  #resultOf(steps: readonly OvsStep[]): ApplyResult {
    const { bridges } = this.observe();
    const ports = new Map<string, PortResult>();
    for (const step of steps) {
      if (step.kind !== 'addPort' && step.kind !== 'setPort') continue;
      const port = bridges.get(step.bridge)?.ports.get(step.name);
      const error = port?.error ?? null;
      const ofport = port?.ofport ?? -1;
      if (ofport > 0) ports.set(step.name, { ofport, error });
      else ports.set(step.name, { ofport: null, error: error ?? 'ovs-vswitchd gave it no OpenFlow port' });
    }
    return { ports };
  }
}
