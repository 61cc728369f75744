/** What flows do to a packet and its registers, by their plain values and by what a trace says of moves. Pure. */
import type { TracePacket } from '../../lib/model.ts';
import type { MetFlow } from './ofproto.ts';

type Part = 'sourceMac' | 'destinationMac' | 'sourceIp' | 'destinationIp';

/** Fields by both of their names (ovs-fields(7)). */
const PARTS: Readonly<Record<string, Part>> = {
  eth_src: 'sourceMac',
  NXM_OF_ETH_SRC: 'sourceMac',
  eth_dst: 'destinationMac',
  NXM_OF_ETH_DST: 'destinationMac',
  ip_src: 'sourceIp',
  NXM_OF_IP_SRC: 'sourceIp',
  ipv6_src: 'sourceIp',
  NXM_NX_IPV6_SRC: 'sourceIp',
  ip_dst: 'destinationIp',
  NXM_OF_IP_DST: 'destinationIp',
  ipv6_dst: 'destinationIp',
  NXM_NX_IPV6_DST: 'destinationIp',
};

/** The lower 32 bits of a MAC: of a default MAC, the address. */
const LOW = '[0..31]';

/** The last value that the flow gives to a register; null: none. */
export function registerOf(f: MetFlow, reg: string): number | null {
  const nxm = `NXM_NX_${reg.toUpperCase()}[]`;
  const found = f.effects.findLast(({ field }) => field === reg || field === nxm);
  return found === undefined ? null : Number(found.value);
}

export function packetAfter(p: TracePacket, f: MetFlow): TracePacket {
  let now = p;
  for (const { field, value } of f.effects) {
    const [, name = '', bits = ''] = /^(\w+)(\[.*\])?$/.exec(field) ?? [];
    const part = PARTS[name];
    if (part === undefined) continue;
    if (bits === '' || bits === '[]') now = { ...now, [part]: value };
    else if (bits === LOW && part.endsWith('Mac')) now = { ...now, [part]: lowBits(now[part], value) };
  }
  return now;
}

const lowBits = (mac: string, value: string): string =>
  `${mac.slice(0, 5)}${Number(value).toString(16).padStart(8, '0').replaceAll(/../g, ':$&')}`;
