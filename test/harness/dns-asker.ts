/** Asks for names without end, in a container, and keeps what was answered. */
import { type ChildProcessByStdio, spawn } from 'node:child_process';
import type { Readable } from 'node:stream';
import { fileURLToPath } from 'node:url';
import type { Ask } from './name-history.ts';
import { inContainer } from './whoami.ts';

const PROCESS = fileURLToPath(new URL('./dns-asker-process.ts', import.meta.url));
/** Docker's resolver in a container. */
const DOCKERS = '127.0.0.11';

export interface Form {
  /** As asked for. */
  readonly asked: string;
  /** Whose it is. */
  readonly name: string;
}

export class DnsAsker implements AsyncDisposable {
  readonly asks: Ask[] = [];
  readonly #child: ChildProcessByStdio<null, Readable, Readable>;
  readonly #closed: Promise<void>;
  #errors = '';
  #rest = '';

  private constructor(host: string, forms: readonly Form[], command: readonly string[]) {
    const [file = '', ...args] = command;
    this.#child = spawn(file, args, { stdio: ['ignore', 'pipe', 'pipe'] });
    this.#closed = new Promise((resolve) => this.#child.once('close', () => resolve()));
    this.#child.on('error', (error) => {
      this.#errors += String(error);
    });
    this.#child.stderr.setEncoding('utf8').on('data', (text: string) => {
      this.#errors += text;
    });
    this.#child.stdout.setEncoding('utf8').on('data', (text: string) => {
      const lines = `${this.#rest}${text}`.split('\n');
      this.#rest = lines.pop() ?? '';
      for (const line of lines) {
        const [of, sent, received, ips] = JSON.parse(line) as [number, number, number, string[] | null];
        this.asks.push({ host, name: forms[of]?.name ?? '', sent, received, ips });
      }
    });
  }

  /** @param periodMs between two questions for the same form of a name */
  static async open(host: string, container: string, forms: readonly Form[], periodMs: number): Promise<DnsAsker> {
    const at = await inContainer(host, container);
    const args = [DOCKERS, String(periodMs), ...forms.map((form) => form.asked)];
    return new DnsAsker(host, forms, [...at, process.execPath, PROCESS, ...args]);
  }

  /** What it wrote to stderr: nothing, if all is well. */
  get errors(): string {
    return this.#errors;
  }

  /** When its last answered question was sent; 0: none yet. */
  get latest(): number {
    return this.asks.at(-1)?.sent ?? 0;
  }

  async [Symbol.asyncDispose](): Promise<void> {
    this.#child.kill('SIGTERM');
    await this.#closed;
  }
}
