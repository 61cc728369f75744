/** Values of the maps as the programs read them, and keys as they ask (datapath/maps.h, express-maps.h). Pure. */
import { familyOfText, lowOf, parseIp } from '../../lib/addr.ts';
import { formatIp6 } from '../../lib/ip6.ts';
import { BLOCK_KEY_BITS, FLAG, u32 } from './encode.ts';
import { Fields, ip4, isZero } from './fields.ts';

/** Canonical. */
const ip6 = (hex: string): string => formatIp6(BigInt(`0x${hex}`));
const address = (hex: string, family: number): string => (family === 4 ? ip4(hex) : ip6(hex));

export interface PortValue {
  /** ifindex of wfk…; 0: the link is a port of Open vSwitch's. */
  readonly slow: number;
  readonly index: number;
  readonly mac: string;
  readonly express: boolean;
  readonly served: boolean;
  /** Class of what it sends is set. */
  readonly marked: boolean;
  /** Null = none, as the others. */
  readonly ip4: string | null;
  readonly ip6: string | null;
  readonly linkLocal: string | null;
}

export interface PlaceValue {
  /** Null: here. */
  readonly vtep: string | null;
  /** Here: ifindex of wft… (0 = nobody); there: of the tunnel device (0 = the network's). */
  readonly device: number;
  readonly key: number;
  readonly express: boolean;
  readonly rewrite: string | null;
  readonly host: boolean;
  readonly paced: boolean;
}

export function portValue(hex: string): PortValue {
  const f = new Fields(hex);
  const [slow, index, mac, flags, mark] = [f.u32(), f.u32(), f.mac(), f.u8(), f.u8()];
  const [v4, v6, linkLocal] = [f.take(4), f.take(16), f.take(16)];
  return {
    slow,
    index,
    mac,
    express: (flags & FLAG.express) !== 0,
    served: (flags & FLAG.served) !== 0,
    marked: mark !== 0,
    ip4: isZero(v4) ? null : ip4(v4),
    ip6: isZero(v6) ? null : ip6(v6),
    linkLocal: isZero(linkLocal) ? null : ip6(linkLocal),
  };
}

export function placeValue(hex: string): PlaceValue {
  const f = new Fields(hex);
  const [vtep, device, key, mac, family, flags] = [f.take(16), f.u32(), f.u32(), f.mac(), f.u8(), f.u8()];
  return {
    vtep: family === 0 ? null : address(vtep, family),
    device,
    key,
    express: (flags & FLAG.express) !== 0,
    rewrite: (flags & FLAG.rewrite) !== 0 ? mac : null,
    host: (flags & FLAG.host) !== 0,
    paced: (flags & FLAG.paced) !== 0,
  };
}

export function netValue(hex: string): { device: number; vni: number; mtu: number } {
  const f = new Fields(hex);
  return { device: f.u32(), vni: f.u32(), mtu: f.u32() };
}

export function sourceValue(hex: string): { index: number; external: boolean } {
  const f = new Fields(hex);
  const [index, flags] = [f.u32(), f.u32()];
  return { index, external: (flags & FLAG.external) !== 0 };
}

export function serviceValue(hex: string): { id: number; count: number; affinity: number; net: number } {
  const f = new Fields(hex);
  return { id: f.u32(), count: f.u32(), affinity: f.u32(), net: f.u32() };
}

export interface BackendValue {
  readonly ip: string;
  readonly mac: string;
  readonly port: number;
}

/** @param family of the service */
export function backendValue(hex: string, family: number): BackendValue {
  const f = new Fields(hex);
  const [ip, mac, port] = [f.take(16), f.mac(), f.port()];
  return { ip: address(ip, family), mac, port };
}

/** Of a client: who answers it. */
export function connectionValue(hex: string, family: number): { id: number; backend: BackendValue } {
  const f = new Fields(hex);
  const [id] = [f.u32(), f.u32()];
  return { id, backend: backendValue(f.take(24), family) };
}

/** Of a client: who answered it last. */
export function affinityValue(hex: string, family: number): BackendValue {
  const f = new Fields(hex);
  f.u32();
  return backendValue(f.take(24), family);
}

/** In the kernel's host order. */
export const numberValue = (hex: string): number => new Fields(hex).u32();

export function configValue(hex: string): {
  tunnelPort: number;
  source4: string | null;
  source6: string | null;
  entry: string;
} {
  const f = new Fields(hex);
  const tunnelPort = f.u32();
  f.take(8);
  const [source4, source6, entry] = [f.take(4), f.take(16), f.mac()];
  return {
    tunnelPort,
    source4: isZero(source4) ? null : ip4(source4),
    source6: isZero(source6) ? null : ip6(source6),
    entry,
  };
}

/** Sixteen bytes as on the wire, IPv4 in the first four. */
export function addressBytes(ip: string): string {
  const n = parseIp(ip);
  if (familyOfText(ip) === 6) return n.toString(16).padStart(32, '0');
  return lowOf(n).toString(16).padStart(8, '0').padEnd(32, '0');
}

export const macBytes = (mac: string): string => mac.replaceAll(':', '');
const port16 = (port: number): string => port.toString(16).padStart(4, '0');
const u8 = (n: number): string => n.toString(16).padStart(2, '0');

export const placeKey = (index: number, mac: string): string => `${u32(index)}${macBytes(mac)}0000`;
/** All of the address: the kernel finds the longest prefix. */
export const blockKey = (index: number, mac: string): string => u32(BLOCK_KEY_BITS + 48) + placeKey(index, mac);
export const vtepKey = (vtep: string, device: number, key: number): string =>
  addressBytes(vtep) + u32(device) + u32(key) + u32(familyOfText(vtep));
export const serviceKeyOf = (index: number, ip: string, protocol: number, port: number): string =>
  u32(index) + addressBytes(ip) + port16(port) + u8(protocol) + u8(familyOfText(ip));

/** Of one direction, as its frames come. */
export const flowKey = (
  index: number,
  from: { readonly ip: string; readonly port: number },
  to: { readonly ip: string; readonly port: number },
  protocol: number,
): string =>
  u32(index) +
  addressBytes(from.ip) +
  addressBytes(to.ip) +
  port16(from.port) +
  port16(to.port) +
  u8(protocol) +
  u8(familyOfText(from.ip)) +
  '0000';

/** A client's own backend, while it is to stay with it. */
export const affinityKey = (id: number, client: string): string => u32(id) + addressBytes(client);
export const liveKey = (id: number, b: BackendValue): string => `${u32(id)}${addressBytes(b.ip)}${port16(b.port)}0000`;
