/** What eBPF programs do with a packet, decided from maps as they are written, and with wrong entries in them. */
import { describe, expect, it } from 'vitest';
import { type EncodedMaps, encode, macKey, serviceKey, u32 } from '../../../../agent/bpf/encode.ts';
import type { BpfModel } from '../../../../agent/bpf/model.ts';
import { arrived, fromBridge, sent, toTunnel } from '../../../../agent/trace/express.ts';
import type { Maps, Next } from '../../../../agent/trace/maps.ts';
import { servedOutside } from '../../../../agent/trace/served.ts';
import { TracePacket } from '../../../../gen/weft/v1/types.ts';
import { parseIp } from '../../../../lib/ip.ts';
import { parseMac } from '../../../../lib/mac.ts';
import { lookupIn } from '../../../harness/trace-host.ts';

const OWN = '02:58:0a:01:00:02';
const PEER = '02:58:0a:01:00:03';
const FAR = '02:58:0a:01:00:21';
const ANYCAST = '02:57:65:66:74:01';
const vtep = (ip: string) => ({ family: 4, address: parseIp(ip) }) as const;
const remote = (ip: string) => ({ kind: 'remote', vtep: vtep(ip), device: null, key: null }) as const;
const local = (ifindex: number) => ({ kind: 'local', ifindex, rewrite: null }) as const;
const port = {
  slow: 21,
  index: 1,
  mac: parseMac(OWN),
  ip4: parseIp('10.1.0.2'),
  ip6: null,
  linkLocal: null,
  express: true,
};
const service = { id: 7, index: 1, address: vtep('10.1.0.200'), protocol: 6, port: 80, affinity: 0 } as const;
const backend = (ip: string, mac: string) => ({ address: vtep(ip), mac: parseMac(mac), port: 8080 });

/** Link 11 is the sender's, 12 another one's of this host; 30 the tunnel device; 192.0.2.2 has 10.1.0.32/27. */
const model: BpfModel = {
  config: {
    tunnelPort: 40,
    ttl: 64,
    dscp: null,
    checksum: false,
    dontFragment: true,
    source4: parseIp('192.0.2.1'),
    source6: null,
    entry: 0n,
  },
  ports: [
    { ...port, ifindex: 11 },
    { ...port, ifindex: 12, slow: 22, mac: parseMac(PEER), ip4: parseIp('10.1.0.3') },
  ],
  nets: [{ index: 1, device: 30, vni: 4096, mtu: 1450 }],
  fdb: [
    { index: 1, mac: parseMac(OWN), place: local(11), express: true },
    { index: 1, mac: parseMac(PEER), place: local(12), express: true },
    { index: 1, mac: parseMac('02:58:0a:01:00:22'), place: remote('192.0.2.2'), express: false },
  ],
  blocks: [{ index: 1, mac: parseMac('02:58:0a:01:00:20'), bits: 43, place: remote('192.0.2.2'), express: true }],
  sources: [
    { index: 1, vtep: vtep('192.0.2.2'), device: 30, key: 4096, external: false, learn: false },
    { index: 1, vtep: vtep('192.0.2.9'), device: 30, key: 77, external: true, learn: false },
  ],
  lists: [],
  groups: [],
  services: [{ ...service, backends: [backend('10.1.0.2', OWN), backend('10.1.0.33', FAR)] }],
};

/** @param change entries by map: null = removed */
const mapsOf = (change: Record<string, Record<string, string | null>> = {}, from: BpfModel = model): Maps => {
  const maps = new Map([...encode(from)].map(([name, entries]) => [name as string, new Map(entries)]));
  for (const [name, entries] of Object.entries(change))
    for (const [key, value] of Object.entries(entries)) {
      const map = maps.get(name) ?? new Map<string, string>();
      maps.set(name, map);
      if (value === null) map.delete(key);
      else map.set(key, value);
    }
  return {
    lookup: (map, key) => Promise.resolve(lookupIn(maps as unknown as EncodedMaps, map, key)),
    host: 'h1',
    link: (n) => `link ${n}`,
    network: (n) => `net${n}`,
  };
};

