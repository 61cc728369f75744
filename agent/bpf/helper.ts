/** The helper process (datapath/weft-bpf.c has the protocol): requests are lines, answered in order. */
import { type ChildProcess, spawn } from 'node:child_process';
import { WeftError } from '../../lib/errors.ts';

/** What was answered: data lines, then the words after "ok". */
export interface Answer {
  readonly data: readonly string[];
  readonly words: readonly string[];
}

interface Waiting {
  readonly resolve: (answer: Answer) => void;
  readonly reject: (error: WeftError) => void;
  readonly timer: NodeJS.Timeout;
  data: string[];
}

const TIMEOUT_MS = 15_000;
const MAX_WAITING = 1_000;

export class BpfHelper {
  readonly #command: readonly string[];
  #child: ChildProcess | null = null;
  #waiting: Waiting[] = [];
  #rest = '';
  #closed = false;

  /** @param command program and arguments. */
  constructor(command: readonly string[]) {
    this.#command = command;
  }

  /** False before the first request, and after the process has ended: what it had loaded is then to be loaded again. */
  get running(): boolean {
    return this.#child !== null;
  }

  /** Of the process; null while there is none. */
  get pid(): number | null {
    return this.#child?.pid ?? null;
  }

  /**
   * @param text one request, without the last line end.
   * @throws UNAVAILABLE when the helper refuses or is gone, DEADLINE_EXCEEDED when it does not answer (it is ended then).
   */
  ask(text: string): Promise<Answer> {
    if (this.#closed) return Promise.reject(new WeftError('CANCELLED', 'The eBPF helper is closed.'));
    if (this.#waiting.length >= MAX_WAITING)
      return Promise.reject(new WeftError('RESOURCE_EXHAUSTED', 'Too many requests wait for the eBPF helper.'));
    const child = this.#child ?? this.#start();
    return new Promise((resolve, reject) => {
      const timer = setTimeout(() => {
        reject(new WeftError('DEADLINE_EXCEEDED', `The eBPF helper did not answer within ${TIMEOUT_MS} ms.`));
        child.kill('SIGKILL');
      }, TIMEOUT_MS);
      this.#waiting.push({ resolve, reject, timer, data: [] });
      child.stdin?.write(`${text}\n`);
    });
  }

  /** Ends the process; what is attached and pinned stays. */
  async close(): Promise<void> {
    this.#closed = true;
    const child = this.#child;
    if (child === null) return;
    const gone = new Promise<void>((resolve) => child.once('close', () => resolve()));
    child.stdin?.end();
    await gone;
  }

  #start(): ChildProcess {
    const [file = '', ...args] = this.#command;
    const child = spawn(file, args, { stdio: ['pipe', 'pipe', 'ignore'] });
    this.#child = child;
    this.#rest = '';
    child.stdout.setEncoding('utf8');
    child.stdout.on('data', (chunk: string) => {
      if (this.#child === child) this.#read(chunk);
    });
    child.stdin.on('error', () => undefined);
    child.on('error', (error) => this.#gone(child, error.message));
    child.on('close', (code, signal) => this.#gone(child, `ended with ${signal ?? `status ${code}`}`));
    return child;
  }

  #read(chunk: string): void {
    const lines = (this.#rest + chunk).split('\n');
    this.#rest = lines.pop() ?? '';
    for (const line of lines) {
      const first = this.#waiting[0];
      if (first === undefined) continue;
      const [word, ...words] = line.split(' ');
      if (word !== 'ok' && word !== 'error') {
        first.data.push(line);
        continue;
      }
      this.#waiting.shift();
      clearTimeout(first.timer);
      if (word === 'ok') first.resolve({ data: first.data, words });
      else first.reject(new WeftError('UNAVAILABLE', `eBPF: ${words.join(' ')}`));
    }
  }

  #gone(child: ChildProcess, why: string): void {
    if (this.#child !== child) return;
    this.#child = null;
    for (const w of this.#waiting.splice(0)) {
      clearTimeout(w.timer);
      w.reject(new WeftError('UNAVAILABLE', `The eBPF helper (${this.#command.join(' ')}) is gone: ${why}`));
    }
  }
}
