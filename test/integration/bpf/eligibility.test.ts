import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import type { BpfDriver } from '../../../agent/bpf/driver.ts';
import { encode } from '../../../agent/bpf/encode.ts';
import type { BpfHelper } from '../../../agent/bpf/helper.ts';
import { type BpfFdb, type BpfModel, type BpfPort, type BpfReason, REASONS } from '../../../agent/bpf/model.ts';
import { planMaps } from '../../../agent/plan/maps.ts';
import { parseIp } from '../../../lib/ip.ts';
import { parseMac } from '../../../lib/mac.ts';
import { counting, driverIn, Mounts, Namespaces, sweepNamespaces } from '../../harness/bpf.ts';
import { v4, vtep } from '../../harness/bpf-pair.ts';
import { arp, ethernet, icmp6, ipv4, ipv6, tagged, udp } from '../../harness/frames.ts';

/** BPF_PROG_TEST_RUN of every rule: what a program does with a frame, by its answer and by what it counts. */

/** TC_ACT_SHOT, TC_ACT_REDIRECT (linux/pkt_cls.h). */
const DROP = 2;
const REDIRECT = 7;
/** The loopback link of the namespace plays the endpoint's. */
const PORT = 1;
const NET = 3;
const OTHER_NET = 4;

const ME = { mac: '02:58:0a:80:00:07', ip: '10.128.0.7', ip6: 'fd00:128::7', linkLocal: 'fe80::58:aff:fe80:7' };
const remote = { kind: 'remote', ...vtep(v4('192.0.2.2')) } as const;
const remote6 = {
  kind: 'remote',
  vtep: { family: 6, address: (0xfd00n << 112n) | 2n },
  device: null,
  key: null,
} as const;

/** Destinations, by what is special of them. */
const TO = {
  remote: '02:aa:00:00:00:01',
  remote6: '02:aa:00:00:00:06',
  remotePlain: '02:aa:00:00:00:02',
  local: '02:aa:00:00:00:03',
  localPlain: '02:aa:00:00:00:04',
  alias: '02:59:00:00:00:05',
  /** 10.128.0.64/26, and in it an exact entry and a longer block without the flag. */
  block: '02:58:0a:80:00:41',
  blockPlain: '02:58:0a:80:00:42',
  longer: '02:58:0a:80:00:51',
  /** 10.128.0.0/26: the own block. */
  nobody: '02:58:0a:80:00:08',
  plainBlock: '02:58:0a:80:00:81',
  unknown: '02:aa:00:00:00:99',
  /** Known in another network only. */
  elsewhere: '02:aa:00:00:00:77',
  broadcast: 'ff:ff:ff:ff:ff:ff',
  multicast: '01:00:5e:01:02:03',
} as const;

const entry = (to: string, place: BpfFdb['place'], express: boolean, index = NET): BpfFdb => ({
  index,
  mac: parseMac(to),
  place,
  express,
});
const local = (ifindex: number, rewrite: string | null = null): BpfFdb['place'] => ({
  kind: 'local',
  ifindex,
  rewrite: rewrite === null ? null : parseMac(rewrite),
});
const address6 = (text: string): bigint => BigInt(`0x${ipv6(text, '::', 0, '').slice(16, 48)}`);
const block = (ip: string, bits: number, place: BpfModel['blocks'][number]['place'], express: boolean) => ({
  index: NET,
  mac: (0x0258n << 32n) | BigInt(parseIp(ip)),
  bits,
  place,
  express,
});

const port: BpfPort = {
  ifindex: PORT,
  slow: 100,
  index: NET,
  mac: parseMac(ME.mac),
  ip4: parseIp(ME.ip),
  ip6: address6(ME.ip6),
  linkLocal: address6(ME.linkLocal),
  express: true,
};
const MODEL: BpfModel = {
  config: {
    tunnelPort: 101,
    ttl: 64,
    dscp: 0,
    checksum: false,
    dontFragment: true,
    source4: null,
    source6: null,
    entry: 0n,
  },
  ports: [port],
  nets: [
    { index: NET, device: 102, vni: 4097, mtu: 1450 },
    { index: OTHER_NET, device: 102, vni: 4098, mtu: 1450 },
  ],
  fdb: [
    entry(TO.remote, remote, true),
    entry(TO.remote6, remote6, true),
    entry(TO.remotePlain, remote, false),
    entry(TO.local, local(103), true),
    entry(TO.localPlain, local(104), false),
    entry(TO.alias, local(103, TO.local), true),
    entry(TO.blockPlain, remote, false),
    entry(TO.elsewhere, remote, true, OTHER_NET),
  ],
  blocks: [
    block('10.128.0.64', 42, remote, true),
    block('10.128.0.80', 44, remote, false),
    block('10.128.0.0', 42, null, true),
    block('10.128.0.128', 42, remote, false),
  ],
  sources: [],
  lists: [],
  groups: [],
  services: [],
};

