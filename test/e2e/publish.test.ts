/** The way out of the mesh and in: egress by the host, published ports, and whom the other end sees. */
import { afterAll, beforeAll, describe, expect, it } from 'vitest';
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
  weft,
  weftJson,
  weftOk,
} from '../harness/lab.ts';
import { type LabStatus, labStatus } from '../harness/lab-direct.ts';
import { Stranger } from '../harness/stranger.ts';
import { atHost, atStranger, inContainer, type Place, Server, whoAmI } from '../harness/whoami.ts';
import { boxOf, Ear } from '../harness/wire.ts';

const HOSTS = ['h1', 'h2'];
const OUT = 'pb-out';
const SHUT = 'pb-shut';
const DOCKERS = 'pb-dockers';
const PORT = 7000;
/** What an IPv6 underlay would have; hosts of the lab have none by themselves. */
const SIX = { h1: 'fd99::1', h2: 'fd99::2', outside: 'fd99::14' } as const;

let lab: LabStatus;
let outside: Stranger;
const servers: Server[] = [];
/** From, to, port, bytes in hex. */
const SEND_UDP =
  '($l, $p, $n, $d) = @ARGV; IO::Socket::INET->new(Proto => "udp", LocalAddr => $l, PeerAddr => $p, PeerPort => $n)->send(pack("H*", $d)) or die $!';
const ipOf = (name: string): string => lab.hosts.find((h) => h.name === name)?.underlay.ip ?? '';
const serve = async (at: Place, port = PORT): Promise<void> => void servers.push(await Server.open(at, port));
const ports = (container: string) => weftJson<{ hostIp: string; hostPort: number }[]>('port', container);

beforeAll(async () => {
  lab = await labStatus();
  outside = await Stranger.open(lab);
  for (const host of ['h1', 'h2'] as const)
    await onOk(host, 'ip', 'addr', 'add', `${SIX[host]}/64`, 'dev', 'eth0', 'nodad');
  await outside.run('ip', 'addr', 'add', `${SIX.outside}/64`, 'dev', 'eth0', 'nodad');
  await weftOk('network', 'create', OUT, '--ipv6');
  await weftOk('network', 'create', SHUT, '--internal');
  await weftOk('network', 'create', DOCKERS, '--publish-by', 'docker');
  await Promise.all([
    sleeper('h1', 'pb-a', OUT, '-p', `8000:${PORT}`, '-p', `8000:${PORT}/udp`),
    sleeper('h1', 'pb-near', OUT),
    sleeper('h2', 'pb-b', OUT, '-p', `${ipOf('h2')}:8001:${PORT}`, '-p', `127.0.0.1:8002-8010:${PORT}`),
    sleeper('h1', 'pb-shut', SHUT),
  ]);
  await serve(await inContainer('h1', 'pb-a'));
  await serve(await inContainer('h2', 'pb-b'));
  await serve(atStranger(outside));
  await weftOk('wait');
});

afterAll(async () => {
  await Promise.all(servers.map((server) => server[Symbol.asyncDispose]()));
  await outside?.[Symbol.asyncDispose]();
  for (const host of ['h1', 'h2'] as const) await on(host, 'ip', 'addr', 'del', `${SIX[host]}/64`, 'dev', 'eth0');
  await clean(HOSTS);
  await auditClean();
});

