/** The tree of classes by the real tc, in a network namespace: set, read back, mended, given back; what is led where. */
import { mkdtemp, readFile, rm } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterAll, beforeAll, beforeEach, describe, expect, it } from 'vitest';
import { UnderlayQueues } from '../../../agent/shaping/underlay.ts';
import { UnderlayShaper } from '../../../agent/underlay-shaper.ts';
import { silentLog } from '../../../lib/log.ts';
import type { Drift } from '../../../lib/model.ts';
import { Namespaces, sweepNamespaces } from '../../harness/bpf.ts';
import { run } from '../../harness/lab.ts';

const namespaces = new Namespaces();
let enter: string[] = [];
let dir = '';
let problem = '';
/** How often tc was told to do something. */
let applied = 0;
const drift: string[] = [];

const inside = async (...command: string[]): Promise<string> => {
  const [file = '', ...args] = [...enter, ...command];
  const r = await run(file, args);
  if (r.code !== 0) throw new Error(`${command.join(' ')}: ${r.stdout}${r.stderr}`);
  return r.stdout;
};
const tc = (line: string): Promise<string> => inside('tc', ...line.split(' '));
const root = async (dev = 'eth0'): Promise<string> =>
  (await tc(`qdisc show dev ${dev}`)).split('\n').find((line) => line.includes(' root ')) ?? '';

class Counted extends UnderlayQueues {
  override apply(lines: readonly string[]): Promise<void> {
    applied++;
    return super.apply(lines);
  }
}
const shaper = (bits: number | null, where: string | undefined = 'eth0'): UnderlayShaper =>
  new UnderlayShaper({
    queues: new Counted(enter),
    bits,
    where: () => Promise.resolve(where),
    unable: '',
    file: join(dir, 'before.json'),
    onDrift: (d: Drift, _at, healedAt) => drift.push(`${d.object} ${d.change}${healedAt === null ? '' : ' healed'}`),
    onProblem: (message) => {
      problem = message;
    },
    now: () => Date.now(),
    log: silentLog(),
  });

beforeAll(async () => {
  await sweepNamespaces();
  const name = await namespaces.add('shape');
  enter = ['nsenter', `--net=/run/netns/${name}`];
});
afterAll(async () => {
  await namespaces[Symbol.asyncDispose]();
});
beforeEach(async () => {
  if (dir !== '') await rm(dir, { recursive: true });
  dir = await mkdtemp(join(tmpdir(), 'weft-shape-'));
  problem = '';
  drift.length = 0;
  for (const dev of ['eth0', 'eth1']) {
    await inside('ip', 'link', 'del', dev).catch(() => undefined); // the first time there is none
    const pair = ['add', dev, 'type', 'veth', 'peer', 'name', `${dev}-peer`];
    await inside('ip', 'link', ...pair);
    for (const one of [dev, `${dev}-peer`]) await inside('ip', 'link', 'set', one, 'up');
  }
});
afterAll(() => rm(dir, { recursive: true, force: true }));

describe('a tree', () => {
  it.each([1e6, 33_333_333, 200e6, 1_234_567_890, 10e9, 100e9])(
    'of %d bit/s is read back as it was set, and found so by the next agent',
    async (bits) => {
      const first = shaper(bits);
      await first.start();
      expect(problem).toBe('');
      expect(await root()).toContain('htb 57ef:');
      expect(await first.audit(false)).toEqual([]);
      const file = await readFile(join(dir, 'before.json'), 'utf8');
      applied = 0;
      const next = shaper(bits);
      await next.start();
      expect(await next.audit(false)).toEqual([]);
      expect(applied).toBe(0);
      expect(await readFile(join(dir, 'before.json'), 'utf8')).toBe(file);
    },
  );

  it.each([
    ['tc qdisc del dev eth0 root', ['eth0 missing']],
    ['tc qdisc replace dev eth0 root pfifo limit 9', ['eth0 differs']],
    ['tc filter del dev eth0 parent 57ef:', ['eth0 filters missing']],
    [
      'tc filter add dev eth0 parent 57ef: protocol ip pref 1 u32 match ip dport 22 0xffff classid 57ef:10',
      ['eth0 filters differs'],
    ],
    [
      'tc class change dev eth0 parent 57ef:1 classid 57ef:30 htb prio 2 rate 1mbit ceil 2mbit',
      ['eth0 57ef:30 differs'],
    ],
    ['tc class add dev eth0 parent 57ef:1 classid 57ef:99 htb rate 1mbit', ['eth0 differs']],
    ['tc qdisc del dev eth0 parent 57ef:10', ['eth0 57ef:10 57e1: missing']],
    ['tc qdisc replace dev eth0 parent 57ef:10 handle 9: pfifo limit 9', ['eth0 57ef:10 57e1: differs']],
  ])('%s is drift, and healed', async (command, told) => {
    const one = shaper(200e6);
    await one.start();
    await inside(...command.split(' '));
    const seen = await one.audit(false);
    expect(seen.map((d) => `${d.object} ${d.change}`)).toEqual(told);
    expect(seen.every((d) => d.kind === 'queue')).toBe(true);
    await one.audit(true);
    expect(drift).toEqual(told.map((text) => `${text} healed`));
    expect(await one.audit(false)).toEqual([]);
    expect(problem).toBe('');
    await shaper(null).start();
    expect(await root()).toMatch(/^qdisc noqueue 0: /);
  });

  it('takes another rate where it stands', async () => {
    await shaper(200e6).start();
    const before = await root();
    await shaper(100e6).start();
    expect(await root()).toBe(before);
    expect(await tc('class show dev eth0')).toMatch(/57ef:1 root rate 100Mbit ceil 100Mbit/);
    expect(drift).toEqual([]);
  });

  it('leads IPv4 and IPv6 to classes by their DSCP', async () => {
    await shaper(200e6).start();
    await inside('sysctl', '-qw', 'net.ipv6.conf.eth0.disable_ipv6=0');
    await inside('ip', 'address', 'add', '192.0.2.1/24', 'dev', 'eth0');
    await inside('ip', 'address', 'add', 'fd99::1/64', 'dev', 'eth0', 'nodad');
    for (const to of ['192.0.2.2', 'fd99::2'])
      await inside('ip', 'neigh', 'replace', to, 'lladdr', '02:00:00:00:00:02', 'dev', 'eth0', 'nud', 'permanent');
    const packets = async (): Promise<Record<string, number>> => {
      const text = await tc('-s class show dev eth0');
      const all = [...text.matchAll(/class htb 57ef:(\d0) .*\n Sent \d+ bytes (\d+) pkt/g)];
      return Object.fromEntries(all.map((m) => [m[1] ?? '', Number(m[2])]));
    };
    const grown = async (work: () => Promise<unknown>): Promise<string[]> => {
      const before = await packets();
      await work();
      const after = await packets();
      // The kernel's own IPv6 may send some too, unmarked.
      return Object.keys(after).filter((id) => (after[id] ?? 0) - (before[id] ?? 0) >= 20);
    };
    const send = (to: string, dscp: number) => () =>
      inside('ping', '-c', '20', '-i', '0.002', '-W', '0.01', '-Q', String((dscp << 2) | 1), to).catch(() => undefined); // nobody answers
    for (const to of ['192.0.2.2', 'fd99::2'])
      for (const [dscp, id] of [
        [34, '10'],
        [46, '10'],
        [48, '10'],
        [0, '20'],
        [26, '20'],
        [1, '30'],
        [8, '30'],
      ] as const)
        expect([to, dscp, await grown(send(to, dscp))]).toEqual([to, dscp, [id]]);
  });
});

