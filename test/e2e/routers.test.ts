/** Routers over real hosts: containers of different networks reach each other by packets, wherever they run; and nobody else does. */
import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import {
  auditClean,
  clean,
  docker,
  on,
  onOk,
  pings,
  run,
  sleeper,
  until,
  WEFT,
  weft,
  weftJson,
  weftOk,
} from '../harness/lab.ts';
import { answerers, Backend, calls } from '../harness/service.ts';

const HOSTS = ['h1', 'h2', 'h3'] as const;
const PORT = 9042;
const [FRONT, BACK, VAULT, APART] = ['rt-front', 'rt-back', 'rt-vault', 'rt-apart'];

interface Shown {
  readonly network: string;
  readonly host: string;
  readonly ips: string[];
  readonly container: { readonly name: string } | null;
}

const at = new Map<string, Shown>();
const servers: Backend[] = [];
const ipsOf = (name: string): string[] => at.get(name)?.ips ?? [];
const four = (name: string): string => ipsOf(name).find((ip) => !ip.includes(':')) ?? '';
const hostOf = (name: string): string => at.get(name)?.host ?? '';

/** Each address of it, of a family that both have, is called once by TCP and once by UDP, and answers as itself. */
async function reaches(from: string, to: string): Promise<boolean> {
  const families = ipsOf(to).filter((ip) => ipsOf(from).some((own) => own.includes(':') === ip.includes(':')));
  const ways = families.flatMap((ip) => (['tcp', 'udp'] as const).map((protocol) => ({ protocol, ip, port: PORT })));
  const answers = await Promise.all(ways.map((way) => calls(hostOf(from), from, way, 1)));
  return answers.every((all) => answerers(all)[0] === to);
}

async function look(): Promise<void> {
  for (const e of await weftJson<Shown[]>('endpoint', 'ls')) if (e.container !== null) at.set(e.container.name, e);
}

beforeAll(async () => {
  await weftOk('network', 'create', FRONT!, '--ipv6', '--subnet', '10.66.0.0/24');
  await weftOk('network', 'create', BACK!, '--ipv6');
  await weftOk('network', 'create', VAULT!, '--internal');
  await weftOk('network', 'create', APART!);
  await Promise.all([
    sleeper('h1', 'front-1', FRONT!),
    sleeper('h1', 'back-1', BACK!),
    sleeper('h2', 'back-2', BACK!),
    sleeper('h3', 'vault-3', VAULT!),
    sleeper('h3', 'apart-3', APART!),
  ]);
  // Its MAC follows from nothing.
  await weftOk(
    'reservation',
    'create',
    'front-2',
    '--network',
    FRONT!,
    '--ip',
    '10.66.0.77',
    '--mac',
    '02:aa:00:00:00:02',
  );
  await sleeper('h2', 'front-2', FRONT!, '--ip', '10.66.0.77');
  await look();
  for (const name of ['front-1', 'front-2', 'back-1', 'back-2', 'vault-3'])
    servers.push(await Backend.open(hostOf(name), name, PORT));
}, 180_000);

afterAll(async () => {
  for (const server of servers) await server[Symbol.asyncDispose]();
  await clean(HOSTS);
  await weftOk('wait');
  await auditClean();
});

