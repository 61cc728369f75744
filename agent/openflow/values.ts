/** Field values as text, the way Open vSwitch writes them. Pure. */
import { FIELDS, type FieldName, type Format, fullMask } from './fields.ts';
import { OFPP } from './flow.ts';

const PORT_NAMES: ReadonlyMap<number, string> = new Map(
  Object.entries(OFPP)
    .filter(([name]) => name !== 'MAX')
    .map(([name, port]) => [port, name]),
);
const CT_STATES = ['new', 'est', 'rel', 'rpl', 'inv', 'trk', 'snat', 'dnat'];
const TCP_FLAGS = ['fin', 'syn', 'rst', 'psh', 'ack', 'urg', 'ece', 'cwr', 'ns', '[200]', '[400]', '[800]'];
/** Keyed by value, mask of FLOW_NW_FRAG_ANY (1) and FLOW_NW_FRAG_LATER (2). */
const FRAGMENTS: Readonly<Record<string, string>> = {
  '0/3': 'no',
  '1/3': 'first',
  '3/3': 'later',
  '0/1': 'no',
  '1/1': 'yes',
  '0/2': 'not_later',
  '2/2': 'later',
};

export const hex = (value: bigint): string => `0x${value.toString(16)}`;
/** C's `%#x`: zero has no prefix. */
export const hashHex = (value: bigint): string => (value === 0n ? '0' : hex(value));
const padded = (value: bigint, digits: number): string => `0x${value.toString(16).padStart(digits, '0')}`;

export const formatPort = (port: number): string => PORT_NAMES.get(port) ?? String(port);

export function formatEth(value: bigint): string {
  const digits = value.toString(16).padStart(12, '0');
  return digits.replace(/(..)(?=.)/g, '$1:');
}

export const formatIpv4 = (value: bigint): string =>
  [24n, 16n, 8n, 0n].map((shift) => String((value >> shift) & 0xffn)).join('.');

/** As inet_ntop writes it: the longest run of zero groups (two at least) shortened, IPv4 in the last groups as such. */
export function formatIpv6(value: bigint): string {
  const groups = Array.from({ length: 8 }, (_, i) => Number((value >> BigInt(16 * (7 - i))) & 0xffffn));
  let [best, bestLength] = [-1, 1];
  for (let i = 0; i < 8; i++) {
    let end = i;
    while (end < 8 && groups[end] === 0) end++;
    if (end - i > bestLength) [best, bestLength] = [i, end - i];
  }
  const high = value >> 32n;
  const embedded = (best === 0 && bestLength === 6) || high === 0xffffn;
  if (embedded) return `${high === 0xffffn ? '::ffff:' : '::'}${formatIpv4(value & 0xffff_ffffn)}`;
  const text = (part: readonly number[]): string => part.map((group) => group.toString(16)).join(':');
  return best < 0 ? text(groups) : `${text(groups.slice(0, best))}::${text(groups.slice(best + bestLength))}`;
}

/** Length of the prefix that a mask selects, null if it is not one. */
function prefixLength(mask: bigint, bits: number): number | null {
  const inverted = mask ^ ((1n << BigInt(bits)) - 1n);
  if ((inverted & (inverted + 1n)) !== 0n) return null;
  return bits - (inverted === 0n ? 0 : inverted.toString(2).length);
}

function masked(value: bigint, mask: bigint | undefined, bits: number, format: (n: bigint) => string): string {
  return mask === undefined ? format(value) : `${format(value)}/${prefixLength(mask, bits) ?? format(mask)}`;
}

/** `+trk-new`, or with every bit asked for `new|trk`. */
function formatFlags(names: readonly string[], value: bigint, mask: bigint, all: bigint): string {
  const bits = names.map((name, i) => ({ name, bit: 1n << BigInt(i) }));
  if ((mask & all) === all) {
    return (
      bits
        .filter(({ bit }) => (value & bit) !== 0n)
        .map(({ name }) => name)
        .join('|') || '0'
    );
  }
  return bits
    .filter(({ bit }) => (mask & bit) !== 0n)
    .map(({ name, bit }) => ((value & bit) === 0n ? '-' : '+') + name)
    .join('');
}

/** What match and set_field write alike. */
function formatCommon(format: Format, field: FieldName, value: bigint, mask: bigint | undefined): string | null {
  switch (format) {
    case 'mac':
      return mask === undefined ? formatEth(value) : `${formatEth(value)}/${formatEth(mask)}`;
    case 'ipv4':
      return masked(value, mask, 32, formatIpv4);
    case 'ipv6':
      return masked(value, mask, 128, formatIpv6);
    case 'port':
      return mask === undefined ? formatPort(Number(value)) : null;
    case 'ctState':
      return formatFlags(CT_STATES, value, mask ?? 0xffn, 0xffn);
    case 'tcpFlags':
      return formatFlags(TCP_FLAGS, value, mask ?? fullMask(field), fullMask(field));
    case 'frag':
      return FRAGMENTS[`${value}/${mask ?? fullMask(field)}`] ?? '<error>';
    case 'hex128':
      return mask === undefined ? hashHex(value) : `${hashHex(value)}/${hex(mask)}`;
    case 'hex':
    case 'decimal':
      return null;
  }
}

/** A value in a match. Fields of few digits have them all. */
export function formatMatchValue(field: FieldName, value: bigint, mask: bigint | undefined): string {
  const common = formatCommon(FIELDS[field].format, field, value, mask);
  if (common !== null) return common;
  if (field === 'eth_type') return padded(value, 4);
  if (field === 'ip_dscp') return String(value << 2n);
  if (field === 'ipv6_label') return mask === undefined ? padded(value, 5) : `${padded(value, 5)}/${padded(mask, 5)}`;
  if (FIELDS[field].format === 'decimal' || field === 'ct_zone') {
    return mask === undefined ? String(value) : `${hex(value)}/${hex(mask)}`;
  }
  return mask === undefined ? hashHex(value) : `${hashHex(value)}/${hashHex(mask)}`;
}

/** A value in set_field. */
export function formatSetValue(field: FieldName, value: bigint, mask: bigint | undefined): string {
  const common = formatCommon(FIELDS[field].format, field, value, mask);
  if (common !== null) return common;
  const text = FIELDS[field].format === 'decimal' ? String(value) : hashHex(value);
  return mask === undefined ? text : `${text}/${hex(mask)}`;
}

/** `NXM_NX_REG0[]`, `NXM_NX_REG0[3]`, `NXM_NX_REG0[0..15]`. */
export function formatSubfield(field: FieldName, ofs: number, nBits: number): string {
  const { subfield, subfieldBits } = FIELDS[field];
  if (ofs === 0 && nBits === subfieldBits) return `${subfield}[]`;
  return nBits === 1 ? `${subfield}[${ofs}]` : `${subfield}[${ofs}..${ofs + nBits - 1}]`;
}
