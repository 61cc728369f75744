import { readFileSync } from 'node:fs';
import { rm } from 'node:fs/promises';
import { WeftError } from '../../lib/errors.ts';
import { run } from './run.ts';

/** Mount points at or below a directory in our mount namespace, deepest first. */
export function mountsBelow(dir: string): string[] {
  return readFileSync('/proc/self/mountinfo', 'utf8')
    .split('\n')
    .map((line) => line.split(' ')[4] ?? '')
    .filter((point) => point === dir || point.startsWith(`${dir}/`))
    .reverse();
}

/** Unmounts what is mounted below, then removes the directory: never a look into something that was mounted there. */
export async function removeTree(dir: string): Promise<void> {
  for (const point of mountsBelow(dir)) await run('umount', ['-l', point]);
  const left = mountsBelow(dir);
  if (left.length > 0)
    throw new WeftError('FAILED_PRECONDITION', `Still mounted: ${left.join(' ')}; ${dir} is left as it is.`);
  await rm(dir, { recursive: true, force: true, maxRetries: 5, retryDelay: 100 });
}
