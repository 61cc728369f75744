import { existsSync, mkdirSync, readFileSync, renameSync, writeFileSync } from 'node:fs';
import { installPackages, takeLock } from '../cli/lab/packages.ts';
import { CACHE_ROOT } from '../cli/lab/paths.ts';
import { run } from '../cli/lab/run.ts';
import { removeTree } from '../cli/lab/trees.ts';
import { WeftError } from '../lib/errors.ts';
import { DEBOOTSTRAP_NEEDS, makeDebian, mirror } from './debootstrap.ts';

/**
 * `npm run docker-root`: makes a root file system of Debian 13 with its Docker (26.1), once, and prints where it is:
 * `weft lab up --docker-root DIR` gives the lab's hosts that Docker. debootstrap(8) takes half a minute and 540 MB.
 */
const SUITE = 'trixie';
const DIR = `${CACHE_ROOT}/debian13`;
/** Written last: without it, or with another text, the directory is made anew. */
const MARKER = `${DIR}/.weft-complete`;
const PACKAGES = ['docker.io', 'docker-cli', 'containerd', 'runc', 'iptables', 'ca-certificates'] as const;
const RECIPE = `${SUITE} ${PACKAGES.join(' ')}\n`;

const say = (line: string): void => console.error(`docker-root: ${line}`);
const complete = (): boolean => existsSync(MARKER) && readFileSync(MARKER, 'utf8') === RECIPE;

try {
  if (!complete()) await make();
  console.log(DIR);
} catch (thrown) {
  const error = WeftError.from(thrown);
  say(`${error.message}${error.hint === null ? '' : `\n${error.hint}`}`);
  process.exitCode = 1;
}

async function make(): Promise<void> {
  await installPackages(say, DEBOOTSTRAP_NEEDS);
  mkdirSync(CACHE_ROOT, { recursive: true });
  const lock = await takeLock('/var/lock/weft-docker-root.lock');
  try {
    if (complete()) return;
    say(`Debian ${SUITE} with Docker, from ${mirror()} (once)`);
    await removeTree(DIR);
    const part = `${DIR}.part`;
    try {
      await makeDebian(part, { suite: SUITE, packages: PACKAGES });
      writeFileSync(`${part}/.weft-complete`, RECIPE);
      renameSync(part, DIR);
    } finally {
      await removeTree(part); // it mounts /proc and the like while it works
    }
    say((await run('chroot', [DIR, 'dockerd', '--version'])).trim());
  } finally {
    await lock.release();
  }
}
