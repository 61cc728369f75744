/** Applies the newest view, one at a time, and tells when it is done: what is acknowledged to the coordinator. */
import type { View } from '../../lib/model.ts';

/** Applies a view; empty string, or the step that failed and why. */
export type Apply = (view: View) => Promise<string>;

export class Applier {
  readonly #apply: Apply;
  readonly #done: (view: View, failure: string) => void;
  readonly #retryMs: number;
  #wanted: View | null = null;
  #applied: View | null = null;
  #running = false;
  #timer: NodeJS.Timeout | null = null;
  #waiters: { ready: (view: View) => boolean; resolve: () => void }[] = [];

  constructor(apply: Apply, done: (view: View, failure: string) => void, retryMs = 1_000) {
    this.#apply = apply;
    this.#done = done;
    this.#retryMs = retryMs;
  }

  get applied(): View | null {
    return this.#applied;
  }

  want(view: View): void {
    this.#wanted = view;
    if (!this.#running) void this.#run();
  }

  /** Resolves once a view with the property has been applied, or when the signal says that it has waited enough (rejects). */
  until(ready: (view: View) => boolean, signal: AbortSignal): Promise<void> {
    if (this.#applied !== null && ready(this.#applied)) return Promise.resolve();
    return new Promise((resolve, reject) => {
      const waiter = { ready, resolve };
      this.#waiters.push(waiter);
      const give = () => {
        this.#waiters = this.#waiters.filter((w) => w !== waiter);
        reject(signal.reason as Error);
      };
      if (signal.aborted) give();
      else signal.addEventListener('abort', give, { once: true });
    });
  }

  close(): void {
    if (this.#timer !== null) clearTimeout(this.#timer);
    this.#wanted = null;
  }

  async #run(): Promise<void> {
    this.#running = true;
    if (this.#timer !== null) clearTimeout(this.#timer);
    this.#timer = null;
    while (this.#wanted !== null) {
      const view = this.#wanted;
      this.#wanted = null;
      const failure = await this.#apply(view).catch((error: unknown) => String((error as Error)?.message ?? error));
      if (failure === '') {
        this.#applied = view;
        this.#waiters = this.#waiters.filter((w) => {
          if (!w.ready(view)) return true;
          w.resolve();
          return false;
        });
      } else if (this.#wanted === null) {
        this.#timer = setTimeout(() => this.want(view), this.#retryMs);
      }
      this.#done(view, failure);
    }
    this.#running = false;
  }
}
