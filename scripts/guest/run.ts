import { existsSync, mkdtempSync, readdirSync, readFileSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { WeftError } from '../../lib/errors.ts';
import { type Engine, startEngine } from './engine.ts';
import { Follower } from './output.ts';
import { type Described, fillShare } from './share.ts';

export interface GuestOptions extends Described {
  /** 6144 unless told; only what the guest touches is taken. */
  readonly memoryMb?: number;
  /** From the start of its kernel, in milliseconds; 900,000 unless told. */
  readonly timeoutMs?: number;
  /** Gets the command's output as it comes; without it the output is in the result. */
  readonly onStdout?: (chunk: Buffer) => void;
  readonly onStderr?: (chunk: Buffer) => void;
}

export interface GuestResult {
  /** Exit status of the command; 128 + the signal that ended it; 127 when there is no such program. */
  readonly status: number;
  readonly stdout: string;
  readonly stderr: string;
}

/** Characters of the guest's console that an error shows. */
const CONSOLE_KEPT = 4096;
const SIGNALS = ['SIGINT', 'SIGTERM', 'SIGHUP'] as const;
type Ending = NodeJS.Signals | 'timeout' | 'panic';
const SCRATCH = 'weft-guest-';

/**
 * Runs one command as root in a guest: another Linux kernel, with openvswitch, that sees this machine's files and nothing of its
 * network; the project's files as they are now. It boots in three seconds and is gone afterwards, whatever happens. Call
 * prepareGuest() once before.
 * @throws UNAVAILABLE when the guest ended without the command's status, DEADLINE_EXCEEDED after timeoutMs.
 */
export async function runInGuest(argv: readonly string[], options: GuestOptions = {}): Promise<GuestResult> {
  sweep();
  const share = mkdtempSync(join(tmpdir(), `${SCRATCH}${process.pid}-`));
  let engine: Engine | null = null;
  let ending: Ending | null = null;
  const end = (why: Ending): void => {
    ending ??= why;
    engine?.kill();
  };
  for (const signal of SIGNALS) process.on(signal, end);
  const timer = setTimeout(() => end('timeout'), options.timeoutMs ?? 900_000);
  const stdout: Buffer[] = [];
  const stderr: Buffer[] = [];
  let text = '';
  const listen = (chunk: Buffer): void => {
    text = (text + chunk.toString()).slice(-CONSOLE_KEPT);
    // It would not end by itself.
    if (text.includes('Kernel panic')) end('panic');
  };
  try {
    fillShare(share, argv, options);
    const follower = new Follower(share, {
      out: options.onStdout ?? ((chunk) => stdout.push(chunk)),
      err: options.onStderr ?? ((chunk) => stderr.push(chunk)),
      console: listen,
    });
    try {
      engine = startEngine(share, options.memoryMb ?? 6144);
      await engine.ended;
    } finally {
      follower.close();
    }
    const status = statusOf(share, argv, ending, text);
    return { status, stdout: Buffer.concat(stdout).toString(), stderr: Buffer.concat(stderr).toString() };
  } finally {
    clearTimeout(timer);
    for (const signal of SIGNALS) process.off(signal, end);
    rmSync(share, { recursive: true, force: true });
    // As if we had never listened: others may, and else it is the end of us.
    if (ending !== null && ending !== 'timeout' && ending !== 'panic') process.kill(process.pid, ending);
  }
}

function statusOf(share: string, argv: readonly string[], ending: Ending | null, console: string): number {
  const file = join(share, 'status');
  if (existsSync(file)) return Number(readFileSync(file, 'utf8'));
  if (ending === 'timeout') throw new WeftError('DEADLINE_EXCEEDED', `In the guest, ${argv[0]} did not end in time.`);
  if (ending !== null && ending !== 'panic') throw new WeftError('CANCELLED', `The guest was ended by ${ending}.`);
  throw new WeftError('UNAVAILABLE', `The guest ended before ${argv[0]} did.`, {
    hint: `Its console says: ${console.trim()}`,
  });
}

/** Removes what killed runs have left. */
function sweep(): void {
  for (const name of readdirSync(tmpdir())) {
    const pid = new RegExp(`^${SCRATCH}(\\d+)-`).exec(name)?.[1];
    if (pid === undefined || existsSync(`/proc/${pid}`)) continue;
    rmSync(join(tmpdir(), name), { recursive: true, force: true });
  }
}
