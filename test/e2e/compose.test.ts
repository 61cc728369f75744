/** One compose file, started on two hosts by their contexts: services find each other by their names (docs/dns.md). */
import { mkdtempSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterAll, beforeAll, expect, it } from 'vitest';
import { addressOf, auditClean, clean, IMAGE, pings, run, sleeper, until, weftOk } from '../harness/lab.ts';
import { labStatus } from '../harness/lab-direct.ts';
import { find } from '../harness/lookup.ts';

const HOSTS = ['h1', 'h2', 'h3'];
const NETWORK = 'co-shop';
const dir = mkdtempSync(join(tmpdir(), 'weft-compose-'));
const file = join(dir, 'compose.yaml');
/** Where contexts are kept, for docker as for docker-compose. */
const env = { DOCKER_CONFIG: dir };

/** As a user does at a desk: neither program runs on a host. */
async function compose(host: string, ...args: string[]): Promise<void> {
  const all = ['--context', host, '--no-ansi', '-f', file, '-p', 'co', ...args];
  const r = await run('/usr/bin/docker-compose', all, { env });
  expect({ args, code: r.code, stderr: r.stderr }).toMatchObject({ args, code: 0 });
}

beforeAll(async () => {
  await weftOk('network', 'create', NETWORK);
  await weftOk('wait');
  // docker-compose looks for contexts beside this file.
  writeFileSync(join(dir, 'config.json'), '{}');
  for (const host of (await labStatus()).hosts) {
    const made = ['context', 'create', host.name, '--docker', `host=unix://${host.dockerSocket}`];
    expect((await run('/usr/bin/docker', made, { env })).code).toBe(0);
  }
  const service = `{ image: '${IMAGE}', command: sleep 100000, stop_grace_period: 0s }`;
  writeFileSync(
    file,
    `version: '3.7'
services:
  web: ${service}
  db: ${service}
networks:
  default: { name: ${NETWORK}, external: true }
`,
  );
});

afterAll(async () => {
  rmSync(dir, { recursive: true, force: true });
  await clean(HOSTS);
  await auditClean();
});

it('a service on one host finds one on the other, by every form of its name', async () => {
  await Promise.all([compose('h1', 'up', '-d', 'web'), compose('h2', 'up', '-d', 'db')]);
  const db = await addressOf('h2', 'co_db_1', NETWORK);
  const web = await addressOf('h1', 'co_web_1', NETWORK);
  for (const name of ['db', `db.${NETWORK}`, `db.${NETWORK}.weft`, 'co_db_1'])
    await until(`${name} is known on h1`, async () => (await find('h1', 'co_web_1', name)).join() === db, 5_000);
  await until('web is known on h2', async () => (await find('h2', 'co_db_1', 'web')).join() === web, 5_000);
  expect(await pings('h1', 'co_web_1', 'db')).toBe(true);
  expect(await pings('h2', 'co_db_1', 'web')).toBe(true);
});

it('started whole on both, each host’s Docker answers with its own; below .weft, and elsewhere, all are found', async () => {
  await Promise.all([compose('h1', 'up', '-d'), compose('h2', 'up', '-d')]);
  const db = await Promise.all(['h1', 'h2'].map((host) => addressOf(host, 'co_db_1', NETWORK)));
  const both = JSON.stringify(db.toSorted());
  for (const [i, host] of ['h1', 'h2'].entries()) {
    expect(await find(host, 'co_web_1', 'db')).toEqual([db[i]]);
    await until(
      `all are found on ${host}`,
      async () => JSON.stringify(await find(host, 'co_web_1', `db.${NETWORK}.weft`)) === both,
      5_000,
    );
  }
  await sleeper('h3', 'co-else', NETWORK);
  await until('all are found on h3', async () => JSON.stringify(await find('h3', 'co-else', 'db')) === both, 5_000);
});

it('down on one host leaves the other’s', async () => {
  await compose('h1', 'down');
  const left = await addressOf('h2', 'co_db_1', NETWORK);
  const alone = async (): Promise<boolean> => (await find('h3', 'co-else', 'db')).join() === left;
  await until('only that of h2 is found', alone, 5_000);
  await compose('h2', 'down');
  await until('none is found', async () => (await find('h3', 'co-else', `db.${NETWORK}.weft`)).length === 0, 5_000);
});
