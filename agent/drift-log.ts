/** Drift that passes meet: which planned steps may be taken, and what is told of them, once. */
import type { Drift } from '../lib/model.ts';
import { driftOf, type Planned } from './plan/planned.ts';
import { Settled } from './plan/settled.ts';

/** Drift events of one pass. */
const TOLD = 50;

export interface DriftLogOptions {
  /** A complete view of this session is the current one. */
  readonly mayRemove: () => boolean;
  /** Times are epoch milliseconds; healed null: it was left as it is. */
  readonly onDrift: (drift: Drift, detectedAt: number, healedAt: number | null) => void;
  readonly now: () => number;
}

export class DriftLog {
  readonly #o: DriftLogOptions;
  readonly settled = new Settled();
  readonly #seen = new Map<string, string>();
  /** Drift met in this pass: told when the pass has ended. */
  #found: { drift: Drift; at: number; heal: boolean }[] = [];

  constructor(options: DriftLogOptions) {
    this.#o = options;
  }

  /** Steps that may be taken now; what is left out is reported all the same. */
  select<S>(planned: readonly Planned<S>[], heal: boolean): Planned<S>[] {
    return planned.filter((p) => {
      const drift = this.settled.isDrift(p);
      const removable = p.change !== 'extra' || this.#o.mayRemove() || this.settled.isReleased(p);
      const take = removable && (heal || !drift);
      if (drift && removable) this.#report(p, take);
      return take;
    });
  }

  /** The pass has ended. After a restart of Open vSwitch every flow is missing: the first ones are named, the rest are counted. */
  tell(): void {
    const found = this.#found.splice(0);
    const healedAt = this.#o.now();
    for (const f of found.slice(0, TOLD)) this.#o.onDrift(f.drift, f.at, f.heal ? healedAt : null);
    const rest = found.length - TOLD;
    const last = found.at(-1);
    if (rest > 0 && last !== undefined)
      this.#o.onDrift({ ...last.drift, object: `and ${rest} more` }, last.at, last.heal ? healedAt : null);
  }

  /** Drift that is not healed is reported once, not at every pass. */
  #report(p: Planned<unknown>, healed: boolean): void {
    const key = Settled.key(p.kind, p.id);
    const text = `${p.change} ${p.have}`;
    if (!healed && this.#seen.get(key) === text) return;
    if (healed) this.#seen.delete(key);
    else this.#seen.set(key, text);
    this.#found.push({ drift: driftOf(p), at: this.#o.now(), heal: healed });
  }
}