/** A UDP packet of the endpoint's own, but for what is given. */
const packet = (to: string, from: { mac?: string; ip?: string; fragment?: number } = {}): string =>
  ethernet(to, from.mac ?? ME.mac, 0x0800, ipv4(from.ip ?? ME.ip, '10.128.0.9', { fragment: from.fragment ?? 0 }));
const packet6 = (next: number, payload: string, src: string = ME.ip6): string =>
  ethernet(TO.remote, ME.mac, 0x86dd, ipv6(src, 'fd00:128::9', next, payload));
const FRAGMENT_OF = (next: number): string => `${next.toString(16).padStart(2, '0')}00000100000001`;

type Case = readonly [what: string, frame: string, reason: BpfReason];
const CASES: readonly Case[] = [
  ['to a remote entry', packet(TO.remote), 'express_remote'],
  ['to a remote entry over IPv6', packet(TO.remote6), 'express_remote'],
  ['to a remote entry without the flag', packet(TO.remotePlain), 'slow'],
  ['to a local entry', packet(TO.local), 'express_local'],
  ['to a local entry without the flag', packet(TO.localPlain), 'slow'],
  ['to an alias MAC', packet(TO.alias), 'express_local'],
  ['to a block', packet(TO.block), 'express_remote'],
  ['to an entry without the flag in a block with it', packet(TO.blockPlain), 'slow'],
  ['to a longer block without the flag in one with it', packet(TO.longer), 'slow'],
  ['to a block without the flag', packet(TO.plainBlock), 'slow'],
  ['to a block where nobody is', packet(TO.nobody), 'slow'],
  ['to an unknown MAC', packet(TO.unknown), 'slow'],
  ['to a MAC of another network', packet(TO.elsewhere), 'slow'],
  ['to everybody', packet(TO.broadcast), 'slow'],
  ['to a multicast group', packet(TO.multicast), 'slow'],
  ['ARP', arp(TO.remote, ME.mac, ME.ip, '10.128.0.9'), 'slow'],
  ['neither IP nor ARP', ethernet(TO.remote, ME.mac, 0x88cc, '00'.repeat(40)), 'slow'],
  ['tagged, 802.1Q', tagged(packet(TO.remote), 0x8100, 5), 'slow'],
  ['tagged, 802.1ad', tagged(packet(TO.remote), 0x88a8, NET), 'slow'],
  ['first fragment', packet(TO.remote, { fragment: 0x2000 }), 'express_remote'],
  ['later fragment', packet(TO.remote, { fragment: 0x00b9 }), 'express_remote'],
  ['header of another version', packet(TO.remote).replace('080045', '080065'), 'slow'],
  ['header shorter than a header', packet(TO.remote).replace('080045', '080044'), 'slow'],
  ["another's MAC as source", packet(TO.remote, { mac: TO.local }), 'security'],
  ["another's address as source", packet(TO.remote, { ip: '10.128.0.8' }), 'security'],
  ['no address as source', packet(TO.remote, { ip: '0.0.0.0' }), 'security'],
  ['IPv6', packet6(17, udp()), 'express_remote'],
  ['IPv6 from the link-local address', packet6(17, udp(), ME.linkLocal), 'express_remote'],
  ["IPv6 from another's address", packet6(17, udp(), 'fd00:128::8'), 'security'],
  ['IPv6 from no address', packet6(17, udp(), '::'), 'security'],
  ['IPv6, an IPv4 address in it', packet6(17, udp(), '::a80:7'), 'security'],
  ['ICMPv6 echo', packet6(58, icmp6(128)), 'express_remote'],
  ['ICMPv6 before neighbour discovery', packet6(58, icmp6(132)), 'express_remote'],
  ...[133, 134, 135, 136, 137].map((type): Case => [`ICMPv6 type ${type}`, packet6(58, icmp6(type)), 'slow']),
  ['ICMPv6 after neighbour discovery', packet6(58, icmp6(138)), 'express_remote'],
  ['ICMPv6 cut off', packet6(58, ''), 'slow'],
  ['hop-by-hop options', packet6(0, `3a${'00'.repeat(7)}${icmp6(135)}`), 'slow'],
  ['routing header', packet6(43, `3a${'00'.repeat(7)}${icmp6(135)}`), 'slow'],
  ['destination options', packet6(60, `3a${'00'.repeat(7)}${icmp6(135)}`), 'slow'],
  ['authentication header', packet6(51, `3a04${'00'.repeat(22)}${icmp6(136)}`), 'slow'],
  ['fragment of UDP over IPv6', packet6(44, FRAGMENT_OF(17) + udp()), 'express_remote'],
  ['fragment of ICMPv6', packet6(44, FRAGMENT_OF(58) + icmp6(135)), 'slow'],
  [
    'fragment of an authentication header',
    packet6(44, `${FRAGMENT_OF(51)}3a04${'00'.repeat(22)}${icmp6(136)}`),
    'slow',
  ],
  ['fragment of options', packet6(44, FRAGMENT_OF(60) + icmp6(135)), 'slow'],
];

