/**
 * The model as bytes of the maps (datapath/maps.h has the same layouts; a test holds the sizes together). Hex, as the helper takes it:
 * numbers in the host's order (little-endian on all that Weft runs on), addresses and MACs as on the wire. Pure.
 */
import {
  type BpfAddress,
  type BpfBlock,
  type BpfConfig,
  type BpfFdb,
  type BpfModel,
  type BpfPort,
  type BpfVtep,
  MAX_COPIES,
} from './model.ts';

/** Bytes of key and value. */
export const LAYOUT = {
  ports: { key: 4, value: 52 },
  slow: { key: 4, value: 4 },
  nets: { key: 4, value: 12 },
  vnis: { key: 8, value: 4 },
  fdb: { key: 12, value: 32 },
  blocks: { key: 16, value: 32 },
  vteps: { key: 28, value: 8 },
  lists: { key: 8, value: 32 },
  groups: { key: 12, value: 4 },
  config: { key: 4, value: 32 },
} as const;

/** Maps that are rendered; others are written by the programs. */
export type MapName = keyof typeof LAYOUT;

export const MAP_NAMES = Object.keys(LAYOUT) as readonly MapName[];

/** Per map: key → value, both hex. */
export type EncodedMaps = ReadonlyMap<MapName, ReadonlyMap<string, string>>;

export const FLAG = { express: 1, rewrite: 2, external: 4, learn: 8 } as const;
export const CONFIG_FLAG = { checksum: 1, ttlInherit: 2, dscpInherit: 4, dontFragment: 8 } as const;

/** Outer TTL of frames that have none to inherit. */
const TTL = 64;
/** Bits of a block's key before the MAC: the network's index. */
export const BLOCK_KEY_BITS = 32;

const bytes = (value: number | bigint, size: number): string => value.toString(16).padStart(size * 2, '0');

/** 32 bits in the host's order. */
export function u32(value: number): string {
  const hex = bytes(value, 4);
  return hex.slice(6) + hex.slice(4, 6) + hex.slice(2, 4) + hex.slice(0, 2);
}

const u8 = (value: number): string => bytes(value, 1);
const mac = (value: bigint): string => bytes(value, 6);
const ip4 = (value: number | null): string => bytes(value ?? 0, 4);
const ip6 = (value: bigint | null): string => bytes(value ?? 0n, 16);

/** Sixteen bytes; IPv4 in the first four. */
const address = (a: BpfAddress): string => (a.family === 4 ? ip4(a.address).padEnd(32, '0') : ip6(a.address));

export const macKey = (index: number, address: bigint): string => `${u32(index)}${mac(address)}0000`;

export function encode(model: BpfModel): EncodedMaps {
  const table = <T>(items: readonly T[], key: (item: T) => string, value: (item: T) => string) =>
    new Map(items.map((item) => [key(item), value(item)]));
  const lists = model.lists.flatMap((list) =>
    list.vteps.slice(0, MAX_COPIES).map((vtep, slot) => ({ id: list.id, slot, vtep })),
  );
  return new Map<MapName, ReadonlyMap<string, string>>([
    ['ports', table(model.ports, (p) => u32(p.ifindex), port)],
    [
      'slow',
      table(
        model.ports,
        (p) => u32(p.slow),
        (p) => u32(p.ifindex),
      ),
    ],
    [
      'nets',
      table(
        model.nets,
        (n) => u32(n.index),
        (n) => u32(n.device) + u32(n.vni) + u32(n.mtu),
      ),
    ],
    [
      'vnis',
      table(
        model.sources,
        (s) => u32(s.device) + u32(s.key),
        () => u32(1),
      ),
    ],
    ['fdb', table(model.fdb, (e) => macKey(e.index, e.mac), entry)],
    ['blocks', table(model.blocks, (b) => u32(BLOCK_KEY_BITS + b.bits) + macKey(b.index, b.mac), block)],
    [
      'vteps',
      table(
        model.sources,
        (s) => address(s.vtep) + u32(s.device) + u32(s.key) + u32(s.vtep.family),
        (s) => u32(s.index) + u32((s.external ? FLAG.external : 0) | (s.learn ? FLAG.learn : 0)),
      ),
    ],
    [
      'lists',
      table(
        lists,
        (l) => u32(l.id) + u32(l.slot),
        (l) => remote(l.vtep, 0),
      ),
    ],
    [
      'groups',
      table(
        model.groups,
        (g) => macKey(g.index, g.mac),
        (g) => u32(g.list),
      ),
    ],
    ['config', new Map([[u32(0), config(model.config)]])],
  ]);
}

const port = (p: BpfPort): string =>
  [
    u32(p.slow),
    u32(p.index),
    mac(p.mac),
    u8(p.express ? FLAG.express : 0),
    '00',
    ip4(p.ip4),
    ip6(p.ip6),
    ip6(p.linkLocal),
  ].join('');

const remote = (to: BpfVtep, flags: number): string =>
  [address(to.vtep), u32(to.device ?? 0), u32(to.key ?? 0), mac(0n), u8(to.vtep.family), u8(flags)].join('');

const local = (ifindex: number, rewrite: bigint | null, flags: number): string =>
  [ip6(0n), u32(ifindex), u32(0), mac(rewrite ?? 0n), u8(0), u8(flags | (rewrite === null ? 0 : FLAG.rewrite))].join(
    '',
  );

function entry(e: BpfFdb): string {
  const flags = e.express ? FLAG.express : 0;
  return e.place.kind === 'local' ? local(e.place.ifindex, e.place.rewrite, flags) : remote(e.place, flags);
}

const block = (b: BpfBlock): string =>
  b.place === null ? local(0, null, 0) : remote(b.place, b.express ? FLAG.express : 0);

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
  ].join('');
}