const packet = (more: Partial<TracePacket> = {}): TracePacket =>
  TracePacket.fromPartial({
    sourceMac: OWN,
    destinationMac: PEER,
    sourceIp: '10.1.0.2',
    destinationIp: '10.1.0.3',
    protocol: 6,
    sourcePort: 40_000,
    destinationPort: 80,
    ttl: 64,
    ...more,
  });
const far = { destinationMac: FAR, destinationIp: '10.1.0.33' };
const toService = { destinationMac: ANYCAST, destinationIp: '10.1.0.200' };

describe('from a container', () => {
  const next = async (more: Partial<TracePacket> = {}, maps = mapsOf(), ifindex = 11): Promise<Next> =>
    (await sent(maps, ifindex, packet(more))).next;

  it('to another one here, and to another host’s', async () => {
    expect(await next()).toEqual({ kind: 'here', ifindex: 12 });
    expect(await next(far)).toEqual({ kind: 'tunnel', vtep: '192.0.2.2', device: 30, key: 4096 });
  });

  it('an exact entry goes before a block', async () => {
    expect(await next({ destinationMac: '02:58:0a:01:00:22', destinationIp: '10.1.0.34' })).toEqual({ kind: 'bridge' });
  });

  it.each<[string, Partial<TracePacket>]>([
    ['an address that is not its own', { sourceIp: '10.1.0.9' }],
    ['another MAC', { sourceMac: PEER }],
    ['a MAC that nobody has', { destinationMac: '02:58:0a:09:00:01' }],
    ['a group', { destinationMac: '01:00:5e:01:02:03' }],
    ['IPv6, which it has not', { sourceIp: 'fd00::2', destinationIp: 'fd00::3' }],
  ])('Open vSwitch judges: %s', async (_what, more) => expect(await next(more)).toEqual({ kind: 'bridge' }));

  it('a link that is not known', async () =>
    expect(await next({}, mapsOf(), 99)).toMatchObject({
      kind: 'dropped',
      reason: 'the map "ports" does not know link 99',
    }));

  it('a wrong entry leads where it says', async () => {
    const key = macKey(1, parseMac(PEER));
    const place = encode({ ...model, fdb: [{ index: 1, mac: parseMac(PEER), place: local(55), express: true }] });
    const wrong = mapsOf({ fdb: { [key]: place.get('fdb')!.get(key)! } });
    expect(await next({}, wrong)).toEqual({ kind: 'here', ifindex: 55 });
    const { hops } = await sent(wrong, 11, packet());
    expect(hops.at(-1)?.detail).toBe('fdb net 1 02:58:0a:01:00:03 = local ifindex 55 express served');
    expect(await next({}, mapsOf({ fdb: { [key]: null } }))).toEqual({ kind: 'bridge' });
    expect(await next(far, mapsOf({ nets: { [u32(1)]: null } }))).toMatchObject({ kind: 'dropped' });
  });
});

