/**
 * Versions of the programs that this host works with. A program may be upgraded while the agent runs, or not answer yet when the
 * agent starts: so each is read anew whenever its connection comes up, and again and again until it is known.
 */
import { WeftError } from '../lib/errors.ts';
import type { Log } from '../lib/log.ts';

const RETRY_MS = 1_000;

export interface VersionsOptions {
  /** By program: its version; '' or an error when it does not answer. Bounded in time. */
  readonly read: Readonly<Record<string, () => Promise<string>>>;
  /** Called with all that are known, after one has changed. */
  readonly changed: (versions: Readonly<Record<string, string>>) => void;
  readonly log: Log;
  /** Between attempts, milliseconds. */
  readonly retryMs?: number;
}

interface Reading {
  busy: boolean;
  /** Asked for while it was being read: what comes may be the version from before. */
  again: boolean;
  /** That it does not answer is in the log. */
  logged: boolean;
  timer: NodeJS.Timeout | null;
}

export class Versions {
  readonly #o: VersionsOptions;
  readonly #readings = new Map<string, Reading>();
  #known: Readonly<Record<string, string>> = {};
  #closed = false;

  constructor(options: VersionsOptions) {
    this.#o = options;
  }

  /** By program; those that have not answered yet are absent. One that stops answering keeps its last. */
  get known(): Readonly<Record<string, string>> {
    return this.#known;
  }

  /** The program may be another one now: reads its version, until it is known. */
  look(program: string): void {
    const reading = this.#readings.get(program) ?? { busy: false, again: false, logged: false, timer: null };
    this.#readings.set(program, reading);
    if (reading.busy) reading.again = true;
    else void this.#read(program, reading);
  }

  close(): void {
    this.#closed = true;
    for (const { timer } of this.#readings.values()) if (timer !== null) clearTimeout(timer);
  }

  async #read(program: string, reading: Reading): Promise<void> {
    if (this.#closed) return;
    if (reading.timer !== null) clearTimeout(reading.timer);
    reading.timer = null;
    reading.busy = true;
    const version = await this.#ask(program, reading);
    reading.busy = false;
    if (this.#closed) return;
    if (version !== null && version !== this.#known[program]) {
      this.#known = { ...this.#known, [program]: version };
      this.#o.changed(this.#known);
    }
    if (reading.again) {
      reading.again = false;
      void this.#read(program, reading);
    } else if (version === null) {
      reading.timer = setTimeout(() => void this.#read(program, reading), this.#o.retryMs ?? RETRY_MS);
      reading.timer.unref();
    }
  }

  /** Null when it does not answer; never rejects. */
  async #ask(program: string, reading: Reading): Promise<string | null> {
    try {
      const version = await this.#o.read[program]?.();
      if (version === undefined || version === '') throw new WeftError('UNAVAILABLE', `${program} tells no version`);
      reading.logged = false;
      return version;
    } catch (error) {
      if (!reading.logged && !this.#closed) this.#o.log.warn({ err: error, program }, 'version is not known yet');
      reading.logged = true;
      return null;
    }
  }
}
