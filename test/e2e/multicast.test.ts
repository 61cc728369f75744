/**
 * Multicast and broadcast between containers of three hosts: copies go to hosts and ports that have receivers, groups of the link to
 * all; without the agent to everybody; a storm is capped.
 */
import { type ChildProcess, spawn } from 'node:child_process';
import { fileURLToPath } from 'node:url';
import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import { auditClean, clean, docker, on, onOk, sleeper, until, weftOk } from '../harness/lab.ts';

const HOSTS = ['h1', 'h2', 'h3'] as const;
type Host = (typeof HOSTS)[number];
const NET = 'casts';
const PEER = fileURLToPath(new URL('../harness/multicast-peer.ts', import.meta.url));
const WEFT = fileURLToPath(new URL('../../bin/weft', import.meta.url));
/** Leave, two queries of a second each, and the way to the other hosts. */
const LEFT_MS = 15_000;
/** Flows that prune end by themselves 30 s after the agent. */
const ALONE_MS = 60_000;

const pids = new Map<Host, string>();
const listeners = new Set<Listener>();
const container = (host: Host): string => `cast-${host}`;
const inside = (host: Host): string[] => ['nsenter', '-t', pids.get(host) ?? '', '-n'];
const peer = (host: Host): string[] => [...inside(host), process.execPath, PEER];

/** A process in a container's namespace that has joined a group. */
class Listener {
  readonly #child: ChildProcess;
  readonly #joined = Promise.withResolvers<void>();
  got = 0;

