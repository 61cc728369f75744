/** Keys and values of the maps in words, for drift and for `weft dump`. Pure. */
import { BLOCK_KEY_BITS, CONFIG_FLAG, type EncodedMaps, FLAG, LAYOUT, type MapName, ROUTE_KEY_BITS } from './encode.ts';
import { address, Fields, ip4, ip6, isZero } from './fields.ts';

/** Name of an entry: "fdb net 3 02:58:0a:80:00:07". */
export function describeKey(map: MapName, key: string): string {
  const f = new Fields(key);
  switch (map) {
    case 'ports':
    case 'slow':
    case 'gates':
      return `${map} ifindex ${f.u32()}`;
    case 'nets':
      return `nets net ${f.u32()}`;
    case 'vnis':
      return `vnis device ${f.u32()} key ${f.u32()}`;
    case 'fdb':
    case 'groups':
      return `${map} net ${f.u32()} ${f.mac()}`;
    case 'blocks': {
      const bits = f.u32() - BLOCK_KEY_BITS;
      return `blocks net ${f.u32()} ${f.mac()}/${bits}`;
    }
    case 'vteps': {
      const [vtep, device, tunnelKey, family] = [f.take(16), f.u32(), f.u32(), f.u32()];
      return `vteps device ${device} key ${tunnelKey} ${address(vtep, family)}`;
    }
    case 'lists':
      return `lists ${f.u32()} slot ${f.u32()}`;
    case 'routes': {
      const [bits, index, family, ip] = [f.u32() - ROUTE_KEY_BITS, f.u32(), f.u32(), f.take(16)];
      return `routes net ${index} ${address(ip, family)}/${bits}`;
    }
    case 'neighbours': {
      const [index, family, ip] = [f.u32(), f.u32(), f.take(16)];
      return `neighbours net ${index} ${address(ip, family)}`;
    }
    case 'config':
      return 'config';
    case 'backends':
      return `backends service ${f.u32()} slot ${f.u32()}`;
    case 'live':
      return `live service ${f.u32()} ${end(f.take(16), f.port())}`;
    case 'services': {
      const [index, ip, port, protocol, family] = [f.u32(), f.take(16), f.port(), f.u8(), f.u8()];
      const text = address(ip, family);
      if (protocol === 0) return `services net ${index} ${text}`;
      return `services net ${index} ${family === 4 ? text : `[${text}]`}:${port}/${protocol === 6 ? 'tcp' : 'udp'}`;
    }
  }
}

/** Which family it is, the service says, but for addresses with a zero end they differ. */
function end(ip: string, port: number): string {
  return isZero(ip.slice(8)) ? `${ip4(ip)}:${port}` : `[${ip6(ip)}]:${port}`;
}

/** Every entry, a line each: "nets net 3 = device 5 vni 4097 mtu 1450". */
export const describeMaps = (maps: EncodedMaps): string =>
  [...maps]
    .flatMap(([map, entries]) =>
      [...entries].map(([key, value]) => `${describeKey(map, key)} = ${describeValue(map, value)}`),
    )
    .join('\n');

/** What an entry says. */
export function describeValue(map: MapName, value: string): string {
  const f = new Fields(value);
  if (value.length !== LAYOUT[map].value * 2) return value;
  switch (map) {
    case 'ports':
      return port(f);
    case 'slow':
    case 'gates':
      return `ifindex ${f.u32()}`;
    case 'nets':
      return `device ${f.u32()} vni ${f.u32()} mtu ${f.u32()}`;
    case 'vnis':
      return 'known';
    case 'fdb':
    case 'blocks':
    case 'lists':
      return place(f);
    case 'vteps': {
      const [index, flags] = [f.u32(), f.u32()];
      return words(`net ${index}`, flags & FLAG.external && 'external', flags & FLAG.learn && 'learn');
    }
    case 'groups':
      return `list ${f.u32()}`;
    case 'config':
      return config(f);
    case 'backends': {
      const [ip, mac, port] = [f.take(16), f.mac(), f.port()];
      return `${end(ip, port)} ${mac}`;
    }
    case 'routes': {
      const [network, mtu] = [f.u32(), f.u32()];
      return network === 0 ? 'by Open vSwitch' : `to net ${network} mtu ${mtu}`;
    }
    case 'neighbours':
    case 'live':
      return f.mac();
    case 'services': {
      const [id, count, affinity, net] = [f.u32(), f.u32(), f.u32(), f.u32()];
      if (id === 0) return `virtual in net ${net}`;
      return words(`service ${id}`, `net ${net}`, `backends ${count}`, affinity > 0 && `affinity ${affinity} s`);
    }
  }
}

const NO_MAC = '00:00:00:00:00:00';

const words = (...parts: readonly (string | 0 | false)[]): string =>
  parts.filter((p) => p !== 0 && p !== false).join(' ');

function port(f: Fields): string {
  const [slow, index, mac, flags] = [f.u32(), f.u32(), f.mac(), f.u8()];
  const mark = f.u8();
  const [v4, v6, linkLocal] = [f.take(4), f.take(16), f.take(16)];
  return words(
    `net ${index} ${mac}`,
    !isZero(v4) && ip4(v4),
    !isZero(v6) && ip6(v6),
    !isZero(linkLocal) && ip6(linkLocal),
    `slow ifindex ${slow}`,
    flags & FLAG.express && 'express',
    flags & FLAG.served && 'served',
    mark !== 0 && `dscp ${mark >> 2}`,
  );
}

function place(f: Fields): string {
  const [vtep, device, key, mac, family, flags] = [f.take(16), f.u32(), f.u32(), f.mac(), f.u8(), f.u8()];
  const express = flags & FLAG.express && 'express';
  if (family === 0 && device === 0) return 'nobody';
  const served = flags & FLAG.served && 'served';
  const paced = flags & FLAG.paced && 'paced';
  if (family === 0 && flags & FLAG.host) return `host ifindex ${device}`;
  if (family === 0)
    return words(`local ifindex ${device}`, flags & FLAG.rewrite && `rewrite ${mac}`, express, served, paced);
  return words(
    `remote ${address(vtep, family)}`,
    device !== 0 && `device ${device}`,
    key !== 0 && `key ${key}`,
    express,
  );
}

function config(f: Fields): string {
  const [tunnelPort, flags, ttl, tos] = [f.u32(), f.u32(), f.u8(), f.u8()];
  f.take(2);
  const [source4, source6, entry] = [f.take(4), f.take(16), f.mac()];
  f.take(2);
  const router = f.mac();
  return words(
    `tunnel port ifindex ${tunnelPort}`,
    `ttl ${flags & CONFIG_FLAG.ttlInherit ? 'inherit' : ttl}`,
    `dscp ${flags & CONFIG_FLAG.dscpInherit ? 'inherit' : tos >> 2}`,
    flags & CONFIG_FLAG.checksum && 'checksum',
    flags & CONFIG_FLAG.dontFragment && 'df',
    !isZero(source4) && `source ${ip4(source4)}`,
    !isZero(source6) && `source ${ip6(source6)}`,
    entry !== NO_MAC && `entry ${entry}`,
    router !== NO_MAC && `router ${router}`,
  );
}
