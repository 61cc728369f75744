/** Frames of TCP and UDP with checksums as they are to be, and frames read again with a look at theirs. Hex, as in frames.ts. */
import { ethernet } from './frames.ts';

const hex = (value: number, size: number): string => value.toString(16).padStart(size * 2, '0');
const isIp6 = (ip: string): boolean => ip.includes(':');

/** Address as on the wire. */
export function wire(ip: string): string {
  if (!isIp6(ip))
    return ip
      .split('.')
      .map((b) => hex(Number(b), 1))
      .join('');
  const [head = '', tail] = ip.split('::');
  const groups = (part: string): string[] => (part === '' ? [] : part.split(':').map((g) => g.padStart(4, '0')));
  const [left, right] = [groups(head), groups(tail ?? '')];
  return [...left, ...Array<string>(8 - left.length - right.length).fill('0000'), ...right].join('');
}

/** Address as people write it, but for the shortest form of IPv6: every group is there. */
function unwire(text: string): string {
  if (text.length === 8) return (text.match(/../g) ?? []).map((b) => Number.parseInt(b, 16)).join('.');
  return (text.match(/..../g) ?? []).map((g) => Number.parseInt(g, 16).toString(16)).join(':');
}

/** Ones' complement sum of 16-bit words (RFC 1071), not yet complemented. */
function sum(text: string): number {
  const even = text.length % 4 === 0 ? text : `${text}00`;
  let total = 0;
  for (let at = 0; at < even.length; at += 4) total += Number.parseInt(even.slice(at, at + 4), 16);
  while (total > 0xffff) total = (total & 0xffff) + (total >>> 16);
  return total;
}

const checksum = (text: string): string => hex(0xffff - sum(text), 2);

export interface Packet {
  readonly to: string;
  readonly from: string;
  readonly src: string;
  readonly dst: string;
  readonly protocol: 'tcp' | 'udp' | 'icmp';
  readonly sport?: number;
  readonly dport?: number;
  /** Of TCP. Default SYN. */
  readonly flags?: number;
  /** Of UDP: none over IPv4. */
  readonly unsummed?: boolean;
  /** Hex. */
  readonly payload?: string;
  /** IPv4: flags and offset of a fragment; IPv6 the same, there is a fragment header then. Later ones are payload alone. */
  readonly fragment?: { readonly id: number; readonly at: number; readonly more: boolean };
  /** Bytes of IPv4 options: a multiple of four. */
  readonly options?: number;
}

const NUMBER = { tcp: 6, udp: 17, icmp: 1 } as const;
const SYN = 2;

const pseudo = (src: string, dst: string, protocol: number, size: number): string =>
  wire(src) + wire(dst) + (isIp6(src) ? hex(size, 4) + hex(protocol, 4) : hex(protocol, 2) + hex(size, 2));

/** Header and payload, summed. */
function segment(p: Packet): string {
  const { payload = 'c0ffee', src, dst } = p;
  if (p.protocol === 'icmp') return payload;
  const ports = hex(p.sport ?? 0, 2) + hex(p.dport ?? 0, 2);
  if (p.protocol === 'tcp') {
    const [head, tail] = [`${ports}00000001000000005${hex(p.flags ?? SYN, 1).padStart(3, '0')}ffff`, `0000${payload}`];
    const size = (head.length + tail.length) / 2 + 2;
    return head + checksum(pseudo(src, dst, 6, size) + head + tail) + tail;
  }
  const size = 8 + payload.length / 2;
  if (p.unsummed === true) return `${ports}${hex(size, 2)}0000${payload}`;
  const made = checksum(pseudo(src, dst, 17, size) + ports + hex(size, 2) + payload);
  return `${ports}${hex(size, 2)}${made === '0000' ? 'ffff' : made}${payload}`;
}

