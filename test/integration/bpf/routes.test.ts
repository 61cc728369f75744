/** BPF_PROG_TEST_RUN: what endpoints send to their gateway, for another network. */
import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import type { BpfDriver } from '../../../agent/bpf/driver.ts';
import { encode } from '../../../agent/bpf/encode.ts';
import type { BpfModel, BpfPort, BpfRoute } from '../../../agent/bpf/model.ts';
import { planMaps } from '../../../agent/plan/maps.ts';
import { parseIp } from '../../../lib/ip.ts';
import { parseIp6 } from '../../../lib/ip6.ts';
import { parseMac } from '../../../lib/mac.ts';
import { counting, driverIn, Mounts, Namespaces, sweepNamespaces } from '../../harness/bpf.ts';
import { v4, vtep } from '../../harness/bpf-pair.ts';
import { ethernet, icmp6, ipv4, ipv6, udp } from '../../harness/frames.ts';

const REDIRECT = 7;
/** The loopback link plays the endpoint's. */
const PORT = 1;
const [NET, OTHER] = [3, 4];
const GATEWAY = '02:57:65:66:74:01';
const ROUTER = '02:5c:00:00:00:07';
const ME = { mac: '02:58:0a:80:00:07', ip: '10.128.0.7', ip6: 'fd00:128::7' };
const GIVEN = '02:42:00:00:00:03';

const v6 = (text: string) => ({ family: 6, address: parseIp6(text) }) as const;
const port: BpfPort = {
  ifindex: PORT,
  slow: 100,
  index: NET,
  mac: parseMac(ME.mac),
  ip4: parseIp(ME.ip),
  ip6: parseIp6(ME.ip6),
  linkLocal: parseIp6('fe80::7'),
  express: true,
};
const remote = { kind: 'remote', ...vtep(v4('192.0.2.2')) } as const;
const route = (to: BpfRoute['to'], bits: number, network: number | null): BpfRoute => ({
  index: NET,
  to,
  bits,
  network,
  mtu: 1450,
});
const MODEL: BpfModel = {
  config: {
    tunnelPort: 101,
    ttl: 64,
    dscp: null,
    checksum: false,
    dontFragment: true,
    source4: null,
    source6: null,
    entry: 0n,
    router: parseMac(ROUTER),
  },
  ports: [port],
  nets: [
    { index: NET, device: 102, vni: 4097, mtu: 1450 },
    { index: OTHER, device: 102, vni: 4098, mtu: 1450 },
  ],
  fdb: [
    {
      index: OTHER,
      mac: parseMac('02:58:0a:81:00:02'),
      place: { kind: 'local', ifindex: PORT, rewrite: null },
      express: true,
    },
    {
      index: OTHER,
      mac: parseMac('02:59:00:00:00:02'),
      place: { kind: 'local', ifindex: PORT, rewrite: null },
      express: true,
    },
    {
      index: OTHER,
      mac: parseMac('02:58:0a:81:00:04'),
      place: { kind: 'local', ifindex: PORT, rewrite: null },
      express: false,
    },
    { index: OTHER, mac: parseMac(GIVEN), place: remote, express: true },
  ],
  blocks: [{ index: OTHER, mac: parseMac('02:58:0a:81:00:40'), bits: 42, place: remote, express: true }],
  sources: [],
  lists: [],
  groups: [],
  services: [],
  routes: [
    route(v4('10.129.0.0'), 16, OTHER),
    route(v4('10.129.0.65'), 32, null),
    route(v4('10.130.0.0'), 16, null),
    route(v6('fd00:129::'), 64, null),
    route(v6('fd00:129::'), 96, OTHER),
  ],
  neighbours: [
    { index: OTHER, address: v4('10.129.0.3'), mac: parseMac(GIVEN) },
    { index: OTHER, address: v6('fd00:129::3'), mac: parseMac(GIVEN) },
  ],
};

