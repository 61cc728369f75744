/**
 * The answer to a frame that a policy rejects: TCP gets a reset (RFC 9293 §3.5.2), everything else "administratively prohibited" (RFC 1812
 * §5.2.7.1, code 13; RFC 4443 §3.1, code 1), from the address that was called. Reads what a container sent: nothing is trusted. Pure.
 */
import { checksum } from '../multicast/frame.ts';
import { errorAbout, type Packet, PROTOCOL, packetOf, pseudo, readPacket } from '../routing/packet.ts';

const TCP = { fin: 1, syn: 2, rst: 4, ack: 16 } as const;
const PROHIBITED = { ip4: [3, 13], ip6: [1, 1] } as const;

/** @returns a whole frame to the sender; null where no answer is due: fragments, resets, errors, groups, what is cut short */
export function rejection(frame: Buffer): Buffer | null {
  const packet = readPacket(frame);
  if (packet === null) return null;
  const answer = packet.protocol === PROTOCOL.tcp ? reset(packet) : errorAbout(packet, PROHIBITED, packet.destination);
  if (answer === null) return null;
  const [to, from] = [frame.subarray(6, 12), frame.subarray(0, 6)];
  return Buffer.concat([to, from, frame.subarray(12, 14), answer]);
}

function reset(packet: Packet): Buffer | null {
  const { payload, source, destination } = packet;
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
  segment.writeUInt16BE(checksum([pseudo(destination, source, PROTOCOL.tcp, segment.length), segment]), 16);
  return packetOf(destination, source, PROTOCOL.tcp, segment);
}
