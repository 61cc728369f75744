/**
 * Frame by frame, against the running datapath, with the express path and without: what is dropped, what passes, and that the counters
 * say so. docs/datapath.md has the table that this file proves.
 */
import { basename } from 'node:path';
import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import { brokenVxlan, type Case, counted, Marks } from '../harness/counted.ts';
import { configure } from '../harness/drift.ts';
import { ethernet, ipv4, ipv6, nd, sendUdp, sendVxlan, tagged, udp } from '../harness/frames.ts';
import { arped, ip, pad, sent } from '../harness/ip-frames.ts';
import { auditClean, clean, onOk, sleeper, until, weft, weftJson, weftOk } from '../harness/lab.ts';
import { type LabStatus, labStatus } from '../harness/lab-direct.ts';
import { Stranger } from '../harness/stranger.ts';
import { type Box, boxOf, Ear, sendFrom } from '../harness/wire.ts';

const HOSTS = ['h1', 'h2', 'h3'] as const;
const NETWORK = 'frames';
const OTHER = 'frames-other';
/** Frames of each kind. */
const N = 5;
const ZERO = '00:00:00:00:00:00';
const NOBODY = '02:00:00:00:00:99';

let lab: LabStatus;
/** On h1; on h1 too; on h2; on h3; on h2 in the other network. */
let a: Box;
let near: Box;
let b: Box;
let c: Box;
let other: Box;
let ears: Map<Box, Ear>;
let stranger: Stranger;
let vni = 0;

beforeAll(async () => {
  lab = await labStatus();
  stranger = await Stranger.open(lab);
  // In the other order on h1: local indexes, which are tags inside a host, then differ between the hosts.
  for (const name of [OTHER, NETWORK]) await weftOk('network', 'create', name, '--ipv6');
  await sleeper('h2', 'frames-o', OTHER);
  await Promise.all([
    sleeper('h1', 'frames-a', NETWORK, '--cap-add', 'NET_ADMIN'),
    sleeper('h1', 'frames-near', NETWORK),
    sleeper('h2', 'frames-b', NETWORK),
    sleeper('h3', 'frames-c', NETWORK),
    sleeper('h1', 'frames-p', OTHER),
  ]);
  a = await boxOf('h1', 'frames-a', NETWORK);
  near = await boxOf('h1', 'frames-near', NETWORK);
  b = await boxOf('h2', 'frames-b', NETWORK);
  c = await boxOf('h3', 'frames-c', NETWORK);
  other = await boxOf('h2', 'frames-o', OTHER);
  ears = new Map(await Promise.all([a, near, b, c, other].map(async (box) => [box, await Ear.open(box)] as const)));
  ({ vni } = await weftJson<{ vni: number }>('network', 'inspect', NETWORK));
  await weftOk('wait');
});
afterAll(async () => {
  await Promise.all([...(ears?.values() ?? [])].map((ear) => ear[Symbol.asyncDispose]()));
  await stranger?.[Symbol.asyncDispose]();
  await clean(HOSTS);
  await auditClean();
});

const marks = new Marks();

/** Sends, waits for the counters to have counted and the receivers to have received, and looks that nobody else did. */
async function prove(one: Case, send: (frames: readonly string[]) => Promise<unknown>): Promise<void> {
  const hosts = Object.keys(one.counted);
  const before = new Map(await Promise.all(hosts.map(async (host) => [host, await counted(hostOf(host))] as const)));
  const mark = marks.next();
  const frames = Array.from({ length: N }, () => one.frames(mark)).flat();
  await send(frames);
  for (const host of hosts)
    for (const counter of one.counted[host] ?? [])
      await until(`${one.what}: "${counter}" on ${host}`, async () => {
        const more = ((await counted(hostOf(host))).get(counter) ?? 0) - (before.get(host)?.get(counter) ?? 0);
        if (more >= frames.length) return true;
        throw new Error(`${more} of ${frames.length}`);
      });
  const receivers = one.to();
  for (const box of receivers)
    await until(`${one.what}: arrives at ${box.name}`, async () => {
      const heard = ears.get(box)?.heard(mark) ?? 0;
      if (heard === frames.length) return true;
      throw new Error(`${heard} of ${frames.length}`);
    });
  const strays = [...ears].filter(([box, ear]) => !receivers.includes(box) && ear.heard(mark) > 0);
  expect(
    strays.map(([box]) => box.name),
    one.what,
  ).toEqual([]);
}

