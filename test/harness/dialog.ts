/** Servers that say who they are, and clients that keep connections open, in namespaces (dialog-process.ts). */
import { type ChildProcess, spawn } from 'node:child_process';
import { once } from 'node:events';
import { createInterface, type Interface } from 'node:readline';
import { fileURLToPath } from 'node:url';

const PROCESS = fileURLToPath(new URL('./dialog-process.ts', import.meta.url));

/** One of the two ends: a process that answers lines. */
export class Dialog implements AsyncDisposable {
  readonly #child: ChildProcess;
  readonly #lines: AsyncIterator<string>;
  readonly #reader: Interface;

  private constructor(netns: string, args: readonly string[]) {
    const command = [`--net=/run/netns/${netns}`, process.execPath, PROCESS, ...args];
    this.#child = spawn('nsenter', command, { stdio: ['pipe', 'pipe', 'inherit'] });
    this.#reader = createInterface({ input: this.#child.stdout! });
    this.#lines = this.#reader[Symbol.asyncIterator]();
  }

  /** Listens on TCP and UDP of both families. */
  static async serve(netns: string, port: number, name: string): Promise<Dialog> {
    const server = new Dialog(netns, ['serve', String(port), name]);
    await server.#line();
    return server;
  }

  static client(netns: string): Dialog {
    return new Dialog(netns, ['ask']);
  }

  /** @returns the answer: what was asked for, or the error's code. */
  async ask(...words: readonly (string | number)[]): Promise<string> {
    this.#child.stdin?.write(`${words.join(' ')}\n`);
    return await this.#line();
  }

  async #line(): Promise<string> {
    const { value, done } = await this.#lines.next();
    if (done === true) throw new Error('the process has ended');
    return value;
  }

  async [Symbol.asyncDispose](): Promise<void> {
    const gone = this.#child.exitCode === null ? once(this.#child, 'close') : null;
    this.#child.kill('SIGKILL');
    await gone;
    this.#reader.close();
  }
}
