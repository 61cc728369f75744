/**
 * One long-lived `ip -batch -` (ip(8)): starting a program stops the agent's loop for 5 ms, a line here takes what the kernel takes.
 * It ends with the agent, whose end of the pipe closes.
 */
import { type ChildProcessByStdio, spawn } from 'node:child_process';
import type { Readable, Writable } from 'node:stream';
import { WeftError } from '../../lib/errors.ts';

const TIMEOUT_MS = 10_000;
/** An object that ip does not know: it says so at once and in order, which ends a batch. */
const MARK = 'weft-end-of-batch';
/** After what it has to say of a line that failed (do_batch in iproute2's lib/utils.c). */
const FAILED = /^Command failed .*:(\d+)$/;

type Child = ChildProcessByStdio<Writable, null, Readable>;

interface Batch {
  /** Number of its first line among all that this process has had. */
  readonly first: number;
  /** That of the mark after its last line. */
  readonly end: number;
  readonly errors: Map<number, string>;
  readonly resolve: (errors: ReadonlyMap<number, string>) => void;
  readonly reject: (error: WeftError) => void;
  readonly timer: NodeJS.Timeout;
}

export class IpBatch {
  #child: Child | null = null;
  #queue: Batch[] = [];
  /** Lines written to the child. */
  #written = 0;
  #rest = '';
  /** Said since the last line that failed. */
  #said: string[] = [];
  #closed = false;

  /**
   * Runs lines in order, all of them; batches follow one another.
   * @returns of the lines that failed, by their place, what ip said
   * @throws UNAVAILABLE when ip cannot be started, ends or hangs: what was done of the batch is not known
   */
  run(lines: readonly string[]): Promise<ReadonlyMap<number, string>> {
    if (this.#closed) return Promise.reject(new WeftError('UNAVAILABLE', 'the agent is stopping'));
    this.#child ??= this.#start();
    const child = this.#child;
    const first = this.#written + 1;
    const end = first + lines.length;
    this.#written = end;
    return new Promise((resolve, reject) => {
      const timer = setTimeout(() => this.#lost(child, `ip -batch did not answer in ${TIMEOUT_MS} ms`), TIMEOUT_MS);
      this.#queue.push({ first, end, errors: new Map(), resolve, reject, timer });
      child.stdin.write(`${[...lines, MARK].join('\n')}\n`);
    });
  }

  close(): void {
    this.#closed = true;
    if (this.#child !== null) this.#lost(this.#child, 'the agent is stopping');
  }

  #start(): Child {
    const child = spawn('ip', ['-force', '-batch', '-'], { stdio: ['pipe', 'ignore', 'pipe'] });
    this.#rest = '';
    this.#said = [];
    this.#written = 0;
    child.stderr.setEncoding('utf8').on('data', (text: string) => {
      if (this.#child === child) this.#read(text);
    });
    child.stdin.on('error', () => undefined); // its end is told by close
    child.on('error', (error) => this.#lost(child, `ip cannot be started: ${error.message}`));
    child.on('close', () => this.#lost(child, 'ip -batch ended'));
    return child;
  }

  #read(text: string): void {
    const lines = (this.#rest + text).split('\n');
    this.#rest = lines.pop() ?? '';
    for (const line of lines) {
      const number = FAILED.exec(line)?.[1];
      if (number !== undefined) this.#failed(Number(number));
      else if (line.trim() !== '') this.#said.push(line.trim());
    }
  }

  #failed(line: number): void {
    const said = this.#said.splice(0).join('; ');
    const batch = this.#queue[0];
    if (batch === undefined) return;
    if (line !== batch.end) {
      batch.errors.set(line - batch.first, said);
      return;
    }
    this.#queue.shift();
    clearTimeout(batch.timer);
    batch.resolve(batch.errors);
  }

  #lost(child: Child, why: string): void {
    if (this.#child !== child) return;
    this.#child = null;
    child.kill('SIGKILL');
    for (const batch of this.#queue.splice(0)) {
      clearTimeout(batch.timer);
      batch.reject(new WeftError('UNAVAILABLE', why, { hint: 'is iproute2 installed?' }));
    }
  }
}