const asking = (mark: string, claim: { sha?: string; spa?: string; op?: number }): string[] => [
  arped(claim.op === 2 ? b.mac : 'ff:ff:ff:ff:ff:ff', a.mac, mark, {
    op: claim.op ?? 1,
    sha: claim.sha ?? a.mac,
    spa: claim.spa ?? a.ip,
    tha: claim.op === 2 ? b.mac : ZERO,
    tpa: b.ip,
  }),
];
const linkLocal = 'fe80::1';

/** From a container of h1. @param express the express path is on */
const fromContainer = (express: boolean): Case[] => {
  const bad = { h1: [...(express ? ['kernel security'] : []), 'drop 4'] };
  const badSlow = { h1: [...(express ? ['kernel slow'] : []), 'drop 4'] };
  const fast = (way: string): readonly string[] => (express ? [`kernel express_${way}`, 'express tx'] : []);
  const nobody = (): Box[] => [];
  const away: Case['counted'] = {
    h1: express ? fast('remote') : ['output', 'kernel ovs_to_tunnel'],
    h2: express ? ['kernel express_rx', 'express rx'] : ['kernel tunnel_to_ovs', 'output'],
  };
  const slowly: Case['counted'] = {
    h1: [...(express ? ['kernel slow'] : []), 'output', 'kernel ovs_to_tunnel'],
    h2: ['kernel tunnel_to_ovs', 'output'],
  };
  const drop = (what: string, frames: Case['frames'], by: Case['counted'] = bad): Case => ({
    what,
    frames,
    to: nobody,
    counted: by,
  });
  return [
    { what: 'its own', frames: (m) => [sent(b.mac, a.mac, ip(a, b, m))], to: () => [b], counted: away },
    {
      what: 'its own, to its own host',
      frames: (m) => [sent(near.mac, a.mac, ip(a, near, m))],
      to: () => [near],
      counted: { h1: express ? fast('local') : ['output'] },
    },
    {
      what: 'its own, IPv6',
      frames: (m) => [ethernet(b.mac, a.mac, 0x86dd, ipv6(a.ip6, b.ip6, 17, udp() + pad(m)))],
      to: () => [b],
      counted: away,
    },
    {
      what: 'IPv4 fragments, the first and a later one',
      frames: (m) => [0x2000, 0x2008, 0x0010].map((fragment) => sent(b.mac, a.mac, ip(a, b, m, { fragment }))),
      to: () => [b],
      counted: away,
    },
    {
      what: '802.1Q with its own addresses',
      frames: (m) => [tagged(sent(b.mac, a.mac, ip(a, b, m)), 0x8100, 5)],
      to: () => [b],
      counted: slowly,
    },
    {
      what: '802.1ad with its own addresses, whatever networks the tags mean to its host',
      frames: (m) => [1, 2, 3].map((tag) => tagged(sent(b.mac, a.mac, ip(a, b, m)), 0x88a8, tag)),
      to: () => [b],
      counted: slowly,
    },
    drop("another's MAC as source", (m) => [sent(b.mac, c.mac, ip(a, b, m))]),
    drop("a neighbour's MAC and address", (m) => [sent(b.mac, near.mac, ip(near, b, m))]),
    drop("another's address as source", (m) => [sent(b.mac, a.mac, ip(c, b, m))]),
    drop('no address as source', (m) => [sent(b.mac, a.mac, ipv4('0.0.0.0', b.ip, { size: 64, mark: m }))]),
    drop("another's IPv6 address as source", (m) => [
      ethernet(b.mac, a.mac, 0x86dd, ipv6(c.ip6, b.ip6, 17, udp() + pad(m))),
    ]),
    drop("another's address in 802.1Q", (m) => [tagged(sent(b.mac, a.mac, ip(c, b, m)), 0x8100, 5)], badSlow),
    drop('multicast MAC as source', (m) => [sent(b.mac, '01:00:5e:00:00:01', ip(a, b, m))]),
    drop('broadcast MAC as source', (m) => [sent(b.mac, 'ff:ff:ff:ff:ff:ff', ip(a, b, m))]),
    drop('zero MAC as source', (m) => [sent(b.mac, ZERO, ip(a, b, m))]),
    drop("ARP request with another's MAC", (m) => asking(m, { sha: c.mac }), badSlow),
    drop("ARP request with another's address", (m) => asking(m, { spa: c.ip }), badSlow),
    drop("ARP reply with another's MAC", (m) => asking(m, { op: 2, sha: c.mac }), badSlow),
    drop("ARP reply with another's address", (m) => asking(m, { op: 2, spa: c.ip }), badSlow),
    drop(
      'an advertisement of an address that is not its own',
      (m) => [ethernet(b.mac, a.mac, 0x86dd, nd(136, a.ip6, b.ip6, c.ip6, a.mac) + pad(m))],
      badSlow,
    ),
    drop(
      "an advertisement with another's MAC",
      (m) => [ethernet(b.mac, a.mac, 0x86dd, nd(136, a.ip6, b.ip6, a.ip6, c.mac) + pad(m))],
      badSlow,
    ),
    drop(
      "a solicitation with another's address",
      (m) => [ethernet(b.mac, a.mac, 0x86dd, nd(135, c.ip6, b.ip6, b.ip6, a.mac) + pad(m))],
      badSlow,
    ),
    drop(
      "a solicitation with another's MAC",
      (m) => [ethernet(b.mac, a.mac, 0x86dd, nd(135, a.ip6, b.ip6, b.ip6, c.mac) + pad(m))],
      badSlow,
    ),
    drop(
      'a router advertisement',
      (m) => [
        ethernet(
          '33:33:00:00:00:01',
          a.mac,
          0x86dd,
          ipv6(linkLocal, 'ff02::1', 58, `86000000${'00'.repeat(12)}`) + pad(m),
        ),
      ],
      badSlow,
    ),
    drop('to nobody’s MAC', (m) => [sent(NOBODY, a.mac, ip(a, b, m))], {
      h1: [...(express ? ['kernel slow'] : []), 'drop 28'],
    }),
    drop(
      "to another network's container",
      (m) => [sent(other.mac, a.mac, ipv4(a.ip, other.ip, { size: 64, mark: m }))],
      {
        h1: [...(express ? ['kernel slow'] : []), 'drop 28'],
      },
    ),
    drop('an unknown protocol', (m) => [ethernet(b.mac, a.mac, 0x9999, pad(m))], badSlow),
    drop('IPv4 that ends in its header', (m) => [ethernet(b.mac, a.mac, 0x0800, `4500${m}`)], badSlow),
    drop('IPv6 that ends in its header', (m) => [ethernet(b.mac, a.mac, 0x86dd, `6000${m}`)], badSlow),
    drop('ARP that ends in its header', (m) => [ethernet(b.mac, a.mac, 0x0806, `000108000604${m}`)], badSlow),
  ];
};