  constructor(host: Host, group: string, port: number) {
    const args = ['lab', 'exec', host, ...peer(host), 'listen', group, String(port)];
    this.#child = spawn(WEFT, args, { stdio: ['pipe', 'pipe', 'inherit'] });
    this.#child.stdout?.setEncoding('utf8').on('data', (text: string) => {
      if (text.includes('joined')) this.#joined.resolve();
      this.got = Number(text.match(/got (\d+)\n$/)?.[1] ?? this.got);
    });
    listeners.add(this);
  }

  async joined(): Promise<this> {
    await this.#joined.promise;
    return this;
  }

  async stop(): Promise<void> {
    listeners.delete(this);
    if (this.#child.exitCode !== null) return;
    const ended = new Promise((resolve) => this.#child.once('close', resolve));
    this.#child.kill('SIGTERM');
    await ended;
  }
}

const listen = (host: Host, group: string, port: number): Promise<Listener> => new Listener(host, group, port).joined();
const send = (host: Host, group: string, port: number, count: number, gapMs = 2): Promise<string> =>
  onOk(host, ...peer(host), 'send', group, String(port), String(count), String(gapMs));

async function flows(host: Host): Promise<string[]> {
  return (await onOk(host, 'ovs-ofctl', '-O', 'OpenFlow14', 'dump-flows', 'br-weft')).split('\n');
}

/** Frames that have come to a host from others: of a group that somebody somewhere wants, or (null) of those that nobody does. */
async function came(host: Host, mac: string | null): Promise<number> {
  const flow = await until(`${host} knows of ${mac ?? 'nothing else'}`, async () => {
    // Only this brings the datapath's counters into the flows.
    await onOk(host, 'ovs-appctl', '-t', '/var/run/openvswitch/ovs-vswitchd.ctl', 'revalidator/wait');
    const what = mac === null ? 'priority=51,' : `dl_dst=${mac} `;
    return (await flows(host)).find((f) => f.includes('reg1=0x2') && f.includes('reg6=0x1') && f.includes(what));
  });
  return Number(/n_packets=(\d+)/.exec(flow)?.[1]);
}

/** Do copies for the group leave a host, to at least one other? */
async function sends(host: Host, mac: string): Promise<boolean> {
  const group = (await flows(host)).find((f) => f.includes('reg1=0x1') && f.includes(`dl_dst=${mac} `));
  return group !== undefined && /->(vlan_vid|tun_dst)/.test(group);
}

/** Flows of pruning, with the timeout that ends them. */
const prunes = async (host: Host): Promise<boolean> => (await flows(host)).some((f) => f.includes('hard_timeout=30'));

/** All agents know who wants what: none of the groups that nobody has joined is copied. */
async function known(): Promise<void> {
  await until(
    'memberships are known everywhere',
    async () => {
      const rest = (await Promise.all(HOSTS.map(flows))).flat().filter((f) => / priority=51,.*reg6=0x1 /.test(f));
      return rest.length >= 2 * HOSTS.length && rest.every((f) => f.endsWith('actions=drop'));
    },
    60_000,
  );
}

beforeAll(async () => {
  await clean(HOSTS);
  await weftOk('network', 'create', NET, '--ipv6');
  await Promise.all(
    HOSTS.map(async (host) => {
      await until(
        'Docker has the network',
        async () => (await on(host, 'docker', 'network', 'inspect', NET)).code === 0,
      );
      await sleeper(host, container(host), NET);
      pids.set(host, await docker(host, 'inspect', '-f', '{{.State.Pid}}', container(host)));
    }),
  );
  await known();
});
afterAll(async () => {
  for (const l of listeners) await l.stop();
  await weftOk('lab', 'start', 'h2', 'agent').catch(() => undefined);
  await clean(HOSTS);
});

describe('multicast', () => {
  it('goes to hosts with receivers only, a second after they join; and no more after they leave', async () => {
    const two = await listen('h2', '239.1.2.3', 5000);
    await until('h1 copies', () => sends('h1', '01:00:5e:01:02:03'), 5_000);
    await send('h1', '239.1.2.3', 5000, 200);
    await until('all have come', async () => two.got === 200, 5_000);
    expect(await came('h2', '01:00:5e:01:02:03')).toBe(200);
    expect(await came('h3', '01:00:5e:01:02:03')).toBe(0);
    const three = await listen('h3', '239.1.2.3', 5000);
    await until('h3 gets it too', async () => {
      await send('h1', '239.1.2.3', 5000, 1);
      return three.got > 0;
    });
    await three.stop();
    await two.stop();
    await until('nobody gets it', async () => !(await sends('h1', '01:00:5e:01:02:03')), LEFT_MS);
    const before = await Promise.all([came('h2', null), came('h3', null)]);
    await send('h1', '239.1.2.3', 5000, 100);
    expect(await Promise.all([came('h2', null), came('h3', null)])).toEqual(before);
  });

  it('understands hosts that speak IGMPv2', async () => {
    const force = (version: number): Promise<string> =>
      onOk('h2', ...inside('h2'), 'sysctl', '-qw', `net.ipv4.conf.all.force_igmp_version=${version}`);
    await force(2);
    const two = await listen('h2', '239.4.5.6', 5001);
    await until('h1 copies', () => sends('h1', '01:00:5e:04:05:06'), 5_000);
    await send('h1', '239.4.5.6', 5001, 20);
    await until('all have come', async () => two.got === 20, 5_000);
    await two.stop();
    await until('nobody gets it', async () => !(await sends('h1', '01:00:5e:04:05:06')), LEFT_MS);
    await force(0);
  });

  it('of IPv6 is the same', async () => {
    const two = await listen('h2', 'ff15::77', 5008);
    await until('h1 copies', () => sends('h1', '33:33:00:00:00:77'), 5_000);
    await send('h1', 'ff15::77', 5008, 50);
    await until('all have come', async () => two.got === 50, 5_000);
    expect(await came('h3', '33:33:00:00:00:77')).toBe(0);
    await two.stop();
    await until('nobody gets it', async () => !(await sends('h1', '33:33:00:00:00:77')), LEFT_MS);
  });

  it('of the link, and broadcasts, reach everybody', async () => {
    const mdns = await Promise.all([listen('h2', '224.0.0.251', 5353), listen('h3', '224.0.0.251', 5353)]);
    const all = await Promise.all([listen('h2', 'broadcast', 5002), listen('h3', 'broadcast', 5002)]);
    await send('h1', '224.0.0.251', 5353, 20);
    await send('h1', 'broadcast', 5002, 20);
    await until('all have come', async () => [...mdns, ...all].every((l) => l.got === 20), 5_000);
    await Promise.all([...mdns, ...all].map((l) => l.stop()));
  });

  it('reports stay on their host', async () => {
    const dropped = async (): Promise<number> => {
      const igmp = (await flows('h3')).find((f) => f.includes('reg1=0x2') && f.includes('nw_proto=2'));
      return Number(/n_packets=(\d+)/.exec(igmp ?? '')?.[1]);
    };
    const two = await listen('h2', '239.7.7.7', 5003);
    await until('h1 copies', () => sends('h1', '01:00:5e:07:07:07'), 5_000);
    expect(await came('h3', '01:00:5e:07:07:07')).toBe(0);
    expect(await dropped()).toBe(0);
    await two.stop();
  });

  it('a storm is capped, and does not reach others whole', async () => {
    const two = await listen('h2', 'broadcast', 5004);
    const began = performance.now();
    await send('h1', 'broadcast', 5004, 6000, 1);
    const seconds = (performance.now() - began) / 1000;
    await until(
      'the rest has come',
      async () => {
        const was = two.got;
        await send('h3', '239.99.99.99', 5004, 10, 20);
        return two.got === was;
      },
      10_000,
    );
    // A burst of a second's worth, and a second's worth every second.
    expect(two.got).toBeLessThanOrEqual(1000 * (seconds + 1) + 50);
    expect(two.got).toBeGreaterThan(500);
    const meters = await onOk('h1', 'ovs-ofctl', '-O', 'OpenFlow14', 'meter-stats', 'br-weft');
    const dropped = [...meters.matchAll(/packet_count:(\d+)/g)].map((m) => Number(m[1]));
    expect(Math.max(...dropped)).toBeGreaterThan(0);
    await two.stop();
  });

  it('goes on without the agent, and to everybody soon', async () => {
    const two = await listen('h2', '239.1.2.4', 5005);
    await until('h1 copies', () => sends('h1', '01:00:5e:01:02:04'), 5_000);
    await weftOk('lab', 'kill', 'h2', 'agent');
    await send('h1', '239.1.2.4', 5005, 50);
    await until('all have come', async () => two.got === 50, 5_000);
    // Nobody hears its report.
    const late = await listen('h2', '239.1.2.5', 5006);
    await until('h2 no longer prunes', async () => !(await prunes('h2')), ALONE_MS);
    await until(
      'it gets it all the same',
      async () => {
        await send('h1', '239.1.2.5', 5006, 1);
        return late.got > 0;
      },
      ALONE_MS,
    );
    await weftOk('lab', 'start', 'h2', 'agent');
    await until('h2 prunes again', () => prunes('h2'), 30_000);
    await until('h1 knows of both', async () => {
      const both = await Promise.all(['01:00:5e:01:02:04', '01:00:5e:01:02:05'].map((mac) => sends('h1', mac)));
      return both.every(Boolean);
    });
    const before = await came('h3', '01:00:5e:01:02:05');
    const had = late.got;
    await send('h1', '239.1.2.5', 5006, 50);
    await until('all have come', async () => late.got === had + 50, 5_000);
    expect(await came('h3', '01:00:5e:01:02:05')).toBe(before);
    await Promise.all([two.stop(), late.stop()]);
  });

  it('a restarted agent goes on where it was', async () => {
    const two = await listen('h2', '239.1.2.6', 5007);
    await until('h1 copies', () => sends('h1', '01:00:5e:01:02:06'), 5_000);
    await weftOk('lab', 'stop', 'h2', 'agent');
    await weftOk('lab', 'start', 'h2', 'agent');
    await send('h1', '239.1.2.6', 5007, 100, 50);
    await until('all have come', async () => two.got === 100, 5_000);
    await two.stop();
  });

  it('leaves nothing to mend', async () => {
    await auditClean();
  });
});