describe('the way out', () => {
  it.each(['tcp', 'udp'] as const)('is the host, whose address is seen: %s', async (protocol) => {
    for (const [host, name] of [
      ['h1', 'pb-a'],
      ['h2', 'pb-b'],
    ] as const) {
      const from = await inContainer(host, name);
      expect(await whoAmI(from, protocol, outside.ip, PORT)).toBe(ipOf(host));
      expect(await whoAmI(from, protocol, SIX.outside, PORT)).toBe(SIX[host]);
    }
  });

  it('begins at a gateway that is there, and lets errors back in', async () => {
    const { gateways } = await weftJson<{ gateways: string[] }>('network', 'inspect', OUT);
    expect(await pings('h1', 'pb-a', gateways[0] ?? '')).toBe(true);
    const r = await on('h1', 'docker', 'exec', 'pb-a', 'ping', '-c', '1', '-W', '2', '192.0.2.1');
    expect(r.stdout).toMatch(/Net Unreachable/);
  });

  it('does not lead to containers of other networks, nor to what only the host knows', async () => {
    const from = await inContainer('h1', 'pb-a');
    await serve(await inContainer('h1', 'pb-shut'));
    expect(await whoAmI(from, 'tcp', await addressOf('h1', 'pb-shut', SHUT), PORT)).toBeNull();
    const [transit] = [
      ...(await onOk('h1', 'nft', 'list', 'map', 'inet', 'weft', 'any4')).matchAll(/169\.254\.[\d.]+/g),
    ];
    expect(transit).toBeDefined();
    for (const name of ['pb-near', 'pb-shut'])
      expect(await whoAmI(await inContainer('h1', name), 'tcp', transit?.[0] ?? '', PORT)).toBeNull();
    expect(await whoAmI(atStranger(outside), 'tcp', transit?.[0] ?? '', PORT)).toBeNull();
  });

  it('has the egress address of the network where the host has it, and is shut where it has none', async () => {
    const [four, six] = ['198.51.100.7', 'fd98::7'];
    const routes = [
      [ipOf('h1'), four],
      [SIX.h1, six],
    ] as const;
    for (const [via, to] of routes) await outside.run('ip', 'route', 'add', to, 'via', via);
    try {
      await weftOk('network', 'set', OUT, '--egress-ip', four, '--egress-ip', six);
      await weftOk('wait');
      const here = await inContainer('h1', 'pb-a');
      const there = await inContainer('h2', 'pb-b');
      await until('h1 sends nothing', async () => (await whoAmI(here, 'tcp', outside.ip, PORT)) === null);
      // Nothing tells of it: the audit sees it.
      await onOk('h1', 'ip', 'addr', 'add', `${four}/32`, 'dev', 'lo');
      await onOk('h1', 'ip', 'addr', 'add', `${six}/128`, 'dev', 'lo', 'nodad');
      await until('h1 sends from the address', async () => (await whoAmI(here, 'tcp', outside.ip, PORT)) === four);
      expect(await whoAmI(here, 'udp', outside.ip, PORT)).toBe(four);
      expect(await whoAmI(here, 'tcp', SIX.outside, PORT)).toBe(six);
      await until('h2 sends nothing', async () => (await whoAmI(there, 'tcp', outside.ip, PORT)) === null);
      await until('status names h2', async () => {
        const { conflicts } = await weftJson<{ conflicts: { host: string; message: string }[] }>('status');
        return conflicts.some((c) => c.host === 'h2' && c.message.includes(four));
      });
      expect(await whoAmI(atStranger(outside), 'tcp', ipOf('h2'), 8001)).toBe(outside.ip);
    } finally {
      await weftOk('network', 'set', OUT, '--egress-ip', 'none');
      await on('h1', 'ip', 'addr', 'del', `${four}/32`, 'dev', 'lo');
      await on('h1', 'ip', 'addr', 'del', `${six}/128`, 'dev', 'lo');
      for (const [via, to] of routes) await outside.run('ip', 'route', 'del', to, 'via', via);
    }
    const there = await inContainer('h2', 'pb-b');
    await until('h2 leads out again', async () => (await whoAmI(there, 'tcp', outside.ip, PORT)) === ipOf('h2'));
    expect(await weft('network', 'set', OUT, '--egress-ip', 'eth0')).toMatchObject({ code: 1 });
    expect(await weft('network', 'set', SHUT, '--egress-ip', four)).toMatchObject({ code: 1 });
  });

  it('is not there on an internal network', async () => {
    expect(await whoAmI(await inContainer('h1', 'pb-shut'), 'tcp', outside.ip, PORT)).toBeNull();
    expect(await docker('h1', 'exec', 'pb-shut', 'ip', 'route')).not.toMatch(/default/);
  });
});

describe('two networks with the same subnet, each in an address space of its own', () => {
  const TWINS = ['pb-left', 'pb-right'] as const;
  const same = '10.77.0.5';

  beforeAll(async () => {
    for (const twin of TWINS)
      await weftOk('network', 'create', twin, '--subnet', '10.77.0.0/24', '--subnet', 'fd77::/64', '--space', twin);
    await weftOk('wait');
    await sleeper(
      'h1',
      TWINS[0],
      TWINS[0],
      '--ip',
      same,
      '--ip6',
      'fd77::5',
      '-p',
      `8100:${PORT}`,
      '-p',
      `8100:${PORT}/udp`,
    );
    await sleeper(
      'h1',
      TWINS[1],
      TWINS[1],
      '--ip',
      same,
      '--ip6',
      'fd77::5',
      '-p',
      `8101:${PORT}`,
      '-p',
      `8101:${PORT}/udp`,
    );
    await sleeper('h2', 'pb-left2', TWINS[0], '--ip', '10.77.0.6');
    for (const twin of TWINS) await serve(await inContainer('h1', twin));
  });
  afterAll(async () => {
    await docker('h1', 'rm', '-f', ...TWINS);
    await docker('h2', 'rm', '-f', 'pb-left2');
  });

  it.each(['tcp', 'udp'] as const)('lead out, and are led in, each by itself: %s', async (protocol) => {
    for (const [twin, port] of [
      [TWINS[0], 8100],
      [TWINS[1], 8101],
    ] as const) {
      const from = await inContainer('h1', twin);
      expect(await whoAmI(from, protocol, outside.ip, PORT)).toBe(ipOf('h1'));
      expect(await whoAmI(from, protocol, SIX.outside, PORT)).toBe(SIX.h1);
      expect(await whoAmI(atStranger(outside), protocol, ipOf('h1'), port)).toBe(outside.ip);
      expect(await whoAmI(atStranger(outside), protocol, SIX.h1, port)).toBe(SIX.outside);
      expect(await whoAmI(atHost('h1'), protocol, ipOf('h1'), port)).toBe(ipOf('h1'));
      expect(await whoAmI(atHost('h2'), protocol, ipOf('h1'), port)).toBe(ipOf('h2'));
    }
  });

  it('do not meet', async () => {
    expect(await pings('h2', 'pb-left2', same)).toBe(true);
    expect(await pings('h1', TWINS[0], '10.77.0.6')).toBe(true);
    expect(await pings('h1', TWINS[1], '10.77.0.6')).toBe(false);
    expect(await weft('network', 'create', 'pb-third', '--subnet', '10.77.0.0/25', '--space', TWINS[0])).toMatchObject({
      code: 1,
      stderr: expect.stringContaining(`10.77.0.0/24 of network "${TWINS[0]}"`),
    });
  });
});