describe('eligibility for the express path', () => {
  const namespaces = new Namespaces();
  let mounts: Mounts;
  let driver: BpfDriver;
  let helper: BpfHelper;

  const apply = async (model: BpfModel): Promise<void> =>
    driver.apply(planMaps(encode(model), driver.observe() ?? new Map()).map((p) => p.step));

  beforeAll(async () => {
    await sweepNamespaces();
    mounts = await Mounts.make();
    ({ driver, helper } = driverIn(await namespaces.add('run'), mounts));
    await driver.start();
    await apply(MODEL);
  });
  afterAll(async () => {
    await driver?.close();
    await mounts?.[Symbol.asyncDispose]();
    await namespaces[Symbol.asyncDispose]();
  });

  it('the object has the counters and layouts that the agent knows', async () => {
    const sizes = (await helper.ask('maps')).data;
    expect(sizes).toContain(`reasons 4 8 ${REASONS.length}`);
    expect(sizes).toContain('traffic 4 32 16384');
    expect(await driver.observeFresh()).toEqual(encode(MODEL));
  });

  it.each(CASES)('%s', async (_what, frame, reason) => {
    const seen = await counting(driver);
    const { action } = await driver.run('from_container', frame, PORT);
    expect(action).toBe(REDIRECT);
    expect(await seen()).toEqual({ [reason]: 1 });
  });

  it('delivers to an alias with the MAC that the container has', async () => {
    const { frame } = await driver.run('from_container', packet(TO.alias), PORT);
    expect(frame).toBe(packet(TO.local));
  });

  it('counts an endpoint’s own traffic', async () => {
    const of = async (ifindex: number) => (await driver.counters()).traffic.get(ifindex);
    const [before, there] = [await of(PORT), await of(103)];
    await driver.run('from_container', packet(TO.local), PORT);
    const size = BigInt(packet(TO.local).length / 2);
    expect(await of(PORT)).toEqual({
      ...before,
      txPackets: (before?.txPackets ?? 0n) + 1n,
      txBytes: (before?.txBytes ?? 0n) + size,
    });
    expect((await of(103))?.rxBytes).toBe((there?.rxBytes ?? 0n) + size);
  });

  it('an endpoint without the flag sends nothing by it, whatever the destination', async () => {
    await apply({ ...MODEL, ports: [{ ...port, express: false }] });
    const seen = await counting(driver);
    for (const [, frame] of CASES) expect((await driver.run('from_container', frame, PORT)).action).toBe(REDIRECT);
    expect(await seen()).toEqual({ slow: CASES.length });
    await apply(MODEL);
  });

  it('an endpoint without addresses sends none by it', async () => {
    await apply({ ...MODEL, ports: [{ ...port, ip4: null, ip6: null, linkLocal: null }] });
    const seen = await counting(driver);
    for (const frame of [packet(TO.remote), packet(TO.remote, { ip: '0.0.0.0' }), packet6(17, udp(), '::')])
      await driver.run('from_container', frame, PORT);
    expect(await seen()).toEqual({ security: 3 });
    await apply(MODEL);
  });

  it('drops what comes from an unknown link, and forgets the traffic of one that goes', async () => {
    await driver.run('from_container', packet(TO.remote), PORT);
    await apply({ ...MODEL, ports: [] });
    expect((await driver.counters()).traffic.has(PORT)).toBe(false);
    const seen = await counting(driver);
    expect((await driver.run('from_container', packet(TO.remote), PORT)).action).toBe(DROP);
    expect((await driver.run('from_ovs', packet(TO.remote), PORT)).action).toBe(DROP);
    expect(await seen()).toEqual({ unknown_port: 2 });
    await apply(MODEL);
  });

  it('brings to the container what OVS sends, of any kind', async () => {
    await apply({ ...MODEL, ports: [{ ...port, ifindex: 100, slow: PORT }] });
    const seen = await counting(driver);
    for (const [, frame] of CASES) expect((await driver.run('from_ovs', frame, PORT)).action).toBe(REDIRECT);
    expect(await seen()).toEqual({ ovs_to_container: CASES.length });
    await apply(MODEL);
  });

  it('sends nothing without a tag, takes nothing without a tunnel’s key, and lets nothing into the host', async () => {
    const seen = await counting(driver);
    for (const program of ['to_tunnel', 'from_tunnel', 'sink'] as const)
      expect((await driver.run(program, packet(TO.remote), PORT)).action).toBe(DROP);
    expect(await seen()).toEqual({ unknown_network: 1, failed: 1 });
  });

  it('says what the kernel refuses, and goes on', async () => {
    await expect(helper.ask('batch 2\nu fdb 00 00\nd nowhere 00')).rejects.toThrow(
      'eBPF: 2 of 2 changes failed, first fdb 00: wrong key',
    );
    await expect(helper.ask('attach 4000000 ingress sink')).rejects.toThrow('sink not attached to link 4000000');
    await expect(helper.ask('x'.repeat(300_000))).rejects.toThrow('the line is too long');
    await expect(helper.ask('load /nowhere /mnt/bpf/weft')).rejects.toThrow('/nowhere cannot be read');
    await expect(helper.ask('dump fdb')).rejects.toThrow('no such map');
    await driver.observeFresh().catch(() => undefined);
  });
});
