import fc from 'fast-check';
import { describe, expect, it } from 'vitest';
import { describeKey, describeValue } from '../../../agent/bpf/describe.ts';
import { type EncodedMaps, encode, LAYOUT, MAP_NAMES } from '../../../agent/bpf/encode.ts';
import { type BpfAddress, type BpfBackend, type BpfModel, type BpfVtep, MAX_COPIES } from '../../../agent/bpf/model.ts';
import { type MapStep, planMaps, planPrograms } from '../../../agent/plan/maps.ts';

const number32 = fc.integer({ min: 0, max: 0xffffffff });
const ifindex = fc.integer({ min: 1, max: 0x7fffffff });
const index = fc.integer({ min: 1, max: 4094 });
const mac = fc.bigInt({ min: 0n, max: (1n << 48n) - 1n });
const ip6 = fc.bigInt({ min: 0n, max: (1n << 128n) - 1n });
const maybe = <T>(of: fc.Arbitrary<T>) => fc.option(of, { nil: null });
const address: fc.Arbitrary<BpfAddress> = fc.oneof(
  fc.record({ family: fc.constant(4 as const), address: number32 }),
  fc.record({ family: fc.constant(6 as const), address: ip6 }),
);
const vtep: fc.Arbitrary<BpfVtep> = fc.record({ vtep: address, device: maybe(ifindex), key: maybe(number32) });
const remote = vtep.map((v) => ({ kind: 'remote' as const, ...v }));
const tcpPort = fc.integer({ min: 1, max: 65535 });
const local = fc.record({ kind: fc.constant('local' as const), ifindex, rewrite: maybe(mac) });

const model: fc.Arbitrary<BpfModel> = fc.record({
  config: fc.record({
    tunnelPort: ifindex,
    ttl: maybe(fc.integer({ min: 1, max: 255 })),
    dscp: maybe(fc.integer({ min: 0, max: 63 })),
    checksum: fc.boolean(),
    dontFragment: fc.boolean(),
    source4: maybe(number32),
    source6: maybe(ip6),
    entry: mac,
  }),
  ports: fc.array(
    fc.record({
      ifindex,
      slow: ifindex,
      index,
      mac,
      ip4: maybe(number32),
      ip6: maybe(ip6),
      linkLocal: maybe(ip6),
      express: fc.boolean(),
    }),
  ),
  nets: fc.array(fc.record({ index, device: ifindex, vni: number32, mtu: number32 })),
  fdb: fc.array(fc.record({ index, mac, place: fc.oneof(local, remote), express: fc.boolean() })),
  blocks: fc.array(
    fc.record({ index, mac, bits: fc.integer({ min: 1, max: 48 }), place: maybe(remote), express: fc.boolean() }),
  ),
  sources: fc.array(
    fc.record({ index, vtep: address, device: ifindex, key: number32, external: fc.boolean(), learn: fc.boolean() }),
  ),
  lists: fc.array(fc.record({ id: number32, vteps: fc.array(vtep) })),
  groups: fc.array(fc.record({ index, mac, list: number32 })),
  services: fc.array(
    fc.record({
      id: fc.integer({ min: 1, max: 0xffffffff }),
      index,
      address,
      protocol: fc.constantFrom(6 as const, 17 as const),
      port: tcpPort,
      affinity: fc.nat(86_400),
      backends: fc.array(fc.record({ address, mac, port: tcpPort })),
    }),
  ),
});

const NONE: EncodedMaps = new Map();

function applied(actual: EncodedMaps, steps: readonly MapStep[]): EncodedMaps {
  const maps = new Map(MAP_NAMES.map((name) => [name, new Map(actual.get(name) ?? [])]));
  for (const s of steps) {
    if (s.kind === 'setMap') maps.get(s.map)?.set(s.key, s.value);
    else maps.get(s.map)?.delete(s.key);
  }
  return maps;
}

