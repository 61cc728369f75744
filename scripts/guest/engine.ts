import { spawn } from 'node:child_process';
import { closeSync, openSync, statfsSync } from 'node:fs';
import { tmpdir } from 'node:os';
import type { Readable } from 'node:stream';
import { fileURLToPath } from 'node:url';

/** The guest's kernel as a process: starting it, its console, and its certain end. */

export interface Engine {
  /** Settles when the kernel has ended, whatever ended it. Rejects when it could not be started. */
  readonly ended: Promise<void>;
  /** Ends it at once, with every process of it. */
  kill(): void;
}

/**
 * Starts User-Mode Linux on the root file system of this machine, read only, with `share`/init as its first process.
 * Its console goes to `share`/console. It dies with us, even when we are killed (start.pl).
 */
export function startEngine(share: string, memoryMb: number): Engine {
  const kernel = [
    'linux.uml',
    'umid=kernel',
    `uml_dir=${share}`,
    `mem=${memoryMb}M`,
    'rootfstype=hostfs',
    'rootflags=/',
    'ro',
    `init=${share}/init`,
    'con=null',
    'con0=null,fd:2',
    'quiet',
    `weft.share=${share}`,
  ];
  const args = [fileURLToPath(new URL('start.pl', import.meta.url)), String(process.pid), ...kernel];
  const log = openSync(`${share}/console`, 'a');
  const child = spawn('perl', args, {
    // Nothing is said on the last one: it closes when the last process of the guest has ended, and "close" waits for that.
    stdio: ['ignore', log, log, 'pipe'],
    env: { PATH: '/usr/sbin:/usr/bin:/sbin:/bin', TMPDIR: memoryFolder(memoryMb) },
  });
  closeSync(log);
  (child.stdio[3] as Readable).resume();
  const ended = new Promise<void>((resolve, reject) => {
    child.on('error', reject);
    child.on('close', () => resolve());
  });
  ended.catch(() => undefined);
  return { ended, kill: () => child.kill('SIGKILL') };
}

/** The guest's memory is a file, deleted as soon as it is open and as large as what the guest has touched. */
function memoryFolder(memoryMb: number): string {
  try {
    const { bavail, bsize } = statfsSync('/dev/shm');
    if (bavail * bsize > memoryMb * 1024 * 1024) return '/dev/shm';
  } catch {}
  return tmpdir();
}
