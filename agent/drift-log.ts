/** Drift that passes meet: which planned steps may be taken, and what is told of them, once each. */
import type { Drift } from '../lib/model.ts';
import { driftOf, type Planned } from './plan/planned.ts';
import { Settled } from './plan/settled.ts';

/** Drift events of one pass, of those healed and of those not. */
const TOLD = 50;
/** A pass that has not ended well by then does not keep its drift to itself. */
const LATE_MS = 700;

export interface DriftLogOptions {
  /** A complete view of this session is the current one. */
  readonly mayRemove: () => boolean;
  /**
   * Times are epoch milliseconds; healed null: it is as it was found. Again: this drift was told of before, not healed then.
   */
  readonly onDrift: (drift: Drift, detectedAt: number, healedAt: number | null, again: boolean) => void;
}

interface Found {
  readonly planned: Omit<Planned<unknown>, 'step'>;
  /** Epoch milliseconds. */
  readonly at: number;
  /** It is to be healed. */
  readonly heal: boolean;
  /** It has been told that it is there. */
  readonly told: boolean;
}

export class DriftLog {
  readonly #o: DriftLogOptions & { now: () => number };
  readonly settled = new Settled();
  /** Drift that has not ended yet, by kind and id. */
  readonly #found = new Map<string, Found>();
  /** Met in this pass. */
  readonly #met = new Set<string>();
  #timer: NodeJS.Timeout | null = null;

  constructor(options: DriftLogOptions & { now: () => number }) {
    this.#o = options;
  }

  close(): void {
    if (this.#timer !== null) clearTimeout(this.#timer);
    this.#timer = null;
  }

  /** A pass begins; one before it may have failed. */
  begin(): void {
    this.#met.clear();
  }

  /** Steps that may be taken now; what is left out is reported all the same. */
  select<S>(planned: readonly Planned<S>[], heal: boolean): Planned<S>[] {
    return planned.filter((p) => {
      const drift = this.settled.isDrift(p);
      const removable = p.change !== 'extra' || this.#o.mayRemove() || this.settled.isReleased(p);
      const take = removable && (heal || !drift);
      if (drift && removable) this.#meet(p, take);
      return take;
    });
  }

  /**
   * The pass has ended well: what it was to heal is healed, but for what is refused; what earlier ones have met and it has not, too.
   * After a restart of Open vSwitch every flow is missing: the first ones are named, the rest are counted.
   */
  tell(refused: (p: Found['planned']) => boolean): void {
    this.close();
    const healed: Found[] = [];
    const left: Found[] = [];
    for (const [key, found] of this.#found) {
      if (this.#met.has(key) && (!found.heal || refused(found.planned))) {
        if (!found.told) left.push(found);
        this.#found.set(key, { ...found, told: true });
        continue;
      }
      this.#found.delete(key);
      if (found.heal) healed.push(found);
    }
    this.#say(healed, this.#o.now());
    this.#say(left, null);
  }

  #late(): void {
    const left: Found[] = [];
    for (const [key, found] of this.#found) {
      if (found.told) continue;
      left.push(found);
      this.#found.set(key, { ...found, told: true });
    }
    this.#say(left, null);
  }

  #say(found: readonly Found[], healedAt: number | null): void {
    for (const f of found.slice(0, TOLD)) this.#o.onDrift(driftOf(f.planned), f.at, healedAt, f.told);
    const rest = found.length - TOLD;
    const last = found.at(-1);
    if (rest > 0 && last !== undefined)
      this.#o.onDrift({ ...driftOf(last.planned), object: `and ${rest} more` }, last.at, healedAt, last.told);
  }

  #meet(p: Planned<unknown>, heal: boolean): void {
    const key = Settled.key(p.kind, p.id);
    this.#met.add(key);
    const { step: _, ...planned } = p;
    const before = this.#found.get(key);
    if (before?.planned.change === p.change && before.planned.have === p.have) {
      this.#found.set(key, { ...before, heal });
      return;
    }
    this.#found.set(key, { planned, at: this.#o.now(), heal, told: false });
    this.#timer ??= setTimeout(() => {
      this.#timer = null;
      this.#late();
    }, LATE_MS);
    this.#timer.unref();
  }
}
