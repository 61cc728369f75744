/**
 * Work by key: a key waits at most once, runs at most once at a time, and runs again when it was added while it ran. What
 * fails is tried again later, each time longer, with jitter. State is read when the work runs, so nothing is lost by merging.
 */
import type { Clock } from './clock.ts';

export interface WorkqueueOptions<K> {
  readonly clock: Clock;
  /** A rejection means: try again later. */
  readonly work: (key: K, signal: AbortSignal) => Promise<void>;
  /** Told of each failure. */
  readonly onError?: (key: K, error: unknown, attempt: number) => void;
  /** Keys that run at the same time. */
  readonly concurrency?: number;
  /** First and longest wait before another try, milliseconds. */
  readonly minDelayMs?: number;
  readonly maxDelayMs?: number;
  /** 0 ≤ n < 1. */
  readonly random?: () => number;
}

export class Workqueue<K> {
  readonly #options: Required<Omit<WorkqueueOptions<K>, 'onError'>> & Pick<WorkqueueOptions<K>, 'onError'>;
  readonly #stop = new AbortController();
  readonly #waiting = new Set<K>();
  readonly #running = new Map<K, Promise<void>>();
  /** Added while it ran. */
  readonly #again = new Set<K>();
  readonly #attempts = new Map<K, number>();
  /** Cancels a key's pending try. */
  readonly #delayed = new Map<K, AbortController>();
  #idle: (() => void)[] = [];

  constructor(options: WorkqueueOptions<K>) {
    this.#options = { concurrency: 1, minDelayMs: 50, maxDelayMs: 10_000, random: Math.random, ...options };
  }

  /** Runs the key soon; a try that waits because of an earlier failure is brought forward. */
  add(key: K): void {
    if (this.#stop.signal.aborted) return;
    this.#delayed.get(key)?.abort();
    this.#delayed.delete(key);
    if (this.#running.has(key)) this.#again.add(key);
    else this.#waiting.add(key);
    this.#pump();
  }

  /** Runs the key after `ms`, unless it is added sooner. */
  addAfter(key: K, ms: number): void {
    if (this.#stop.signal.aborted) return;
    this.#delayed.get(key)?.abort();
    const cancel = new AbortController();
    this.#delayed.set(key, cancel);
    this.#options.clock.setTimer(
      ms,
      () => {
        if (this.#delayed.get(key) === cancel) this.add(key);
      },
      cancel.signal,
    );
  }

  /** Keys that wait, run or will be tried again. */
  get size(): number {
    return new Set([...this.#waiting, ...this.#running.keys(), ...this.#delayed.keys()]).size;
  }

  /** Resolves when nothing waits or runs; tries put off for later do not count. */
  idle(): Promise<void> {
    if (this.#waiting.size === 0 && this.#running.size === 0) return Promise.resolve();
    return new Promise((resolve) => this.#idle.push(resolve));
  }

  /** Starts nothing more, aborts what runs, and waits for it. */
  async close(): Promise<void> {
    this.#stop.abort();
    for (const cancel of this.#delayed.values()) cancel.abort();
    this.#delayed.clear();
    this.#waiting.clear();
    this.#again.clear();
    await Promise.all(this.#running.values());
    this.#settleIdle();
  }

  [Symbol.asyncDispose](): Promise<void> {
    return this.close();
  }

  #pump(): void {
    for (const key of this.#waiting) {
      if (this.#running.size >= this.#options.concurrency) return;
      this.#waiting.delete(key);
      this.#running.set(key, this.#run(key));
    }
    this.#settleIdle();
  }

  async #run(key: K): Promise<void> {
    try {
      // Not in the caller's turn: add() returns first.
      await Promise.resolve();
      await this.#options.work(key, this.#stop.signal);
      this.#attempts.delete(key);
    } catch (error) {
      const attempt = (this.#attempts.get(key) ?? 0) + 1;
      this.#attempts.set(key, attempt);
      if (!this.#stop.signal.aborted) {
        this.#options.onError?.(key, error, attempt);
        if (!this.#again.has(key)) this.addAfter(key, this.#backoff(attempt));
      }
    } finally {
      this.#running.delete(key);
      if (this.#again.delete(key)) this.#waiting.add(key);
      this.#pump();
    }
  }

  /** Doubling, of which the upper half is random. */
  #backoff(attempt: number): number {
    const { minDelayMs, maxDelayMs, random } = this.#options;
    const full = Math.min(maxDelayMs, minDelayMs * 2 ** Math.min(attempt - 1, 30));
    return full / 2 + (full / 2) * random();
  }

  #settleIdle(): void {
    if (this.#waiting.size > 0 || this.#running.size > 0) return;
    const waiters = this.#idle;
    this.#idle = [];
    for (const resolve of waiters) resolve();
  }
}
