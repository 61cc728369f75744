/**
 * Reservations: an address, with its MAC, that goes with a name from host to host, and that nobody else gets. In a subnet of thirteen
 * addresses, so that every one is asked for.
 */
import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import { containsIp, parseCidr, parseIp } from '../../lib/addr.ts';
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
  sleeper,
  until,
  weft,
  weftJson,
  weftOk,
} from '../harness/lab.ts';
import { journalOf } from '../harness/truth.ts';

const HOSTS = ['h1', 'h2', 'h3'] as const;
const NET = 'resv';
const MAC = '02:aa:00:00:00:05';
const ip = (n: number): string => `10.63.0.${n}`;

interface Reservation {
  readonly name: string;
  readonly ips: readonly string[];
  readonly mac: string | null;
  readonly holder: { readonly host: string; readonly container: string | null } | null;
}

const reserve = (name: string, address: string, ...more: string[]): Promise<string> =>
  weftOk('reservation', 'create', name, '--network', NET, '--ip', address, ...more);
const inspect = (name: string): Promise<Reservation> =>
  weftJson<Reservation>('reservation', 'inspect', name, '--network', NET);
const names = async (): Promise<string[]> =>
  (await weftJson<Reservation[]>('reservation', 'ls', '--network', NET)).map((r) => r.name);
const macOf = (host: string, container: string): Promise<string> =>
  onOk(host, 'docker', 'exec', container, 'cat', '/sys/class/net/eth0/address');
const remove = (host: string, container: string): Promise<string> => docker(host, 'rm', '-f', container);
const refusedRun = (host: string, ...options: string[]): Promise<Result> =>
  on(host, '/usr/bin/docker', 'run', '--rm', '--network', NET, ...options, IMAGE, 'true');

/** Runs it with the address on the host, and looks at once whether everybody reaches it. */
async function runs(host: string, name: string, address: string): Promise<void> {
  await sleeper(host, name, NET, '--ip', address);
  for (const other of HOSTS)
    expect(await pings(other, `base-${other}`, address), `${other} reaches ${address} on ${host}`).toBe(true);
}

/** The host whose block has the address; null = it is in none. */
async function blockHolder(address: string): Promise<string | null> {
  for (const host of HOSTS) {
    const blocks = Object.values((await journalOf(host)).blocks);
    if (blocks.some(({ cidr }) => containsIp(parseCidr(cidr), parseIp(address)))) return host;
  }
  return null;
}

const labUp = async (): Promise<void> => {
  await weftOk('lab', 'up', '--hosts', '3', '--coordinators', '2');
  await weftOk('wait');
};

beforeAll(async () => {
  await weftOk('network', 'create', NET, '--subnet', '10.63.0.0/28');
  for (const host of HOSTS) await sleeper(host, `base-${host}`, NET);
  await weftOk('wait');
});
afterAll(async () => {
  await labUp();
  await clean(HOSTS);
  await auditClean();
});

