/**
 * Tells the mesh which groups are wanted here, network by network: the last state only, one call at a time, each network at most
 * once a second (a container that joins and leaves all the time must not keep etcd busy), again after a failure.
 */
import type { Log } from '../../lib/log.ts';

/** @param groups sorted; null = not known, or too many: everything is to be sent here. */
export type Register = (networkId: string, groups: readonly string[] | null) => Promise<unknown>;

export const REGISTER_INTERVAL_MS = 1_000;

interface Told {
  readonly text: string;
  readonly at: number;
}

export class Registrations {
  readonly #register: Register;
  readonly #log: Log;
  readonly #wanted = new Map<string, readonly string[] | null>();
  readonly #told = new Map<string, Told>();
  #running: Promise<void> | null = null;

  constructor(register: Register, log: Log) {
    this.#register = register;
    this.#log = log;
  }

  set(networkId: string, groups: readonly string[] | null): void {
    this.#wanted.set(networkId, groups);
  }

  /** The network has left this host: said once more, then forgotten. */
  remove(networkId: string): void {
    this.#wanted.set(networkId, null);
    if (!this.#told.has(networkId)) this.#wanted.delete(networkId);
  }

  /** Starts to say what has changed and may be said by now. Resolves when all calls have ended. */
  flush(now: number): Promise<void> {
    this.#running ??= this.#run(now).finally(() => {
      this.#running = null;
    });
    return this.#running;
  }

  async #run(now: number): Promise<void> {
    for (const [networkId, groups] of this.#wanted) {
      const text = groups === null ? 'all' : groups.join(' ');
      const told = this.#told.get(networkId);
      if (told?.text === text || (told !== undefined && now - told.at < REGISTER_INTERVAL_MS)) continue;
      try {
        await this.#register(networkId, groups);
        this.#told.set(networkId, { text, at: now });
      } catch (error) {
        // The next flush tries again; meanwhile other hosts send too much, or what they were told last.
        this.#log.debug({ err: error, networkId }, 'memberships not registered');
        return;
      }
    }
  }
}
