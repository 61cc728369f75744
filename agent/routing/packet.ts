/**
 * IP packets of one frame, and ICMP errors about them (RFC 792, RFC 4443). Reads what a container sent: nothing is trusted. Pure.
 */
import { bytes, checksum } from '../multicast/frame.ts';

const ETHER = { header: 14, ip4: 0x0800, ip6: 0x86dd } as const;
export const PROTOCOL = { icmp: 1, tcp: 6, icmp6: 58 } as const;
/** What of the packet goes back: an error is never longer than this, whatever the path (RFC 1812 §4.3.2.3, RFC 4443 §2.4). */
const MOST = { ip4: 576, ip6: 1280 } as const;
const TTL = 64;
/** ICMP's own errors are not answered with errors (RFC 1122 §3.2.2, RFC 4443 §2.4). */
const ERRORS4 = [3, 4, 5, 11, 12];

export interface Packet {
  readonly family: 4 | 6;
  /** Four or sixteen bytes, as the destination. */
  readonly source: Buffer;
  readonly destination: Buffer;
  readonly protocol: number;
  readonly payload: Buffer;
  /** From its IP header on. */
  readonly whole: Buffer;
}

/** Type and code in each family. */
export interface ErrorKind {
  readonly ip4: readonly [type: number, code: number];
  readonly ip6: readonly [type: number, code: number];
}

/** @returns null for what no error may be about: groups, later fragments, what is cut short */
export function readPacket(frame: Buffer): Packet | null {
  if (frame.length < ETHER.header || (frame[0]! & 1) === 1) return null;
  const packet = read(frame);
  return packet === null || isGroup(packet) ? null : packet;
}

function read(frame: Buffer): Packet | null {
  const type = frame.readUInt16BE(12);
  const body = frame.subarray(ETHER.header);
  if (type === ETHER.ip4) {
    if (body.length < 20 || body[0]! >> 4 !== 4) return null;
    const header = (body[0]! & 15) * 4;
    const total = body.readUInt16BE(2);
    // A later fragment says nothing of ports.
    if (header < 20 || total < header || total > body.length || (body.readUInt16BE(6) & 0x1fff) !== 0) return null;
    const [source, destination] = [body.subarray(12, 16), body.subarray(16, 20)];
    const whole = body.subarray(0, total);
    return { family: 4, source, destination, protocol: body[9]!, payload: whole.subarray(header), whole };
  }
  if (type !== ETHER.ip6 || body.length < 40 || body[0]! >> 4 !== 6) return null;
  const total = 40 + body.readUInt16BE(4);
  if (total > body.length) return null;
  const [source, destination] = [body.subarray(8, 24), body.subarray(24, 40)];
  const whole = body.subarray(0, total);
  return { family: 6, source, destination, protocol: body[6]!, payload: whole.subarray(40), whole };
}

const isGroup = ({ family, destination, source }: Packet): boolean =>
  family === 4
    ? destination[0]! >= 224 || source.readUInt32BE(0) === 0
    : destination[0] === 0xff || source.every((byte) => byte === 0);

/**
 * The error from one of the addresses that the packet knows, or another.
 * @param from address of who says it
 * @param more the header's last four bytes, as a number
 * @returns an IP packet; null: the packet is itself an error
 */
export function errorAbout(
  { family, protocol, payload, whole, source }: Packet,
  kind: ErrorKind,
  from: Buffer,
  more = 0,
): Buffer | null {
  if (family === 4 && protocol === PROTOCOL.icmp && ERRORS4.includes(payload[0] ?? 3)) return null;
  if (family === 6 && protocol === PROTOCOL.icmp6 && (payload[0] ?? 0) < 128) return null;
  const [most, icmp] = family === 4 ? [MOST.ip4 - 28, PROTOCOL.icmp] : [MOST.ip6 - 48, PROTOCOL.icmp6];
  const head = Buffer.alloc(8);
  head.set(family === 4 ? kind.ip4 : kind.ip6);
  head.writeUInt32BE(more, 4);
  const message = Buffer.concat([head, whole.subarray(0, most)]);
  const sum = family === 4 ? [message] : [pseudo(from, source, icmp, message.length), message];
  message.writeUInt16BE(checksum(sum), 2);
  return packetOf(from, source, icmp, message);
}

/** @param source, destination of one family */
export function packetOf(source: Buffer, destination: Buffer, protocol: number, payload: Buffer): Buffer {
  if (source.length === 4) {
    const header = Buffer.alloc(20);
    header[0] = 0x45;
    header.writeUInt16BE(20 + payload.length, 2);
    header[8] = TTL;
    header[9] = protocol;
    source.copy(header, 12);
    destination.copy(header, 16);
    header.writeUInt16BE(checksum([header]), 10);
    return Buffer.concat([header, payload]);
  }
  const header = Buffer.alloc(8);
  header[0] = 0x60;
  header.writeUInt16BE(payload.length, 4);
  header[6] = protocol;
  header[7] = TTL;
  return Buffer.concat([header, source, destination, payload]);
}

/** What goes into the checksum besides (RFC 9293 §3.1, RFC 8200 §8.1). */
export function pseudo(source: Buffer, destination: Buffer, protocol: number, length: number): Buffer {
  const tail =
    source.length === 4
      ? Buffer.from([0, protocol, length >> 8, length & 255])
      : bytes((BigInt(length) << 32n) | BigInt(protocol), 8);
  return Buffer.concat([source, destination, tail]);
}