/** From the underlay, to h2, inside VXLAN. @param as the lab's host whose VTEP sends; null = a stranger */
interface Injected extends Case {
  readonly as: string | null;
  readonly vni?: number;
}

const fromUnderlay = (express: boolean): Injected[] => {
  const inner = (m: string, src = a.mac, from = a.ip): string[] => [
    sent(b.mac, src, ipv4(from, b.ip, { size: 64, mark: m })),
  ];
  const drop = (
    what: string,
    as: string | null,
    reason: string,
    frames: Case['frames'],
    more: object = {},
  ): Injected => ({
    what,
    as,
    frames,
    to: () => [],
    counted: { h2: [reason] },
    ...more,
  });
  const pass = (
    what: string,
    frames: Case['frames'],
    reason: string,
    to: () => readonly Box[] = () => [b],
  ): Injected => ({
    what,
    as: 'h1',
    frames,
    to,
    counted: { h2: [`kernel ${reason}`] },
  });
  const good = express ? 'express_rx' : 'tunnel_to_ovs';
  return [
    pass("a container's frame from its host", inner, good),
    pass('fragments', (m) => [0x2000, 0x0010].map((fragment) => sent(b.mac, a.mac, ip(a, b, m, { fragment }))), good),
    pass('802.1Q', (m) => [tagged(inner(m)[0] ?? '', 0x8100, 7)], 'tunnel_to_ovs'),
    pass(
      '802.1ad, whatever networks the tags mean to the host',
      (m) => [1, 2, 3].map((tag) => tagged(inner(m)[0] ?? '', 0x88a8, tag)),
      'tunnel_to_ovs',
    ),
    pass('broadcast', (m) => [sent('ff:ff:ff:ff:ff:ff', a.mac, ip(a, b, m))], 'tunnel_to_ovs'),
    drop('a VNI that nobody has', 'h1', 'kernel unknown_vni', inner, { vni: 0xabcdef }),
    drop('a stranger', null, 'kernel foreign_vtep', inner),
    drop('a stranger, broadcast', null, 'kernel foreign_vtep', (m) => [sent('ff:ff:ff:ff:ff:ff', a.mac, ip(a, b, m))]),
    drop("another host's container as source", 'h1', 'kernel foreign_source', (m) => inner(m, c.mac, c.ip)),
    drop("the receiving host's own container as source", 'h1', 'kernel foreign_source', (m) => inner(m, b.mac, b.ip)),
    drop("nobody's MAC as source", 'h1', 'kernel foreign_source', (m) => inner(m, NOBODY)),
    drop('multicast MAC as source', 'h1', 'kernel foreign_source', (m) => inner(m, '01:00:5e:00:00:01')),
    drop('zero MAC as source', 'h1', 'kernel foreign_source', (m) => inner(m, ZERO)),
    drop('to nobody’s MAC', 'h1', 'drop 28', (m) => [sent(NOBODY, a.mac, ip(a, b, m))]),
    drop("to another host's container: what came out of a tunnel goes into none", 'h1', 'drop 28', (m) => [
      sent(c.mac, a.mac, ip(a, c, m)),
    ]),
    drop('IPv4 that ends in its header', 'h1', 'device', (m) => [ethernet(b.mac, a.mac, 0x0800, `4500${m}`)]),
    drop('IPv6 that ends in its header', 'h1', 'device', (m) => [ethernet(b.mac, a.mac, 0x86dd, `6000${m}`)]),
    drop('IPv4 of another version', 'h1', 'kernel tunnel_short', (m) => [
      sent(b.mac, a.mac, ip(a, b, m).replace(/^4/, '5')),
    ]),
    drop('IPv4 whose header is shorter than a header', 'h1', 'kernel tunnel_short', (m) => [
      sent(b.mac, a.mac, ip(a, b, m).replace(/^45/, '44')),
    ]),
  ];
};

