/** A machine of the checksum probe: a process in a network namespace of its own, which ends with it. Talked to in lines. */
import { type ChildProcessWithoutNullStreams, spawn } from 'node:child_process';
import { createInterface, type Interface } from 'node:readline';
import { WeftError } from '../../lib/errors.ts';

export class ProbeMachine {
  readonly #child: ChildProcessWithoutNullStreams;
  readonly #lines: Interface;
  readonly #iterator: AsyncIterator<string>;
  readonly #ended: Promise<void>;
  #said = '';

  private constructor(child: ChildProcessWithoutNullStreams) {
    this.#child = child;
    this.#lines = createInterface({ input: child.stdout });
    this.#iterator = this.#lines[Symbol.asyncIterator]();
    child.stderr.on('data', (chunk: Buffer) => {
      this.#said = (this.#said + chunk.toString()).slice(-500);
    });
    child.stdin.on('error', () => undefined); // it is gone: the next read says so
    this.#ended = new Promise((resolve) => {
      child.once('error', (error) => {
        this.#said = error.message;
        resolve();
      });
      child.once('close', () => resolve());
    });
  }

  /** @param args of the script. Resolves when its namespace is there. @throws UNAVAILABLE when it cannot be made. */
  static async start(script: string, args: readonly string[]): Promise<ProbeMachine> {
    const machine = new ProbeMachine(spawn('unshare', ['--net', 'perl', script, ...args], { stdio: 'pipe' }));
    await machine.ask(null, 'here').catch(async (error: unknown) => {
      await machine.end();
      throw error;
    });
    return machine;
  }

  /** 0 when it could not be started. */
  get pid(): number {
    return this.#child.pid ?? 0;
  }

  tell(line: string): void {
    this.#child.stdin.write(`${line}\n`);
  }

  /** The next line that it says. @throws UNAVAILABLE with its last words when it has ended. */
  async read(): Promise<string> {
    const next = await this.#iterator.next();
    if (next.done !== true) return next.value;
    await this.#ended;
    throw new WeftError('UNAVAILABLE', `A machine of the probe ended: ${this.#said.trim() || 'no reason given'}.`);
  }

  /** Tells it, and takes nothing but `answer`. */
  async ask(line: string | null, answer: string): Promise<void> {
    if (line !== null) this.tell(line);
    const said = await this.read();
    if (said !== answer)
      throw new WeftError('UNAVAILABLE', `A machine of the probe says: ${said}; ${this.#said.trim()}`);
  }

  /** Resolves when it is gone. */
  async end(): Promise<void> {
    this.#child.kill('SIGTERM');
    const timer = setTimeout(() => this.#child.kill('SIGKILL'), 500);
    await this.#ended;
    clearTimeout(timer);
    this.#lines.close();
  }
}
