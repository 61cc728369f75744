/** Six containers on three hosts in two networks: everyone reaches everyone in a network, and no frame crosses between networks. */
import { spawn } from 'node:child_process';
import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import { cidrOf, formatIp, lastOf, parseIp } from '../../lib/ip.ts';
import {
  addressOf,
  auditClean,
  clean,
  docker,
  on,
  onOk,
  pings,
  sleeper,
  until,
  weftJson,
  weftOk,
} from '../harness/lab.ts';

const HOSTS = ['h1', 'h2', 'h3'] as const;
const NETWORKS = ['reach-a', 'reach-b'] as const;

interface Box {
  readonly host: string;
  readonly name: string;
  readonly network: string;
  readonly ip: string;
  readonly mac: string;
  /** Path of the container's network namespace. */
  readonly sandbox: string;
}

describe('two networks on three hosts', () => {
  const boxes: Box[] = [];

  beforeAll(async () => {
    for (const network of NETWORKS) await weftOk('network', 'create', network);
    await Promise.all(
      HOSTS.flatMap((host) =>
        NETWORKS.map(async (network) => {
          const name = await sleeper(host, `${network}-${host}`, network, '--cap-add', 'NET_ADMIN');
          const ip = await addressOf(host, name, network);
          const field = `{{(index .NetworkSettings.Networks "${network}")`;
          const mac = await docker(host, 'inspect', '-f', `${field}.MacAddress}}`, name);
          const sandbox = await docker(host, 'inspect', '-f', '{{.NetworkSettings.SandboxKey}}', name);
          boxes.push({ host, name, network, ip, mac, sandbox });
        }),
      ),
    );
  });
  afterAll(() => clean(HOSTS));

  it('reaches every pair inside a network', async () => {
    const pairs = boxes.flatMap((a) =>
      boxes.filter((b) => a !== b && a.network === b.network).map((b) => [a, b] as const),
    );
    expect(pairs).toHaveLength(12);
    const results = await Promise.all(pairs.map(([a, b]) => pings(a.host, a.name, b.ip, 3)));
    expect(results.filter((ok) => !ok)).toEqual([]);
  });

  it('delivers no frame across networks, even to a known MAC', async () => {
    const strangers = boxes.filter((b) => b.network === 'reach-a');
    const targets = boxes.filter((b) => b.network === 'reach-b');
    const captures = targets.map((t) => capture(t, `ether src ${strangers.map((s) => s.mac).join(' or ether src ')}`));
    await Promise.all(captures.map((c) => c.ready));
    const attempts = strangers.flatMap((s) => targets.map((t) => [s, t] as const));
    await Promise.all(
      attempts.map(async ([s, t]) => {
        await inside(s, 'route', 'replace', t.ip, 'dev', 'eth0');
        await inside(s, 'neigh', 'replace', t.ip, 'lladdr', t.mac, 'dev', 'eth0');
        await on(s.host, 'docker', 'exec', s.name, 'ping', '-c', '3', '-i', '0.1', '-w', '1', t.ip);
        await on(s.host, 'docker', 'exec', s.name, 'arping', '-c', '1', '-w', '1', '-I', 'eth0', t.ip);
      }),
    );
    // What the captures would see, they see: a frame that may pass is there.
    const [one, two] = targets;
    if (one === undefined || two === undefined) throw new Error('no targets');
    const control = capture(two, `ether src ${one.mac}`);
    await control.ready;
    expect(await pings(one.host, one.name, two.ip)).toBe(true);
    expect(await control.stop()).toBeGreaterThan(0);
    expect(await Promise.all(captures.map((c) => c.stop()))).toEqual(targets.map(() => 0));
  });

  it('drops what a container sends under another address or MAC', async () => {
    const [a, b] = boxes.filter((x) => x.network === 'reach-a');
    if (a === undefined || b === undefined) throw new Error('no boxes');
    const forged = a.ip.replace(/\d+$/, '250');
    const seen = capture(b, `src host ${forged}`);
    await seen.ready;
    await docker(a.host, 'exec', a.name, 'ip', 'addr', 'add', `${forged}/20`, 'dev', 'eth0');
    await on(a.host, 'docker', 'exec', a.name, 'ping', '-c', '2', '-W', '1', '-I', forged, b.ip);
    expect(await seen.stop()).toBe(0);
    await docker(a.host, 'exec', a.name, 'ip', 'addr', 'del', `${forged}/20`, 'dev', 'eth0');
  });

  it('carries broadcast to every host of the network and to no other network', async () => {
    const [a, ...others] = boxes.filter((x) => x.network === 'reach-a');
    if (a === undefined) throw new Error('no boxes');
    const filter = `ether src ${a.mac} and ether broadcast`;
    const same = others.map((b) => capture(b, filter));
    const foreign = boxes.filter((x) => x.network === 'reach-b').map((b) => capture(b, filter));
    await Promise.all([...same, ...foreign].map((c) => c.ready));
    await on(a.host, 'docker', 'exec', a.name, 'ping', '-b', '-c', '2', '-W', '1', broadcastOf(a.ip));
    for (const c of same) expect(await c.stop()).toBeGreaterThan(0);
    expect(await Promise.all(foreign.map((c) => c.stop()))).toEqual(foreign.map(() => 0));
  });

  it('shows both networks and six endpoints, and is as it should be', async () => {
    const endpoints = await until('six known endpoints', async () => {
      const list = await weftJson<
        { network: string; host: string; state: string; container: { name: string } | null }[]
      >('endpoint', 'ls');
      const mine = list.filter((e) => e.network.startsWith('reach-'));
      return mine.length === 6 && mine.every((e) => e.container !== null) ? mine : null;
    });
    expect(new Set(endpoints.map((e) => `${e.host} ${e.network}`)).size).toBe(6);
    await auditClean();
  });
});

/** Last address of the /20 that the pool gives to a network. */
const broadcastOf = (ip: string): string => formatIp(lastOf(cidrOf(parseIp(ip), 20)));

/** iproute2 of the host in the container's namespace: busybox cannot set neighbours. */
const inside = (box: Box, ...args: string[]): Promise<string> =>
  onOk(box.host, 'nsenter', `--net=${box.sandbox}`, 'ip', ...args);

/** Counts frames that a container receives, with tcpdump(8) in its namespace: what goes past Open vSwitch is seen too. */
function capture(box: Box, filter: string): { ready: Promise<void>; stop(): Promise<number> } {
  const weft = new URL('../../bin/weft', import.meta.url).pathname;
  const dump = ['tcpdump', '-i', 'eth0', '-nn', '-l', '-q', '--immediate-mode', filter];
  const args = ['lab', 'exec', box.host, 'nsenter', `--net=${box.sandbox}`, ...dump];
  const child = spawn(weft, args, { stdio: ['ignore', 'pipe', 'pipe'] });
  let lines = 0;
  let errors = '';
  const ready = new Promise<void>((resolve, reject) => {
    child.stderr.setEncoding('utf8').on('data', (text: string) => {
      errors += text;
      if (errors.includes('listening on')) resolve();
    });
    child.on('close', () => reject(new Error(`tcpdump: ${errors}`)));
  });
  ready.catch(() => undefined);
  child.stdout.setEncoding('utf8').on('data', (text: string) => {
    lines += text.split('\n').filter((l) => l !== '').length;
  });
  return {
    ready,
    stop: () =>
      new Promise((resolve) => {
        child.on('close', () => resolve(lines));
        child.kill('SIGINT');
      }),
  };
}
