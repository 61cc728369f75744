/**
 * The model as bytes of the maps (datapath/maps.h has the same layouts; a test holds the sizes together). Hex, as the helper takes it:
 * numbers in the host's order (little-endian on all that Weft runs on), addresses and MACs as on the wire. Pure.
 */
import {
  type BpfAddress,
  type BpfBlock,
  type BpfConfig,
  type BpfModel,
  type BpfPlace,
  type BpfPort,
  type BpfService,
  type BpfSource,
  type BpfVtep,
  MAX_COPIES,
} from './model.ts';

/** Bytes of key and value. Maps are written in this order: the lists of a service before what says how long they are. */
export const LAYOUT = {
  ports: { key: 4, value: 52 },
  slow: { key: 4, value: 4 },
  gates: { key: 4, value: 4 },
  nets: { key: 4, value: 12 },
  vnis: { key: 8, value: 4 },
  fdb: { key: 12, value: 32 },
  blocks: { key: 16, value: 32 },
  vteps: { key: 28, value: 8 },
  lists: { key: 8, value: 32 },
  groups: { key: 12, value: 4 },
  neighbours: { key: 24, value: 8 },
  routes: { key: 28, value: 8 },
  config: { key: 4, value: 48 },
  backends: { key: 8, value: 24 },
  live: { key: 24, value: 8 },
  services: { key: 24, value: 16 },
} as const;

/** Maps that are rendered; others are written by the programs. */
export type MapName = keyof typeof LAYOUT;

export const MAP_NAMES = Object.keys(LAYOUT) as readonly MapName[];

/** Of the object that is on ports of Open vSwitch's; weft.bpf.o has all. */
export const SERVICE_MAPS: readonly MapName[] = ['ports', 'backends', 'live', 'services'];

/** Per map: key → value, both hex. */
export type EncodedMaps = ReadonlyMap<MapName, ReadonlyMap<string, string>>;

export const FLAG = { express: 1, rewrite: 2, external: 4, learn: 8, served: 16, host: 32, paced: 64 } as const;
export const CONFIG_FLAG = { checksum: 1, ttlInherit: 2, dscpInherit: 4, dontFragment: 8 } as const;

/** Outer TTL of frames that have none to inherit. */
const TTL = 64;
/** Bits of a block's key before the MAC: the network's index. */
export const BLOCK_KEY_BITS = 32;

/** Two digits of each byte; every pass of the agent encodes everything. */
const HEX: readonly string[] = Array.from({ length: 256 }, (_, byte) => byte.toString(16).padStart(2, '0'));
const NO_ADDRESS = '0'.repeat(32);
const NO_MAC = '0'.repeat(12);

const u8 = (value: number): string => HEX[value & 255]!;
const big32 = (v: number): string => u8(v >>> 24) + u8(v >>> 16) + u8(v >>> 8) + u8(v);

/** 32 bits in the host's order. */
export const u32 = (v: number): string => u8(v) + u8(v >>> 8) + u8(v >>> 16) + u8(v >>> 24);

function mac(value: bigint): string {
  const high = Number(value >> 32n);
  return u8(high >>> 8) + u8(high) + big32(Number(value & 0xffffffffn));
}

const ip4 = (value: number | null): string => big32(value ?? 0);
const ip6 = (value: bigint | null): string => (value ?? 0n).toString(16).padStart(32, '0');

/** Sixteen bytes; IPv4 in the first four. */
const address = (a: BpfAddress): string => (a.family === 4 ? ip4(a.address) + NO_ADDRESS.slice(8) : ip6(a.address));

export const macKey = (index: number, address: bigint): string => `${u32(index)}${mac(address)}0000`;

/** Port in the order of the network. */
const port16 = (v: number): string => u8(v >>> 8) + u8(v);

/** Bits of a route's key before the address: index and family. */
export const ROUTE_KEY_BITS = 64;
/** Of a family, in a network. */
const inFamily = (index: number, a: BpfAddress): string => u32(index) + u32(a.family) + address(a);

/** A port of a virtual address; without one, the address. */
export const serviceKey = (
  s: Pick<BpfService, 'index' | 'address'>,
  at?: Pick<BpfService, 'port' | 'protocol'>,
): string => u32(s.index) + address(s.address) + port16(at?.port ?? 0) + u8(at?.protocol ?? 0) + u8(s.address.family);

const table = <T>(items: readonly T[], key: (item: T) => string, value: (item: T) => string): Map<string, string> => {
  const out = new Map<string, string>();
  for (const item of items) out.set(key(item), value(item));
  return out;
};

