/** Ports of hosts that lead to services: whoever is behind them, wherever, sees who calls. */
import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import { auditClean, clean, docker, on, onOk, sleeper, until, weft, weftJson, weftOk } from '../harness/lab.ts';
import { type LabStatus, labStatus } from '../harness/lab-direct.ts';
import { Stranger } from '../harness/stranger.ts';
import { atHost, atStranger, inContainer, type Place, Server, whoAmI } from '../harness/whoami.ts';

const HOSTS = ['h1', 'h2', 'h3'] as const;
const NET = 'sp-net';
const PORT = 7000;
/** What an IPv6 underlay would have; hosts of the lab have none by themselves. */
const SIX = { h1: 'fd99::1', h2: 'fd99::2', h3: 'fd99::3', outside: 'fd99::14' } as const;

let lab: LabStatus;
let outside: Stranger;
const servers = new Map<string, Server>();
const ipOf = (name: string): string => lab.hosts.find((h) => h.name === name)?.underlay.ip ?? '';
const serve = async (host: string, name: string): Promise<void> =>
  void servers.set(name, await Server.open(await inContainer(host, name), PORT));
const conflicts = async (): Promise<string[]> =>
  (await weftJson<{ conflicts: { host: string; message: string }[] }>('status')).conflicts.map(
    (c) => `${c.host}: ${c.message}`,
  );
const healthy = async (service: string): Promise<number> =>
  (await weftJson<{ backends: { state: string }[] }>('service', 'inspect', service)).backends.filter(
    (b) => b.state === 'healthy',
  ).length;

beforeAll(async () => {
  lab = await labStatus();
  outside = await Stranger.open(lab);
  for (const host of HOSTS) await onOk(host, 'ip', 'addr', 'add', `${SIX[host]}/64`, 'dev', 'eth0', 'nodad');
  await outside.run('ip', 'addr', 'add', `${SIX.outside}/64`, 'dev', 'eth0', 'nodad');
  await weftOk('network', 'create', NET, '--ipv6');
  await Promise.all([
    sleeper('h1', 'sp-b1', NET, '--label', 'role=web'),
    sleeper('h2', 'sp-b2', NET, '--label', 'role=web'),
    sleeper('h3', 'sp-client', NET),
  ]);
  await serve('h1', 'sp-b1');
  await serve('h2', 'sp-b2');
});

afterAll(async () => {
  await Promise.all([...servers.values()].map((server) => server[Symbol.asyncDispose]()));
  await outside?.[Symbol.asyncDispose]();
  for (const host of HOSTS) await on(host, 'ip', 'addr', 'del', `${SIX[host]}/64`, 'dev', 'eth0');
  for (const name of ['sp-all', 'sp-local', 'sp-taken']) await weft('service', 'rm', name, '--network', NET);
  await clean(HOSTS);
  await auditClean();
});

const create = (name: string, ...more: string[]): Promise<string> =>
  weftOk('service', 'create', name, '--network', NET, '--selector', 'role=web', ...more);

/** Until both backends have answered, everybody sees `seen`. */
async function sees(from: Place, protocol: 'tcp' | 'udp', ip: string, port: number, seen: string): Promise<void> {
  for (let i = 0; i < 6; i++) expect(await whoAmI(from, protocol, ip, port)).toBe(seen);
}

describe('a service that every host leads to', () => {
  beforeAll(async () => {
    const ports = [
      '--port',
      `80:${PORT}`,
      '--port',
      `80:${PORT}/udp`,
      '--publish',
      '8200:80/tcp',
      '--publish',
      '8200:80/udp',
    ];
    await create('sp-all', ...ports);
    await weftOk('wait');
    await until('both answer', async () => (await healthy('sp-all')) === 2);
  });

  it.each(['tcp', 'udp'] as const)('is reached by each host, and sees who calls: %s', async (protocol) => {
    for (const host of HOSTS) {
      await until(
        `${host} leads to it`,
        async () => (await whoAmI(atStranger(outside), protocol, ipOf(host), 8200)) !== null,
      );
      await sees(atStranger(outside), protocol, ipOf(host), 8200, outside.ip);
      await sees(atStranger(outside), protocol, SIX[host], 8200, SIX.outside);
    }
    await sees(atHost('h2'), protocol, ipOf('h1'), 8200, ipOf('h2'));
    await sees(atHost('h1'), protocol, ipOf('h1'), 8200, ipOf('h1'));
    await sees(atHost('h1'), protocol, '127.0.0.1', 8200, ipOf('h1'));
  });

  it('passes over who does not answer', async () => {
    await servers.get('sp-b2')![Symbol.asyncDispose]();
    servers.delete('sp-b2');
    await until('one is left', async () => (await healthy('sp-all')) === 1);
    await weftOk('wait');
    for (let i = 0; i < 10; i++) expect(await whoAmI(atStranger(outside), 'tcp', ipOf('h3'), 8200)).toBe(outside.ip);
    await serve('h2', 'sp-b2');
    await until('both answer', async () => (await healthy('sp-all')) === 2);
  });

  it('has the port for itself; what has it already keeps it', async () => {
    const r = await on(
      'h1',
      'docker',
      'run',
      '-d',
      '--name',
      'sp-other',
      '--network',
      NET,
      '-p',
      '8200:80',
      'weft/lab:1',
      'sleep',
      '1000',
    );
    expect(r).toMatchObject({ code: 125, stderr: expect.stringContaining('8200/tcp is taken') });
    await on('h1', 'docker', 'rm', '-f', 'sp-other');
    await sleeper('h1', 'sp-holder', NET, '-p', `8201:${PORT}`);
    await create('sp-taken', '--port', `80:${PORT}`, '--publish', '8201:80');
    await until('h1 says so', async () =>
      (await conflicts()).some((c) => c.startsWith('h1: port 8201/tcp') && c.includes('sp-taken')),
    );
    await until(
      'h2 leads to it',
      async () => (await whoAmI(atStranger(outside), 'tcp', ipOf('h2'), 8201)) === outside.ip,
    );
    await docker('h1', 'rm', '-f', 'sp-holder');
    await until(
      'h1 leads to it too',
      async () => (await whoAmI(atStranger(outside), 'tcp', ipOf('h1'), 8201)) === outside.ip,
    );
    await weftOk('service', 'rm', 'sp-taken', '--network', NET);
    await until(
      'nobody does any more',
      async () => (await whoAmI(atStranger(outside), 'tcp', ipOf('h1'), 8201)) === null,
    );
  });
});

it('a service that hosts with a container of it lead to', async () => {
  await create('sp-local', '--port', `80:${PORT}`, '--publish-local', '8300:80');
  await weftOk('wait');
  for (const host of ['h1', 'h2'])
    await until(
      `${host} leads to it`,
      async () => (await whoAmI(atStranger(outside), 'tcp', ipOf(host), 8300)) === outside.ip,
    );
  expect(await whoAmI(atStranger(outside), 'tcp', ipOf('h3'), 8300)).toBeNull();
});
