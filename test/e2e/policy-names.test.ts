/** Names in policies, over real hosts: a container reaches what its resolver has told it, from the first packet, and nothing else. */
import { spawn } from 'node:child_process';
import { once } from 'node:events';
import { mkdtemp, rm, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { fileURLToPath } from 'node:url';
import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import { addressOf, auditClean, clean, on, onOk, run, sleeper, until, WEFT, weftOk } from '../harness/lab.ts';
import { labStatus } from '../harness/lab-direct.ts';
import { Stranger } from '../harness/stranger.ts';
import { atStranger, inContainer, Server } from '../harness/whoami.ts';

const HOSTS = ['h1', 'h2', 'h3'];
const NET = 'pn';
const PORT = 8000;
const UPSTREAM = fileURLToPath(new URL('../harness/upstream-process.ts', import.meta.url));

/** What a container may call is what the names stand for. */
const POLICY = `
name: out
network: ${NET}
select: { app: web }
egress:
  - action: allow
    to: [{ name: "*.example.test" }, { name: Exact.Test. }, { name: db-1.${NET}.weft }]
    ports: ["${PORT}/tcp"]
  - action: reject
`;

let one: Stranger;
let two: Stranger;
let dir = '';
const stop: (() => Promise<unknown>)[] = [];

/** A connection to a name or an address, from a container: answered or not. */
async function reaches(to: string): Promise<boolean> {
  const r = await on('h1', 'docker', 'exec', 'web-1', 'nc', '-w', '3', to, String(PORT));
  return r.code === 0 && r.stdout !== '';
}

beforeAll(async () => {
  const lab = await labStatus();
  one = await Stranger.open(lab, 0);
  stop.push(() => one[Symbol.asyncDispose]());
  two = await Stranger.open(lab, 1);
  stop.push(() => two[Symbol.asyncDispose]());
  await weftOk('network', 'create', NET);
  await sleeper('h1', 'web-1', NET, '--label', 'app=web');
  await sleeper('h2', 'db-1', NET);
  await weftOk('wait');
  for (const at of [atStranger(one), atStranger(two), await inContainer('h2', 'db-1')]) {
    const server = await Server.open(at, PORT);
    stop.push(() => server[Symbol.asyncDispose]());
  }
  const zone = {
    'one.example.test': [['A', one.ip]],
    'alias.example.test': [['CNAME', 'edge.elsewhere.test']],
    'edge.elsewhere.test': [['A', two.ip]],
    'exact.test': [['A', two.ip]],
    'rebind.example.test': [['A', await addressOf('h2', 'db-1', NET)]],
    'host.example.test': [['A', lab.hosts[1]?.underlay.ip]],
    'example.test': [['A', two.ip]],
  };
  const [file, ...args] = [...atStranger(one), process.execPath, UPSTREAM, one.ip, JSON.stringify(zone)];
  const upstream = spawn(file, args, { stdio: ['ignore', 'pipe', 'inherit'] });
  await once(upstream.stdout, 'data');
  stop.push(async () => {
    upstream.kill();
    await once(upstream, 'close');
  });
  // The host's resolver is that of the world.
  dir = await mkdtemp(join(tmpdir(), 'weft-names-'));
  await writeFile(join(dir, 'resolv.conf'), `nameserver ${one.ip}\n`);
  await onOk('h1', 'mount', '--bind', join(dir, 'resolv.conf'), '/etc/resolv.conf');
  stop.push(() => onOk('h1', 'umount', '/etc/resolv.conf'));
  await until('names of the world are found', () => reaches('one.example.test'), 20_000);
  const r = await run(WEFT, ['policy', 'apply', '-f', '-'], { input: POLICY });
  if (r.code !== 0) throw new Error(r.stderr);
});

afterAll(async () => {
  for (const end of stop.toReversed()) await end();
  await rm(dir, { recursive: true, force: true });
  await clean(HOSTS);
  await weftOk('wait');
  await auditClean();
});

describe('a name in a policy', () => {
  it('opens what it stands for, once it has been asked for, with the first packet', async () => {
    expect(await reaches(one.ip)).toBe(false);
    // What is not allowed is rejected: were the answer there before its flow, this would fail.
    expect(await reaches('ONE.example.test')).toBe(true);
    expect(await reaches(one.ip)).toBe(true);
    expect(await reaches(two.ip)).toBe(false);
    // "*." is what is below a name, not the name.
    expect(await reaches('example.test')).toBe(false);
    expect(await reaches('alias.example.test')).toBe(true);
    expect(await reaches(two.ip)).toBe(true);
    await auditClean();
  });

  it('goes on over a restart of the agent', async () => {
    await weftOk('lab', 'kill', 'h1', 'agent');
    expect(await reaches(one.ip)).toBe(true);
    await weftOk('lab', 'start', 'h1', 'agent');
    await weftOk('wait');
    expect([await reaches(one.ip), await reaches(two.ip)]).toEqual([true, true]);
    await auditClean();
  });

  it('opens nothing of the mesh, nor of its hosts, unless it is a name of the mesh', async () => {
    expect(await reaches('rebind.example.test')).toBe(false);
    expect(await reaches('host.example.test')).toBe(false);
    expect(await reaches(`db-1.${NET}.weft`)).toBe(true);
  });

  it('is whatever case it is written in, and goes with its policy', async () => {
    expect(await reaches('exact.test')).toBe(true);
    await weftOk('policy', 'rm', 'out', '--network', NET);
    expect(await reaches('example.test')).toBe(true);
    await auditClean();
  });
});
