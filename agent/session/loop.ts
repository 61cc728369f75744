/** Keeps a session up: tries the coordinators in turn, with jitter, for as long as the agent runs. */
import type { Hello, SessionClient } from '../../gen/weft/v1/session.ts';
import { WeftError } from '../../lib/errors.ts';
import type { Log } from '../../lib/log.ts';
import { type LiveHandlers, LiveSession } from './live.ts';

const WELCOME_MS = 5_000;
const MIN_DELAY_MS = 50;
const MAX_DELAY_MS = 2_000;

export interface LoopOptions {
  readonly coordinators: readonly string[];
  readonly connect: (address: string) => SessionClient;
  readonly hello: () => Hello;
  readonly handlers: LiveHandlers;
  /** A session has been welcomed, or (null) has ended. */
  readonly onSession: (session: LiveSession | null) => void;
  readonly random: () => number;
  readonly log: Log;
}

export class SessionLoop {
  readonly #o: LoopOptions;
  readonly #stop = new AbortController();
  #running: Promise<void> | null = null;
  #coordinator = '';
  #failure = '';
  /** What was logged since the last session. */
  readonly #told = new Set<string>();

  constructor(options: LoopOptions) {
    this.#o = options;
  }

  /** Address of the coordinator of the present or last session. */
  get coordinator(): string {
    return this.#coordinator;
  }
  /** Why there is no session; empty while there is one. */
  get failure(): string {
    return this.#failure;
  }

  start(): void {
    this.#running ??= this.#run();
  }

  async close(): Promise<void> {
    this.#stop.abort();
    await this.#running;
  }

  async #run(): Promise<void> {
    let delay = MIN_DELAY_MS;
    // Hosts start at different places of the list, so that replicas share them.
    let at = Math.floor(this.#o.random() * this.#o.coordinators.length);
    while (!this.#stop.signal.aborted) {
      const address = this.#o.coordinators[at % this.#o.coordinators.length] ?? '';
      const lived = await this.#one(address);
      if (lived) delay = MIN_DELAY_MS;
      else at++;
      await this.#pause(delay * (0.5 + this.#o.random()));
      delay = Math.min(delay * 2, MAX_DELAY_MS);
    }
  }

  /** @returns true when the session was welcomed before it ended. */
  async #one(address: string): Promise<boolean> {
    const client = this.#o.connect(address);
    const session = new LiveSession(client, this.#o.hello(), this.#o.handlers);
    const stop = () => session.end(new WeftError('CANCELLED', 'the agent stops'));
    this.#stop.signal.addEventListener('abort', stop);
    const timer = setTimeout(
      () => session.end(new WeftError('DEADLINE_EXCEEDED', `${address} did not welcome this host`)),
      WELCOME_MS,
    );
    try {
      const welcome = await session.welcomed();
      clearTimeout(timer);
      this.#coordinator = welcome.coordinator;
      this.#failure = '';
      this.#told.clear();
      this.#o.log.info({ coordinator: welcome.coordinator, address, session: welcome.sessionId }, 'session began');
      this.#o.onSession(session);
      await aborted(session.ended);
      this.#o.onSession(null);
      return true;
    } catch {
      return false;
    } finally {
      clearTimeout(timer);
      const reason = WeftError.from(session.ended.reason);
      if (reason.code !== 'CANCELLED') {
        // One line for each new reason of each coordinator, not one a try.
        const told = `${address} ${reason.message}`;
        if (!this.#told.has(told))
          this.#o.log.warn({ address, code: reason.code, reason: reason.message }, 'no session');
        this.#told.add(told);
        this.#failure = reason.message;
      }
      this.#stop.signal.removeEventListener('abort', stop);
      client.close();
    }
  }

  #pause(ms: number): Promise<void> {
    return new Promise((resolve) => {
      const done = () => {
        clearTimeout(timer);
        this.#stop.signal.removeEventListener('abort', done);
        resolve();
      };
      const timer = setTimeout(done, ms);
      this.#stop.signal.addEventListener('abort', done);
      if (this.#stop.signal.aborted) done();
    });
  }
}

const aborted = (signal: AbortSignal): Promise<void> =>
  new Promise((resolve) => {
    if (signal.aborted) resolve();
    else signal.addEventListener('abort', () => resolve(), { once: true });
  });