describe('the model as bytes of the maps', () => {
  it('has the length of the layouts, and a description', () => {
    fc.assert(
      fc.property(model, (m) => {
        for (const [name, entries] of encode(m))
          for (const [key, value] of entries) {
            expect([key.length, value.length]).toEqual([LAYOUT[name].key * 2, LAYOUT[name].value * 2]);
            expect(`${key}${value}`).toMatch(/^[0-9a-f]+$/);
            expect(describeKey(name, key)).toMatch(new RegExp(`^${name}`));
            expect(describeValue(name, value)).not.toMatch(/NaN|undefined/);
          }
      }),
    );
  });

  it('differs by the steps that make one out of the other', () => {
    fc.assert(
      fc.property(model, model, (before, after) => {
        const [have, want] = [applied(NONE, []), encode(after)];
        const first = applied(have, steps(encode(before), have));
        const second = applied(first, steps(want, first));
        expect(steps(want, second)).toEqual([]);
        for (const name of MAP_NAMES) expect(second.get(name)).toEqual(want.get(name));
      }),
    );
  });

  const steps = (want: EncodedMaps, have: EncodedMaps): MapStep[] => planMaps(want, have).map((p) => p.step);

  it('reads, entry by entry, as people would say it', () => {
    const remoteA = { kind: 'remote', vtep: { family: 4, address: 0xc0000201 }, device: null, key: null } as const;
    const web = { index: 3, address: { family: 4, address: 0x0a800064 } } as const;
    const v6 = (low: bigint): BpfAddress => ({ family: 6, address: (0xfd57n << 112n) | low });
    const backend = (n: number, port: number): BpfBackend => ({
      address: { family: 4, address: 0x0a800000 + n },
      mac: 0x02580a800000n + BigInt(n),
      port,
    });
    const backend6: BpfBackend = { address: v6(7n), mac: 0x02580a800007n, port: 8080 };
    const external = { vtep: { family: 6, address: (0xfd00n << 112n) | 2n }, device: 7, key: 77 } as const;
    const m: BpfModel = {
      config: {
        tunnelPort: 9,
        ttl: null,
        dscp: 46,
        checksum: true,
        dontFragment: true,
        source4: 0xc0000202,
        source6: null,
        entry: 0x025b00000001n,
      },
      ports: [
        {
          ifindex: 12,
          slow: 13,
          index: 3,
          mac: 0x02580a800007n,
          ip4: 0x0a800007,
          ip6: 1n,
          linkLocal: 0xfe80n << 112n,
          express: true,
        },
      ],
      nets: [{ index: 3, device: 5, vni: 4097, mtu: 1450 }],
      fdb: [
        { index: 3, mac: 0x02580a800007n, place: { kind: 'local', ifindex: 12, rewrite: null }, express: true },
        {
          index: 3,
          mac: 0x0259_0000_0001n,
          place: { kind: 'local', ifindex: 12, rewrite: 0x02580a800007n },
          express: false,
        },
        { index: 3, mac: 0x02ee_0000_0001n, place: { kind: 'remote', ...external }, express: false },
      ],
      blocks: [
        { index: 3, mac: 0x02580a800040n, bits: 42, place: remoteA, express: true },
        { index: 3, mac: 0x02580a800000n, bits: 42, place: null, express: true },
      ],
      sources: [{ index: 3, vtep: external.vtep, device: 7, key: 77, external: true, learn: true }],
      lists: [{ id: 3, vteps: [remoteA] }],
      groups: [{ index: 3, mac: 0x01005e010203n, list: 5000 }],
      services: [
        { ...web, id: 7, protocol: 6, port: 80, affinity: 60, backends: [backend(7, 8080), backend(9, 8080)] },
        { ...web, id: 8, protocol: 17, port: 53, affinity: 0, backends: [] },
        { ...web, id: 9, address: v6(0x64n), protocol: 6, port: 80, affinity: 0, backends: [backend6, backend(7, 80)] },
      ],
    };
    const text = planMaps(encode(m), NONE).map((p) => `${p.change} ${p.object} = ${p.want}`);
    expect(text).toEqual([
      'missing ports ifindex 12 = net 3 02:58:0a:80:00:07 10.128.0.7 ::1 fe80:: slow ifindex 13 express served',
      'missing slow ifindex 13 = ifindex 12',
      'missing nets net 3 = device 5 vni 4097 mtu 1450',
      'missing vnis device 7 key 77 = known',
      'missing fdb net 3 02:58:0a:80:00:07 = local ifindex 12 express served',
      'missing fdb net 3 02:59:00:00:00:01 = local ifindex 12 rewrite 02:58:0a:80:00:07 served',
      'missing fdb net 3 02:ee:00:00:00:01 = remote fd00::2 device 7 key 77',
      'missing blocks net 3 02:58:0a:80:00:40/42 = remote 192.0.2.1 express',
      'missing blocks net 3 02:58:0a:80:00:00/42 = nobody',
      'missing vteps device 7 key 77 fd00::2 = net 3 external learn',
      'missing lists 3 slot 0 = remote 192.0.2.1',
      'missing groups net 3 01:00:5e:01:02:03 = list 5000',
      'missing config = tunnel port ifindex 9 ttl inherit dscp 46 checksum df source 192.0.2.2 entry 02:5b:00:00:00:01',
      'missing backends service 7 slot 0 = 10.128.0.7:8080 02:58:0a:80:00:07',
      'missing backends service 7 slot 1 = 10.128.0.9:8080 02:58:0a:80:00:09',
      'missing backends service 9 slot 0 = [fd57::7]:8080 02:58:0a:80:00:07',
      'missing live service 7 10.128.0.7:8080 = 02:58:0a:80:00:07',
      'missing live service 7 10.128.0.9:8080 = 02:58:0a:80:00:09',
      'missing live service 9 [fd57::7]:8080 = 02:58:0a:80:00:07',
      'missing services net 3 10.128.0.100:80/tcp = service 7 net 3 backends 2 affinity 60 s',
      'missing services net 3 10.128.0.100 = virtual in net 3',
      'missing services net 3 10.128.0.100:53/udp = service 8 net 3 backends 0',
      'missing services net 3 [fd57::64]:80/tcp = service 9 net 3 backends 1',
      'missing services net 3 fd57::64 = virtual in net 3',
    ]);
  });

  it('writes what a list says before how long it is, and takes away what is over after it', () => {
    const [before, after] = [
      [1, 2, 3],
      [3, 4, 5, 6],
    ].map((numbers) => {
      const [base] = fc.sample(model, 1);
      const address = (n: number): BpfAddress => ({ family: 4, address: n });
      const backends = numbers.map((n) => ({ address: address(n), mac: BigInt(n), port: 80 }));
      return encode({
        ...base!,
        services: [{ id: 1, index: 3, address: address(9), protocol: 6, port: 80, affinity: 0, backends }],
      });
    }) as [EncodedMaps, EncodedMaps];
    const order = (to: EncodedMaps, from: EncodedMaps): string[] => {
      const mine = steps(to, from).filter((s) => ['backends', 'live', 'services'].includes(s.map));
      // As the driver does it.
      return [...mine.filter((s) => s.kind === 'setMap'), ...mine.filter((s) => s.kind === 'delMap')].map(
        (s) => `${s.kind} ${s.map}`,
      );
    };
    const grow = order(after, before);
    expect(grow.lastIndexOf('setMap backends')).toBeLessThan(grow.indexOf('setMap services'));
    expect(grow.lastIndexOf('setMap live')).toBeLessThan(grow.indexOf('setMap services'));
    const shrink = order(before, after);
    expect(shrink.indexOf('setMap services')).toBeLessThan(shrink.indexOf('delMap backends'));
  });

  it('makes no more copies than the programs do', () => {
    const one: BpfVtep = { vtep: { family: 4, address: 1 }, device: null, key: null };
    const [base] = fc.sample(model, 1);
    const lists = [{ id: 3, vteps: Array<BpfVtep>(MAX_COPIES + 10).fill(one) }];
    expect(encode({ ...base!, lists }).get('lists')?.size).toBe(MAX_COPIES);
  });
});

describe('programs on links', () => {
  it('are attached where they miss or differ, detached where nobody wants them, waited for where the link is not there', () => {
    const desired = [
      { ifindex: 1, link: 'wft1', program: 'from_container' },
      { ifindex: 2, link: 'wfk1', program: 'from_ovs' },
      { ifindex: 3, link: 'wfo1', program: 'sink' },
      { ifindex: 4, link: 'weft-tk', program: 'to_tunnel' },
    ] as const;
    const actual = new Map([
      [1, 'from_container'],
      [2, 'other'],
      [3, null],
      [9, 'sink'],
      [10, null],
    ] as const);
    expect(planPrograms(desired, actual).map((p) => `${p.change} ${p.object} ${p.have}→${p.want}`)).toEqual([
      'differs wfk1 other→from_ovs',
      'missing wfo1 →sink',
      'extra ifindex 9 sink→',
    ]);
    const [bare] = planPrograms([], new Map([[9, 'from_host'] as const]), [{ ifindex: 9, link: 'weft-go' }]);
    expect(bare).toMatchObject({ id: 'weft-go', change: 'extra', step: { kind: 'detach', ifindex: 9 } });
  });
});
