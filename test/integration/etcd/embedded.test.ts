import { spawn } from 'node:child_process';
import { once } from 'node:events';
import { mkdtemp, rm } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterAll, beforeAll, describe, expect, test } from 'vitest';
import { startEmbedded } from '../../../coordinator/embedded.ts';
import { silentLog } from '../../../lib/log.ts';
import { aSpec, open, until } from './support.ts';

describe('the embedded etcd', () => {
  let stateDir: string;

  beforeAll(async () => {
    stateDir = await mkdtemp(join(tmpdir(), 'weft-embedded-'));
  });
  afterAll(() => rm(stateDir, { recursive: true, force: true, maxRetries: 5 }));

  test('starts, keeps its data over a restart, and is gone after close', async () => {
    let pid = 0;
    {
      await using etcd = await startEmbedded({ stateDir, log: silentLog() });
      pid = etcd.pid;
      await using opened = await open(etcd.endpoint, 'one');
      await opened.store.createNetwork(aSpec('kept'));
    }
    expect(() => process.kill(pid, 0)).toThrow();
    await using etcd = await startEmbedded({ stateDir, log: silentLog() });
    await using opened = await open(etcd.endpoint, 'one');
    expect(opened.state.networkByName('default', 'kept')?.vni).toBe(4096);
  });

  test('dies with a coordinator that is killed', async () => {
    const script = `
      import { startEmbedded } from ${JSON.stringify(new URL('../../../coordinator/embedded.ts', import.meta.url).href)};
      import { silentLog } from ${JSON.stringify(new URL('../../../lib/log.ts', import.meta.url).href)};
      const etcd = await startEmbedded({ stateDir: ${JSON.stringify(stateDir)}, log: silentLog() });
      console.log(etcd.pid);
      setInterval(() => {}, 1000);`;
    const parent = spawn(process.execPath, ['--input-type=module', '-e', script], { stdio: ['ignore', 'pipe', 'inherit'] });
    const [line] = (await once(parent.stdout, 'data')) as [Buffer];
    const pid = Number(line.toString());
    parent.kill('SIGKILL');
    await until('etcd is gone', () => {
      try {
        process.kill(pid, 0);
        return false;
      } catch {
        return true;
      }
    });
  });

  test('says what is wrong when etcd is not installed', async () => {
    const attempt = startEmbedded({ stateDir, log: silentLog(), program: '/nonexistent/etcd' });
    await expect(attempt).rejects.toMatchObject({ code: 'UNAVAILABLE' });
  });
});
