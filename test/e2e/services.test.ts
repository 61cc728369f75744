/** Virtual addresses: who answers for them, from every host, whatever dies. */
import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import { configure, settled } from '../harness/drift.ts';
import { auditClean, clean, docker, pings, sleeper, until, weft, weftJson, weftOk } from '../harness/lab.ts';
import { figure, type LabStatus, labStatus } from '../harness/lab-direct.ts';
import { answerers, Backend, Caller, calls, Held } from '../harness/service.ts';

const HOSTS = ['h1', 'h2', 'h3'] as const;
const NET = 'sv';
const INNER = 'sv-inner';
const SIX = 'sv-six';
/** Of the containers. */
const TARGET = 8080;
/** For what takes a check or two of half a second, and to be told to all hosts. */
const SOON_MS = 2_000;
const QUICK = ['--health', 'tcp', '--health-interval', '500ms', '--health-rise', '1', '--health-fall', '2'];

interface Shown {
  readonly ips: string[];
  readonly backends: { readonly container: string | null; readonly state: string }[];
}

let lab: LabStatus;
const servers = new Map<string, Backend>();
const serve = async (host: string, name: string): Promise<void> => {
  servers.set(name, await Backend.open(host, name, TARGET));
};
const stop = async (name: string): Promise<void> => {
  await servers.get(name)?.[Symbol.asyncDispose]();
  servers.delete(name);
};
const inspect = (name: string, network = NET) => weftJson<Shown>('service', 'inspect', name, '--network', network);
const healthy = async (name: string, network = NET): Promise<string[]> =>
  (await inspect(name, network)).backends.flatMap((b) => (b.state === 'healthy' ? [b.container ?? ''] : [])).sort();
const become = (name: string, wanted: string[], network = NET): Promise<unknown> =>
  until(`${wanted.join(', ')} behind ${name}`, async () => String(await healthy(name, network)) === String(wanted));
const create = async (name: string, ...more: string[]): Promise<Shown> => {
  await weftOk('service', 'create', name, '--network', NET, '--selector', 'role=web', ...more);
  await weftOk('wait');
  return inspect(name);
};
const control = (): string[] => [...lab.etcd.map((e) => e.name), ...lab.coordinators.map((c) => c.name)];

let vips: readonly string[] = [];
const four = (): string => vips.find((ip) => !ip.includes(':')) ?? '';
const tcp = (ip = four(), port = 80) => ({ protocol: 'tcp', ip, port }) as const;

beforeAll(async () => {
  lab = await labStatus();
  await weftOk('network', 'create', NET, '--ipv6');
  await weftOk('network', 'create', INNER, '--internal');
  await weftOk('network', 'create', SIX, '--subnet', 'fd00:77::/64');
  const role = ['--label', 'role=web'];
  await Promise.all([
    ...HOSTS.map((host) => sleeper(host, `sv-${host}`, NET, ...role)),
    sleeper('h1', 'sv-c1', NET),
    sleeper('h2', 'sv-c2', NET),
    sleeper('h3', 'sv-inner', INNER, ...role),
    sleeper('h1', 'sv-inner-c', INNER),
  ]);
  await Promise.all(HOSTS.map((host) => serve(host, `sv-${host}`)));
  ({ ips: vips } = await create('web', '--port', 'http=80:8080/tcp', '--port', 'ask=80:8080/udp', ...QUICK));
  await become('web', ['sv-h1', 'sv-h2', 'sv-h3']);
  await weftOk('wait');
});

afterAll(async () => {
  for (const name of servers.keys()) await stop(name);
  for (const name of await weftJson<{ name: string; network: string }[]>('service', 'ls'))
    await weft('service', 'rm', name.name, '--network', name.network);
  await clean(HOSTS);
  await weftOk('wait');
  await auditClean();
});

