/**
 * Frames as IGMP and MLD use them: Ethernet, IPv4 (RFC 791) or IPv6 (RFC 8200) with its extension headers, and what they carry.
 * Reads what a container sent, so nothing is trusted; builds what it is sent. Pure.
 */

export interface Datagram {
  readonly family: 4 | 6;
  /** Addresses as numbers. */
  readonly source: bigint;
  readonly destination: bigint;
  /** TTL, or hop limit. */
  readonly ttl: number;
  /** Of the payload: IPv6 extension headers have been skipped. */
  readonly protocol: number;
  readonly payload: Buffer;
}

export const PROTOCOL = Object.freeze({ igmp: 2, icmp6: 58 });
const ETHER = { ip4: 0x0800, ip6: 0x86dd };
const ETHER_HEADER = 14;
const IP6_HEADER = 40;
/** Extension headers that MLD may stand behind: hop-by-hop (its router alert), destination options. */
const SKIPPED = [0, 60];
const MOST_EXTENSIONS = 4;
/** Router alert (RFC 2113; RFC 2711, MLD). */
const ALERT4 = Buffer.from('94040000', 'hex');
const ALERT6 = Buffer.from('3a00050200000100', 'hex');
/** Internetwork control (RFC 3376 §4). */
const CONTROL = 0xc0;

/** What is inside of a frame; null when it is no whole, unfragmented IP packet with a right header. */
export function readFrame(frame: Buffer): Datagram | null {
  if (frame.length < ETHER_HEADER) return null;
  const type = frame.readUInt16BE(12);
  const body = frame.subarray(ETHER_HEADER);
  if (type === ETHER.ip4) return readIp4(body);
  return type === ETHER.ip6 ? readIp6(body) : null;
}

function readIp4(body: Buffer): Datagram | null {
  if (body.length < 20 || body[0]! >> 4 !== 4) return null;
  const header = (body[0]! & 15) * 4;
  const total = body.readUInt16BE(2);
  if (header < 20 || total < header || total > body.length) return null;
  const fragment = (body.readUInt16BE(6) & 0x3fff) !== 0;
  if (fragment || checksum([body.subarray(0, header)]) !== 0) return null;
  return {
    family: 4,
    source: BigInt(body.readUInt32BE(12)),
    destination: BigInt(body.readUInt32BE(16)),
    ttl: body[8]!,
    protocol: body[9]!,
    payload: body.subarray(header, total),
  };
}

function readIp6(body: Buffer): Datagram | null {
  if (body.length < IP6_HEADER || body[0]! >> 4 !== 6) return null;
  const length = body.readUInt16BE(4);
  if (IP6_HEADER + length > body.length) return null;
  let payload = body.subarray(IP6_HEADER, IP6_HEADER + length);
  let next = body[6]!;
  for (let i = 0; SKIPPED.includes(next); i++) {
    if (i >= MOST_EXTENSIONS || payload.length < 8) return null;
    const size = (payload[1]! + 1) * 8;
    if (size > payload.length) return null;
    next = payload[0]!;
    payload = payload.subarray(size);
  }
  return {
    family: 6,
    source: number(body.subarray(8, 24)),
    destination: number(body.subarray(24, 40)),
    ttl: body[7]!,
    protocol: next,
    payload,
  };
}

/** Big-endian bytes as a number. */
export const number = (bytes: Buffer): bigint => (bytes.length === 0 ? 0n : BigInt(`0x${bytes.toString('hex')}`));

/** A number as `length` big-endian bytes. */
export const bytes = (value: bigint, length: number): Buffer =>
  Buffer.from(value.toString(16).padStart(length * 2, '0'), 'hex');

/** The Internet checksum (RFC 1071) of all parts; 0 over data that has its right checksum inside. Parts but the last are of even length. */
export function checksum(parts: readonly Buffer[]): number {
  let sum = 0;
  for (const part of parts) {
    for (let i = 0; i + 1 < part.length; i += 2) sum += part.readUInt16BE(i);
    if (part.length % 2 === 1) sum += part[part.length - 1]! << 8;
  }
  while (sum > 0xffff) sum = (sum & 0xffff) + (sum >>> 16);
  return ~sum & 0xffff;
}

/** What IPv6 adds to an upper layer's checksum (RFC 8200 §8.1). */
export function pseudoHeader(source: bigint, destination: bigint, length: number): Buffer {
  const tail = Buffer.alloc(8);
  tail.writeUInt32BE(length, 0);
  tail[7] = PROTOCOL.icmp6;
  return Buffer.concat([bytes(source, 16), bytes(destination, 16), tail]);
}

/** The MAC address of a multicast group: RFC 1112 §6.4 (32 IPv4 groups share one), RFC 2464 §7. */
export const groupMac = (family: 4 | 6, group: bigint): bigint =>
  family === 4 ? 0x01005e000000n | (group & 0x7fffffn) : 0x333300000000n | (group & 0xffffffffn);

export interface Addressed {
  readonly mac: bigint;
  readonly source: bigint;
  readonly destination: bigint;
}

/** A frame with an IPv4 packet for this link only (TTL 1), with router alert. @param to a group. */
export function ip4Frame({ mac, source, destination }: Addressed, payload: Buffer): Buffer {
  const header = Buffer.alloc(24);
  header[0] = 0x46;
  header[1] = CONTROL;
  header.writeUInt16BE(24 + payload.length, 2);
  header[8] = 1;
  header[9] = PROTOCOL.igmp;
  header.writeUInt32BE(Number(source), 12);
  header.writeUInt32BE(Number(destination), 16);
  ALERT4.copy(header, 20);
  header.writeUInt16BE(checksum([header]), 10);
  return Buffer.concat([ethernet(groupMac(4, destination), mac, ETHER.ip4), header, payload]);
}

/** The same with ICMPv6 in IPv6 (hop limit 1); fills in the checksum at byte 2 of the payload. */
export function icmp6Frame({ mac, source, destination }: Addressed, payload: Buffer): Buffer {
  const message = Buffer.from(payload);
  message.writeUInt16BE(0, 2);
  message.writeUInt16BE(checksum([pseudoHeader(source, destination, message.length), message]), 2);
  const header = Buffer.alloc(8);
  header[0] = 0x60;
  header.writeUInt16BE(ALERT6.length + message.length, 4);
  header[7] = 1;
  const addresses = [bytes(source, 16), bytes(destination, 16)];
  return Buffer.concat([ethernet(groupMac(6, destination), mac, ETHER.ip6), header, ...addresses, ALERT6, message]);
}

const ethernet = (to: bigint, from: bigint, type: number): Buffer =>
  Buffer.concat([bytes(to, 6), bytes(from, 6), bytes(BigInt(type), 2)]);