describe('a reservation', () => {
  const free: string[] = [];

  beforeAll(async () => {
    const taken = new Set(
      (await weftJson<{ ips: string[] }[]>('endpoint', 'ls', '--network', NET)).flatMap((e) => e.ips),
    );
    for (let n = 2; n < 15; n++) if (!taken.has(ip(n))) free.push(ip(n));
    expect(free).toHaveLength(10);
  });

  it('is shown as it was made', async () => {
    const made = await weftJson(
      'reservation',
      'create',
      'db-1',
      '--network',
      NET,
      '--ip',
      free[0]!,
      '--mac',
      MAC,
      '--label',
      'tier=db',
    );
    expect(made).toEqual({
      name: 'db-1',
      network: NET,
      ips: [free[0]],
      mac: MAC,
      labels: { tier: 'db' },
      holder: null,
      revision: expect.stringMatching(/^\d+$/),
    });
    await reserve('db-2', free[9]!);
    expect(await names()).toEqual(['db-1', 'db-2']);
    expect(await inspect('db-2')).toMatchObject({ ips: [free[9]], mac: null, holder: null });
  });

  it('follows its workload over every host, with its MAC', async () => {
    for (const host of ['h3', 'h2', 'h1', 'h2'] as const) {
      await runs(host, 'db-1', free[0]!);
      expect(await macOf(host, 'db-1')).toBe(MAC);
      expect(await inspect('db-1')).toMatchObject({ holder: { host, container: 'db-1' } });
      await remove(host, 'db-1');
    }
    await until('nobody holds it', async () => (await inspect('db-1')).holder === null);
  });

  it('is for one container at a time, and implies its MAC', async () => {
    await runs('h1', 'db-1', free[0]!);
    const second = await refusedRun('h3', '--ip', free[0]!);
    expect(second).toMatchObject({
      code: expect.any(Number),
      stderr: expect.stringContaining('container db-1 on host h1 has it'),
    });
    expect(second.code).not.toBe(0);
    await remove('h1', 'db-1');
    // Asked for on every host in the same moment, one has it.
    const race = await Promise.all(
      HOSTS.map((host) =>
        on(host, 'docker', 'run', '-d', '--name', 'race', '--network', NET, '--ip', free[0]!, IMAGE, 'sleep', '100000'),
      ),
    );
    expect(race.filter((r) => r.code === 0)).toHaveLength(1);
    for (const host of HOSTS) await remove(host, 'race');
    const other = await refusedRun('h3', '--ip', free[0]!, '--mac-address', '02:aa:00:00:00:99');
    expect(other.code).not.toBe(0);
    expect(other.stderr).toContain(`is reserved as "db-1" with the MAC ${MAC}, not 02:aa:00:00:00:99`);
    expect((await refusedRun('h2', '--mac-address', MAC)).stderr).toContain('is reserved as "db-1"');
    expect((await refusedRun('h2', '--ip', free[0]!, '--mac-address', MAC)).code).toBe(0);
  });

  it('restarts with its address while the control plane is gone', async () => {
    await runs('h1', 'db-1', free[0]!);
    try {
      for (const target of ['coord1', 'coord2', 'etcd1']) await weftOk('lab', 'stop', target);
      await docker('h1', 'restart', '-t', '0', 'db-1');
      expect(await addressOf('h1', 'db-1', NET)).toBe(free[0]);
      expect(await macOf('h1', 'db-1')).toBe(MAC);
      expect(await pings('h2', 'base-h2', free[0]!)).toBe(true);
    } finally {
      await labUp();
    }
    expect((await weftJson<{ conflicts: unknown[] }>('status')).conflicts).toEqual([]);
    await remove('h1', 'db-1');
  });

  it('is used while the host whose block it is in is down', async () => {
    const away = (await blockHolder(free[9]!)) ?? 'h2';
    const [user = 'h1'] = HOSTS.filter((host) => host !== away);
    const holders = new Map(
      await Promise.all(free.map(async (address) => [address, await blockHolder(address)] as const)),
    );
    const theirs = free.slice(1, 9).filter((address) => holders.get(address) === away);
    try {
      await weftOk('lab', 'stop', away, 'agent');
      await until('it is down', async () =>
        (await weftJson<{ name: string; state: string }[]>('host', 'ls')).some(
          (h) => h.name === away && h.state === 'down',
        ),
      );
      await sleeper(user, 'db-2', NET, '--ip', free[9]!);
      expect(await pings(user, `base-${user}`, free[9]!)).toBe(true);
      // What that host might be using cannot become reserved now.
      for (const address of theirs.slice(0, 1)) {
        const late = await weft('reservation', 'create', 'late', '--network', NET, '--ip', address, '--json');
        const message = expect.stringContaining(`in a block of host ${away}, which is not connected`);
        expect(JSON.parse(late.stderr)).toMatchObject({ error: { code: 'FAILED_PRECONDITION', message } });
      }
    } finally {
      await labUp();
    }
    for (const host of HOSTS) expect(await pings(host, `base-${host}`, free[9]!), host).toBe(true);
    expect(await names()).toEqual(['db-1', 'db-2']);
    await remove(user, 'db-2');
  });

  it('is given to nobody by itself: the subnet is exhausted before', async () => {
    const started: string[] = [];
    let refusal: Result | null = null;
    for (let n = 0; refusal === null && n < 12; n++) {
      const host = HOSTS[n % 3]!;
      const args = ['run', '-d', '--name', `auto-${n}`, '--network', NET, IMAGE, 'sleep', '100000'];
      const r = await on(host, 'docker', ...args);
      if (r.code === 0) started.push(await addressOf(host, `auto-${n}`, NET));
      else refusal = r;
    }
    expect(started.toSorted()).toEqual(free.slice(1, 9).toSorted());
    expect(refusal?.stderr).toMatch(/Every usable address .* is taken \(2 by reservations\)/);
    // What is reserved is still to be had.
    await runs('h3', 'db-2', free[9]!);
    await remove('h3', 'db-2');
    for (const [n, host] of HOSTS.entries()) for (let i = n; i < 8; i += 3) await remove(host, `auto-${i}`);
  });

  it('names a container that has its name and another address', async () => {
    await sleeper('h2', 'db-2', NET, '--ip', free[4]!);
    const message = `container db-2 has ${free[4]}, and ${free[9]} is reserved for that name: start it with --ip ${free[9]}`;
    const conflict = await until('the conflict', async () =>
      (await weftJson<{ conflicts: { message: string }[] }>('status')).conflicts.find((c) => c.message === message),
    );
    expect(conflict).toEqual({ host: 'h2', network: NET, message });
    const events = (await weftOk('events', '--json')).trim().split('\n');
    expect(events.map((line) => JSON.parse(line) as unknown)).toContainEqual(
      expect.objectContaining({ type: 'conflict', host: 'h2', object: NET, message }),
    );
    await remove('h2', 'db-2');
    await until('its end', async () => (await weftJson<{ conflicts: unknown[] }>('status')).conflicts.length === 0);
  });

  it('can be made for the container that has the address, and for no other', async () => {
    // A user's --ip is what Docker asks for again when it restarts the container.
    const address = free[6]!;
    await sleeper('h1', 'app', NET, '--ip', address);
    await until('its name is known', async () =>
      (await weftJson<{ name: string | null }[]>('endpoint', 'ls', '--network', NET)).some((e) => e.name === 'app'),
    );
    const other = await weft('reservation', 'create', 'db-3', '--network', NET, '--ip', address, '--json');
    expect(JSON.parse(other.stderr)).toMatchObject({
      error: { code: 'ALREADY_EXISTS', message: expect.stringContaining('in use by container app on host h1') },
    });
    await reserve('app', address);
    expect(await inspect('app')).toMatchObject({ holder: { host: 'h1', container: 'app' } });
    await docker('h1', 'restart', '-t', '0', 'app');
    expect(await addressOf('h1', 'app', NET)).toBe(address);
    await remove('h1', 'app');
    await runs('h3', 'app', address);
    // Its end takes the address from nobody.
    await weftOk('reservation', 'rm', 'app', '--network', NET);
    expect(await pings('h1', 'base-h1', address)).toBe(true);
    await remove('h3', 'app');
    await sleeper('h1', 'next', NET, '--ip', address);
    await remove('h1', 'next');
  });

  it('refuses what cannot be, and nothing is half done', async () => {
    const before = await weftOk('reservation', 'ls', '--json');
    const base = await addressOf('h1', 'base-h1', NET);
    const cases: readonly (readonly [string, string, RegExp, ...string[]])[] = [
      ['bad', 'INVALID_ARGUMENT', /is the network address/, '--ip', ip(0)],
      ['bad', 'INVALID_ARGUMENT', /is the gateway's/, '--ip', ip(1)],
      ['bad', 'INVALID_ARGUMENT', /is the broadcast address/, '--ip', ip(15)],
      ['bad', 'INVALID_ARGUMENT', /is not in the subnet/, '--ip', '10.64.0.1'],
      ['bad', 'INVALID_ARGUMENT', /is not in the subnet/, '--ip', 'fd00::7'],
      ['bad', 'INVALID_ARGUMENT', /not an IPv4 address/, '--ip', '010.63.0.5'],
      ['bad', 'INVALID_ARGUMENT', /one address of each family/, '--ip', free[2]!, '--ip', free[3]!],
      ['bad', 'INVALID_ARGUMENT', /multicast MAC/, '--ip', free[2]!, '--mac', '01:00:5e:00:00:01'],
      ['bad', 'INVALID_ARGUMENT', /of the form that the mesh gives/, '--ip', free[2]!, '--mac', '02:58:0a:3f:00:63'],
      ['b/ad', 'INVALID_ARGUMENT', /cannot be the name/, '--ip', free[2]!],
      ['db-1', 'ALREADY_EXISTS', /has a reservation named "db-1"/, '--ip', free[2]!],
      ['bad', 'ALREADY_EXISTS', /is reserved as "db-1"/, '--ip', free[0]!],
      ['bad', 'ALREADY_EXISTS', /is reserved as "db-1"/, '--ip', free[2]!, '--mac', MAC],
      ['bad', 'ALREADY_EXISTS', /in use by container base-h1 on host h1/, '--ip', base],
    ];
    for (const [name, code, message, ...flags] of cases) {
      const r = await weft('reservation', 'create', name, '--network', NET, ...flags, '--json');
      expect(r.code, flags.join(' ')).toBe(1);
      expect(JSON.parse(r.stderr)).toMatchObject({ error: { code, message: expect.stringMatching(message) } });
    }
    const nowhere = await weft('reservation', 'create', 'bad', '--network', 'nowhere', '--ip', free[2]!, '--json');
    expect(JSON.parse(nowhere.stderr)).toMatchObject({ error: { code: 'NOT_FOUND' } });
    const gone = await weft('reservation', 'rm', 'bad', '--network', NET, '--json');
    expect(JSON.parse(gone.stderr)).toMatchObject({ error: { code: 'NOT_FOUND' } });
    expect((await weft('reservation', 'create', 'bad', '--network', NET)).code).toBe(2);
    expect(await weftOk('reservation', 'ls', '--json')).toBe(before);
    const peer = ['peer', 'add', 'bad', '--network', NET, '--vtep', '192.0.2.9'];
    const asked = await weft(...peer, '--mac', `02:00:00:00:00:01=${free[0]}`);
    expect(asked.stderr).toContain('is reserved as "db-1"');
    const allow = await weft('endpoint', 'set', 'h1/base-h1', '--network', NET, '--allow-address', free[0]!);
    expect(allow.stderr).toContain('is reserved as "db-1"');
  });
});

it('has an address of each family, also in a network that nobody is in yet, and goes with its network', async () => {
  await weftOk('network', 'create', 'resv6', '--subnet', '10.65.0.0/24', '--subnet', 'fd00:65::/64');
  const [v4, v6] = ['10.65.0.9', 'fd00:65::9'];
  const flags = ['--network', 'resv6', '--ip', v6, '--ip', v4, '--mac', MAC];
  expect(await weftJson('reservation', 'create', 'both', ...flags)).toMatchObject({ ips: [v4, v6], mac: MAC });
  await weftOk('wait');
  // The host hears of the MAC with the address.
  await sleeper('h3', 'both', 'resv6', '--ip', v4, '--ip6', v6);
  expect(await macOf('h3', 'both')).toBe(MAC);
  await Promise.all(HOSTS.map((host) => sleeper(host, `six-${host}`, 'resv6')));
  for (const host of ['h3', 'h2', 'h1'] as const) {
    if (host !== 'h3') await sleeper(host, 'both', 'resv6', '--ip', v4, '--ip6', v6);
    expect(await macOf(host, 'both')).toBe(MAC);
    for (const other of HOSTS)
      for (const address of [v4, v6])
        expect(await pings(other, `six-${other}`, address), `${other} reaches ${address} on ${host}`).toBe(true);
    await remove(host, 'both');
  }
  for (const host of HOSTS) await remove(host, `six-${host}`);
  await docker('h3', 'network', 'rm', 'resv6');
  await until('its end', async () =>
    (await weftJson<{ name: string }[]>('reservation', 'ls')).every((r) => r.name !== 'both'),
  );
});
