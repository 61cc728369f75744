/** The queues of a host's links: what is known of them, and what a pass does to them. */
import { endsOf } from './link/names.ts';
import type { Planned } from './plan/planned.ts';
import { planQueues } from './plan/queues.ts';
import type { FoundQueue, Queue, QueueStep } from './shaping/steps.ts';
import type { TcDriver } from './shaping/tc.ts';

export class QueueSide {
  readonly #driver: Pick<TcDriver, 'observe' | 'apply'>;
  /** By link; null = to be read. The kernel tells of no change, so that others' work is seen when it is read anew. */
  #known: Map<string, FoundQueue> | null = null;

  constructor(driver: Pick<TcDriver, 'observe' | 'apply'>) {
    this.#driver = driver;
  }

  forget(): void {
    this.#known = null;
  }

  /** These links are new, or go: a queue goes with its link. @param names by either end */
  renewed(names: Iterable<string>): void {
    for (const name of names) for (const end of endsOf(name)) this.#known?.delete(end);
  }

  /** @param fresh what is known does not count. @throws UNAVAILABLE */
  async plan(desired: readonly Queue[], fresh: boolean): Promise<Planned<QueueStep>[]> {
    if (fresh) this.#known = null;
    this.#known ??= await this.#driver.observe();
    return planQueues(desired, this.#known);
  }

  /** @throws UNAVAILABLE; what is there is then read anew */
  async apply(planned: readonly Planned<QueueStep>[]): Promise<void> {
    if (planned.length === 0) return;
    const known = this.#known;
    this.#known = null;
    await this.#driver.apply(planned.map((p) => p.step));
    for (const { step } of planned)
      if (step.kind === 'delQueue') known?.delete(step.link);
      else known?.set(step.queue.link, { kind: 'ours', ...step.queue });
    this.#known = known;
  }
}
