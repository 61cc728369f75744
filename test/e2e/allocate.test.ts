/** Allocation under concurrency: VNIs, subnets and addresses are never given twice, and what cannot be had is refused with a reason. */
import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import { type ControlClient, ControlService } from '../../gen/weft/v1/control.ts';
import type { Network } from '../../gen/weft/v1/types.ts';
import { overlaps, parseCidr, parseIp } from '../../lib/ip.ts';
import { callUnary } from '../../lib/rpc.ts';
import {
  addressOf,
  auditClean,
  clean,
  docker,
  on,
  pings,
  sleeper,
  until,
  weft,
  weftJson,
  weftOk,
} from '../harness/lab.ts';
import { controlClients, figure, type LabStatus, labStatus, pluginCall } from '../harness/lab-direct.ts';

const HOSTS = ['h1', 'h2', 'h3'] as const;

let lab: LabStatus;
beforeAll(async () => {
  lab = await labStatus();
});
afterAll(async () => {
  await clean(HOSTS);
  await weftOk('wait');
  await auditClean();
});

describe('networks', () => {
  const NETWORKS = 200;
  let clients: ControlClient[] = [];
  beforeAll(async () => {
    clients = await controlClients();
  });
  afterAll(() => {
    for (const client of clients) client.close();
  });

  const client = (i: number): ControlClient => {
    const one = clients[i % clients.length];
    if (one === undefined) throw new Error('no coordinator');
    return one;
  };
  const create = (i: number): Promise<Network> =>
    callUnary(client(i), ControlService.createNetwork, request(`alloc-${i}`), { timeoutMs: 60_000 });

  it(`gives ${NETWORKS} that are made at once through two coordinators each its own VNI and subnet, on every host`, async () => {
    expect(clients).toHaveLength(2);
    const began = performance.now();
    const made = await Promise.all(Array.from({ length: NETWORKS }, (_, i) => create(i)));
    const created = performance.now();
    expect(new Set(made.map((n) => n.vni)).size).toBe(NETWORKS);
    const subnets = made.map((n) => parseCidr(n.subnets[0] ?? '')).sort((a, b) => a.base - b.base);
    expect(subnets.filter((cidr, i) => i > 0 && overlaps(cidr, subnets[i - 1] ?? cidr))).toEqual([]);

    await weftOk('wait', '--timeout', '120');
    const appeared = performance.now();
    const names = made.map((n) => n.name).sort();
    for (const host of HOSTS) expect(await listed(host)).toEqual(names);

    const deleting = performance.now();
    await Promise.all(
      made.map(({ id }, i) =>
        callUnary(
          client(i),
          ControlService.deleteNetwork,
          { project: '', network: id },
          {
            timeoutMs: 60_000,
          },
        ),
      ),
    );
    const deleted = performance.now();
    await weftOk('wait', '--timeout', '120');
    const gone = performance.now();
    for (const host of HOSTS) expect(await listed(host)).toEqual([]);
    figure(`${NETWORKS} networks`, {
      createMs: created - began,
      appearMs: appeared - created,
      deleteMs: deleted - deleting,
      disappearMs: gone - deleted,
    });
    expect(appeared - began).toBeLessThan(60_000);
    expect(gone - deleting).toBeLessThan(40_000);
  });

  it('makes one network of a name that two hosts create at the same moment', async () => {
    for (let round = 0; round < 5; round++) {
      const name = `race-${round}`;
      const made = await Promise.all(
        HOSTS.slice(0, 2).map((host) =>
          on(host, 'docker', 'network', 'create', '-d', 'weft', '--ipam-driver', 'weft', name),
        ),
      );
      expect(made.some((r) => r.code === 0)).toBe(true);
      // The slower one may find the network of the faster one already on its host.
      for (const r of made) if (r.code !== 0) expect(r.stderr).toContain('already exists');
      await until('the name is bound', async () => (await weft('network', 'inspect', name)).code === 0);
      await weftOk('wait');
      const { subnets } = await weftJson<{ subnets: string[] }>('network', 'inspect', name);
      for (const host of HOSTS)
        expect(await docker(host, 'network', 'inspect', name, '-f', '{{(index .IPAM.Config 0).Subnet}}')).toBe(
          subnets[0],
        );
    }
    const ips = await Promise.all(
      HOSTS.map(async (host) => addressOf(host, await sleeper(host, `race-${host}`, 'race-4'), 'race-4')),
    );
    for (const host of HOSTS)
      for (const ip of ips) expect([host, ip, await pings(host, `race-${host}`, ip)]).toEqual([host, ip, true]);
    await clean(HOSTS);
  });
});