const sum16 = (hex: string): number => {
  let sum = 0;
  for (const word of hex.match(/..../g) ?? []) sum += Number.parseInt(word, 16);
  while (sum > 0xffff) sum = (sum & 0xffff) + (sum >> 16);
  return ~sum & 0xffff;
};
/** With a right checksum. */
const packet = (dst: string, ttl: number, src = ME.ip): string => {
  const raw = ipv4(src, dst).replace(/^(.{16})40/, `$1${ttl.toString(16).padStart(2, '0')}`);
  return raw.slice(0, 20) + sum16(raw.slice(0, 40)).toString(16).padStart(4, '0') + raw.slice(24);
};
const packet6 = (dst: string, hops: number, src = ME.ip6, next = 17, payload = udp()): string =>
  ipv6(src, dst, next, payload).replace(/^(.{14})40/, `$1${hops.toString(16).padStart(2, '0')}`);

describe('the kernel side as a router', () => {
  const namespaces = new Namespaces();
  let mounts: Mounts;
  let driver: BpfDriver;

  beforeAll(async () => {
    await sweepNamespaces();
    mounts = await Mounts.make();
    ({ driver } = driverIn(await namespaces.add('routes'), mounts));
    await driver.start();
    await driver.apply(planMaps(encode(MODEL), driver.observe() ?? new Map()).map((p) => p.step));
  });
  afterAll(async () => {
    await driver?.close();
    await mounts?.[Symbol.asyncDispose]();
    await namespaces[Symbol.asyncDispose]();
  });

  const run = async (type: number, ip: string) => {
    const seen = await counting(driver);
    const { action, frame } = await driver.run('from_container', ethernet(GATEWAY, ME.mac, type, ip), PORT);
    expect(action).toBe(REDIRECT);
    return { frame, counted: await seen() };
  };

  it.each([
    ['10.129.0.2', '02:58:0a:81:00:02', 'express_local'],
    ['10.129.0.3', GIVEN, 'express_remote'],
    ['10.129.0.66', '02:58:0a:81:00:42', 'express_remote'],
  ])('sends what is for %s on to %s, with one less of its time, from its own MAC', async (ip, mac, reason) => {
    for (const ttl of [255, 64, 2]) {
      const { frame, counted } = await run(0x0800, packet(ip, ttl));
      expect(frame).toBe(ethernet(mac, ROUTER, 0x0800, packet(ip, ttl - 1)));
      expect(counted).toEqual({ routed: 1, [reason]: 1 });
    }
  });

  it.each([
    ['fd00:129::2', '02:59:00:00:00:02', 'express_local'],
    ['fd00:129::3', GIVEN, 'express_remote'],
  ])('and what is for %s', async (ip, mac, reason) => {
    for (const hops of [255, 2]) {
      const { frame, counted } = await run(0x86dd, packet6(ip, hops));
      expect(frame).toBe(ethernet(mac, ROUTER, 0x86dd, packet6(ip, hops - 1)));
      expect(counted).toEqual({ routed: 1, [reason]: 1 });
    }
  });

  it.each([
    ['whose time ends', 0x0800, packet('10.129.0.2', 1)],
    ['whose time has ended', 0x0800, packet('10.129.0.2', 0)],
    ['whose hops end', 0x86dd, packet6('fd00:129::2', 1)],
    ['for an endpoint that is not on the express path', 0x0800, packet('10.129.0.4', 64)],
    ['for nobody', 0x0800, packet('10.129.0.9', 64)],
    ['for an exception', 0x0800, packet('10.129.0.65', 64)],
    ['for a static route', 0x0800, packet('10.130.0.2', 64)],
    ['for somewhere else', 0x0800, packet('10.131.0.2', 64)],
    ['for an address that its last bits do not tell', 0x86dd, packet6('fd00:129::1:0:0:2', 64)],
    ['from a link-local address', 0x86dd, packet6('fd00:129::2', 64, 'fe80::7')],
    ['from an address that is not its own', 0x0800, packet('10.129.0.2', 64, '10.128.0.8')],
    ['of neighbour discovery', 0x86dd, packet6('fd00:129::2', 255, ME.ip6, 58, icmp6(136))],
    ['that is too big', 0x0800, packet('10.129.0.2', 64) + '00'.repeat(1400)],
  ])('leaves a packet %s to Open vSwitch, as it is', async (_, type, ip) => {
    const { frame, counted } = await run(type, ip);
    expect(frame).toBe(ethernet(GATEWAY, ME.mac, type, ip));
    expect(counted).not.toHaveProperty('routed');
    expect(Object.keys(counted)).toHaveLength(1);
  });
});