const hostOf = (name: string): LabStatus['hosts'][number] => {
  const host = lab.hosts.find((h) => h.name === name);
  if (host === undefined) throw new Error(`no ${name}`);
  return host;
};

describe.each([true, false])('express %s', (express) => {
  beforeAll(async () => {
    if (!express) for (const host of HOSTS) await configure(host, { express: false });
    await weftOk('wait');
  });
  afterAll(async () => {
    if (express) return;
    for (const host of HOSTS) await configure(host, { express: null });
    await weftOk('wait');
  });

  it('is what every host says', async () => {
    await until('the hosts say so', async () => {
      const hosts = await weftJson<{ name: string; express: boolean; state: string }[]>('host', 'ls');
      const all = await Promise.all(hosts.map(({ name }) => weftJson<{ express: boolean }>('host', 'inspect', name)));
      return all.every((h) => h.express === express);
    });
  });

  it('from a container', async () => {
    for (const one of fromContainer(express)) await prove(one, (frames) => sendFrom(a, frames));
  });

  it('a container’s ARP and neighbour discovery is answered, to it alone', async () => {
    const ask = async (question: (mark: string) => string): Promise<string> => {
      const mark = marks.next();
      await sendFrom(a, [question(mark)]);
      await until('the answer', async () => ears.get(a)?.heard(mark) === 1);
      expect([near, b, c].map((box) => ears.get(box)?.heard(mark))).toEqual([0, 0, 0]);
      return ears.get(a)?.frames(mark)[0] ?? '';
    };
    const hex = (mac: string): string => mac.replaceAll(':', '');
    const reply = await ask((mark) => asking(mark, {})[0] ?? '');
    expect(reply.slice(0, 24)).toBe(hex(a.mac) + hex(b.mac));
    const advertisement = await ask((mark) =>
      ethernet('33:33:ff:00:00:01', a.mac, 0x86dd, nd(135, a.ip6, 'ff02::1:ff00:1', b.ip6, a.mac) + pad(mark)),
    );
    // A block's answer is the alias MAC, which the holder's host turns into the container's own.
    expect(advertisement.slice(0, 12)).toBe(hex(a.mac));
    expect(advertisement.slice(12, 16)).toBe('0259');
  });

  it('what is too long for a link ends there, counted by it', async () => {
    const mark = marks.next();
    const drops = async (): Promise<number> => {
      const inside = await onOk('h1', 'nsenter', `--net=${a.sandbox}`, 'ip', '-s', '-j', 'link', 'show', 'eth0');
      const outside = await onOk('h1', 'ip', '-s', '-j', 'link', 'show', a.link);
      const of = (text: string): { rx: { dropped: number }; tx: { dropped: number } } =>
        (JSON.parse(text) as [{ stats64: { rx: { dropped: number }; tx: { dropped: number } } }])[0].stats64;
      return of(inside).tx.dropped + of(outside).rx.dropped;
    };
    const before = await drops();
    // The container's own network administrator may lie about its side's MTU, not about the host's.
    const mtu = (n: number): Promise<string> =>
      onOk('h1', 'nsenter', `--net=${a.sandbox}`, 'ip', 'link', 'set', 'eth0', 'mtu', String(n));
    await mtu(9000);
    await sendFrom(
      a,
      Array.from({ length: N }, () => sent(b.mac, a.mac, ip(a, b, mark, { size: 2000 }))),
    );
    await mtu(1450);
    expect(await drops()).toBeGreaterThanOrEqual(before + N);
    expect([...ears.values()].map((ear) => ear.heard(mark))).toEqual([...ears].map(() => 0));
  });

  it('from the underlay', async () => {
    const to = hostOf('h2').underlay.ip;
    for (const one of fromUnderlay(express)) {
      const [netns, from] =
        one.as === null ? [stranger.netns, stranger.ip] : [basename(hostOf(one.as).netns), hostOf(one.as).underlay.ip];
      await prove(one, (frames) => sendVxlan(netns, from, to, one.vni ?? vni, frames));
    }
  });

  it('broken VXLAN from a host’s VTEP', async () => {
    const mark = marks.next();
    const id = vni.toString(16).padStart(6, '0');
    const frame = sent(b.mac, a.mac, ip(a, b, mark));
    const h1 = hostOf('h1');
    await sendUdp(basename(h1.netns), h1.underlay.ip, hostOf('h2').underlay.ip, [
      ...brokenVxlan(id, frame),
      `08000000${id}00${frame}`,
    ]);
    // Datagrams keep their order here: after the last one the others have been judged.
    await until('the good one', async () => (ears.get(b)?.heard(mark) ?? 0) >= 1);
    expect(ears.get(b)?.heard(mark)).toBe(1);
  });

  it('is as it should be', async () => {
    await auditClean();
    expect((await weft('status', '--json')).code).toBe(0);
  });
});
