/**
 * When what is asked again and again. Each job has a place of its own in its interval, so that many of them are spread evenly over
 * time, and keeps it: a late or long one does not push those after it. A new job has its first turn soon.
 */
import type { Clock } from '../../lib/clock.ts';
import { hash32 } from './numbers.ts';

/** Within it a new job has its first turn, ms; or within its interval, if that is shorter. */
const FIRST_MS = 1_000;

export interface Job {
  readonly intervalMs: number;
  /** Never rejects. */
  readonly run: (signal: AbortSignal) => Promise<void>;
}

interface Entry {
  job: Job;
  /** Waiting for its turn, or under way: another turn meanwhile is left out. */
  busy: boolean;
  readonly ended: AbortController;
}

export class Schedule {
  readonly #clock: Clock;
  readonly #atOnce: number;
  readonly #entries = new Map<string, Entry>();
  #queue: Entry[] = [];
  #running = 0;

  /** @param options.atOnce how many may be under way; the others wait */
  constructor(options: { clock: Clock; atOnce: number }) {
    this.#clock = options.clock;
    this.#atOnce = options.atOnce;
  }

  /** These, and no others. One of the same key and interval goes on as it was; its `run` is the new one from the next turn on. */
  set(jobs: ReadonlyMap<string, Job>): void {
    for (const [key, entry] of this.#entries)
      if (jobs.get(key)?.intervalMs !== entry.job.intervalMs) {
        this.#entries.delete(key);
        entry.ended.abort();
      }
    for (const [key, job] of jobs) {
      const known = this.#entries.get(key);
      if (known !== undefined) known.job = job;
      else this.#begin(key, job);
    }
  }

  close(): void {
    this.set(new Map());
    this.#queue = [];
  }

  #begin(key: string, job: Job): void {
    const entry: Entry = { job, busy: false, ended: new AbortController() };
    this.#entries.set(key, entry);
    const place = placeOf(key);
    const turn = (): void => {
      const now = this.#clock.monotonic();
      this.#clock.setTimer(nextTurn(now, place, job.intervalMs) - now, turn, entry.ended.signal);
      if (entry.busy) return;
      entry.busy = true;
      this.#queue.push(entry);
      this.#pump();
    };
    this.#clock.setTimer(place * Math.min(FIRST_MS, job.intervalMs), turn, entry.ended.signal);
  }

  #pump(): void {
    while (this.#running < this.#atOnce) {
      const entry = this.#queue.shift();
      if (entry === undefined) return;
      if (entry.ended.signal.aborted) continue;
      this.#running++;
      void entry.job.run(entry.ended.signal).finally(() => {
        this.#running--;
        entry.busy = false;
        this.#pump();
      });
    }
  }
}

/** 0 to 1: where in its interval a job is. */
const placeOf = (key: string): number => hash32(key) / 2 ** 32;

/** The next turn, ms: at its place, and at least half an interval from now. */
export function nextTurn(now: number, place: number, intervalMs: number): number {
  const first = now + intervalMs / 2;
  return (Math.floor(first / intervalMs - place) + 1 + place) * intervalMs;
}
