import { chmodSync, copyFileSync, cpSync, mkdirSync, readdirSync, rmSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { fileURLToPath } from 'node:url';
import { SYSTEM_PATH } from '../../cli/lab/packages.ts';
import { ROOT } from '../steps.ts';

/** What the guest's first process reads. */
export interface Described {
  /** Where the command starts; the project's folder unless told. */
  readonly cwd?: string;
  /** Added to the guest's own environment. */
  readonly env?: Readonly<Record<string, string>>;
  /** Folders of this machine, absolute, that the command may write to; all else that it writes is gone with the guest. */
  readonly writable?: readonly string[];
}

/** Too large to copy, and not written to by a build. */
const NOT_COPIED = new Set(['node_modules', '.git']);

const COPY_TRIES = 5;

/**
 * Fills the folder that the guest shares with us: init.pl, what it is to do, and a copy of the project. The guest takes that for the
 * project: it has cached the length of a file that is built anew out here meanwhile, and would read nonsense.
 */
export function fillShare(share: string, argv: readonly string[], options: Described): void {
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
    writable: items(options.writable ?? []),
    project: items([ROOT]),
    out: '',
    err: '',
    console: '',
  };
  for (const [name, text] of Object.entries(files)) writeFileSync(join(share, name), text);
  copyFileSync(fileURLToPath(new URL('init.pl', import.meta.url)), join(share, 'init'));
  chmodSync(join(share, 'init'), 0o755);
  for (let left = COPY_TRIES - 1; ; left--) {
    try {
      return copyProject(join(share, 'copy'));
    } catch (error) {
      // Built anew just now: a file that was listed is no longer there.
      if (left === 0 || !(error instanceof Error && 'code' in error && error.code === 'ENOENT')) throw error;
    }
  }
}

function copyProject(to: string): void {
  rmSync(to, { recursive: true, force: true });
  mkdirSync(to);
  for (const name of readdirSync(ROOT)) {
    if (NOT_COPIED.has(name)) continue;
    cpSync(join(ROOT, name), join(to, name), { recursive: true, preserveTimestamps: true });
  }
}
