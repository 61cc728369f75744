import { afterAll, beforeAll, beforeEach, describe, expect, it } from 'vitest';
import type { BpfDriver } from '../../../agent/bpf/driver.ts';
import { encode } from '../../../agent/bpf/encode.ts';
import type { BpfBackend, BpfModel, BpfProgram, BpfService } from '../../../agent/bpf/model.ts';
import { planMaps } from '../../../agent/plan/maps.ts';
import { parseMac } from '../../../lib/mac.ts';
import { counting, driverIn, Mounts, Namespaces, sweepNamespaces } from '../../harness/bpf.ts';
import {
  ACK,
  addressOf,
  BASE,
  backend,
  FAMILIES,
  GATEWAY,
  itself,
  LINK,
  MY_MAC,
  NET,
  SYN,
} from '../../harness/service-frames.ts';
import { icmpError, type Packet, packet, read } from '../../harness/transport.ts';

/** BPF_PROG_TEST_RUN: ICMP errors about connections that came in by a port of this host that leads to a service. */

const ENTRY = '02:5b:c0:00:02:01';
const HOST_LINK = '02:57:65:66:74:02';
const WAYS = [
  {
    family: 'IPv4',
    caller: '203.0.113.9',
    transit: '169.254.120.5',
    router: '198.51.100.1',
    types: ['0303', '0304', '0b00', '0c00'],
    other: '0800',
  },
  {
    family: 'IPv6',
    caller: '2001:db8:0:0:0:0:0:9',
    transit: 'fd57:6566:7400:0:0:0:78:5',
    router: '2001:db8:0:0:0:0:1:1',
    types: ['0104', '0200', '0300', '0400'],
    other: '8000',
  },
] as const;

describe('ICMP errors about what came in by a port of the host', () => {
  const namespaces = new Namespaces();
  let mounts: Mounts;
  let driver: BpfDriver;
  let lastId = 0;

  /** @param express of the container on this host */
  const apply = (services: BpfService[], express = true): Promise<void> => {
    const model: BpfModel = {
      ...BASE,
      config: { ...BASE.config, entry: parseMac(ENTRY) },
      fdb: [
        { index: NET, mac: parseMac(MY_MAC), place: { kind: 'local', ifindex: LINK, rewrite: null }, express },
        {
          index: NET,
          mac: parseMac(ENTRY),
          place: { kind: 'local', ifindex: LINK, rewrite: null, host: true },
          express: true,
        },
      ],
      services,
    };
    return driver.apply(planMaps(encode(model, driver.maps), driver.observe() ?? new Map()).map((p) => p.step));
  };
  const run = async (program: BpfProgram, frame: string): Promise<string> =>
    (await driver.run(program, frame, LINK)).frame;

  beforeAll(async () => {
    await sweepNamespaces();
    mounts = await Mounts.make();
    ({ driver } = driverIn(await namespaces.add('errors'), mounts, 'forward'));
    await driver.start();
  });
  beforeEach(() => apply([]));
  afterAll(async () => {
    await driver?.close();
    await mounts?.[Symbol.asyncDispose]();
    await namespaces[Symbol.asyncDispose]();
  });

  describe.each(WAYS)('$family', ({ family, caller, transit, router, types, other }) => {
    const f = FAMILIES[family];
    /** Addresses and ports; and in IPv4 the header's checksum. */
    const known = (frame: string): string => frame.slice(28, family === 'IPv4' ? 28 + 48 : 28 + 88);
    const quoted = (frame: string): string => known(frame.slice(family === 'IPv4' ? 56 : 96));
    const places = [
      { where: 'on another host', to: backend(f, 1), express: true, counted: 'express_remote' },
      { where: 'here', to: itself(f), express: true, counted: 'express_local' },
      { where: 'here, judged by Open vSwitch', to: itself(f), express: false, counted: 'tunnel_to_ovs' },
    ];

    describe.each(['tcp', 'udp'] as const)('%s', (protocol) => {
      const serve = (to: BpfBackend, express = true): Promise<void> => {
        const service: BpfService = {
          id: ++lastId,
          index: 0,
          net: NET,
          address: addressOf(transit),
          protocol: protocol === 'tcp' ? 6 : 17,
          port: 80,
          affinity: 0,
          backends: [to],
        };
        // In a network without services nobody is looked at who answers.
        const inside = { ...service, id: ++lastId, index: NET, address: addressOf(f.virtual) };
        return apply([service, inside], express);
      };
      const link = { to: GATEWAY, from: HOST_LINK };
      const call = (more: Partial<Packet> = {}): string =>
        packet({ ...link, src: caller, dst: transit, protocol, sport: 50_000, dport: 80, flags: SYN, ...more });
      const answer = (more: Partial<Packet> = {}): string =>
        packet({ ...link, src: transit, dst: caller, protocol, sport: 80, dport: 50_000, flags: ACK, ...more });
      const error = (about: string, type: string, src: string = router): string =>
        icmpError(about, type, { ...link, src, dst: transit });

      it.each(places)('of who answers $where: he hears of it as he knows it', async ({ to, express, counted }) => {
        await serve(to, express);
        const there = read(await run('from_host', call()));
        for (const type of types) {
          const seen = await counting(driver);
          const got = await run('from_host', error(answer(), type));
          expect(read(got)).toMatchObject({ to: there.to, from: ENTRY, src: router, dst: there.dst });
          expect(read(got).sums).toEqual({ header: true, transport: true });
          expect(quoted(got)).toBe(known(answer({ src: there.dst, sport: 8080 })));
          expect(await seen()).toEqual({ service: 1, [counted]: 1 });
        }
      });

      it('about nothing that is known it is left as it is', async () => {
        await serve(backend(f, 1));
        await run('from_host', call());
        const [type] = types;
        const short = error(answer(), type);
        const frames = [
          error(answer({ dport: 50_001 }), type),
          error(answer({ sport: 81 }), type),
          error(answer({ src: f.stranger }), type),
          error(answer(), other),
          error(answer({ fragment: { id: 5, at: 8, more: false } }), type),
          short.slice(0, -12),
        ];
        const seen = await counting(driver);
        for (const frame of frames) expect(await run('from_host', frame)).toBe(frame);
        // Of a service that took the address it is not either.
        await serve(backend(f, 1));
        expect(await run('from_host', error(answer(), type))).toBe(error(answer(), type));
        expect(await seen()).toEqual({});
      });

      it('what who answers says of a call is for who came in, about what he has called', async () => {
        await serve(itself(f));
        const asked = await run('from_host', call());
        for (const type of types) {
          const seen = await counting(driver);
          const said = icmpError(asked, type, { to: GATEWAY, from: MY_MAC, src: f.me, dst: caller });
          const got = await run('from_container', said);
          expect(read(got)).toMatchObject({
            to: HOST_LINK,
            src: transit,
            dst: caller,
            sums: { header: true, transport: true },
          });
          expect(quoted(got)).toBe(known(call()));
          expect(await seen()).toEqual({ service_entry: 1, service_reply: 1, service_exit: 1 });
        }
        // Of another's call, or about none.
        for (const about of [{ dst: f.backend(2) }, { sport: 50_001 }]) {
          const frame = packet({ ...link, src: caller, dst: f.me, protocol, sport: 50_000, dport: 8080, ...about });
          const said = icmpError(frame, types[0], { to: GATEWAY, from: MY_MAC, src: f.me, dst: caller });
          expect(await run('from_container', said)).toBe(said);
        }
      });
    });
  });
});