describe('what was there before', () => {
  it.each(['pfifo 9: limit 7', 'bfifo 8002: limit 7000', 'tbf 1: rate 10mbit burst 10kb limit 100kb', 'pfifo_fast 7:'])(
    '%s comes back when the underlay is not shaped any more',
    async (text) => {
      const [kind = '', handle = '', ...args] = text.split(' ');
      await inside('tc', 'qdisc', 'replace', 'dev', 'eth0', 'root', 'handle', handle, kind, ...args);
      const before = await root();
      await shaper(200e6).start();
      expect([problem, await root()]).toEqual(['', expect.stringContaining('htb 57ef:')]);
      // Also after the agent has died, and after somebody took the tree away.
      await tc('qdisc del dev eth0 root');
      await shaper(200e6).start();
      await shaper(null).start();
      expect(await root()).toBe(before);
      await expect(readFile(join(dir, 'before.json'))).rejects.toThrow('ENOENT');
    },
  );

  it('a tree of somebody is left alone, and named', async () => {
    await tc('qdisc replace dev eth0 root handle 1: htb default 1');
    await tc('class add dev eth0 parent 1: classid 1:1 htb rate 1mbit');
    const before = await tc('class show dev eth0');
    const one = shaper(200e6);
    await one.start();
    expect(problem).toMatch(/^eth0 is not shaped: its queue, htb 1:, is somebody else's/);
    expect(await tc('class show dev eth0')).toBe(before);
    // Also one that came later.
    await tc('qdisc del dev eth0 root');
    await one.audit(true);
    expect([problem, drift]).toEqual(['', []]);
    await tc('qdisc replace dev eth0 root handle 2: htb default 1');
    await one.audit(true);
    expect(problem).toContain('htb 2:');
    expect(await root()).toContain('htb 2:');
    await shaper(null).start();
    expect(await root()).toContain('htb 2:');
  });

  it('filters of somebody are left alone, with their queue', async () => {
    await tc('qdisc replace dev eth0 root handle 1: tbf rate 10mbit burst 10kb limit 100kb');
    await tc('qdisc replace dev eth0 parent 1:1 handle 2: pfifo limit 9');
    await shaper(200e6).start();
    expect(problem).toContain('tbf 1:');
    expect(await root()).toContain('tbf 1:');
  });

  it('the interface that had the VTEP gets it back; what is at its ingress is not looked at', async () => {
    await tc('qdisc add dev eth0 clsact');
    await tc('qdisc replace dev eth0 root handle 9: pfifo limit 7');
    await shaper(200e6).start();
    expect(problem).toBe('');
    await shaper(200e6, 'eth1').start();
    expect(await root()).toMatch(/^qdisc pfifo 9: /);
    expect(await root('eth1')).toContain('htb 57ef:');
    expect(await tc('qdisc show dev eth0')).toContain('clsact');
    await shaper(null).start();
    expect(await root('eth1')).toMatch(/^qdisc noqueue 0: /);
  });

  it('an interface that was away is shaped again', async () => {
    const one = shaper(200e6);
    await one.start();
    await inside('ip', 'link', 'del', 'eth0');
    await one.audit(true);
    expect([problem, drift]).toEqual(['', []]);
    await inside('ip', 'link', 'add', 'eth0', 'type', 'veth', 'peer', 'name', 'eth0-peer');
    await one.audit(true);
    expect(await root()).toContain('htb 57ef:');
    expect(drift).toEqual([]);
  });
});
