/** Time as an argument: the machine's clock, and one for tests that moves only when told. */
import { performance } from 'node:perf_hooks';

export interface Clock {
  /** Wall clock, epoch milliseconds. Jumps; only for people and records. */
  now(): number;
  /** Milliseconds from some start; never goes back. For every duration and deadline. */
  monotonic(): number;
  /** Calls `run` once after `ms`, unless `signal` aborts before. Does not keep the process alive. */
  setTimer(ms: number, run: () => void, signal?: AbortSignal): void;
}

export const systemClock = (): Clock => ({
  now: () => Date.now(),
  monotonic: () => performance.now(),
  setTimer: (ms, run, signal) => {
    if (signal?.aborted === true) return;
    const cancel = (): void => clearTimeout(timer);
    const timer = setTimeout(() => {
      signal?.removeEventListener('abort', cancel);
      run();
    }, ms);
    timer.unref();
    signal?.addEventListener('abort', cancel, { once: true });
  },
});

/** Resolves after `ms`; rejects with the signal's reason when it aborts. */
export function delay(clock: Clock, ms: number, signal?: AbortSignal): Promise<void> {
  return new Promise((resolve, reject) => {
    const abort = (): void => reject(signal?.reason as Error);
    if (signal?.aborted === true) return abort();
    signal?.addEventListener('abort', abort, { once: true });
    const done = (): void => {
      signal?.removeEventListener('abort', abort);
      resolve();
    };
    clock.setTimer(ms, done, signal);
  });
}

/** RFC 3339 in UTC, milliseconds. */
export const rfc3339 = (clock: Clock): string => new Date(clock.now()).toISOString();

interface Timer {
  readonly at: number;
  readonly run: () => void;
  readonly signal: AbortSignal | undefined;
}

/** A clock for tests. */
export class FakeClock implements Clock {
  #elapsed = 0;
  #wall: number;
  #timers: Timer[] = [];

  constructor(start = Date.parse('2025-01-01T00:00:00Z')) {
    this.#wall = start;
  }

  now(): number {
    return this.#wall;
  }

  monotonic(): number {
    return this.#elapsed;
  }

  setTimer(ms: number, run: () => void, signal?: AbortSignal): void {
    this.#timers.push({ at: this.#elapsed + Math.max(0, ms), run, signal });
  }

  /** Timers that wait, aborted ones not counted. */
  get pending(): number {
    return this.#timers.filter((timer) => timer.signal?.aborted !== true).length;
  }

  /** The wall clock alone jumps, as an administrator or NTP makes it. */
  jump(ms: number): void {
    this.#wall += ms;
  }

  /** Moves on, running what is due in order; lets promises settle after each. */
  async advance(ms: number): Promise<void> {
    const until = this.#elapsed + ms;
    await settle();
    for (;;) {
      const due = this.#timers.filter((timer) => timer.at <= until).sort((a, b) => a.at - b.at)[0];
      if (due === undefined) break;
      this.#timers.splice(this.#timers.indexOf(due), 1);
      this.#moveTo(Math.max(this.#elapsed, due.at));
      if (due.signal?.aborted !== true) due.run();
      await settle();
    }
    this.#moveTo(until);
  }

  #moveTo(elapsed: number): void {
    this.#wall += elapsed - this.#elapsed;
    this.#elapsed = elapsed;
  }
}

/** Past every promise reaction that is queued now. */
const settle = (): Promise<void> => new Promise((resolve) => setImmediate(resolve));
