import { afterAll, beforeAll, beforeEach, describe, expect, it } from 'vitest';
import type { BpfDriver } from '../../../agent/bpf/driver.ts';
import { encode, serviceKey, u32 } from '../../../agent/bpf/encode.ts';
import type { BpfHelper } from '../../../agent/bpf/helper.ts';
import type { BpfBackend, BpfModel, BpfService } from '../../../agent/bpf/model.ts';
import { planMaps } from '../../../agent/plan/maps.ts';
import { parseMac } from '../../../lib/mac.ts';
import { counting, driverIn, Mounts, Namespaces, sweepNamespaces } from '../../harness/bpf.ts';
import {
  ACK,
  addressOf,
  BASE,
  backend,
  FAMILIES,
  type Family,
  GATEWAY,
  itself,
  LINK,
  MY_MAC,
  macOf,
  NET,
  SYN,
  SYN_ACK,
} from '../../harness/service-frames.ts';
import { icmpError, type Packet, packet, type Read, read } from '../../harness/transport.ts';

/** BPF_PROG_TEST_RUN: what becomes of frames to virtual addresses, bit by bit. */

/** TC_ACT_SHOT, TC_ACT_REDIRECT, TC_ACT_UNSPEC (linux/pkt_cls.h). */
const DROP = 2;
const REDIRECT = 7;
const GO_ON = 0xffff_ffff;

/** Where frames are translated, and what becomes of them then. */
const WAYS = [
  { way: 'on the express path', side: 'forward', leave: 'from_container', arrive: 'from_ovs', passed: REDIRECT },
  { way: 'on a port of Open vSwitch', side: 'services', leave: 'service_out', arrive: 'service_in', passed: GO_ON },
] as const;
/** Counted where frames are forwarded too. */
const FORWARDING: readonly string[] = ['express_remote', 'slow', 'security', 'ovs_to_container'];

