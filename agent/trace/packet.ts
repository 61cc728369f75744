/** The packet that is followed: as ofproto/trace takes it (ovs-fields(7)), and as people read it. Pure. */
import { canonicalIp, containsIp, familyOfText, parseCidr, parseIp } from '../../lib/addr.ts';
import { WeftError } from '../../lib/errors.ts';
import { normalMac } from '../../lib/mac.ts';
import type { TracePacket } from '../../lib/model.ts';

export const PROTOCOL = { icmp: 1, tcp: 6, udp: 17, icmp6: 58, sctp: 132 } as const;

const NAMES: Readonly<Record<number, string>> = { 1: 'icmp', 6: 'tcp', 17: 'udp', 58: 'icmp6', 132: 'sctp' };
const nameOf = (protocol: number): string => NAMES[protocol] ?? `protocol ${protocol}`;
const isIcmp = (protocol: number): boolean => protocol === PROTOCOL.icmp || protocol === PROTOCOL.icmp6;
export const hasPorts = (protocol: number): boolean => !isIcmp(protocol);
export const is6 = (p: Pick<TracePacket, 'destinationIp'>): boolean => familyOfText(p.destinationIp) === 6;

/** SYN, or ACK of a connection that there is. */
const TCP_FLAGS = { opening: 0x2, established: 0x10 } as const;

/** How it comes into the bridge. */
export interface Entry {
  readonly inPort: number;
  /** Tag that tells the network, on the port to the kernel's tunnels. */
  readonly vlan?: number;
  /** By a tunnel port of Open vSwitch's own. */
  readonly tunnel?: { readonly key: number; readonly from: string; readonly to: string };
}

function tunnelText({ key, from, to }: NonNullable<Entry['tunnel']>): string {
  const six = from.includes(':');
  return `tun_id=${key},${six ? 'tun_ipv6_src' : 'tun_src'}=${from},${six ? 'tun_ipv6_dst' : 'tun_dst'}=${to},`;
}

const entryText = ({ inPort, vlan, tunnel }: Entry): string =>
  `in_port=${inPort},${tunnel === undefined ? '' : tunnelText(tunnel)}${vlan === undefined ? '' : `dl_vlan=${vlan},`}`;

/**
 * What somebody else asks for, as it goes into commands: nothing but addresses and numbers.
 * @throws INVALID_ARGUMENT
 */
export function checked(p: TracePacket): TracePacket {
  const numbers = [p.sourcePort, p.destinationPort, p.length, p.protocol, p.icmpType, p.icmpCode, p.ttl];
  if (!numbers.every((n) => Number.isInteger(n) && n >= 0 && n <= 65_535))
    throw new WeftError('INVALID_ARGUMENT', 'A number of the packet is out of range.');
  const ip = (text: string): string => (text === '' ? '' : canonicalIp(text));
  const mac = (text: string): string => (text === '' ? '' : normalMac(text));
  return {
    ...p,
    sourceMac: mac(p.sourceMac),
    destinationMac: mac(p.destinationMac),
    sourceIp: ip(p.sourceIp),
    destinationIp: canonicalIp(p.destinationIp),
  };
}

/** A flow for ofproto/trace. */
export function flowText(p: TracePacket, entry: Entry): string {
  const six = is6(p);
  const [src, dst] = six ? ['ipv6_src', 'ipv6_dst'] : ['nw_src', 'nw_dst'];
  const ends = `${src}=${p.sourceIp},${dst}=${p.destinationIp},nw_ttl=${p.ttl}`;
  return `${entryText(entry)}dl_src=${p.sourceMac},dl_dst=${p.destinationMac},${what(p, six)},${ends}${upper(p, six)}`;
}

function what(p: TracePacket, six: boolean): string {
  const name = NAMES[p.protocol];
  if (name === undefined) return six ? `ipv6,nw_proto=${p.protocol}` : `ip,nw_proto=${p.protocol}`;
  return six && hasPorts(p.protocol) ? `${name}6` : name;
}

function upper(p: TracePacket, six: boolean): string {
  if (isIcmp(p.protocol)) {
    const prefix = six ? 'icmpv6' : 'icmp';
    return `,${prefix}_type=${p.icmpType},${prefix}_code=${p.icmpCode}`;
  }
  const name = NAMES[p.protocol];
  if (name === undefined) return '';
  const ports = `,${name}_src=${p.sourcePort},${name}_dst=${p.destinationPort}`;
  if (p.protocol !== PROTOCOL.tcp) return ports;
  return `${ports},tcp_flags=${p.established ? TCP_FLAGS.established : TCP_FLAGS.opening}`;
}

