/**
 * ICMP errors between an endpoint and its host. They quote the packet that they are about, and each side knows the endpoint by another
 * address: Open vSwitch translates a packet's own header, but not what is quoted, and whose socket it was nobody would find. Reads what comes
 * from outside, and what a container sent: nothing is trusted. Pure.
 */
import { checksum } from '../multicast/frame.ts';

/** An address of an endpoint, as it is in the frame, and as the other side knows it: 4 or 16 bytes each. */
export interface Renamed {
  readonly was: Buffer;
  readonly now: Buffer;
}

const ETHER = 14;
const HEADER = { ip4: 20, ip6: 40, icmp: 8 } as const;
const PROTOCOL = { icmp: 1, tcp: 6, udp: 17, icmp6: 58 } as const;
/** Unreachable, time exceeded, parameter problem (RFC 792); all errors of RFC 4443. */
const ERRORS = { ip4: [3, 11, 12], ip6: [1, 2, 3, 4] } as const;
/** Where the checksum over the pseudo-header stands in what is quoted. */
const SUM_AT: Readonly<Record<number, number>> = { [PROTOCOL.tcp]: 16, [PROTOCOL.udp]: 6, [PROTOCOL.icmp6]: 2 };

/** Addresses of a frame that is a whole ICMP error; null: it is none. */
export function errorEnds(frame: Buffer): { readonly source: Buffer; readonly destination: Buffer } | null {
  const at = placesOf(frame);
  if (at === null) return null;
  const end = (from: number): Buffer => frame.subarray(from, from + at.size);
  return { source: end(at.source), destination: end(at.source + at.size) };
}

/**
 * The same error with the endpoint's other address, in its own header and in what it quotes; checksums are right again.
 * @param end where the address is in the error's own header; it is at the other end of what is quoted
 * @returns null where it is about somebody else's packet, or is none
 */
export function renamed(frame: Buffer, end: 'source' | 'destination', { was, now }: Renamed): Buffer | null {
  const at = placesOf(frame);
  if (at === null || was.length !== at.size || now.length !== at.size) return null;
  const out = Buffer.from(frame.subarray(0, at.end));
  const own = at.source + (end === 'source' ? 0 : at.size);
  const quoted = at.quotedSource + (end === 'source' ? at.size : 0);
  const has = (from: number): boolean => out.subarray(from, from + at.size).equals(was);
  if (!has(own) || !has(quoted)) return null;
  now.copy(out, own);
  now.copy(out, quoted);
  if (at.size === 4) {
    sumHeader(out, ETHER, at.icmp);
    sumHeader(out, at.quoted, at.payload);
  }
  adjustQuoted(out, at, was, now);
  out.writeUInt16BE(0, at.icmp + 2);
  const message = out.subarray(at.icmp);
  const parts = at.size === 4 ? [message] : [pseudo(out, message.length), message];
  out.writeUInt16BE(checksum(parts), at.icmp + 2);
  return out;
}

interface Places {
  /** Bytes of an address. */
  readonly size: 4 | 16;
  /** Of the error's own header; the destination follows. */
  readonly source: number;
  readonly icmp: number;
  readonly quoted: number;
  readonly quotedSource: number;
  readonly protocol: number;
  /** Of what is quoted. */
  readonly payload: number;
  /** Without what fills up a short frame. */
  readonly end: number;
}

function placesOf(frame: Buffer): Places | null {
  if (frame.length < ETHER + HEADER.ip4) return null;
  const type = frame.readUInt16BE(12);
  if (type === 0x0800) return places4(frame);
  return type === 0x86dd ? places6(frame) : null;
}

function places4(frame: Buffer): Places | null {
  const header = (frame[ETHER]! & 15) * 4;
  const icmp = ETHER + header;
  const end = ETHER + frame.readUInt16BE(ETHER + 2);
  const quoted = icmp + HEADER.icmp;
  const fragment = (frame.readUInt16BE(ETHER + 6) & 0x3fff) !== 0;
  if (frame[ETHER]! >> 4 !== 4 || header < HEADER.ip4 || fragment || frame[ETHER + 9] !== PROTOCOL.icmp) return null;
  if (end > frame.length || quoted + HEADER.ip4 > end || !ERRORS.ip4.some((t) => t === frame[icmp])) return null;
  const inner = (frame[quoted]! & 15) * 4;
  if (frame[quoted]! >> 4 !== 4 || inner < HEADER.ip4 || quoted + inner > end) return null;
  // Of a later fragment there is no transport header.
  const later = (frame.readUInt16BE(quoted + 6) & 0x1fff) !== 0;
  const protocol = later ? 0 : frame[quoted + 9]!;
  const payload = quoted + inner;
  return { size: 4, source: ETHER + 12, icmp, quoted, quotedSource: quoted + 12, protocol, payload, end };
}

function places6(frame: Buffer): Places | null {
  const icmp = ETHER + HEADER.ip6;
  const quoted = icmp + HEADER.icmp;
  if (frame.length < quoted + HEADER.ip6) return null;
  const end = icmp + frame.readUInt16BE(ETHER + 4);
  if (frame[ETHER]! >> 4 !== 6 || frame[ETHER + 6] !== PROTOCOL.icmp6 || end > frame.length) return null;
  if (quoted + HEADER.ip6 > end || frame[quoted]! >> 4 !== 6) return null;
  if (!ERRORS.ip6.some((t) => t === frame[icmp])) return null;
  const protocol = frame[quoted + 6]!;
  const payload = quoted + HEADER.ip6;
  return { size: 16, source: ETHER + 8, icmp, quoted, quotedSource: quoted + 8, protocol, payload, end };
}

function sumHeader(out: Buffer, from: number, to: number): void {
  out.writeUInt16BE(0, from + 10);
  out.writeUInt16BE(checksum([out.subarray(from, to)]), from + 10);
}

/** What is quoted has a checksum over its addresses, too (RFC 1624 §3); UDP's may be none (RFC 768). */
function adjustQuoted(out: Buffer, { protocol, payload, end, size }: Places, was: Buffer, now: Buffer): void {
  const offset = SUM_AT[protocol];
  // ICMP of IPv4 has no pseudo-header.
  if (offset === undefined || payload + offset + 2 > end || (protocol === PROTOCOL.icmp6 && size === 4)) return;
  const sum = out.readUInt16BE(payload + offset);
  if (protocol === PROTOCOL.udp && sum === 0) return;
  const inverse = Buffer.alloc(size);
  for (let i = 0; i < size; i++) inverse[i] = ~was[i]! & 0xff;
  const old = Buffer.from([(~sum >> 8) & 0xff, ~sum & 0xff]);
  out.writeUInt16BE(checksum([old, inverse, now]), payload + offset);
}

/** RFC 8200 §8.1. */
function pseudo(out: Buffer, length: number): Buffer {
  const tail = Buffer.alloc(8);
  tail.writeUInt32BE(length, 0);
  tail[7] = PROTOCOL.icmp6;
  return Buffer.concat([out.subarray(ETHER + 8, ETHER + 40), tail]);
}
