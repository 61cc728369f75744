import { spawn } from 'node:child_process';
import { once } from 'node:events';
import { mkdtemp, rm } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterAll, beforeAll, describe, expect, test } from 'vitest';
import { EmbeddedEtcd } from '../../../coordinator/embedded.ts';
import { silentLog } from '../../../lib/log.ts';
import { aSpec, open, until } from './support.ts';

const gone = (pid: number) => (): boolean => {
  try {
    process.kill(pid, 0);
    return false;
  } catch {
    return true;
  }
};

describe('the embedded etcd', () => {
  let stateDir: string;
  const make = (): EmbeddedEtcd => new EmbeddedEtcd({ stateDir, log: silentLog(), died: () => undefined });

  beforeAll(async () => {
    stateDir = await mkdtemp(join(tmpdir(), 'weft-embedded-'));
  });
  afterAll(() => rm(stateDir, { recursive: true, force: true, maxRetries: 5 }));

  test('keeps its data over a restart', async () => {
    const first = make();
    try {
      await using opened = await open(await first.start(), 'one');
      await opened.store.createNetwork(aSpec('kept'));
    } finally {
      await first.close();
    }
    const second = make();
    try {
      await using opened = await open(await second.start(), 'one');
      expect(opened.state.networkByName('default', 'kept')?.vni).toBe(4096);
    } finally {
      await second.close();
    }
  });

  test('dies with a coordinator that is killed', async () => {
    const module = (path: string): string => JSON.stringify(new URL(`../../../${path}`, import.meta.url).href);
    const script = `
      import { readFileSync } from 'node:fs';
      import { EmbeddedEtcd } from ${module('coordinator/embedded.ts')};
      import { silentLog } from ${module('lib/log.ts')};
      const etcd = new EmbeddedEtcd({ stateDir: ${JSON.stringify(stateDir)}, log: silentLog(), died: () => {} });
      await etcd.start();
      console.log(readFileSync('/proc/self/task/' + process.pid + '/children', 'utf8'));
      setInterval(() => {}, 1000);`;
    const stdio = ['ignore', 'pipe', 'inherit'] as const;
    const parent = spawn(process.execPath, ['--input-type=module', '-e', script], { stdio: [...stdio] });
    const [line] = (await once(parent.stdout!, 'data')) as [Buffer];
    const pid = Number(line.toString().trim());
    expect(gone(pid)()).toBe(false);
    parent.kill('SIGKILL');
    await until('etcd is gone', gone(pid));
  });

  test('says what to do when etcd is not installed', async () => {
    const path = process.env.PATH;
    process.env.PATH = '/sbin:/nonexistent';
    try {
      await expect(make().start()).rejects.toMatchObject({
        code: 'UNAVAILABLE',
        hint: expect.stringMatching(/install/),
      });
    } finally {
      process.env.PATH = path;
    }
  });
});