export function packet(p: Packet): string {
  const { src, dst, fragment } = p;
  const body = fragment !== undefined && fragment.at > 0 ? (p.payload ?? 'c0ffee') : segment(p);
  const protocol = p.protocol === 'icmp' && isIp6(src) ? 58 : NUMBER[p.protocol];
  if (isIp6(src)) {
    const part =
      fragment === undefined
        ? ''
        : `${hex(protocol, 1)}00${hex((fragment.at & 0xfff8) | (fragment.more ? 1 : 0), 2)}${hex(fragment.id, 4)}`;
    const next = fragment === undefined ? protocol : 44;
    const header = `60000000${hex((part + body).length / 2, 2)}${hex(next, 1)}40${wire(src)}${wire(dst)}`;
    return ethernet(p.to, p.from, 0x86dd, header + part + body);
  }
  const options = '01'.repeat(p.options ?? 0);
  const where = fragment === undefined ? 0x4000 : (fragment.at >> 3) | (fragment.more ? 0x2000 : 0);
  const head = `4${(5 + options.length / 8).toString(16)}00${hex(20 + (options + body).length / 2, 2)}${hex(fragment?.id ?? 1, 2)}${hex(where, 2)}40${hex(protocol, 1)}`;
  const tail = wire(src) + wire(dst) + options;
  return ethernet(p.to, p.from, 0x0800, head + checksum(head + tail) + tail + body);
}

export interface Read {
  readonly to: string;
  readonly from: string;
  readonly src: string;
  readonly dst: string;
  readonly sport: number;
  readonly dport: number;
  /** Behind the ports: the rest of the packet. */
  readonly rest: string;
  /** Of the IPv4 header, and of TCP, UDP or ICMP over all of the packet. A UDP checksum of zero over IPv4: "none". */
  readonly sums: { readonly header: boolean; readonly transport: boolean | 'none' };
}

const mac = (text: string): string => (text.match(/../g) ?? []).join(':');

/** @param frame untagged, IPv4 or IPv6; of fragments the transport's checksum is not looked at */
export function read(frame: string): Read {
  const six = frame.slice(24, 28) === '86dd';
  const ip = frame.slice(28);
  let size = six ? 80 : Number.parseInt(ip[1] ?? '5', 16) * 8;
  let protocol = Number.parseInt(six ? ip.slice(12, 14) : ip.slice(18, 20), 16);
  if (six && protocol === 44) {
    protocol = Number.parseInt(ip.slice(80, 82), 16);
    size += 16;
  }
  const addresses = six ? ip.slice(16, 80) : ip.slice(24, 40);
  const [src, dst] = [addresses.slice(0, addresses.length / 2), addresses.slice(addresses.length / 2)].map(unwire);
  const body = ip.slice(size);
  const [sport, dport] = [body.slice(0, 4), body.slice(4, 8)].map((p) => Number.parseInt(p, 16));
  const over = protocol === 1 ? '' : pseudo(src ?? '', dst ?? '', protocol, body.length / 2);
  const none = protocol === 17 && !six && body.slice(12, 16) === '0000';
  return {
    to: mac(frame.slice(0, 12)),
    from: mac(frame.slice(12, 24)),
    src: src ?? '',
    dst: dst ?? '',
    sport: sport ?? 0,
    dport: dport ?? 0,
    rest: body.slice(8),
    sums: {
      header: six || sum(ip.slice(0, size)) === 0xffff,
      transport: none ? 'none' : sum(over + body) === 0xffff,
    },
  };
}

/** Quotes a frame's IP packet, as a router or the addressed host does (RFC 792, RFC 4443). @param type with code: 2 bytes, hex */
export function icmpError(frame: string, type: string, at: Pick<Packet, 'to' | 'from' | 'src' | 'dst'>): string {
  const six = isIp6(at.src);
  const quoted = frame.slice(28, 28 + (six ? 96 : 56));
  const size = 8 + quoted.length / 2;
  const over = six ? pseudo(at.src, at.dst, 58, size) : '';
  const body = `${type}${checksum(`${over}${type}00000000${quoted}`)}00000000${quoted}`;
  return packet({ ...at, protocol: 'icmp', payload: body });
}