describe('a virtual address', () => {
  it.each(['tcp', 'udp'] as const)(
    'leads to all endpoints behind it, who see the caller itself: %s',
    async (protocol) => {
      for (const [host, name] of [
        ['h1', 'sv-c1'],
        ['h2', 'sv-c2'],
      ] as const) {
        const own = await docker(host, 'exec', name, 'ip', '-o', 'addr', 'show', 'dev', 'eth0');
        for (const ip of vips) {
          const some = await calls(host, name, { protocol, ip, port: 80 });
          expect(answerers(some), `${name} to ${ip}`).toEqual(['sv-h1', 'sv-h2', 'sv-h3']);
          for (const { saw } of some) expect(own).toContain(` ${saw}/`);
        }
      }
    },
  );

  it('leads from an endpoint behind it to the others', async () => {
    for (const ip of vips) expect(answerers(await calls('h2', 'sv-h2', tcp(ip)))).toEqual(['sv-h1', 'sv-h3']);
  });

  it('answers a ping, and has no other ports', async () => {
    for (const ip of vips) {
      expect(await pings('h1', 'sv-c1', ip), ip).toBe(true);
      expect(answerers(await calls('h1', 'sv-c1', tcp(ip, 81), 1)), ip).toEqual(['nobody']);
    }
  });

  it('is there where nothing leads out, and endpoints are asked there too', async () => {
    await weftOk(
      'service',
      'create',
      'web',
      '--network',
      INNER,
      '--selector',
      'role=web',
      '--port',
      '80:8080',
      ...QUICK,
    );
    await weftOk('wait');
    expect(await healthy('web', INNER)).toEqual([]);
    await serve('h3', 'sv-inner');
    await become('web', ['sv-inner'], INNER);
    await weftOk('wait');
    const { ips } = await inspect('web', INNER);
    expect(answerers(await calls('h1', 'sv-inner-c', tcp(ips[0])))).toEqual(['sv-inner']);
    expect(await pings('h1', 'sv-inner-c', ips[0] ?? '')).toBe(true);
    // There is no other.
    expect(answerers(await calls('h3', 'sv-inner', tcp(ips[0]), 5))).toEqual(['sv-inner']);
  });

  it('is there over IPv6 alone, and endpoints are asked so', async () => {
    await Promise.all([sleeper('h2', 'sv-six', SIX, '--label', 'role=web'), sleeper('h1', 'sv-six-c', SIX)]);
    await weftOk('service', 'create', 'web', '--network', SIX, '--selector', 'role=web', '--port', '80:8080', ...QUICK);
    await weftOk('wait');
    expect(await healthy('web', SIX)).toEqual([]);
    await serve('h2', 'sv-six');
    await become('web', ['sv-six'], SIX);
    await weftOk('wait');
    const { ips } = await inspect('web', SIX);
    expect(answerers(await calls('h1', 'sv-six-c', tcp(ips[0]), 5))).toEqual(['sv-six']);
  });

  it('is not reached from a host without the express path, which says so, and may have endpoints behind it', async () => {
    await configure('h3', { express: false });
    await settled(HOSTS);
    const said = async (): Promise<string[]> =>
      (await weftJson<{ conflicts: { host: string; message: string }[] }>('status')).conflicts
        .filter((c) => c.host === 'h3')
        .map((c) => c.message);
    await until('h3 says so', async () =>
      (await said()).some((m) => m.startsWith(`service web of network ${NET} is not`)),
    );
    expect(answerers(await calls('h3', 'sv-h3', tcp(), 2))).toEqual(['nobody']);
    await become('web', ['sv-h1', 'sv-h2', 'sv-h3']);
    expect(answerers(await calls('h1', 'sv-c1', tcp()))).toEqual(['sv-h1', 'sv-h2', 'sv-h3']);
    await configure('h3', { express: null });
    await settled(HOSTS);
    await until('h3 says nothing', async () => (await said()).length === 0);
    expect(answerers(await calls('h3', 'sv-h3', tcp()))).toEqual(['sv-h1', 'sv-h2']);
  });
});

