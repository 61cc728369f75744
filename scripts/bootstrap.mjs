/**
 * `node scripts/bootstrap.mjs SCRIPT.ts [ARGS]`: runs a script of this repository on the Node that it needs, from a clone that has
 * nothing yet. Plain JavaScript for any Node from 18 on: the right one is among the npm dependencies that this installs.
 */
import { spawn, spawnSync } from 'node:child_process';
import { existsSync, mkdirSync, rmSync, statSync } from 'node:fs';
import { constants } from 'node:os';
import { fileURLToPath } from 'node:url';

const ROOT = fileURLToPath(new URL('..', import.meta.url));
const LOCK = `${ROOT}.bootstrap.lock`;
const NODE = `${ROOT}node_modules/node/bin/node`;
const INSTALL_MS = 10 * 60 * 1000;

const time = (file) => (existsSync(file) ? statSync(file).mtimeMs : 0);
const installed = () =>
  existsSync(NODE) && time(`${ROOT}node_modules/.package-lock.json`) >= time(`${ROOT}package-lock.json`) - 1000;

/** Two commands started side by side install once: the directory is the lock, and a stale one is broken. */
function install() {
  const until = Date.now() + INSTALL_MS;
  for (;;) {
    try {
      mkdirSync(LOCK);
      break;
    } catch (error) {
      if (error.code !== 'EEXIST' || Date.now() > until) throw error;
      if (Date.now() - time(LOCK) > INSTALL_MS) rmSync(LOCK, { recursive: true, force: true });
      Atomics.wait(new Int32Array(new SharedArrayBuffer(4)), 0, 0, 200);
    }
  }
  try {
    if (installed()) return;
    console.error('installing npm packages …');
    const { status } = spawnSync('npm', ['ci', '--no-audit', '--no-fund', '--loglevel=error'], {
      cwd: ROOT,
      stdio: ['ignore', 2, 2],
    });
    if (status !== 0) process.exit(status ?? 1);
  } finally {
    rmSync(LOCK, { recursive: true, force: true });
  }
}

if (!installed()) install();
const env = { ...process.env, PATH: `${ROOT}node_modules/.bin:${process.env.PATH ?? ''}` };
const child = spawn(NODE, process.argv.slice(2), { cwd: ROOT, stdio: 'inherit', env });
for (const signal of ['SIGINT', 'SIGTERM', 'SIGHUP']) process.on(signal, () => child.kill(signal));
child.on('exit', (code, signal) => process.exit(code ?? 128 + (constants.signals[signal] ?? 0)));
