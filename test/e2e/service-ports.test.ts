/** Ports of hosts that lead to services: whoever is behind them, wherever, sees who calls. */
import { readFile } from 'node:fs/promises';
import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import { settled } from '../harness/drift.ts';
import { auditClean, clean, docker, on, onOk, run, sleeper, until, weft, weftJson, weftOk } from '../harness/lab.ts';
import { type LabStatus, labStatus } from '../harness/lab-direct.ts';
import { Stranger } from '../harness/stranger.ts';
import { atHost, atStranger, inContainer, type Place, Server, whoAmI, whyNot } from '../harness/whoami.ts';

const HOSTS = ['h1', 'h2', 'h3'] as const;
const NET = 'sp-net';
/** Without a container on h3. */
const FAR = 'sp-far';
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
  await weft('service', 'rm', 'sp-entry', '--network', FAR);
  await clean(HOSTS);
  await auditClean();
});

const createIn = (network: string, name: string, ...more: string[]): Promise<string> =>
  weftOk('service', 'create', name, '--network', network, '--selector', 'role=web', ...more);
const create = (name: string, ...more: string[]): Promise<string> => createIn(NET, name, ...more);

/** Until both backends have answered, everybody sees `seen`. */
async function sees(
  from: Place,
  protocol: 'tcp' | 'udp',
  ip: string,
  port: number,
  seen: string,
  times = 6,
): Promise<void> {
  for (let i = 0; i < times; i++) expect(await whoAmI(from, protocol, ip, port)).toBe(seen);
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

  it('is reached by who has sent to the port before it led anywhere, and goes on', async () => {
    const ask = () => whoAmI(atStranger(outside), 'udp', ipOf('h1'), 8202, 45_000);
    expect(await ask()).toBeNull();
    await create('sp-late', '--port', `80:${PORT}/udp`, '--publish', '8202:80');
    await until('it is led in', async () => (await ask()) === outside.ip);
    await weftOk('service', 'rm', 'sp-late', '--network', NET);
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

describe('what ICMP says', () => {
  const BYTES = 300_000;
  const MTU = 1290;
  const wayTo = (address: string): string[] => [address, 'dev', 'eth0', 'mtu', String(MTU)];
  const called = () =>
    ['h1', 'h3'].flatMap((host) => [
      { host, ip: ipOf(host), caller: outside.ip },
      { host, ip: SIX[host as 'h1' | 'h3'], caller: SIX.outside },
    ]);
  let server: Server;
  let container: Place;
  const inside = async (...command: string[]): Promise<string> => {
    const [file = '', ...args] = [...container, ...command];
    const { code, stdout, stderr } = await run(file, args);
    expect(code, stderr).toBe(0);
    return stdout;
  };

  beforeAll(async () => {
    await sleeper('h1', 'sp-large', NET, '--label', 'role=large');
    container = await inContainer('h1', 'sp-large');
    server = await Server.open(container, PORT, BYTES);
    const ports = ['tcp', 'udp'].flatMap((p) => ['--port', `80:${PORT}/${p}`, '--publish', `8500:80/${p}`]);
    await weftOk(
      'service',
      'create',
      'sp-icmp',
      '--network',
      NET,
      '--selector',
      'role=large',
      '--health',
      'none',
      ...ports,
    );
    await weftOk('wait');
  });
  afterAll(async () => {
    for (const { host, caller } of called())
      await on(host, 'ip', 'route', 'del', caller, 'dev', 'eth0', 'mtu', String(MTU));
    await server?.[Symbol.asyncDispose]();
    await weft('service', 'rm', 'sp-icmp', '--network', NET);
    await docker('h1', 'rm', '-f', 'sp-large');
  });

  it('too large for the way from the host to the caller: the container hears of it, wherever it is', async () => {
    for (const { host, ip, caller } of called()) {
      const is6 = ip.includes(':') ? ['-6'] : [];
      await until(`${ip} leads to it`, async () => (await whoAmI(atStranger(outside), 'udp', ip, 8500)) === caller);
      await inside('ip', ...is6, 'route', 'flush', 'cache');
      expect(await inside('ip', 'route', 'get', caller)).not.toContain('mtu');
      await onOk(host, 'ip', 'route', 'add', ...wayTo(caller));
      expect(await whoAmI(atStranger(outside), 'tcp', ip, 8500)).toBe(caller.padEnd(BYTES));
      expect(await inside('ip', 'route', 'get', caller)).toContain(`mtu ${MTU}`);
      await onOk(host, 'ip', 'route', 'del', ...wayTo(caller));
    }
  });

  it('nobody listens: the caller hears of it', async () => {
    await server[Symbol.asyncDispose]();
    for (const { ip } of called()) expect(await whyNot(atStranger(outside), 'udp', ip, 8500)).toContain('ECONNREFUSED');
  });
});

describe('a host without a container of the network', () => {
  const outsiders = () => [
    { ip: ipOf('h3'), seen: outside.ip },
    { ip: SIX.h3, seen: SIX.outside },
  ];
  const publish = (): Promise<string> =>
    createIn(
      FAR,
      'sp-entry',
      ...['tcp', 'udp'].flatMap((p) => ['--port', `80:${PORT}/${p}`, '--publish', `8400:80/${p}`]),
    );
  /** Whether the agent of h3 has been told what is in the network; of others it knows that they exist. */
  const knows = async (): Promise<boolean> => {
    const { id } = await weftJson<{ id: string }>('network', 'inspect', FAR);
    const h3 = lab.hosts.find((h) => h.name === 'h3');
    const view = JSON.parse(await readFile(`${h3?.stateDir}/agent/view.json`, 'utf8')) as {
      interests: { networkId: string }[];
    };
    return view.interests.some((n) => n.networkId === id);
  };
  const closed = async (): Promise<boolean> =>
    (await whoAmI(atStranger(outside), 'tcp', ipOf('h3'), 8400)) === null &&
    !(await onOk('h3', 'nft', 'list', 'table', 'inet', 'weft')).includes('8400');
  const each = async (look: (protocol: 'tcp' | 'udp', ip: string, seen: string) => Promise<unknown>): Promise<void> => {
    for (const protocol of ['tcp', 'udp'] as const)
      for (const { ip, seen } of outsiders()) await look(protocol, ip, seen);
  };
  const leads = (): Promise<void> =>
    each((protocol, ip, seen) => sees(atStranger(outside), protocol, ip, 8400, seen, 2));

  const linkMtu = async (): Promise<number> =>
    (JSON.parse(await onOk('h3', 'ip', '-j', 'link', 'show', 'weft-gw')) as [{ mtu: number }])[0].mtu;

  beforeAll(async () => {
    // Nothing else leads in or out there.
    for (const name of ['sp-all', 'sp-local']) await weftOk('service', 'rm', name, '--network', NET);
    await docker('h3', 'rm', '-f', 'sp-client');
    await weftOk('wait');
    await onOk('h3', 'sysctl', '-qw', 'net.ipv6.conf.all.forwarding=0');
    await weftOk('network', 'create', FAR, '--ipv6', '--mtu', '1380');
    for (const [host, name] of [
      ['h1', 'sp-f1'],
      ['h2', 'sp-f2'],
    ] as const) {
      await sleeper(host, name, FAR, '--label', 'role=web');
      await serve(host, name);
    }
    await weftOk('wait');
    await until('h3 has nothing to do with it', async () => !(await knows()));
    expect(await linkMtu()).toBeGreaterThan(1450);
    await publish();
    await until('both answer', async () => (await healthy('sp-entry')) === 2);
    await weftOk('wait');
  });

  it('leads to the service, which sees who calls', async () => {
    await each(async (protocol, ip, seen) => {
      await until(`${ip} leads to it`, async () => (await whoAmI(atStranger(outside), protocol, ip, 8400)) === seen);
      await sees(atStranger(outside), protocol, ip, 8400, seen, 4);
    });
    await sees(atHost('h1'), 'tcp', ipOf('h3'), 8400, ipOf('h1'), 2);
    await sees(atHost('h3'), 'tcp', ipOf('h3'), 8400, ipOf('h3'), 2);
    await sees(atHost('h3'), 'tcp', '127.0.0.1', 8400, ipOf('h3'), 2);
    expect(await knows()).toBe(true);
    expect(await linkMtu()).toBe(1380);
    await auditClean();
  });

  it('does so for a service of hosts with a container not', async () => {
    await createIn(FAR, 'sp-near', '--port', `80:${PORT}`, '--publish-local', '8401:80');
    await until(
      'h1 leads to it',
      async () => (await whoAmI(atStranger(outside), 'tcp', ipOf('h1'), 8401)) === outside.ip,
    );
    await weftOk('wait');
    expect(await whoAmI(atStranger(outside), 'tcp', ipOf('h3'), 8401)).toBeNull();
    await weftOk('service', 'rm', 'sp-near', '--network', FAR);
  });

  it('goes on while its agent is away, and afterwards', async () => {
    await weftOk('lab', 'kill', 'h3', 'agent');
    await leads();
    await weftOk('lab', 'start', 'h3', 'agent');
    await settled(HOSTS);
    await leads();
    await auditClean();
  });

  it('keeps nothing of it when the last service is gone', async () => {
    await weftOk('service', 'rm', 'sp-entry', '--network', FAR);
    await weftOk('wait');
    await until('the port is closed', closed);
    await until('its agent has forgotten the network', async () => !(await knows()));
    expect(await linkMtu()).toBeGreaterThan(1450);
    await auditClean();
    await publish();
    await until(
      'h3 leads to it again',
      async () => (await whoAmI(atStranger(outside), 'tcp', ipOf('h3'), 8400)) === outside.ip,
    );
  });

  it('has its first container of it, and none again', async () => {
    await sleeper('h3', 'sp-f3', FAR, '--label', 'role=web');
    await serve('h3', 'sp-f3');
    await until('all answer', async () => (await healthy('sp-entry')) === 3);
    await weftOk('wait');
    await leads();
    await servers.get('sp-f3')![Symbol.asyncDispose]();
    servers.delete('sp-f3');
    await docker('h3', 'rm', '-f', 'sp-f3');
    await until('two are left', async () => (await healthy('sp-entry')) === 2);
    await weftOk('wait');
    await leads();
    await auditClean();
  });

  it('keeps nothing of it when the network is gone', async () => {
    for (const [host, name] of [
      ['h1', 'sp-f1'],
      ['h2', 'sp-f2'],
    ] as const) {
      await servers.get(name)![Symbol.asyncDispose]();
      servers.delete(name);
      await docker(host, 'rm', '-f', name);
    }
    await weftOk('network', 'rm', FAR);
    await weftOk('wait');
    await until('the port is closed', closed);
    await auditClean();
  });
});