describe('a published port', () => {
  it.each(['tcp', 'udp'] as const)('leads to the container, which sees who calls: %s', async (protocol) => {
    const h1 = { 4: ipOf('h1'), 6: SIX.h1 };
    expect(await whoAmI(atStranger(outside), protocol, h1[4], 8000)).toBe(outside.ip);
    expect(await whoAmI(atStranger(outside), protocol, h1[6], 8000)).toBe(SIX.outside);
    expect(await whoAmI(atHost('h2'), protocol, h1[4], 8000)).toBe(ipOf('h2'));
    expect(await whoAmI(atHost('h2'), protocol, h1[6], 8000)).toBe(SIX.h2);
    expect(await whoAmI(atHost('h1'), protocol, h1[4], 8000)).toBe(h1[4]);
    // What is the host's own, or a container's of the same host, is seen as the host; a container of another host comes by that.
    expect(await whoAmI(atHost('h1'), protocol, '127.0.0.1', 8000)).toBe(h1[4]);
    expect(await whoAmI(await inContainer('h2', 'pb-b'), protocol, h1[4], 8000)).toBe(ipOf('h2'));
    for (const name of ['pb-near', 'pb-a'])
      expect(await whoAmI(await inContainer('h1', name), protocol, h1[4], 8000)).toBe(h1[4]);
  });

  it('at one address is there only, and at loopback for the host alone', async () => {
    expect(await ports('pb-b')).toMatchObject([
      { hostIp: '127.0.0.1', hostPort: 8002 },
      { hostIp: ipOf('h2'), hostPort: 8001 },
    ]);
    expect(await whoAmI(atStranger(outside), 'tcp', ipOf('h2'), 8001)).toBe(outside.ip);
    expect(await whoAmI(atHost('h2'), 'tcp', '127.0.0.1', 8001)).toBeNull();
    expect(await whoAmI(atHost('h2'), 'tcp', '127.0.0.1', 8002)).toBe(ipOf('h2'));
    expect(await whoAmI(atStranger(outside), 'tcp', ipOf('h2'), 8002)).toBeNull();
  });

  it('is not entered from outside with an address of the network', async () => {
    const forged = await addressOf('h1', 'pb-near', OUT);
    const [theirs, own] = ['7765667420666f7267656421', '776566742074727565212121'];
    await using ear = await Ear.open(await boxOf('h1', 'pb-a', OUT));
    const send = (from: string, mark: string): Promise<unknown> =>
      outside.run('perl', '-MIO::Socket::INET', '-e', SEND_UDP, from, ipOf('h1'), '8000', mark);
    await outside.run('ip', 'addr', 'add', `${forged}/32`, 'dev', 'lo');
    try {
      await send(forged, theirs);
      // What comes after it is there: it has been dropped.
      await send(outside.ip, own);
      await until('the true one is heard', async () => ear.heard(own) > 0);
      expect(ear.heard(theirs)).toBe(0);
    } finally {
      await outside.run('ip', 'addr', 'del', `${forged}/32`, 'dev', 'lo');
    }
  });

  it('says to nobody how large what goes to its host by tunnel may be', async () => {
    const [h1, big] = [ipOf('h1'), 'aa'.repeat(1460)];
    await onOk('h2', 'perl', '-MIO::Socket::INET', '-e', SEND_UDP, ipOf('h2'), h1, '8000', big);
    // The answer to what comes after it is there.
    expect(await whoAmI(atHost('h2'), 'udp', h1, 8000)).toBe(ipOf('h2'));
    expect(await onOk('h2', 'ip', 'route', 'get', h1)).not.toMatch(/mtu/);
  });

  it('is shown by weft port', async () => {
    const text = await weftOk('port', 'pb-a');
    expect(text.split('\n').slice(0, 2)).toEqual([
      `${PORT}/tcp -> 0.0.0.0:8000 on h1`,
      `${PORT}/tcp -> [::]:8000 on h1`,
    ]);
    expect(await weftOk('port', 'h1/pb-a', `${PORT}/udp`)).toBe('0.0.0.0:8000\n[::]:8000\n');
    expect(await weftOk('port', 'pb-near')).toBe('');
    expect(await weft('port', 'pb-near', '80')).toMatchObject({
      code: 1,
      stderr: expect.stringContaining('not published'),
    });
    expect(await weft('port', 'pb-none')).toMatchObject({ code: 1 });
    expect(await weft('port', 'pb-a', 'http')).toMatchObject({ code: 2 });
  });

  it.each([
    ['taken by a container', ['-p', `8000:${PORT}`], /port 8000\/tcp is taken on this host/],
    ['taken by a process', ['-p', `7472:${PORT}`], /port 7472\/tcp is taken on this host/],
    ['twice the same', ['-p', '8020:1', '-p', '8020:2'], /8020\/tcp is taken/],
    ['of an address that is elsewhere', ['-p', `192.0.2.7:8020:${PORT}`], /this host has no address 192\.0\.2\.7/],
  ])('is refused, and nothing stays: %s', async (_, options, message) => {
    const r = await on('h1', 'docker', 'run', '--name', 'pb-no', '--network', OUT, ...options, 'weft/lab:1', 'true');
    expect(r).toMatchObject({ code: 125, stderr: expect.stringMatching(message) });
    await docker('h1', 'rm', 'pb-no');
    expect((await onOk('h1', 'nft', 'list', 'map', 'inet', 'weft', 'any4')).match(/8020/)).toBeNull();
  });

  it('goes with the container, and can be had by the next one at once', async () => {
    for (const name of ['pb-x', 'pb-y']) {
      await sleeper('h1', name, OUT, '-p', `8030:${PORT}`, '-p', `8030:${PORT}/udp`);
      const server = await Server.open(await inContainer('h1', name), PORT);
      expect(await whoAmI(atStranger(outside), 'tcp', ipOf('h1'), 8030)).toBe(outside.ip);
      // From the same port again: the kernel has not kept where it led before.
      for (const ip of [ipOf('h1'), SIX.h1])
        expect(await whoAmI(atStranger(outside), 'udp', ip, 8030, 4321)).toBe(ip === SIX.h1 ? SIX.outside : outside.ip);
      await server[Symbol.asyncDispose]();
      await docker('h1', 'rm', '-f', name);
    }
    expect(await whoAmI(atStranger(outside), 'tcp', ipOf('h1'), 8030)).toBeNull();
  });

  it('is there without the agent, and after its restart', async () => {
    await weftOk('lab', 'stop', 'h1', 'agent');
    expect(await whoAmI(atStranger(outside), 'tcp', ipOf('h1'), 8000)).toBe(outside.ip);
    await weftOk('lab', 'start', 'h1', 'agent');
    await weftOk('wait');
    expect(await whoAmI(atStranger(outside), 'tcp', ipOf('h1'), 8000)).toBe(outside.ip);
    expect(await ports('pb-a')).toHaveLength(4);
  });

  it('what somebody takes away comes back with the next audit', async () => {
    await onOk('h1', 'nft', 'delete', 'table', 'inet', 'weft');
    await onOk('h1', 'iptables', '-F', 'DOCKER-USER');
    const found = await weft('audit', '--host', 'h1', '--json');
    expect(found.stdout).toMatch(/"kind": ?"nftTable"/);
    expect(found.stdout).toMatch(/DOCKER-USER/);
    expect(await whoAmI(atStranger(outside), 'tcp', ipOf('h1'), 8000)).toBe(outside.ip);
    expect(await weft('audit', '--host', 'h1')).toMatchObject({ code: 0 });
  });
});

it('Docker’s own bridge leads out and publishes where a network says so', async () => {
  await sleeper('h2', 'pb-d', DOCKERS, '-p', `8040:${PORT}`);
  await serve(await inContainer('h2', 'pb-d'));
  expect(await docker('h2', 'port', 'pb-d')).toMatch(/8040/);
  expect(await whoAmI(atStranger(outside), 'tcp', ipOf('h2'), 8040)).toBe(outside.ip);
  expect(await whoAmI(await inContainer('h2', 'pb-d'), 'tcp', outside.ip, PORT)).toBe(ipOf('h2'));
  expect(await weftOk('port', 'pb-d')).toBe('');
});
