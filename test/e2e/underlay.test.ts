/** The underlay: peers that cannot be reached are named, and VTEPs chosen by CIDR, over IPv6. */
import { readFileSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { afterAll, afterEach, beforeAll, describe, expect, it } from 'vitest';
import { parse } from 'yaml';
import { conflicts } from '../harness/docker-view.ts';
import {
  addressOf,
  auditClean,
  clean,
  docker,
  IMAGE,
  on,
  onOk,
  pings,
  type Result,
  run,
  sleeper,
  until,
  weftJson,
  weftOk,
} from '../harness/lab.ts';
import { labStatus } from '../harness/lab-direct.ts';

const HOSTS = ['h1', 'h2', 'h3'];
const vtepOf = async (host: string): Promise<string> =>
  (await weftJson<{ vteps: { address: string }[] }>('host', 'inspect', host)).vteps[0]?.address ?? '';
const connected = () =>
  until(
    'all hosts are connected',
    async () => (await weftJson<{ state: string }[]>('host', 'ls')).every((h) => h.state === 'connected'),
    60_000,
  );

/** Whether containers named BOX-HOST of the network reach each other, both ways between any two hosts. */
async function allReach(network: string, box: string): Promise<void> {
  const ips = new Map(
    await Promise.all(HOSTS.map(async (h) => [h, await addressOf(h, `${box}-${h}`, network)] as const)),
  );
  for (const from of HOSTS)
    for (const to of HOSTS)
      if (from !== to) expect(await pings(from, `${box}-${from}`, ips.get(to) ?? ''), `${from} → ${to}`).toBe(true);
}

describe('a peer that cannot be reached', () => {
  beforeAll(async () => {
    await weftOk('network', 'create', 'ul-net');
    await Promise.all(HOSTS.map((host) => sleeper(host, `ul-${host}`, 'ul-net')));
    const serve = ['sh', '-c', 'while true; do nc -l -p 80 -e hostname; done'];
    for (const host of ['h2', 'h3'])
      await docker(
        host,
        'run',
        '-d',
        '--name',
        `ul-s-${host}`,
        '--network',
        'ul-net',
        '--label',
        'role=ul',
        IMAGE,
        ...serve,
      );
    await weftOk(
      'service',
      'create',
      'ul-svc',
      '--network',
      'ul-net',
      '--port',
      '80',
      '--selector',
      'role=ul',
      '--health',
      'none',
    );
  });
  afterAll(async () => {
    await weftOk('lab', 'start', 'h3', 'underlay');
    await connected();
    await clean(HOSTS);
    await auditClean();
  });

  it('is named in status as long as it is, and holds nobody up', async () => {
    await allReach('ul-net', 'ul');
    const vtep = await vtepOf('h3');
    await weftOk('lab', 'stop', 'h3', 'underlay');
    for (const host of ['h1', 'h2'])
      await until(
        `${host} names it`,
        async () =>
          (await conflicts()).some(
            (c) =>
              c.host === host &&
              c.message === `${host} cannot reach the VTEP ${vtep} of h3: it does not answer on eth0.`,
          ),
        60_000,
      );
    expect((await conflicts()).filter((c) => !c.message.includes(`VTEP ${vtep} of h3`))).toEqual([]);
    // A service passes over who is there.
    const { ips } = await weftJson<{ ips: string[] }>('service', 'inspect', 'ul-svc');
    const call = (): Promise<Result> => on('h1', 'docker', 'exec', 'ul-h1', 'nc', '-w', '2', ips[0] ?? '', '80');
    await until('h3 is passed over', async () => {
      const answers = await Promise.all([call(), call(), call()]);
      return answers.every((r) => r.code === 0);
    });
    for (let i = 0; i < 8; i++) expect((await call()).code).toBe(0);
    await sleeper('h1', 'ul-more', 'ul-net');
    expect(await pings('h2', 'ul-h2', await addressOf('h1', 'ul-more', 'ul-net'))).toBe(true);
    await weftOk('lab', 'start', 'h3', 'underlay');
    await until('it is reached again', async () => (await conflicts()).length === 0, 60_000);
    await connected();
    await allReach('ul-net', 'ul');
  });
});

describe('an underlay of IPv6', () => {
  const before = new Map<string, { file: string; text: string; netns: string }>();
  const restart = async (): Promise<void> => {
    await Promise.all(
      HOSTS.map(async (host) => {
        await weftOk('lab', 'kill', host, 'agent');
        await weftOk('lab', 'start', host, 'agent');
      }),
    );
    await connected();
  };

  beforeAll(async () => {
    for (const host of (await labStatus()).hosts) {
      const file = join(host.stateDir, 'agent.yaml');
      before.set(host.name, { file, text: readFileSync(file, 'utf8'), netns: host.netns.replace(/.*\//, '') });
    }
    for (const [i, host] of HOSTS.entries()) {
      const { file, text, netns } = before.get(host) ?? { file: '', text: '', netns: '' };
      await run('ip', ['-n', netns, 'address', 'add', `fd99::${i + 1}/64`, 'dev', 'eth0', 'nodad']);
      writeFileSync(file, JSON.stringify({ ...(parse(text) as object), underlay: { on: 'fd99::/64' } }));
    }
    await restart();
  });
  afterAll(async () => {
    await clean(HOSTS);
    for (const [i, host] of HOSTS.entries()) {
      const { file, text, netns } = before.get(host) ?? { file: '', text: '', netns: '' };
      writeFileSync(file, text);
      await run('ip', ['-n', netns, 'address', 'del', `fd99::${i + 1}/64`, 'dev', 'eth0']);
    }
    await restart();
    for (const host of HOSTS) expect(await vtepOf(host)).toMatch(/^198\.18\./);
    await auditClean();
  });
  afterEach(async () => {
    await auditClean();
  });

  it('is chosen by its CIDR', async () => {
    expect(await Promise.all(HOSTS.map(vtepOf))).toEqual(['fd99::1', 'fd99::2', 'fd99::3']);
  });

  it.each([
    ['v4', []],
    ['v6', ['--ipv6']],
  ])('carries networks of containers (%s)', async (name, flags) => {
    const network = `ul6-${name}`;
    await weftOk('network', 'create', network, ...flags);
    const { mtu } = await weftJson<{ mtu: number }>('network', 'inspect', network);
    expect(mtu).toBe(1430);
    await Promise.all(HOSTS.map((host) => sleeper(host, `${network}-${host}`, network)));
    await allReach(network, network);
    // Frames of full size, and segments of more.
    const ip = await addressOf('h2', `${network}-h2`, network);
    const full = ['ping', '-c', '1', '-W', '2', '-s', String(mtu - 28), ip];
    await onOk('h1', 'docker', 'exec', `${network}-h1`, ...full);
    await docker('h2', 'exec', '-d', `${network}-h2`, 'iperf3', '-s', '-1');
    await until('iperf3 has sent', async () => {
      const r = await on('h1', 'docker', 'exec', `${network}-h1`, 'iperf3', '-c', ip, '-n', '20M', '-J');
      return r.code === 0;
    });
  });
});