/** Mesh networks in a host's `docker network ls`. */
async function listed(host: string): Promise<string[]> {
  const text = await docker(host, 'network', 'ls', '--filter', 'driver=weft', '--format', '{{.Name}}');
  return text
    .split('\n')
    .filter((name) => name !== '')
    .sort();
}

const request = (name: string) => ({
  project: '',
  name,
  subnets: [],
  ipRange: '',
  gateways: [],
  ipv6: false,
  encap: '',
  vni: 0,
  mtu: 0,
  internal: false,
  encrypted: false,
  space: '',
  labels: {},
  options: {},
  uplink: '',
  vlanTag: 0,
  allowTrust: false,
  publishBy: '',
  dnsOrder: '',
  policyDefault: '',
});

describe('addresses', () => {
  interface Answer {
    readonly host: number;
    readonly given: string;
    /** Empty when it was refused. */
    readonly ip: string;
    readonly reason: string;
  }

  const socket = (host: number): string => lab.hosts[host]?.pluginSocket ?? '';
  const pool = (network: { id: string; subnets: string[] }): string => `weft/${network.id}/${network.subnets[0]}`;
  const ask = async (PoolID: string, host: number, given = ''): Promise<Answer> => {
    const body = { PoolID, Address: given, Options: {} };
    try {
      const { Address } = await pluginCall<{ Address: string }>(socket(host), 'IpamDriver.RequestAddress', body);
      return { host, given, ip: Address.split('/')[0] ?? '', reason: '' };
    } catch (error) {
      return { host, given, ip: '', reason: (error as Error).message };
    }
  };
  const release = (PoolID: string, answers: readonly Answer[]): Promise<object[]> =>
    Promise.all(
      answers
        .filter((a) => a.ip !== '')
        .map((a) => pluginCall<object>(socket(a.host), 'IpamDriver.ReleaseAddress', { PoolID, Address: a.ip })),
    );
  const create = async (name: string, subnet: string): Promise<{ id: string; subnets: string[] }> => {
    const network = await weftJson<{ id: string; subnets: string[] }>('network', 'create', name, '--subnet', subnet);
    await weftOk('wait');
    return network;
  };
  /** The address `offset` into the /28 that another one lies in. */
  const inBlockOf = (ip: string, offset: number): string => {
    const base = (parseIp(ip) & ~15) >>> 0;
    return `10.77.0.${(base & 255) + offset}`;
  };

  it('gives every usable address of a /24 once to 300 requests on three hosts, and refuses the others as exhausted', async () => {
    const PoolID = pool(await create('full', '10.77.0.0/24'));
    const first = await Promise.all(HOSTS.map((_, host) => ask(PoolID, host)));
    expect(first.map((a) => a.reason)).toEqual(['', '', '']);
    // Each host asks for ten addresses inside the blocks of the next one, among 90 of its own choice.
    const wanted = HOSTS.flatMap((_, host) =>
      Array.from({ length: 100 }, (__, i): [number, string] => {
        const other = first[(host + 1) % HOSTS.length]?.ip ?? '';
        return [host, i % 10 === 3 ? inBlockOf(other, 14 - Math.floor(i / 10)) : ''];
      }),
    );
    const began = performance.now();
    const answers = await Promise.all(wanted.map(([host, given]) => ask(PoolID, host, given)));
    figure('300 addresses', { ms: performance.now() - began });

    const held = [...first, ...answers].filter((a) => a.ip !== '');
    const expected = Array.from({ length: 253 }, (_, i) => `10.77.0.${i + 2}`); // without network, gateway, broadcast
    expect(held.map((a) => a.ip).sort()).toEqual(expected.sort());
    for (const a of held) if (a.given !== '') expect(a.ip).toBe(a.given);
    const refused = answers.filter((a) => a.ip === '');
    for (const a of refused) {
      if (a.given === '')
        expect(a.reason).toMatch(/^Every usable address of network full \(10\.77\.0\.0\/24\) is taken/);
      else expect(a.reason).toMatch(/in use|is (held|being claimed) by host h\d/);
    }
    expect(refused.some((a) => a.given === '')).toBe(true);
    const run = await on('h1', 'docker', 'run', '--rm', '--network', 'full', 'weft/lab:1', 'true');
    expect(run.code).not.toBe(0);
    expect(run.stderr).toContain('Every usable address of network full (10.77.0.0/24) is taken');

    await release(PoolID, held);
    // What rests is given again when nothing else is there.
    const again = await Promise.all(HOSTS.map((_, host) => ask(PoolID, host)));
    expect(again.map((a) => a.reason)).toEqual(['', '', '']);
    await release(PoolID, again);
    await weftOk('network', 'rm', 'full');
  });

  it('gives an address in a third host’s block to exactly one of two that claim it at once', async () => {
    const PoolID = pool(await create('claims', '10.78.0.0/24'));
    const { ip } = await ask(PoolID, 0);
    const held = [await ask(PoolID, 1), await ask(PoolID, 2)];
    const given = Array.from({ length: 12 }, (_, i) =>
      ip.replace(/\d+$/, (last) => String((Number(last) & ~15) + 3 + i)),
    );
    const answers = await Promise.all(given.flatMap((address) => [ask(PoolID, 1, address), ask(PoolID, 2, address)]));
    const won = answers.filter((a) => a.ip !== '');
    expect(won.map((a) => a.ip).sort()).toEqual(given.toSorted());
    for (const a of answers) if (a.ip === '') expect(a.reason).toMatch(/is (held|being claimed) by host h[23]|in use/);
    // The block's own host gives none of them to anybody else, and says who has it.
    const owner = await ask(PoolID, 0, given[0]);
    expect(owner.reason).toMatch(/in use: it is lent to host h[23]/);
    // Returned, they are the owner's again.
    await release(PoolID, won);
    await until('the owner has its address back', async () => {
      const back = await ask(PoolID, 0, given[0]);
      held.push(back);
      return back.ip !== '';
    });
    await release(PoolID, held);
    await weftOk('network', 'rm', 'claims');
  });
});

