/**
 * Brings up the one lab of a test run (three hosts, two coordinators), under a name and a HOME of its own, and removes it.
 * WEFT_TEST_DOCKER_ROOT: the hosts' Docker is that of the system below this directory (scripts/docker-root.ts).
 */
import { spawnSync } from 'node:child_process';
import { rmSync } from 'node:fs';
import { mkdtemp, rm } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { run, WEFT, weft } from './lab.ts';

export default (): Promise<() => Promise<void>> => setup('--hosts', '3', '--coordinators', '2');

/** @param size options of `weft lab up`. @returns what removes the lab. */
export async function setup(...size: string[]): Promise<() => Promise<void>> {
  const home = await mkdtemp(join(tmpdir(), 'weft-test-'));
  process.env['HOME'] = home;
  // A lab that is already there is used as it is and left as it is: for writing tests.
  const kept = process.env['WEFT_TEST_LAB'];
  const name = kept ?? `wt${process.pid}`;
  process.env['WEFT_LAB'] = name;
  let gone = false;
  const down = async (): Promise<void> => {
    if (kept === undefined) await weft('lab', 'down', '--name', name);
    await rm(home, { recursive: true, force: true });
    gone = true;
  };
  // vitest ends without any teardown when it is interrupted, or when a teardown is slow.
  process.once('exit', () => {
    if (gone) return;
    if (kept === undefined) spawnSync(WEFT, ['lab', 'down', '--name', name]);
    rmSync(home, { recursive: true, force: true });
  });
  const root = process.env['WEFT_TEST_DOCKER_ROOT'];
  const docker = root === undefined ? [] : ['--docker-root', root];
  const up = ['lab', 'up', ...size, '--name', name, ...docker];
  const r = await run('bin/weft', up, { timeoutMs: 280_000 });
  if (r.code !== 0) {
    await down();
    throw new Error(`weft lab up: exit ${r.code}\n${r.stdout}${r.stderr}`);
  }
  return down;
}
