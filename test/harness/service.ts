/** Servers behind a service, and callers of it, in containers of the lab. */
import { type ChildProcess, spawn } from 'node:child_process';
import { createInterface } from 'node:readline';
import { fileURLToPath } from 'node:url';
import { inContainer } from './whoami.ts';

const PROCESS = fileURLToPath(new URL('./service-process.ts', import.meta.url));

/** A process in a container's network, and the lines that it says. */
class Child implements AsyncDisposable {
  readonly lines: string[] = [];
  readonly #child: ChildProcess;
  readonly #closed: Promise<void>;
  #said = Promise.withResolvers<void>();

  protected constructor(child: ChildProcess) {
    this.#child = child;
    let errors = '';
    child.stderr?.setEncoding('utf8').on('data', (text: string) => {
      errors += text;
    });
    createInterface({ input: child.stdout! }).on('line', (line) => {
      this.lines.push(line);
      this.#said.resolve();
      this.#said = Promise.withResolvers();
    });
    this.#closed = new Promise((resolve) => child.once('close', () => resolve()));
    void this.#closed.then(() => {
      if (this.lines.length === 0) this.lines.push(`ended: ${errors}`);
      this.#said.resolve();
    });
  }

  protected static async spawn(host: string, container: string, args: readonly string[]): Promise<ChildProcess> {
    const [file, ...words] = [...(await inContainer(host, container)), process.execPath, PROCESS, ...args];
    return spawn(file!, words, { stdio: ['pipe', 'pipe', 'pipe'] });
  }

  /** The next line that it says. */
  async next(): Promise<string> {
    const { length } = this.lines;
    while (this.lines.length === length && this.#child.exitCode === null) await this.#said.promise;
    return this.lines[length] ?? '';
  }

  say(line: string): void {
    this.#child.stdin?.write(`${line}\n`);
  }

  /** Resolves when it has ended by itself. */
  closed(): Promise<void> {
    return this.#closed;
  }

  async [Symbol.asyncDispose](): Promise<void> {
    this.#child.kill('SIGTERM');
    await this.#closed;
  }
}

/** Answers with its container's name, and whom it sees. */
export class Backend extends Child {
  static async open(host: string, container: string, port: number): Promise<Backend> {
    const backend = new Backend(await Child.spawn(host, container, ['serve', String(port), container]));
    if (backend.lines[0] === undefined) await backend.next();
    if (backend.lines[0] !== 'ready') throw new Error(`${container}: ${backend.lines[0]}`);
    return backend;
  }
}

/** A connection that stays. */
export class Held extends Child {
  static async open(host: string, container: string, ip: string, port: number): Promise<Held> {
    const held = new Held(await Child.spawn(host, container, ['hold', ip, String(port)]));
    if (held.lines[0] === undefined) await held.next();
    if (held.lines[0] !== 'ready') throw new Error(`${container} to ${ip}: ${held.lines[0]}`);
    return held;
  }

  /** Who answers now. */
  async ask(): Promise<string> {
    const answer = this.next();
    this.say('?');
    return (await answer).split(' ')[0] ?? '';
  }
}

export interface Call {
  /** When it was over, epoch milliseconds. */
  readonly at: number;
  /** Container that answered; null: nobody did. */
  readonly by: string | null;
  /** Address that it saw. */
  readonly saw: string;
}

/** Calls a service again and again. */
export class Caller extends Child {
  static async open(
    host: string,
    container: string,
    to: { protocol: 'tcp' | 'udp'; ip: string; port: number; count?: number; pauseMs?: number },
  ): Promise<Caller> {
    const args = ['call', to.protocol, to.ip, String(to.port), String(to.count ?? 0), String(to.pauseMs ?? 20)];
    return new Caller(await Child.spawn(host, container, args));
  }

  get calls(): Call[] {
    return this.lines.map((line) => {
      const [at, by = '', saw = ''] = line.split(' ');
      return { at: Number(at), by: by === '-' ? null : by, saw };
    });
  }

  since(at: number): Call[] {
    return this.calls.filter((c) => c.at >= at);
  }
}

/** @returns its calls, `count` of them */
export async function calls(
  host: string,
  container: string,
  to: { protocol: 'tcp' | 'udp'; ip: string; port: number },
  count = 40,
): Promise<Call[]> {
  await using caller = await Caller.open(host, container, { ...to, count, pauseMs: 0 });
  await caller.closed();
  return caller.calls;
}

/** Containers that answered, each once, sorted; "nobody" among them where a call was not answered. */
export const answerers = (some: readonly Call[]): string[] => [...new Set(some.map((c) => c.by ?? 'nobody'))].sort();
