import { spawn } from 'node:child_process';
import { closeSync, mkdirSync, openSync } from 'node:fs';
import { dirname } from 'node:path';
import { setTimeout as pause } from 'node:timers/promises';
import { WeftError } from '../../lib/errors.ts';
import { SYSTEM_PATH } from './packages.ts';

/** What every program of the lab gets as its environment: nothing of the caller's, so that a lab is the same for everyone. */
export const cleanEnv = (): NodeJS.ProcessEnv => ({
  PATH: SYSTEM_PATH,
  HOME: process.env.HOME ?? '/root',
  LC_ALL: 'C.UTF-8',
});

/** A command line's words: none of them has a space in it. */
export const words = (...lines: readonly string[]): string[] => lines.flatMap((line) => line.split(' '));

export interface RunOptions {
  readonly input?: string;
  readonly env?: NodeJS.ProcessEnv;
  /** Milliseconds; 30,000 unless told. */
  readonly timeout?: number;
}

/** Runs a program to its end. @returns its stdout. @throws INTERNAL with its stderr when the status is not 0. */
export function run(program: string, args: readonly string[], options: RunOptions = {}): Promise<string> {
  return new Promise((resolve, reject) => {
    const child = spawn(program, args, {
      stdio: [options.input === undefined ? 'ignore' : 'pipe', 'pipe', 'pipe'],
      env: { ...cleanEnv(), ...options.env },
      timeout: options.timeout ?? 30_000,
      killSignal: 'SIGKILL',
    });
    let out = '';
    let err = '';
    child.stdout?.setEncoding('utf8').on('data', (text: string) => {
      out += text;
    });
    child.stderr?.setEncoding('utf8').on('data', (text: string) => {
      err += text;
    });
    child.on('error', (cause) =>
      reject(new WeftError('INTERNAL', `${program} could not be run: ${cause.message}`, { cause })),
    );
    child.on('close', (code, signal) => {
      if (code === 0) return resolve(out);
      const how = signal === null ? `status ${code}` : `signal ${signal}`;
      reject(
        new WeftError('INTERNAL', `${program} ${args.join(' ')} ended with ${how}: ${(err || out).trim().slice(-800)}`),
      );
    });
    if (options.input !== undefined) child.stdin?.end(options.input);
  });
}

/** Starts a program that outlives us, its output appended to a file. @returns its pid. */
export function startDaemon(
  program: string,
  args: readonly string[],
  logFile: string,
  env: NodeJS.ProcessEnv = {},
): number {
  mkdirSync(dirname(logFile), { recursive: true });
  const log = openSync(logFile, 'a');
  try {
    const child = spawn(program, args, {
      detached: true,
      stdio: ['ignore', log, log],
      env: { ...cleanEnv(), ...env },
      cwd: '/',
    });
    child.on('error', () => {}); // an undefined pid says it too
    child.unref();
    if (child.pid === undefined) throw new WeftError('INTERNAL', `${program} could not be started.`);
    return child.pid;
  } finally {
    closeSync(log);
  }
}

export interface WaitOptions {
  /** Milliseconds. */
  readonly deadline: number;
  readonly every?: number;
  readonly hint?: string;
}

/** Asks until the answer is not null, false or undefined. @throws DEADLINE_EXCEEDED naming `what`. */
export async function until<T>(
  what: string,
  ask: () => T | null | false | undefined | Promise<T | null | false | undefined>,
  options: WaitOptions,
): Promise<T> {
  const end = performance.now() + options.deadline;
  for (;;) {
    const answer = await ask();
    if (answer !== null && answer !== undefined && answer !== false) return answer;
    if (performance.now() > end) {
      const after = `${Math.round(options.deadline / 1000)} s`;
      throw new WeftError(
        'DEADLINE_EXCEEDED',
        `Not within ${after}: ${what}.`,
        options.hint === undefined ? {} : { hint: options.hint },
      );
    }
    await pause(options.every ?? 25);
  }
}