describe('refusals', () => {
  const failure = async (...args: string[]): Promise<{ exit: number; code: string; message: string; hint: string }> => {
    const r = await weft(...args, '--json');
    const { error } = JSON.parse(r.stderr) as { error: { code: string; message: string; hint: string } };
    return { exit: r.code, ...error };
  };
  let vni = 0;
  beforeAll(async () => {
    ({ vni } = await weftJson<{ vni: number }>('network', 'create', 'taken', '--subnet', '10.90.0.0/16'));
  });
  afterAll(() => clean(HOSTS));

  const status = () => weftJson<{ conflicts: { host: string; network: string; message: string }[] }>('status');
  const create = (flags: string): string[] => [
    'network',
    'create',
    'refused',
    ...flags.split(' ').filter((f) => f !== ''),
  ];
  const table: readonly [args: string[], exit: number, code: string, message: RegExp][] = [
    [
      create('--subnet 10.90.4.0/24'),
      1,
      'FAILED_PRECONDITION',
      /10\.90\.4\.0\/24 overlaps 10\.90\.0\.0\/16 of network "taken"/,
    ],
    [create('--subnet 10.0.0.0/8'), 1, 'FAILED_PRECONDITION', /of network "taken"/],
    [create('--subnet 10.300.0.0/16'), 1, 'INVALID_ARGUMENT', /"10\.300\.0\.0\/16" is not an IPv4 prefix/],
    [create('--subnet 10.1/16'), 1, 'INVALID_ARGUMENT', /is not an IPv4 prefix/],
    [create('--subnet 10.91.0.1/16'), 1, 'INVALID_ARGUMENT', /has host bits set/],
    [create('--subnet 10.91.0.0/31'), 1, 'INVALID_ARGUMENT', /no room/],
    [create('--subnet 127.0.0.0/16'), 1, 'INVALID_ARGUMENT', /loopback/],
    [
      create('--subnet 10.91.0.0/16 --gateway 10.92.0.1'),
      1,
      'INVALID_ARGUMENT',
      /gateway 10\.92\.0\.1 is not in the subnet/,
    ],
    [create('--subnet 10.91.0.0/16 --gateway 10.91.255.255'), 1, 'INVALID_ARGUMENT', /broadcast/],
    [create('--subnet 10.91.0.0/16 --ip-range 10.92.0.0/24'), 1, 'INVALID_ARGUMENT', /not inside the subnet/],
    [create('--ip-range 10.91.0.0/24'), 1, 'INVALID_ARGUMENT', /needs its subnet/],
    [create('--vni TAKEN'), 1, 'ALREADY_EXISTS', /VNI \d+ belongs to network "taken"/],
    [create('--vni 16777216'), 1, 'INVALID_ARGUMENT', /out of range/],
    [create('--vni 0'), 1, 'INVALID_ARGUMENT', /out of range/],
    [create('--vni some'), 2, 'INVALID_ARGUMENT', /whole number/],
    [create('--mtu 67'), 1, 'INVALID_ARGUMENT', /out of range/],
    [create('--mtu 1451'), 1, 'FAILED_PRECONDITION', /MTU of 1451 is too large/],
    [create('--encap carrier-pigeon'), 1, 'INVALID_ARGUMENT', /is not an encapsulation/],
    [create('--subnet fd00::1/64'), 1, 'INVALID_ARGUMENT', /host bits set/],
    [create('--subnet fe80::/64'), 1, 'INVALID_ARGUMENT', /link-local/],
    [create('--ipv6 --subnet fd00::/64 --subnet fd01::/64'), 1, 'UNIMPLEMENTED', /two IPv6 subnets/],
    [create('--encrypt'), 1, 'UNIMPLEMENTED', /encryption/],
    [create('--no-such-flag'), 2, 'INVALID_ARGUMENT', /unknown option/],
    [['network', 'create', 'taken'], 1, 'ALREADY_EXISTS', /a network named "taken" exists/],
    [['network', 'create', 'two words'], 1, 'INVALID_ARGUMENT', /is not a network name/],
    [['network', 'create', 'bridge'], 1, 'INVALID_ARGUMENT', /Docker's own/],
    [['network', 'create'], 2, 'INVALID_ARGUMENT', /missing required argument/],
    [['network', 'rm', 'nowhere'], 1, 'NOT_FOUND', /no network nowhere/],
    [['network', 'inspect', 'nowhere'], 1, 'NOT_FOUND', /no network nowhere/],
    [['network', 'connect', 'nowhere', 'c'], 1, 'NOT_FOUND', /no network nowhere/],
    [['network', 'connect', 'taken', 'nobody'], 1, 'NOT_FOUND', /nobody/],
  ];

  it.each(table)('weft %j: exit %i, %s', async (args, exit, code, message) => {
    const refused = await failure(...args.map((arg) => (arg === 'TAKEN' ? String(vni) : arg)));
    expect(refused).toMatchObject({ exit, code, message: expect.stringMatching(message) });
    expect(refused.hint).toMatch(/\w+/);
  });

  it('says that a VNI rests after its network has been removed', async () => {
    const resting = await weftJson<{ vni: number }>('network', 'create', 'resting');
    await weftOk('network', 'rm', 'resting');
    const refused = await failure(...create(`--vni ${resting.vni}`));
    expect(refused).toMatchObject({ exit: 1, code: 'FAILED_PRECONDITION', message: expect.stringMatching(/rests/) });
  });

  it('says that the pool of subnets is exhausted', async () => {
    await weftOk('network', 'create', 'whole-pool', '--subnet', '10.128.0.0/9');
    expect(await failure(...create(''))).toMatchObject({
      exit: 1,
      code: 'RESOURCE_EXHAUSTED',
      message: expect.stringMatching(/10\.128\.0\.0\/9 has no free \/20/),
    });
    const plain = await on('h1', 'docker', 'network', 'create', '-d', 'weft', '--ipam-driver', 'weft', 'refused');
    expect(plain.code).not.toBe(0);
    expect(plain.stderr).toContain('10.128.0.0/9 has no free /20');
    await weftOk('network', 'rm', 'whole-pool');
  });

  it('refuses to remove a network in use, and names its endpoints', async () => {
    await weftOk('wait');
    await sleeper('h1', 'user-1', 'taken');
    await sleeper('h2', 'user-2', 'taken');
    await until('both are known', async () => {
      const list = await weftJson<{ container: { name: string } | null }[]>('endpoint', 'ls', '--network', 'taken');
      return list.length === 2 && list.every((e) => e.container !== null);
    });
    const refused = await failure('network', 'rm', 'taken');
    expect(refused).toMatchObject({ exit: 1, code: 'FAILED_PRECONDITION' });
    expect(refused.message).toContain('user-1 on h1');
    expect(refused.message).toContain('user-2 on h2');
    // Docker does not honour a driver's refusal: its own command removes the copy of this host, which is put back, with the reason.
    const id = (): Promise<string> => docker('h3', 'network', 'inspect', 'taken', '-f', '{{.Id}}');
    const before = await id();
    await on('h3', 'docker', 'network', 'rm', 'taken');
    await until('the network is back', async () => (await id()) !== before);
    const { conflicts } = await until('the refusal is shown', async () => {
      const seen = await status();
      return seen.conflicts.length > 0 ? seen : null;
    });
    expect(conflicts).toMatchObject([{ host: 'h3', network: 'taken' }]);
    expect(conflicts[0]?.message).toMatch(/refused.*user-1 on h1, user-2 on h2/);
    expect((await weft('network', 'inspect', 'taken')).code).toBe(0);
    await clean(HOSTS);
    await until('nothing to complain of is left', async () => (await status()).conflicts.length === 0);
  });
});