describe.each(WAYS)('services, $way', ({ side, leave, arrive, passed }) => {
  const namespaces = new Namespaces();
  let mounts: Mounts;
  let driver: BpfDriver;
  let helper: BpfHelper;
  let lastId = 0;
  const counted = (all: Readonly<Record<string, number>>): Record<string, number> =>
    Object.fromEntries(Object.entries(all).filter(([reason]) => side === 'forward' || !FORWARDING.includes(reason)));

  const apply = async (model: BpfModel): Promise<void> =>
    driver.apply(planMaps(encode(model, driver.maps), driver.observe() ?? new Map()).map((p) => p.step));
  const serve = (...services: BpfService[]): Promise<void> => apply({ ...BASE, services });
  /** A new service with that many backends. */
  const service = (f: Family, count: number, more: Partial<BpfService> = {}): BpfService => ({
    id: ++lastId,
    index: NET,
    address: addressOf(f.virtual),
    protocol: 6,
    port: 80,
    affinity: 0,
    backends: Array.from({ length: count }, (_, i) => backend(f, i + 1)),
    ...more,
  });
  const both = (s: BpfService): BpfService[] => [s, { ...s, id: ++lastId, protocol: 17 }];

  const ask = (f: Family, more: Partial<Packet> = {}): string =>
    packet({
      to: GATEWAY,
      from: MY_MAC,
      src: f.me,
      dst: f.virtual,
      protocol: 'tcp',
      sport: 40_000,
      dport: 80,
      ...more,
    });
  const run = async (frame: string): Promise<{ action: number; frame: string }> => driver.run(leave, frame, LINK);
  const sent = async (frame: string): Promise<Read> => read((await run(frame)).frame);
  const arrived = async (frame: string): Promise<{ frame: string }> => driver.run(arrive, frame, LINK);

  beforeAll(async () => {
    await sweepNamespaces();
    mounts = await Mounts.make();
    ({ driver, helper } = driverIn(await namespaces.add(side), mounts, side));
    await driver.start();
  });
  beforeEach(() => serve());
  afterAll(async () => {
    await driver?.close();
    await mounts?.[Symbol.asyncDispose]();
    await namespaces[Symbol.asyncDispose]();
  });

  describe.each(Object.entries(FAMILIES))('%s', (_name, f) => {
    it.each(['tcp', 'udp'] as const)(
      '%s goes to a backend, and the answer comes from the virtual address',
      async (protocol) => {
        await serve(...both(service(f, 1)));
        const seen = await counting(driver);
        const { action, frame } = await run(ask(f, { protocol }));
        expect(action).toBe(passed);
        const there = read(frame);
        expect(there).toEqual({
          ...read(ask(f, { protocol })),
          to: macOf(1),
          dst: f.backend(1),
          dport: 8080,
          rest: expect.any(String),
          sums: { header: true, transport: true },
        });
        const answer = { to: MY_MAC, from: macOf(1), src: f.backend(1), dst: f.me, sport: 8080, dport: 40_000 };
        const back = read((await arrived(packet({ ...answer, protocol, flags: SYN_ACK }))).frame);
        expect(back).toMatchObject({ src: f.virtual, dst: f.me, sport: 80, dport: 40_000, to: MY_MAC });
        expect(back.sums).toEqual({ header: true, transport: true });
        expect(await seen()).toEqual(counted({ service: 1, express_remote: 1, service_reply: 1, ovs_to_container: 1 }));
        // Another's port, another's address: none of its connections.
        for (const other of [
          { ...answer, dport: 40_001 },
          { ...answer, sport: 81 },
          { ...answer, src: f.stranger },
        ]) {
          const frame = packet({ ...other, protocol });
          expect((await arrived(frame)).frame).toBe(frame);
        }
      },
    );

    it('a client that is not express, or only answers, goes by Open vSwitch and is translated all the same', async () => {
      const ports = BASE.ports.map((p) => ({ ...p, express: false }));
      await apply({ ...BASE, ports, services: [service(f, 1)] });
      const seen = await counting(driver);
      expect(await sent(ask(f))).toMatchObject({ dst: f.backend(1), dport: 8080, to: macOf(1) });
      expect(await seen()).toEqual(counted({ service: 1, slow: 1 }));
    });

    it('what is not a service’s is left as it is: another port, address, protocol, or source', async () => {
      await serve(service(f, 1));
      const seen = await counting(driver);
      const frames = [
        ask(f, { dport: 81 }),
        ask(f, { protocol: 'udp' }),
        ask(f, { dst: f.second }),
        ask(f, { src: f.stranger }),
        ask(f, { from: macOf(9) }),
        ask(f).slice(0, f === FAMILIES.IPv4 ? 70 : 110),
      ];
      for (const frame of frames) expect((await run(frame)).frame).toBe(frame);
      expect(await seen()).toEqual(counted({ slow: 4, security: 2 }));
    });

    it('a connection stays where it is while the list changes; new ones do not go where nobody is any more', async () => {
      const s = service(f, 4, { protocol: 6 });
      const u = { ...s, id: ++lastId, protocol: 17 as const };
      await serve(s, u);
      const [tcp, udp] = [await sent(ask(f)), await sent(ask(f, { protocol: 'udp' }))];
      const without = (gone: string): BpfBackend[] => s.backends.filter((_, i) => f.backend(i + 1) !== gone);
      await serve({ ...s, backends: without(tcp.dst) }, { ...u, backends: without(udp.dst) });
      expect((await sent(ask(f, { flags: ACK }))).dst).toBe(tcp.dst);
      const moved = await sent(ask(f, { protocol: 'udp' }));
      expect(moved.dst).not.toBe(udp.dst);
      expect((await sent(ask(f, { protocol: 'udp' }))).dst).toBe(moved.dst);
      // The same port once more.
      expect((await sent(ask(f, { flags: SYN }))).dst).not.toBe(tcp.dst);
      // Nobody is left: who has a connection keeps it.
      const last = (await sent(ask(f, { flags: ACK }))).dst;
      await serve({ ...s, backends: [] });
      expect((await sent(ask(f, { flags: ACK }))).dst).toBe(last);
      const seen = await counting(driver);
      expect((await run(ask(f, { flags: SYN }))).action).toBe(DROP);
      expect((await run(ask(f, { sport: 40_001 }))).action).toBe(DROP);
      expect(await seen()).toEqual({ no_backend: 2 });
    });

    it('what took another’s place, service or container, has none of its connections', async () => {
      await serve(service(f, 1));
      await sent(ask(f));
      const next = service(f, 0, { backends: [backend(f, 7)] });
      await serve(next);
      expect((await sent(ask(f, { flags: ACK }))).dst).toBe(f.backend(7));
      // Another container has its address now.
      await serve({ ...next, backends: [{ ...backend(f, 7), mac: parseMac(macOf(9)) }] });
      for (const flags of [SYN, ACK]) expect((await sent(ask(f, { flags }))).to).toBe(macOf(9));
    });

    it('affinity: a client stays with its backend from any port, while that is live and the time has not run out', async () => {
      const s = service(f, 20, { affinity: 3_600 });
      await serve(s);
      const first = (await sent(ask(f, { sport: 1 }))).dst;
      for (let sport = 2; sport < 40; sport++) expect((await sent(ask(f, { sport }))).dst).toBe(first);
      const [line = ''] = (await helper.ask('dump affinities')).data.filter((l) => l.startsWith(u32(s.id)));
      const [key, value = ''] = line.split(' ');
      // As if an hour had passed, at least.
      await helper.ask(`batch 1\nu affinities ${key} ${u32(0xffff_0000)}${value.slice(8)}`);
      const later = new Set<string>();
      for (let sport = 41; later.size < 2 && sport < 200; sport++) {
        later.add((await sent(ask(f, { sport }))).dst);
        await helper.ask(`batch 1\nd affinities ${key}`);
      }
      expect(later.size).toBe(2);
      const now = (await sent(ask(f, { sport: 300 }))).dst;
      await serve({ ...s, backends: s.backends.filter((_, i) => f.backend(i + 1) !== now) });
      expect((await sent(ask(f, { sport: 301 }))).dst).not.toBe(now);
    });

    it('a backend that is the client itself is not taken while there is another', async () => {
      await serve(service(f, 0, { backends: [itself(f), backend(f, 1)] }));
      for (let sport = 1; sport < 50; sport++) expect((await sent(ask(f, { sport }))).dst).toBe(f.backend(1));
    });

    it('a client that is the only backend reaches itself, by the virtual address in both directions', async () => {
      await serve(...both(service(f, 0, { backends: [itself(f)] })));
      for (const protocol of ['tcp', 'udp'] as const) {
        const seen = await counting(driver);
        const there = await sent(ask(f, { protocol }));
        const mine = { to: MY_MAC, from: GATEWAY, sums: { header: true, transport: true } };
        expect(there).toMatchObject({ ...mine, src: f.virtual, dst: f.me, sport: 40_000, dport: 8080 });
        const answer = ask(f, { protocol, sport: 8080, dport: 40_000, flags: SYN_ACK });
        expect(await sent(answer)).toMatchObject({ ...mine, src: f.virtual, dst: f.me, sport: 80, dport: 40_000 });
        expect(await seen()).toEqual({ service: 2 });
      }
    });

    it('two virtual addresses with the same backends: one client port goes to two of them', async () => {
      const s = service(f, 2);
      const t = service(f, 2, { address: addressOf(f.second) });
      await serve(s, t);
      // Ports that no other test has used: who answered them is remembered.
      for (let sport = 20_001; sport < 20_040; sport++) {
        const [one, two] = [await sent(ask(f, { sport })), await sent(ask(f, { sport, dst: f.second }))];
        expect(one.dst).not.toBe(two.dst);
      }
    });

    it('a backend by its own address, from a port that was used for the virtual one, answers as itself', async () => {
      await serve(...both(service(f, 1)));
      for (const protocol of ['tcp', 'udp'] as const) {
        await sent(ask(f, { protocol }));
        const direct = ask(f, { protocol, to: macOf(1), dst: f.backend(1), dport: 8080 });
        expect((await run(direct)).frame).toBe(direct);
        const back = { to: MY_MAC, from: macOf(1), src: f.backend(1), dst: f.me, sport: 8080, dport: 40_000 };
        const answer = packet({ ...back, protocol, flags: SYN_ACK });
        expect((await arrived(answer)).frame).toBe(answer);
      }
    });

    it('fragments go where their first one went, both ways; others are dropped', async () => {
      const u = { ...service(f, 3), protocol: 17 as const };
      await serve(u);
      const piece = (at: number, more: boolean, id = 77) => ({ id, at, more });
      const big = { protocol: 'udp', payload: '5a'.repeat(64) } as const;
      const first = await sent(ask(f, { ...big, fragment: piece(0, true) }));
      expect(first).toMatchObject({ dport: 8080, sums: { header: true } });
      const later = await sent(ask(f, { ...big, fragment: piece(72, false) }));
      expect(later).toMatchObject({ dst: first.dst, to: first.to, sums: { header: true } });
      expect(later.rest).toBe('5a'.repeat(60));
      const back = { to: MY_MAC, from: first.to, src: first.dst, dst: f.me, sport: 8080, dport: 40_000, ...big };
      for (const fragment of [piece(0, true), piece(72, false)]) {
        const answer = read((await arrived(packet({ ...back, fragment }))).frame);
        expect(answer).toMatchObject({ src: f.virtual, dst: f.me, sums: { header: true } });
      }
      const seen = await counting(driver);
      expect((await run(ask(f, { ...big, fragment: piece(72, false, 78) }))).action).toBe(DROP);
      const direct = ask(f, { ...big, to: macOf(1), dst: f.backend(1), fragment: piece(72, false, 78) });
      expect((await run(direct)).frame).toBe(direct);
      expect(await seen()).toEqual(counted({ service_fragment: 1, express_remote: 1 }));
    });

    it('a first fragment has the checksum of the whole', async () => {
      await serve({ ...service(f, 1), protocol: 17 });
      const [whole, first] = [
        ask(f, { protocol: 'udp' }),
        ask(f, { protocol: 'udp', fragment: { id: 5, at: 0, more: true } }),
      ];
      expect((await sent(first)).rest).toBe((await sent(whole)).rest);
    });

    it('ICMP errors about it quote what the client has sent', async () => {
      const types = f === FAMILIES.IPv4 ? ['0303', '0304', '0b00', '0c00'] : ['0104', '0200', '0300', '0400'];
      for (const protocol of ['tcp', 'udp'] as const) {
        await serve(...both(service(f, 1)));
        const { frame } = await run(ask(f, { protocol }));
        for (const type of types)
          for (const src of [f.backend(1), f.stranger]) {
            const seen = await counting(driver);
            const error = icmpError(frame, type, { to: MY_MAC, from: macOf(1), src, dst: f.me });
            const got = (await arrived(error)).frame;
            const from = src === f.stranger ? src : f.virtual;
            expect(read(got)).toMatchObject({ src: from, dst: f.me, sums: { header: true, transport: true } });
            const quoted = got.slice(f === FAMILIES.IPv4 ? 84 : 124);
            const known = ask(f, { protocol }).slice(28);
            // Addresses and ports; and in IPv4 the header's checksum.
            const size = f === FAMILIES.IPv4 ? 48 : 88;
            expect(quoted.slice(0, size)).toBe(known.slice(0, size));
            expect(await seen()).toEqual(counted({ service_reply: 1, ovs_to_container: 1 }));
          }
      }
      const other = icmpError(ask(f, { dst: f.stranger }), types[0] ?? '', {
        to: MY_MAC,
        from: macOf(1),
        src: f.stranger,
        dst: f.me,
      });
      expect((await arrived(other)).frame).toBe(other);
    });
  });

  it('a UDP packet without a checksum has none afterwards; IPv4 options are skipped', async () => {
    const f = FAMILIES.IPv4;
    await serve(...both(service(f, 1)));
    expect((await sent(ask(f, { protocol: 'udp', unsummed: true }))).sums).toEqual({ header: true, transport: 'none' });
    for (const protocol of ['tcp', 'udp'] as const)
      expect(await sent(ask(f, { protocol, options: 8 }))).toMatchObject({
        dst: f.backend(1),
        dport: 8080,
        sums: { header: true, transport: true },
      });
  });

  it('ten backends get a tenth of the connections each, give or take 5 %', async () => {
    const f = FAMILIES.IPv4;
    const s = service(f, 10);
    const count = 100_000;
    await serve(s, service(f, 10, { address: addressOf(f.second) }));
    const got = new Map<string, number>();
    const before = (await driver.counters()).connections.get(serviceKey(s, s)) ?? 0n;
    for (let from = 0; from < count; from += 500) {
      const frames = Array.from({ length: 500 }, (_, i) => {
        const n = from + i;
        return ask(f, { sport: 1 + (n % 50_000), dst: n < 50_000 ? f.virtual : f.second });
      });
      for (const { frame } of await Promise.all(frames.map(run))) {
        const to = frame.slice(0, 12);
        got.set(to, (got.get(to) ?? 0) + 1);
      }
    }
    expect(got.size).toBe(10);
    for (const [to, n] of got) expect(Math.abs(n - count / 10), to).toBeLessThan(count / 200);
    expect((await driver.counters()).connections.get(serviceKey(s, s))).toBe(before + 50_000n);
    await serve();
    expect((await driver.counters()).connections.has(serviceKey(s, s))).toBe(false);
  });

  it('of a network without services nothing is looked up', async () => {
    await serve(service(FAMILIES.IPv4, 1, { index: NET + 1 }));
    const frame = ask(FAMILIES.IPv4);
    expect((await run(frame)).frame).toBe(frame);
  });
});
