/**
 * Links that cannot be made or set, and why: each is tried again by itself, ever more seldom, and none holds up the others. Pure but
 * for its memory.
 */
import type { Planned } from '../plan/planned.ts';
import type { LinkStep } from './steps.ts';

const [FIRST_MS, LONGEST_MS] = [500, 5_000];

interface Failure {
  readonly message: string;
  /** What was tried: something else may do. */
  readonly step: string;
  readonly delayMs: number;
  /** Monotonic. */
  readonly retryAt: number;
}

type Tried = Pick<Planned<LinkStep>, 'id' | 'step'>;

export class LinkFailures {
  readonly #known = new Map<string, Failure>();

  /** What failed, by the link's name. */
  get messages(): ReadonlyMap<string, string> {
    return new Map([...this.#known].map(([id, f]) => [id, f.message]));
  }

  /** To be tried now. @param now monotonic milliseconds */
  isDue(p: Tried, now: number): boolean {
    const failure = this.#known.get(p.id);
    return failure === undefined || now >= failure.retryAt || failure.step !== JSON.stringify(p.step);
  }

  note(p: Tried, message: string, now: number): void {
    const before = this.#known.get(p.id);
    const step = JSON.stringify(p.step);
    const delayMs = before?.step === step ? Math.min(before.delayMs * 2, LONGEST_MS) : FIRST_MS;
    this.#known.set(p.id, { message, step, delayMs, retryAt: now + delayMs });
  }

  /** Those that are not (or no more) in need of anything are forgotten. */
  keep(needed: (id: string) => boolean): void {
    for (const id of this.#known.keys()) if (!needed(id)) this.#known.delete(id);
  }

  /** Milliseconds until one is due; null: nothing has failed. */
  dueIn(now: number): number | null {
    const times = [...this.#known.values()].map((f) => f.retryAt);
    return times.length === 0 ? null : Math.max(0, Math.min(...times) - now);
  }
}
