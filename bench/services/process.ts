/** Servers and callers in the network namespaces of containers, without the lab's command between them. */
import { type ChildProcess, spawn } from 'node:child_process';
import { createInterface } from 'node:readline';
import { fileURLToPath } from 'node:url';
import { until } from '../../test/harness/lab.ts';

const SERVICE = fileURLToPath(new URL('../../test/harness/service-process.ts', import.meta.url));
const CALLERS = fileURLToPath(new URL('./callers-process.ts', import.meta.url));

export interface Call {
  /** Epoch milliseconds: of `callers` when it began, of `calling` when it was over. */
  readonly at: number;
  /** Name of who answered; null: nobody. */
  readonly by: string | null;
}

export interface To {
  readonly ip: string;
  readonly port: number;
}

export class Process implements AsyncDisposable {
  readonly #lines: string[] = [];
  readonly #child: ChildProcess;
  readonly #closed: Promise<void>;
  #errors = '';

  private constructor(netns: string, args: readonly string[]) {
    this.#child = spawn('nsenter', [`--net=${netns}`, process.execPath, ...args], { stdio: ['pipe', 'pipe', 'pipe'] });
    this.#child.stderr?.setEncoding('utf8').on('data', (text: string) => {
      this.#errors += text;
    });
    this.#child.stdin?.on('error', () => undefined);
    createInterface({ input: this.#child.stdout! }).on('line', (line) => void this.#lines.push(line));
    this.#closed = new Promise((resolve) => this.#child.once('close', () => resolve()));
  }

  /** A server that answers with its name; resolves when it listens. @param netns file of a network namespace */
  static async serving(netns: string, port: number, name: string): Promise<Process> {
    const server = new Process(netns, [SERVICE, 'serve', String(port), name]);
    await until(`${name} listens on port ${port}`, () => Promise.resolve(server.#lines[0] === 'ready'), 60_000).catch(
      async (error: unknown) => {
        await server[Symbol.asyncDispose]();
        throw new Error(`${String(error)} ${server.#errors}`);
      },
    );
    return server;
  }

  /** Calls one after the other, so many; ends by itself. */
  static calling(netns: string, { ip, port }: To, count: number): Process {
    return new Process(netns, [SERVICE, 'call', 'tcp', ip, String(port), String(count), '0']);
  }

  /** A call every so often, until it is disposed of. */
  static callers(netns: string, { ip, port }: To, everyMs: number): Process {
    return new Process(netns, [CALLERS, ip, String(port), String(everyMs)]);
  }

  get calls(): Call[] {
    return this.#lines.map((line) => {
      const [at, by = '-'] = line.split(' ');
      return { at: Number(at), by: by === '-' ? null : by };
    });
  }

  /** Resolves when it has ended by itself. */
  closed(): Promise<void> {
    return this.#closed;
  }

  async [Symbol.asyncDispose](): Promise<void> {
    this.#child.kill('SIGKILL');
    await this.#closed;
  }
}
