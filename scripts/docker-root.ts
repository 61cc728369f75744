import { existsSync, mkdirSync, readdirSync, readFileSync, renameSync, writeFileSync } from 'node:fs';
import { installPackages, takeLock } from '../cli/lab/packages.ts';
import { CACHE_ROOT } from '../cli/lab/paths.ts';
import { run } from '../cli/lab/run.ts';
import { removeTree } from '../cli/lab/trees.ts';
import { WeftError } from '../lib/errors.ts';
import { debianMirror } from './debian-sources.ts';

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
const KEYRING = '/usr/share/keyrings/debian-archive-keyring.gpg';
const BUILD_MS = 20 * 60_000;

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
  const needs = [
    { name: 'debootstrap', files: ['debootstrap'] },
    { name: 'debian-archive-keyring', files: [KEYRING] },
    { name: 'gpgv', files: ['gpgv'] },
  ];
  await installPackages(say, needs);
  mkdirSync(CACHE_ROOT, { recursive: true });
  const lock = await takeLock('/var/lock/weft-docker-root.lock');
  try {
    if (complete()) return;
    const mirror = debianMirror(aptSources());
    say(`Debian ${SUITE} with Docker, from ${mirror} (once)`);
    await removeTree(DIR);
    const part = `${DIR}.part`;
    await removeTree(part);
    const args = ['--variant=minbase', `--include=${PACKAGES.join(',')}`, `--keyring=${KEYRING}`, SUITE, part, mirror];
    try {
      await run('debootstrap', args, { timeout: BUILD_MS, env: await proxy() });
      await run('chroot', [part, 'apt-get', 'clean']);
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

/** What apt reads, in its order. */
function aptSources(): { name: string; text: string }[] {
  const parts = '/etc/apt/sources.list.d';
  const names = existsSync(parts) ? readdirSync(parts).toSorted() : [];
  const files = names.filter((name) => /\.(list|sources)$/.test(name)).map((name) => `${parts}/${name}`);
  return ['/etc/apt/sources.list', ...files]
    .filter((name) => existsSync(name))
    .map((name) => ({ name, text: readFileSync(name, 'utf8') }));
}

/** debootstrap loads with wget, which does not know apt's proxy. */
async function proxy(): Promise<NodeJS.ProcessEnv> {
  const set = async (scheme: string): Promise<[string, string][]> => {
    const told = await run('apt-config', ['dump', '--format', '%v%n', `Acquire::${scheme}::Proxy`]);
    const value = told.trim() || process.env[`${scheme}_proxy`] || '';
    return value === '' || value === 'DIRECT' ? [] : [[`${scheme}_proxy`, value]];
  };
  return Object.fromEntries([...(await set('http')), ...(await set('https'))]);
}