describe('who is behind it', () => {
  /** What callers on two hosts hear from some time after `change` on. */
  async function heardAfter(
    change: () => Promise<void>,
    settled: () => Promise<unknown>,
  ): Promise<[string[], string[]]> {
    await using one = await Caller.open('h1', 'sv-c1', { ...tcp(), pauseMs: 10 });
    await using two = await Caller.open('h2', 'sv-c2', { ...tcp(), pauseMs: 10 });
    await Promise.all([one.next(), two.next()]);
    await change();
    const changed = Date.now();
    await settled();
    const at = changed + SOON_MS;
    const heard = (caller: Caller): boolean => caller.since(at).length >= 40;
    await until('both have called often', async () => heard(one) && heard(two));
    // The last call that went where none goes any more, or to nobody.
    const now = new Set(answerers(one.since(at)));
    const late = [one, two].map((c) => c.calls.findLast(({ by }) => by === null || !now.has(by))?.at ?? changed);
    figure('callers agree', { h1Ms: (late[0] ?? 0) - changed, h2Ms: (late[1] ?? 0) - changed });
    return [answerers(one.since(at)), answerers(two.since(at))];
  }

  it('no longer is whose process has ended, 2 s later on every host; and is again', async () => {
    const left = await heardAfter(
      () => stop('sv-h2'),
      () => become('web', ['sv-h1', 'sv-h3']),
    );
    expect(left).toEqual([
      ['sv-h1', 'sv-h3'],
      ['sv-h1', 'sv-h3'],
    ]);
    const back = await heardAfter(
      () => serve('h2', 'sv-h2'),
      () => become('web', ['sv-h1', 'sv-h2', 'sv-h3']),
    );
    expect(back[0]).toEqual(['sv-h1', 'sv-h2', 'sv-h3']);
  });

  it('no longer is a container that is removed; a new one is once it answers', async () => {
    const left = await heardAfter(
      async () => void (await docker('h3', 'rm', '-f', 'sv-h3')),
      () => become('web', ['sv-h1', 'sv-h2']),
    );
    await stop('sv-h3');
    expect(left).toEqual([
      ['sv-h1', 'sv-h2'],
      ['sv-h1', 'sv-h2'],
    ]);
    await using caller = await Caller.open('h1', 'sv-c1', { ...tcp(), pauseMs: 10 });
    await sleeper('h3', 'sv-new', NET, '--label', 'role=web');
    await until('it is seen', async () => (await inspect('web')).backends.some((b) => b.container === 'sv-new'));
    await caller.next();
    await serve('h3', 'sv-new');
    await until('it is called', async () => caller.calls.some((c) => c.by === 'sv-new'));
    // Nobody called it before it could answer.
    expect(answerers(caller.calls)).toEqual(['sv-h1', 'sv-h2', 'sv-new']);
  });

  it('gets nothing new while it is drained, and keeps what it has', async () => {
    const held: Held[] = [];
    const before: string[] = [];
    while (!before.includes('sv-h2') && before.length < 40) {
      const one = await Held.open('h1', 'sv-c1', four(), 80);
      held.push(one);
      before.push(await one.ask());
    }
    expect(before).toContain('sv-h2');
    const left = await heardAfter(
      async () => void (await weftOk('endpoint', 'set', 'h2/sv-h2', '--drain')),
      () => weftOk('wait'),
    );
    expect(left[0]).toEqual(['sv-h1', 'sv-new']);
    expect(await Promise.all(held.map((h) => h.ask()))).toEqual(before);
    for (const h of held) await h[Symbol.asyncDispose]();
    const back = await heardAfter(
      async () => void (await weftOk('endpoint', 'set', 'h2/sv-h2', '--undrain')),
      () => weftOk('wait'),
    );
    expect(back[0]).toEqual(['sv-h1', 'sv-h2', 'sv-new']);
  });

  it('is the same one for a client, where the service says so', async () => {
    const { ips } = await create('sticky', '--port', '80:8080', '--affinity', '60', ...QUICK);
    await become('sticky', ['sv-h1', 'sv-h2', 'sv-new']);
    await weftOk('wait');
    expect(answerers(await calls('h1', 'sv-c1', tcp(ips[0])))).toHaveLength(1);
  });

  it('is on the client’s own host first, where the service says so', async () => {
    const { ips } = await create('near', '--port', '80:8080', '--local-first', ...QUICK);
    await become('near', ['sv-h1', 'sv-h2', 'sv-new']);
    await weftOk('wait');
    const from = (host: string, name: string) => calls(host, name, tcp(ips[0]));
    expect(answerers(await from('h1', 'sv-c1'))).toEqual(['sv-h1']);
    expect(answerers(await from('h2', 'sv-c2'))).toEqual(['sv-h2']);
    await stop('sv-h1');
    await become('near', ['sv-h2', 'sv-new']);
    await weftOk('wait');
    expect(answerers(await from('h1', 'sv-c1'))).toEqual(['sv-h2', 'sv-new']);
    await serve('h1', 'sv-h1');
    await become('near', ['sv-h1', 'sv-h2', 'sv-new']);
  });
});

describe('when something starts again', () => {
  it.each(['agent', 'ovs'])('%s of a host: what answers there is called all the time', async (what) => {
    await using caller = await Caller.open('h1', 'sv-c1', { ...tcp(), pauseMs: 10 });
    await caller.next();
    await weftOk('lab', 'kill', 'h2', what);
    await weftOk('lab', 'start', 'h2', what);
    await weftOk('wait');
    const at = Date.now();
    await until('it has called often', async () => caller.since(at).length >= 100);
    expect(answerers(caller.calls)).toEqual(['sv-h1', 'sv-h2', 'sv-new']);
    expect(await healthy('web')).toEqual(['sv-h1', 'sv-h2', 'sv-new']);
  });
});

describe('without the control plane', () => {
  it('services go on, and a host’s own callers leave who does not answer', async () => {
    for (const name of control().toReversed()) await weftOk('lab', 'stop', name);
    try {
      expect(answerers(await calls('h2', 'sv-c2', tcp()))).toEqual(['sv-h1', 'sv-h2', 'sv-new']);
      await stop('sv-h1');
      await until('the callers of h1 leave it', async () => {
        const some = await calls('h1', 'sv-c1', tcp());
        return String(answerers(some)) === 'sv-h2,sv-new';
      });
      await serve('h1', 'sv-h1');
    } finally {
      for (const name of control()) await weftOk('lab', 'start', name);
    }
    await become('web', ['sv-h1', 'sv-h2', 'sv-new']);
  });
});