describe('a router', () => {
  it('leads between its networks as soon as it is there, in both families, wherever their containers run', async () => {
    expect(await reaches('front-1', 'back-2')).toBe(false);
    await weftOk('router', 'create', 'rt', '--network', FRONT!, '--network', BACK!);
    for (const from of ['front-1', 'front-2'])
      for (const to of ['back-1', 'back-2']) {
        expect(await reaches(from, to), `${from} to ${to}`).toBe(true);
        expect(await reaches(to, from), `${to} to ${from}`).toBe(true);
      }
    expect(await weftJson('router', 'ls')).toMatchObject([{ name: 'rt', networks: [FRONT, BACK], routes: [] }]);
    await auditClean();
  });

  it('is seen as one hop, whose gateways answer, also those of the other network', async () => {
    const { gateways } = await weftJson<{ gateways: string[] }>('network', 'inspect', BACK!);
    for (const ip of gateways) expect(await pings('h1', 'front-1', ip), ip).toBe(true);
    const r = await on('h1', 'docker', 'exec', 'front-1', 'ping', '-c', '1', '-t', '1', '-W', '2', four('back-2'));
    const own = await weftJson<{ gateways: string[] }>('network', 'inspect', FRONT!);
    expect(r.stdout).toContain(`From ${own.gateways.find((ip) => !ip.includes(':'))}`);
    expect(r.stdout).toContain('Time to live exceeded');
    const answered = await onOk('h1', 'docker', 'exec', 'front-1', 'ping', '-c', '1', '-W', '2', four('back-2'));
    expect(answered).toContain('ttl=63');
  });

  it('tells who calls an address that nobody has', async () => {
    const free = four('back-1').replace(/\d+$/, '250');
    const r = await on('h1', 'docker', 'exec', 'front-1', 'ping', '-c', '1', '-W', '2', free);
    expect(r.stdout).toContain('Destination Host Unreachable');
  });

  it('leads nowhere else, and keeps networks that it does not have apart', async () => {
    expect(await pings('h1', 'front-1', four('apart-3'))).toBe(false);
    expect(await pings('h1', 'front-1', four('vault-3'))).toBe(false);
  });

  it('takes in a network that leads nowhere by itself, also for containers that have been running all the while', async () => {
    await weftOk('router', 'set', 'rt', '--add-network', VAULT!);
    expect(await reaches('vault-3', 'front-1')).toBe(true);
    expect(await reaches('back-2', 'vault-3')).toBe(true);
    // And for who comes later.
    await sleeper('h2', 'vault-2', VAULT!);
    await look();
    expect(await reaches('vault-2', 'back-1')).toBe(true);
    await auditClean();
    await weftOk('router', 'set', 'rt', '--remove-network', VAULT!);
    expect(await reaches('vault-3', 'front-1')).toBe(false);
    expect(await onOk('h3', 'docker', 'exec', 'vault-3', 'ip', 'route')).not.toContain('via');
    expect(await reaches('front-1', 'back-2')).toBe(true);
  });

  it('leads to a range behind a container, and spreads connections over several', async () => {
    for (const [host, name] of [
      ['h2', 'gate-2'],
      ['h3', 'gate-3'],
    ] as const) {
      await sleeper(host, name, BACK!, '--cap-add', 'NET_ADMIN', '--sysctl', 'net.ipv4.ip_forward=1');
      // What is behind it is on its own loopback here.
      await docker(host, 'exec', name, 'ip', 'addr', 'add', '192.168.77.1/24', 'dev', 'lo');
    }
    await look();
    await weftOk('router', 'set', 'rt', '--route', '192.168.77.0/24', 'via', four('gate-2'));
    // Its own address is no address of the network: what it sends from there is dropped, what it gets is seen.
    const seen = async (host: string, name: string): Promise<number> =>
      Number(
        await onOk(host, 'docker', 'exec', name, 'cat', '/proc/net/snmp').then((t) => /^Icmp: (\d+)/m.exec(t)?.[1]),
      );
    const before = [await seen('h2', 'gate-2'), await seen('h3', 'gate-3')];
    await on('h1', 'docker', 'exec', 'front-1', 'ping', '-c', '3', '-i', '0.2', '-W', '1', '192.168.77.1');
    expect(await seen('h2', 'gate-2')).toBeGreaterThanOrEqual(before[0]! + 3);
    expect(await seen('h3', 'gate-3')).toBe(before[1]);
    await weftOk('router', 'set', 'rt', '--route', '192.168.77.0/24', 'via', `${four('gate-2')},${four('gate-3')}`);
    const flows = Array.from({ length: 40 }, (_, i) => ({
      protocol: 'udp' as const,
      ip: '192.168.77.1',
      port: 7000 + i,
    }));
    const udp = async (host: string, name: string): Promise<number> =>
      Number(
        await onOk(host, 'docker', 'exec', name, 'cat', '/proc/net/snmp').then((t) => /^Udp: \d+ (\d+)/m.exec(t)?.[1]),
      );
    const counted = [await udp('h2', 'gate-2'), await udp('h3', 'gate-3')];
    await Promise.all(flows.map((flow) => calls('h1', 'front-1', flow, 1)));
    await until('both have got some', async () => {
      const now = [await udp('h2', 'gate-2'), await udp('h3', 'gate-3')];
      return now.every((n, i) => n > counted[i]!);
    });
    await weftOk('router', 'set', 'rt', '--remove-route', '192.168.77.0/24');
    await docker('h2', 'rm', '-f', 'gate-2');
    await docker('h3', 'rm', '-f', 'gate-3');
  });

  it('obeys the policies of both networks', async () => {
    const policy = `
name: back
network: ${BACK}
ingress:
  - action: allow
    from: [{ cidr: ${four('front-2')}/32 }]
  - action: drop
    from: [{ network: ${FRONT} }]
`;
    const r = await run(WEFT, ['policy', 'apply', '-f', '-'], { input: policy });
    expect(r.code, r.stderr).toBe(0);
    const call = async (from: string, to: string): Promise<boolean> =>
      answerers(await calls(hostOf(from), from, { protocol: 'tcp', ip: four(to), port: PORT }, 1))[0] === to;
    for (const to of ['back-1', 'back-2']) {
      expect(await call('front-1', to), `front-1 to ${to}`).toBe(false);
      expect(await call('front-2', to), `front-2 to ${to}`).toBe(true);
      expect(await call(to, 'front-1'), `${to} to front-1`).toBe(true);
    }
    await weftOk('policy', 'rm', 'back', '--network', BACK!);
    expect(await reaches('front-1', 'back-1')).toBe(true);
  });

  it('goes on without a coordinator, and comes back with the host’s agent', async () => {
    await weftOk('lab', 'kill', 'h1', 'agent');
    expect(await reaches('front-1', 'back-2')).toBe(true);
    await weftOk('lab', 'start', 'h1', 'agent');
    await weftOk('wait');
    expect(await reaches('front-1', 'back-2')).toBe(true);
    await auditClean();
  });

  it('that goes leads nowhere any more; a network in one cannot go', async () => {
    await docker('h2', 'rm', '-f', 'front-2');
    await docker('h1', 'rm', '-f', 'back-1');
    await docker('h2', 'rm', '-f', 'back-2');
    const refused = await weft('network', 'rm', BACK!);
    expect(refused.code).toBe(1);
    expect(refused.stderr).toContain('is in router rt');
    await weftOk('router', 'rm', 'rt');
    expect(await reaches('front-1', 'back-2')).toBe(false);
    const left = await onOk('h1', 'docker', 'exec', 'front-1', 'ip', 'route');
    expect(left.split('\n').filter((line) => line.includes(' via ') && !line.startsWith('default'))).toEqual([]);
    await auditClean();
  });
});

describe('refusals', () => {
  it('name what is wrong, and change nothing', async () => {
    await weftOk('network', 'create', 'rt-twin', '--space', 'lab', '--subnet', '10.77.0.0/24');
    await weftOk('network', 'create', 'rt-same', '--subnet', '10.77.0.0/25');
    const overlap = await weft('router', 'create', 'no', '--network', 'rt-twin', '--network', 'rt-same');
    expect(overlap.code).toBe(1);
    expect(overlap.stderr).toContain('network rt-twin (10.77.0.0/24) and network rt-same (10.77.0.0/25) overlap');
    const far = await weft('router', 'create', 'no', '--network', 'rt-twin', '--network', FRONT!);
    expect(far.stderr).toContain('a router lives in one address space');
    const words = await weft('router', 'create', 'no', '--network', FRONT!, '--route', '10.0.0.0/8', '10.1.0.1');
    expect(words.code).toBe(2);
    expect(words.stderr).toContain('CIDR via IP');
    expect(await weftJson('router', 'ls')).toEqual([]);
  });
});