/** "Who has this address?", as the sender asks it. */
export function askText(p: Pick<TracePacket, 'sourceMac' | 'sourceIp'>, target: string, entry: Entry): string {
  const from = `${entryText(entry)}dl_src=${p.sourceMac}`;
  if (familyOfText(target) === 4)
    return `${from},dl_dst=ff:ff:ff:ff:ff:ff,arp,arp_op=1,arp_sha=${p.sourceMac},arp_spa=${p.sourceIp},arp_tpa=${target}`;
  // The solicited-node group (RFC 4291 §2.7.1).
  const low = (parseIp(target) & 0xff_ffffn).toString(16).padStart(6, '0');
  const group = `ff02::1:ff${low.slice(0, 2)}:${low.slice(2)}`;
  const mac = `33:33:ff:${low.slice(0, 2)}:${low.slice(2, 4)}:${low.slice(4)}`;
  return (
    `${from},dl_dst=${mac},icmp6,ipv6_src=${p.sourceIp},ipv6_dst=${group},nw_ttl=255,` +
    `icmpv6_type=135,icmpv6_code=0,nd_target=${target},nd_sll=${p.sourceMac}`
  );
}

/** The packet with what a trace's final flow says of it. */
export function changedBy(p: TracePacket, fields: ReadonlyMap<string, string>): TracePacket {
  const text = (names: readonly string[], old: string): string =>
    names.map((name) => fields.get(name)).find((v) => v !== undefined) ?? old;
  const number = (names: readonly string[], old: number): number => {
    const value = Number(text(names, String(old)));
    return Number.isInteger(value) ? value : old;
  };
  return {
    ...p,
    sourceMac: text(['dl_src', 'eth_src'], p.sourceMac),
    destinationMac: text(['dl_dst', 'eth_dst'], p.destinationMac),
    sourceIp: text(['nw_src', 'ipv6_src'], p.sourceIp),
    destinationIp: text(['nw_dst', 'ipv6_dst'], p.destinationIp),
    ttl: number(['nw_ttl'], p.ttl),
    ...(hasPorts(p.protocol)
      ? { sourcePort: number(['tp_src'], p.sourcePort), destinationPort: number(['tp_dst'], p.destinationPort) }
      : { icmpType: number(['icmp_type', 'icmpv6_type'], p.icmpType) }),
  };
}

const end = (ip: string, port: number, ports: boolean): string =>
  ports ? `${ip.includes(':') ? `[${ip}]` : ip}:${port}` : ip;

/** "tcp 10.1.0.2:40000 → 10.1.0.3:80". */
export function packetText(p: TracePacket): string {
  const ports = hasPorts(p.protocol) && NAMES[p.protocol] !== undefined;
  const ends = `${end(p.sourceIp, p.sourcePort, ports)} → ${end(p.destinationIp, p.destinationPort, ports)}`;
  return `${nameOf(p.protocol)} ${ends}`;
}

/** "80/tcp", "icmp". */
export const serviceText = (p: Pick<TracePacket, 'protocol' | 'destinationPort'>): string =>
  hasPorts(p.protocol) ? `${p.destinationPort}/${nameOf(p.protocol)}` : 'icmp';

/** What of the addresses has changed on the way, in words; empty: nothing. */
export function difference(before: TracePacket, after: TracePacket): string {
  const ports = hasPorts(before.protocol);
  const from = [before, after].map((p) => end(p.sourceIp, p.sourcePort, ports));
  const to = [before, after].map((p) => end(p.destinationIp, p.destinationPort, ports));
  const parts = [
    ...(from[0] === from[1] ? [] : [`source ${from[0]} becomes ${from[1]}`]),
    ...(to[0] === to[1] ? [] : [`destination ${to[0]} becomes ${to[1]}`]),
  ];
  return parts.join(', ');
}

export const isIn = (subnets: readonly string[], ip: string): boolean =>
  subnets.some((s) => familyOfText(s) === familyOfText(ip) && containsIp(parseCidr(s), parseIp(ip)));
