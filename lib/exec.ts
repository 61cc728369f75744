import { spawn } from 'node:child_process';
import { WeftError } from './errors.ts';

export interface ExecResult {
  readonly code: number;
  readonly stdout: string;
  readonly stderr: string;
}

const MAX_OUTPUT = 64 * 1024 * 1024;

/**
 * Runs a program with arguments as they are (no shell), feeds it `input`, and collects what it prints.
 * @throws UNAVAILABLE when it cannot be started, DEADLINE_EXCEEDED after `timeoutMs` (it is killed then); a status other than 0 is
 * the caller's to judge.
 */
export function exec(
  file: string,
  args: readonly string[],
  options: { input?: string; timeoutMs?: number; env?: NodeJS.ProcessEnv } = {},
): Promise<ExecResult> {
  const timeoutMs = options.timeoutMs ?? 10_000;
  return new Promise((resolve, reject) => {
    const child = spawn(file, args, { stdio: ['pipe', 'pipe', 'pipe'], ...(options.env ? { env: options.env } : {}) });
    const chunks: { out: Buffer[]; err: Buffer[] } = { out: [], err: [] };
    let size = 0;
    const collect = (to: Buffer[]) => (chunk: Buffer) => {
      size += chunk.length;
      if (size <= MAX_OUTPUT) to.push(chunk);
      else child.kill('SIGKILL');
    };
    const timer = setTimeout(() => {
      child.kill('SIGKILL');
      reject(new WeftError('DEADLINE_EXCEEDED', `${file} did not end within ${timeoutMs} ms`));
    }, timeoutMs);
    child.stdout.on('data', collect(chunks.out));
    child.stderr.on('data', collect(chunks.err));
    child.on('error', (error) => {
      clearTimeout(timer);
      reject(
        new WeftError('UNAVAILABLE', `${file} cannot be started: ${error.message}`, { hint: `is ${file} installed?` }),
      );
    });
    child.on('close', (code) => {
      clearTimeout(timer);
      resolve({
        code: code ?? 128,
        stdout: Buffer.concat(chunks.out).toString(),
        stderr: Buffer.concat(chunks.err).toString(),
      });
    });
    // A program that ends early closes its input; what it says then is in its status.
    child.stdin.on('error', () => undefined);
    child.stdin.end(options.input ?? '');
  });
}
