import { existsSync, readdirSync, readFileSync } from 'node:fs';
import type { Need } from '../cli/lab/packages.ts';
import { run } from '../cli/lab/run.ts';
import { removeTree } from '../cli/lab/trees.ts';
import { debianMirror } from './debian-sources.ts';

/** A Debian below a directory, by debootstrap(8) from the archive that this machine's apt uses. */

const KEYRING = '/usr/share/keyrings/debian-archive-keyring.gpg';
const BUILD_MS = 20 * 60_000;

export const DEBOOTSTRAP_NEEDS: readonly Need[] = [
  { name: 'debootstrap', files: ['debootstrap'] },
  { name: 'debian-archive-keyring', files: [KEYRING] },
  { name: 'gpgv', files: ['gpgv'] },
];

export interface Debian {
  readonly suite: string;
  /** Beside those without which there is no Debian. */
  readonly packages: readonly string[];
  /** Directory that keeps what was loaded for the next time; must exist. */
  readonly cache?: string;
}

/** The archive that is loaded from. */
export const mirror = (): string => debianMirror(aptSources());

/** Makes it anew in the directory. What is there, also of a try that failed, goes first. @throws INTERNAL */
export async function makeDebian(dir: string, { suite, packages, cache }: Debian): Promise<void> {
  await removeTree(dir);
  const flags = ['--variant=minbase', `--include=${packages.join(',')}`, `--keyring=${KEYRING}`];
  const kept = cache === undefined ? [] : [`--cache-dir=${cache}`];
  await run('debootstrap', [...flags, ...kept, suite, dir, mirror()], { timeout: BUILD_MS, env: await proxy() });
  await run('chroot', [dir, 'apt-get', 'clean']);
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
