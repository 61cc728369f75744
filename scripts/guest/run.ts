import {
  chmodSync,
  copyFileSync,
  existsSync,
  mkdtempSync,
  readdirSync,
  readFileSync,
  rmSync,
  writeFileSync,
} from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { fileURLToPath } from 'node:url';
import { SYSTEM_PATH } from '../../cli/lab/packages.ts';
import { WeftError } from '../../lib/errors.ts';
import { ROOT } from '../steps.ts';
import { type Engine, startEngine } from './engine.ts';
import { Follower } from './output.ts';

export interface GuestOptions {
  /** Where the command starts; the project's folder unless told. */
  readonly cwd?: string;
  /** Added to the guest's own environment. */
  readonly env?: Readonly<Record<string, string>>;
  /** Folders of this machine, absolute, that the command may write to; all else that it writes is gone with the guest. */
  readonly writable?: readonly string[];
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
 * network. It boots in three seconds and is gone afterwards, whatever happens. Call prepareGuest() once before.
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
  const kept = { stdout: '', stderr: '', console: '' };
  const keep = (stream: keyof typeof kept) => (chunk: Buffer) => {
    kept[stream] += chunk.toString();
  };
  const listen = (chunk: Buffer): void => {
    kept.console = (kept.console + chunk.toString()).slice(-CONSOLE_KEPT);
    // It would not end by itself.
    if (kept.console.includes('Kernel panic')) end('panic');
  };
  try {
    describe(share, argv, options);
    const follower = new Follower(share, {
      out: options.onStdout ?? keep('stdout'),
      err: options.onStderr ?? keep('stderr'),
      console: listen,
    });
    try {
      engine = startEngine(share, options.memoryMb ?? 6144);
      await engine.ended;
    } finally {
      follower.close();
    }
    return { status: statusOf(share, argv, ending, kept.console), stdout: kept.stdout, stderr: kept.stderr };
  } finally {
    clearTimeout(timer);
    for (const signal of SIGNALS) process.off(signal, end);
    rmSync(share, { recursive: true, force: true });
    // As if we had never listened: others may, and else it is the end of us.
    if (ending !== null && ending !== 'timeout' && ending !== 'panic') process.kill(process.pid, ending);
  }
}

/** Writes what init.pl reads. */
function describe(share: string, argv: readonly string[], options: GuestOptions): void {
  const items = (list: readonly string[]): string => list.map((item) => `${item}\0`).join('');
  const env = {
    PATH: `${join(ROOT, 'node_modules/.bin')}:${SYSTEM_PATH}`,
    HOME: '/run/home',
    LC_ALL: 'C.UTF-8',
    ...options.env,
  };
  const files = {
    argv: items(argv),
    cwd: items([options.cwd ?? ROOT]),
    env: items(Object.entries(env).map(([name, value]) => `${name}=${value}`)),
    mounts: items(options.writable ?? []),
    out: '',
    err: '',
    console: '',
  };
  for (const [name, text] of Object.entries(files)) writeFileSync(join(share, name), text);
  copyFileSync(fileURLToPath(new URL('init.pl', import.meta.url)), join(share, 'init'));
  chmodSync(join(share, 'init'), 0o755);
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
