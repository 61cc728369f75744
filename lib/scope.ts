/**
 * One owner of everything that was started: what is added last is stopped first, and none can hang the rest. A scope has a
 * signal that aborts when stopping begins.
 */
import { WeftError } from './errors.ts';

export interface ScopeOptions {
  /** How long one thing may take to stop, milliseconds. */
  readonly stopTimeoutMs?: number;
  /** Told of what failed or hung while stopping. */
  readonly onError?: (name: string, error: unknown) => void;
}

export class Scope {
  readonly #controller = new AbortController();
  readonly #stops: { readonly name: string; readonly stop: () => void | Promise<void> }[] = [];
  readonly #timeoutMs: number;
  readonly #onError: (name: string, error: unknown) => void;
  #closing: Promise<void> | null = null;

  constructor(options: ScopeOptions = {}) {
    this.#timeoutMs = options.stopTimeoutMs ?? 3000;
    this.#onError = options.onError ?? (() => {});
  }

  /** Aborts when close() begins. */
  get signal(): AbortSignal {
    return this.#controller.signal;
  }

  /** Stops it when the scope closes; returns it. After close() began it is stopped at once. */
  use<T extends AsyncDisposable | Disposable>(name: string, resource: T): T {
    const stop = (): void | Promise<void> =>
      Symbol.asyncDispose in resource
        ? Promise.resolve(resource[Symbol.asyncDispose]())
        : (resource as Disposable)[Symbol.dispose]();
    this.defer(name, stop);
    return resource;
  }

  defer(name: string, stop: () => void | Promise<void>): void {
    if (this.#closing === null) this.#stops.push({ name, stop });
    else void this.#stopOne(name, stop);
  }

  /** Runs beside everything else until the scope closes, which waits for it. A rejection before that goes to `onFail`. */
  background(name: string, run: (signal: AbortSignal) => Promise<void>, onFail: (error: unknown) => void): void {
    const running = run(this.signal).catch((error: unknown) => {
      if (!this.signal.aborted) onFail(error);
    });
    this.defer(name, () => running);
  }

  /** Stops all, last first; never rejects. The second call waits for the first. */
  close(): Promise<void> {
    this.#closing ??= this.#close();
    return this.#closing;
  }

  [Symbol.asyncDispose](): Promise<void> {
    return this.close();
  }

  async #close(): Promise<void> {
    // After the assignment of #closing: listeners of the signal may call close() or defer().
    await Promise.resolve();
    this.#controller.abort(new WeftError('CANCELLED', 'Weft is stopping.'));
    for (const { name, stop } of this.#stops.toReversed()) await this.#stopOne(name, stop);
    this.#stops.length = 0;
  }

  async #stopOne(name: string, stop: () => void | Promise<void>): Promise<void> {
    const late = Promise.withResolvers<never>();
    const timer = setTimeout(
      () => late.reject(new WeftError('DEADLINE_EXCEEDED', `${name} did not stop in ${this.#timeoutMs} ms.`)),
      this.#timeoutMs,
    );
    try {
      const run = async (): Promise<void> => stop();
      await Promise.race([run(), late.promise]);
    } catch (error) {
      this.#onError(name, error);
    } finally {
      clearTimeout(timer);
    }
  }
}
