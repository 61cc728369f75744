/** Frames as hex, made field by field, and a sender of VXLAN packets with any of them inside. */
import { execFile } from 'node:child_process';
import { promisify } from 'node:util';

const hex = (value: number | bigint, size: number): string => value.toString(16).padStart(size * 2, '0');
const flat = (text: string): string => text.replaceAll(':', '');
const quad = (ip: string): string =>
  ip
    .split('.')
    .map((b) => hex(Number(b), 1))
    .join('');

/** IPv6 address as 32 hex digits; `::` at most once. */
function ip6Hex(text: string): string {
  const [head = '', tail] = text.split('::');
  const groups = (part: string): string[] => (part === '' ? [] : part.split(':').map((g) => g.padStart(4, '0')));
  const [left, right] = [groups(head), groups(tail ?? '')];
  return [...left, ...Array<string>(8 - left.length - right.length).fill('0000'), ...right].join('');
}

export const ethernet = (dst: string, src: string, type: number, payload: string): string =>
  flat(dst) + flat(src) + hex(type, 2) + payload;

/** A tag (TPID 0x8100 or 0x88a8) put into a frame. */
export const tagged = (frame: string, tpid: number, vid: number): string =>
  frame.slice(0, 24) + hex(tpid, 2) + hex(vid, 2) + frame.slice(24);

/**
 * IPv4 header and UDP of `size` bytes; the header's checksum is not filled in, nobody looks.
 * @param options.mark hex, begins the payload
 */
export function ipv4(
  src: string,
  dst: string,
  options: { fragment?: number; size?: number; mark?: string } = {},
): string {
  const { size = 32, mark = '' } = options;
  const udp = `00090009${hex(size, 2)}0000${mark}${'00'.repeat(size - 8 - mark.length / 2)}`;
  const header = `45b8${hex(20 + size, 2)}0001${hex(options.fragment ?? 0, 2)}40110000${quad(src)}${quad(dst)}`;
  return header + udp;
}

/** IPv6 header with a next header and what follows. */
export const ipv6 = (src: string, dst: string, next: number, payload: string): string =>
  `6b800000${hex(payload.length / 2, 2)}${hex(next, 1)}40${ip6Hex(src)}${ip6Hex(dst)}${payload}`;

export const icmp6 = (type: number): string => `${hex(type, 1)}000000${'00'.repeat(20)}`;
export const udp = (): string => `0009000900100000${'00'.repeat(8)}`;

export const arp = (dst: string, mac: string, src: string, asked: string): string =>
  ethernet(dst, mac, 0x0806, `0001080006040001${flat(mac)}${quad(src)}${'00'.repeat(6)}${quad(asked)}`);

/** An ARP packet with everything said: what a liar would. @param op 1 = request, 2 = reply */
export const arpPacket = (a: { op: number; sha: string; spa: string; tha: string; tpa: string }): string =>
  `000108000604${hex(a.op, 2)}${flat(a.sha)}${quad(a.spa)}${flat(a.tha)}${quad(a.tpa)}`;

/** A neighbour solicitation (135) or advertisement (136) with one option, the sender's or target's MAC (RFC 4861 §4.3, §4.4). */
export function nd(type: 135 | 136, src: string, dst: string, target: string, mac: string): string {
  const head = type === 136 ? '20000000' : '00000000';
  const body = `${head}${ip6Hex(target)}0${type - 134}01${flat(mac)}`;
  const pseudo = `${ip6Hex(src)}${ip6Hex(dst)}000000200000003a${hex(type, 1)}000000${body}`;
  let sum = 0;
  for (let at = 0; at < pseudo.length; at += 4) sum += Number.parseInt(pseudo.slice(at, at + 4), 16);
  while (sum > 0xffff) sum = (sum & 0xffff) + (sum >>> 16);
  return `6000000000203aff${ip6Hex(src)}${ip6Hex(dst)}${hex(type, 1)}00${hex(0xffff - sum, 2)}${body}`;
}

const SEND = `
const [from, to, ...payloads] = process.argv.slice(1);
const socket = require('node:dgram').createSocket('udp4');
socket.bind(0, from, async () => {
  for (const p of payloads) await new Promise((done) => socket.send(Buffer.from(p, 'hex'), 4789, to, done));
  socket.close();
});`;

/** Sends frames inside VXLAN (RFC 7348 §5), one packet each, from an address of a namespace. Resolves when they have been sent. */
export async function sendVxlan(
  netns: string,
  from: string,
  to: string,
  vni: number,
  frames: readonly string[],
): Promise<void> {
  const payloads = frames.map((frame) => `08000000${hex(vni, 3)}00${frame}`);
  await sendUdp(netns, from, to, payloads);
}

/** The same for any UDP payload, to port 4789. */
export async function sendUdp(netns: string, from: string, to: string, payloads: readonly string[]): Promise<void> {
  const node = [process.execPath, '-e', SEND, from, to, ...payloads];
  await promisify(execFile)('nsenter', [`--net=/run/netns/${netns}`, ...node]);
}

/** struct sockaddr_ll is all zero but family and interface (packet(7)). ENOBUFS, 105: the link dropped it, which is none of the sender's. */
export const SEND_RAW = `my $ifindex = shift; socket(my $s, 17, 3, 0) or die $!;
for (@ARGV) { send($s, pack("H*", $_), 0, pack("SnlSCCx8", 17, 0, $ifindex, 0, 0, 0)) or $! == 105 or die $!; }`;

/** Sends frames as they are from a link of a namespace. */
export async function sendRaw(netns: string, ifindex: number, frames: readonly string[]): Promise<void> {
  const perl = ['perl', '-e', SEND_RAW, String(ifindex), ...frames];
  await promisify(execFile)('nsenter', [`--net=/run/netns/${netns}`, ...perl]);
}
