/**
 * The answer to a frame that a policy rejects: TCP gets a reset (RFC 9293 §3.5.2), everything else "administratively prohibited" (RFC 1812
 * §5.2.7.1, code 13; RFC 4443 §3.1, code 1), from the address that was called. Reads what a container sent: nothing is trusted. Pure.
 */
import { bytes, checksum } from '../multicast/frame.ts';

const ETHER = { header: 14, ip4: 0x0800, ip6: 0x86dd } as const;
const PROTOCOL = { icmp: 1, tcp: 6, icmp6: 58 } as const;
const TCP = { fin: 1, syn: 2, rst: 4, ack: 16 } as const;
/** What of the frame goes back: an error is never longer than this, whatever the path (RFC 1812 §4.3.2.3, RFC 4443 §2.4). */
const MOST = { ip4: 576, ip6: 1280 } as const;
const TTL = 64;
/** ICMP's own errors are not answered with errors (RFC 1122 §3.2.2, RFC 4443 §2.4). */
const ERRORS4 = [3, 4, 5, 11, 12];

interface Packet {
  readonly family: 4 | 6;
  readonly source: Buffer;
  readonly destination: Buffer;
  readonly protocol: number;
  readonly payload: Buffer;
  /** From its IP header on. */
  readonly whole: Buffer;
}

/** @returns a whole frame to the sender; null where no answer is due: fragments, resets, errors, groups, what is cut short */
export function rejection(frame: Buffer): Buffer | null {
  const packet = read(frame);
  if (packet === null || (frame[0]! & 1) === 1 || isGroup(packet)) return null;
  const answer = packet.protocol === PROTOCOL.tcp ? reset(packet) : error(packet);
  if (answer === null) return null;
  const [to, from] = [frame.subarray(6, 12), frame.subarray(0, 6)];
  return Buffer.concat([to, from, frame.subarray(12, 14), answer]);
}

function read(frame: Buffer): Packet | null {
  if (frame.length < ETHER.header) return null;
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

function reset(packet: Packet): Buffer | null {
  const { payload } = packet;
  if (payload.length < 20) return null;
  const flags = payload[13]!;
  const header = (payload[12]! >> 4) * 4;
  if ((flags & TCP.rst) !== 0 || header < 20 || header > payload.length) return null;
  const segment = Buffer.alloc(20);
  payload.copy(segment, 0, 2, 4);
  payload.copy(segment, 2, 0, 2);
  segment[12] = 0x50;
  if ((flags & TCP.ack) !== 0) {
    payload.copy(segment, 4, 8, 12);
    segment[13] = TCP.rst;
  } else {
    const length = payload.length - header + ((flags & TCP.syn) === 0 ? 0 : 1) + ((flags & TCP.fin) === 0 ? 0 : 1);
    segment.writeUInt32BE((payload.readUInt32BE(4) + length) >>> 0, 8);
    segment[13] = TCP.rst | TCP.ack;
  }
  segment.writeUInt16BE(checksum([pseudo(packet, PROTOCOL.tcp, segment.length), segment]), 16);
  return packetOf(packet, PROTOCOL.tcp, segment);
}

function error(packet: Packet): Buffer | null {
  const { family, protocol, payload, whole } = packet;
  if (family === 4) {
    if (protocol === PROTOCOL.icmp && ERRORS4.includes(payload[0] ?? 0)) return null;
    const message = Buffer.concat([Buffer.from([3, 13, 0, 0, 0, 0, 0, 0]), whole.subarray(0, MOST.ip4 - 28)]);
    message.writeUInt16BE(checksum([message]), 2);
    return packetOf(packet, PROTOCOL.icmp, message);
  }
  if (protocol === PROTOCOL.icmp6 && (payload[0] ?? 0) < 128) return null;
  const message = Buffer.concat([Buffer.from([1, 1, 0, 0, 0, 0, 0, 0]), whole.subarray(0, MOST.ip6 - 48)]);
  message.writeUInt16BE(checksum([pseudo(packet, PROTOCOL.icmp6, message.length), message]), 2);
  return packetOf(packet, PROTOCOL.icmp6, message);
}

/** From the one who was called to the one who called. */
function packetOf({ family, source, destination }: Packet, protocol: number, payload: Buffer): Buffer {
  if (family === 4) {
    const header = Buffer.alloc(20);
    header[0] = 0x45;
    header.writeUInt16BE(20 + payload.length, 2);
    header[8] = TTL;
    header[9] = protocol;
    destination.copy(header, 12);
    source.copy(header, 16);
    header.writeUInt16BE(checksum([header]), 10);
    return Buffer.concat([header, payload]);
  }
  const header = Buffer.alloc(8);
  header[0] = 0x60;
  header.writeUInt16BE(payload.length, 4);
  header[6] = protocol;
  header[7] = TTL;
  return Buffer.concat([header, destination, source, payload]);
}

/** What goes into the checksum besides (RFC 9293 §3.1, RFC 8200 §8.1); source and destination are those of the answer. */
function pseudo({ family, source, destination }: Packet, protocol: number, length: number): Buffer {
  const tail =
    family === 4
      ? Buffer.from([0, protocol, length >> 8, length & 255])
      : bytes((BigInt(length) << 32n) | BigInt(protocol), 8);
  return Buffer.concat([destination, source, tail]);
}