describe('a virtual address', () => {
  it('becomes a backend’s that is not the client itself', async () => {
    const step = await sent(mapsOf(), 11, packet(toService));
    expect(step.packet).toMatchObject({ destinationIp: '10.1.0.33', destinationPort: 8080, destinationMac: FAR });
    expect(step.next).toMatchObject({ kind: 'tunnel', vtep: '192.0.2.2' });
    expect(step.hops.map((h) => h.what).join()).toContain('the only one');
  });

  it('or comes back to the client that is the only one', async () => {
    const alone = { ...model, services: [{ ...service, backends: [backend('10.1.0.2', OWN)] }] };
    const step = await sent(mapsOf({}, alone), 11, packet(toService));
    expect(step.next).toEqual({ kind: 'back' });
    expect(step.packet).toMatchObject({ sourceIp: '10.1.0.200', destinationIp: '10.1.0.2', destinationMac: OWN });
  });

  it('nobody is behind it: dropped', async () => {
    const none = { ...model, services: [{ ...service, backends: [] }] };
    const step = await sent(mapsOf({}, none), 11, packet(toService));
    expect(step.next).toMatchObject({ kind: 'dropped', reason: expect.stringContaining('no_backend') });
  });

  it('another port of it is Open vSwitch’s', async () =>
    expect((await sent(mapsOf(), 11, packet({ ...toService, destinationPort: 81 }))).next).toEqual({ kind: 'bridge' }));

  it('a published one is known by its transit address', async () => {
    const address = vtep('169.254.120.9');
    const published = { ...service, id: 8, index: 0, net: 1, address, backends: [backend('10.1.0.33', FAR)] };
    const maps = mapsOf({}, { ...model, services: [published] });
    const outside = packet({ sourceIp: '192.0.2.77', destinationIp: '169.254.120.9' });
    expect(await servedOutside(maps, outside)).toMatchObject({ net: 1, packet: { destinationIp: '10.1.0.33' } });
    expect(await servedOutside(maps, packet({ destinationIp: '169.254.64.9' }))).toBeNull();
    expect(serviceKey({ index: 0, address })).toHaveLength(48);
  });
});

describe('out of a tunnel', () => {
  const from = { vtep: '192.0.2.2', device: 30, key: 4096 };
  const come = { sourceMac: FAR, sourceIp: '10.1.0.33', destinationMac: OWN, destinationIp: '10.1.0.2' };
  const next = async (more: Partial<TracePacket> = {}, at = {}, maps = mapsOf()): Promise<Next> =>
    (await arrived(maps, { ...from, ...at }, packet({ ...come, ...more }))).next;

  it('to its endpoint', async () => expect(await next()).toEqual({ kind: 'here', ifindex: 11 }));
  it.each([
    ['a VNI that nobody here has', {}, { key: 9 }, 'unknown_vni'],
    ['a VTEP that is none of the network', {}, { vtep: '192.0.2.3' }, 'foreign_vtep'],
    ['a MAC of this host', { sourceMac: PEER }, {}, 'foreign_source'],
    ['a MAC that nobody has', { sourceMac: '02:00:00:00:00:99' }, {}, 'foreign_source'],
  ])('dropped: %s', async (_what, more, at, reason) =>
    expect(await next(more, at)).toMatchObject({ kind: 'dropped', reason: expect.stringContaining(reason) }),
  );
  it('an external peer’s own MAC is Open vSwitch’s', async () =>
    expect(await next({ sourceMac: '02:00:00:00:00:99' }, { vtep: '192.0.2.9', key: 77 })).toEqual({ kind: 'bridge' }));
  it('for nobody here: Open vSwitch', async () =>
    expect(await next({ destinationMac: '02:58:0a:01:00:1e' })).toEqual({ kind: 'bridge' }));
});

describe('from Open vSwitch', () => {
  it('to the link that the map says', async () => {
    expect((await fromBridge(mapsOf(), 21, packet())).next).toEqual({ kind: 'here', ifindex: 11 });
    expect((await fromBridge(mapsOf({ slow: { [u32(21)]: u32(12) } }), 21, packet())).next).toEqual({
      kind: 'here',
      ifindex: 12,
    });
    expect((await fromBridge(mapsOf({ slow: { [u32(21)]: null } }), 21, packet())).next).toMatchObject({
      kind: 'dropped',
    });
  });

  it('to a tunnel, or nowhere', async () => {
    expect((await toTunnel(mapsOf(), 1, packet(far))).next).toMatchObject({ kind: 'tunnel', vtep: '192.0.2.2' });
    expect((await toTunnel(mapsOf(), 1, packet({ destinationMac: '02:00:00:00:00:99' }))).next).toMatchObject({
      kind: 'dropped',
      reason: expect.stringContaining('unknown_unicast'),
    });
  });
});
