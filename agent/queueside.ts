/** The queues of a host's links, and what leads to them: what is known of them, and what a pass does to them. */
import { endsOf } from './link/names.ts';
import type { Planned } from './plan/planned.ts';
import { planQueues, type Shaping } from './plan/queues.ts';
import { ELSEWHERE, type FoundShaping, type QueueStep } from './shaping/steps.ts';
import type { TcDriver } from './shaping/tc.ts';

export class QueueSide {
  readonly #driver: Pick<TcDriver, 'observe' | 'apply'>;
  readonly #diverts: boolean;
  /** Null = to be read. The kernel tells of no change, so that others' work is seen when it is read anew. */
  #known: FoundShaping | null = null;

  /** @param diverts links may have diversions */
  constructor(driver: Pick<TcDriver, 'observe' | 'apply'>, diverts: boolean) {
    this.#driver = driver;
    this.#diverts = diverts;
  }

  forget(): void {
    this.#known = null;
  }

  /** These links are new, or go: what they have goes with them, and what leads to them leads nowhere. @param names by either end */
  renewed(names: Iterable<string>): void {
    const known = this.#known;
    if (known === null) return;
    for (const name of names)
      for (const end of endsOf(name)) {
        known.queues.delete(end);
        known.diversions.delete(end);
        for (const [link, to] of known.diversions) if (to === end) known.diversions.set(link, ELSEWHERE);
      }
  }

  /** @param fresh what is known does not count. @throws UNAVAILABLE */
  async plan(desired: Shaping, fresh: boolean): Promise<Planned<QueueStep>[]> {
    if (fresh) this.#known = null;
    this.#known ??= await this.#driver.observe(this.#diverts);
    return planQueues(desired, this.#known);
  }

  /** @throws UNAVAILABLE; what is there is then read anew */
  async apply(planned: readonly Planned<QueueStep>[]): Promise<void> {
    if (planned.length === 0) return;
    const known = this.#known;
    this.#known = null;
    await this.#driver.apply(planned.map((p) => p.step));
    for (const { step } of planned) if (known !== null) note(known, step);
    this.#known = known;
  }
}

function note({ queues, diversions }: FoundShaping, step: QueueStep): void {
  if (step.kind === 'delQueue') queues.delete(step.link);
  else if (step.kind === 'setQueue') queues.set(step.queue.link, { kind: 'ours', ...step.queue });
  else if (step.kind === 'undivert') diversions.set(step.link, '');
  else diversions.set(step.diversion.link, step.diversion.to);
}