/** @param names of the maps that there are */
export function encode(model: BpfModel, names: readonly MapName[] = MAP_NAMES): EncodedMaps {
  const { ports, nets, sources, groups } = model;
  const answered = model.answered ?? [];
  const served = new Set([...model.services, ...answered].map((s) => s.index));
  const place = places();
  const copies = model.lists.flatMap(({ id, vteps }) =>
    vteps.slice(0, MAX_COPIES).map((vtep, slot) => ({ key: u32(id) + u32(slot), vtep })),
  );
  const [one, none] = [u32(1), u8(0)];
  const maps: Record<MapName, ReadonlyMap<string, string>> = {
    ports: table(
      ports,
      (p) => u32(p.ifindex),
      (p) => port(p, served.has(p.index)),
    ),
    slow: table(
      ports,
      (p) => u32(p.slow),
      (p) => u32(p.ifindex),
    ),
    gates: gates(ports),
    nets: table(
      nets,
      (n) => u32(n.index),
      (n) => u32(n.device) + u32(n.vni) + u32(n.mtu),
    ),
    vnis: table(
      sources,
      (s) => u32(s.device) + u32(s.key),
      () => one,
    ),
    fdb: table(
      model.fdb,
      (e) => macKey(e.index, e.mac),
      (e) => place(e.place, e.express, served.has(e.index)),
    ),
    blocks: table(model.blocks, blockKey, (b) => place(b.place, b.place !== null && b.express)),
    vteps: table(sources, sourceKey, source),
    lists: table(
      copies,
      (c) => c.key,
      (c) => there(c.vtep) + none,
    ),
    groups: table(
      groups,
      (g) => macKey(g.index, g.mac),
      (g) => u32(g.list),
    ),
    routes: table(
      model.routes ?? [],
      (r) => u32(ROUTE_KEY_BITS + r.bits) + inFamily(r.index, r.to),
      (r) => u32(r.network ?? 0) + u32(r.mtu),
    ),
    neighbours: table(
      model.neighbours ?? [],
      (n) => inFamily(n.index, n.address),
      (n) => `${mac(n.mac)}0000`,
    ),
    config: new Map([[u32(0), config(model.config)]]),
    ...services(model.services, answered),
  };
  return new Map(names.map((name) => [name, maps[name]]));
}

/** Both ways: in by the one end, out by the other. */
const gates = (ports: readonly BpfPort[]): Map<string, string> =>
  new Map(
    ports.flatMap(({ ifindex, gate }): [string, string][] =>
      gate === undefined
        ? []
        : [
            [u32(ifindex), u32(gate.entry)],
            [u32(gate.exit), u32(ifindex)],
          ],
    ),
  );

const blockKey = (b: BpfBlock): string => u32(BLOCK_KEY_BITS + b.bits) + macKey(b.index, b.mac);
const sourceKey = (s: BpfSource): string => address(s.vtep) + u32(s.device) + u32(s.key) + u32(s.vtep.family);
const source = (s: BpfSource): string =>
  u32(s.index) + u32((s.external ? FLAG.external : 0) | (s.learn ? FLAG.learn : 0));

/** Slots are counted from 0. A virtual address is said with its ports, and by itself. */
function services(
  all: readonly BpfService[],
  answered: readonly Pick<BpfService, 'index' | 'address'>[],
): Pick<Record<MapName, Map<string, string>>, 'backends' | 'live' | 'services'> {
  const maps = {
    backends: new Map<string, string>(),
    live: new Map<string, string>(),
    services: new Map<string, string>(),
  };
  const virtual = (net: number): string => u32(0) + u32(0) + u32(0) + u32(net);
  for (const a of answered) maps.services.set(serviceKey(a), virtual(a.index));
  for (const s of all) {
    const id = u32(s.id);
    const backends = s.backends.filter((b) => b.address.family === s.address.family);
    for (const [slot, b] of backends.entries()) {
      maps.backends.set(id + u32(slot), address(b.address) + mac(b.mac) + port16(b.port));
      maps.live.set(`${id}${address(b.address)}${port16(b.port)}0000`, `${mac(b.mac)}0000`);
    }
    const net = s.net ?? s.index;
    maps.services.set(serviceKey(s, s), id + u32(backends.length) + u32(s.affinity) + u32(net));
    maps.services.set(serviceKey(s), virtual(net));
  }
  return maps;
}

const port = (p: BpfPort, served: boolean): string =>
  [
    u32(p.slow),
    u32(p.index),
    mac(p.mac),
    u8((p.express ? FLAG.express : 0) | (served ? FLAG.served : 0)),
    u8(p.dscp === undefined ? 0 : (p.dscp << 2) | 1),
    ip4(p.ip4),
    ip6(p.ip6),
    ip6(p.linkLocal),
  ].join('');

/** Values that name a place. Many entries have the same one: it is written once. */
function places(): (place: BpfPlace | null, express: boolean, served?: boolean) => string {
  const known = new Map<BpfPlace, string>();
  return (place, express, served = false) => {
    const flags = express ? FLAG.express : 0;
    if (place === null) return here(0, null, flags);
    if (place.kind === 'local') return here(place.ifindex, place.rewrite, flags | localFlags(place, served));
    const text = known.get(place) ?? there(place);
    known.set(place, text);
    return text + u8(flags);
  };
}

const localFlags = (place: BpfPlace & { kind: 'local' }, served: boolean): number =>
  (served ? FLAG.served : 0) | (place.host === true ? FLAG.host : 0) | (place.paced === true ? FLAG.paced : 0);

const here = (ifindex: number, rewrite: bigint | null, flags: number): string =>
  NO_ADDRESS +
  u32(ifindex) +
  u32(0) +
  (rewrite === null ? NO_MAC : mac(rewrite)) +
  u8(0) +
  u8(flags | (rewrite === null ? 0 : FLAG.rewrite));

/** But for the flags. */
const there = (to: BpfVtep): string =>
  address(to.vtep) + u32(to.device ?? 0) + u32(to.key ?? 0) + NO_MAC + u8(to.vtep.family);

function config(c: BpfConfig): string {
  const flags =
    (c.checksum ? CONFIG_FLAG.checksum : 0) |
    (c.ttl === null ? CONFIG_FLAG.ttlInherit : 0) |
    (c.dscp === null ? CONFIG_FLAG.dscpInherit : 0) |
    (c.dontFragment ? CONFIG_FLAG.dontFragment : 0);
  return [
    u32(c.tunnelPort),
    u32(flags),
    u8(c.ttl ?? TTL),
    u8((c.dscp ?? 0) << 2),
    '0000',
    ip4(c.source4),
    ip6(c.source6),
    mac(c.entry),
    '0000',
    mac(c.router ?? 0n),
    '0000',
  ].join('');
}
