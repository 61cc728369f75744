/** Two of Nicira's actions that routing needs: multipath and check_pkt_larger (ovs-actions(7)), both ways. Pure. */
import { WeftError } from '../../lib/errors.ts';
import type { Action, Subfield } from './flow.ts';
import { readFieldHeader, writeFieldHeader } from './oxm.ts';
import { formatSubfield } from './values.ts';
import type { Reader, Writer } from './wire.ts';

type Multipath = Extract<Action, { type: 'multipath' }>;
type CheckLarger = Extract<Action, { type: 'check_larger' }>;

/** NX_HASH_FIELDS_*, by number. */
const HASHES = ['eth_src', 'symmetric_l4', 'symmetric_l3l4', 'symmetric_l3l4+udp', 'nw_src', 'nw_dst', 'symmetric_l3'];
/** NX_MP_ALG_*, by number. */
const ALGORITHMS = ['modulo_n', 'hash_threshold', 'hrw', 'iter_hash'];
const BASIS = 0;
const ARGUMENT = 0;

/** Everything after the subtype. @throws INVALID_ARGUMENT when the result does not fit */
export function writeMultipath(writer: Writer, { hash, algorithm, links, to }: Multipath): void {
  if (links < 1 || links > 2 ** to.nBits)
    throw new WeftError('INVALID_ARGUMENT', `${links} links do not fit into ${to.nBits} bits of ${to.field}.`);
  writer.u16(HASHES.indexOf(hash)).u16(BASIS).zeros(2);
  writer
    .u16(ALGORITHMS.indexOf(algorithm))
    .u16(links - 1)
    .u32(ARGUMENT)
    .zeros(2);
  writer.u16((to.ofs << 6) | (to.nBits - 1));
  writeFieldHeader(writer, to.field);
}

/** What `writeMultipath` wrote; undefined for what this program does not know. */
export function readMultipath(body: Reader): Action | undefined {
  const [fields, basis] = [body.u16(), body.u16()];
  const [algorithm, links] = [body.skip(2).u16(), body.u16() + 1];
  const argument = body.u32();
  const bits = body.skip(2).u16();
  const field = readFieldHeader(body);
  const [hash, name] = [HASHES[fields], ALGORITHMS[algorithm]];
  if (field === undefined || hash === undefined || name === undefined) return undefined;
  if (basis !== BASIS || argument !== ARGUMENT) return undefined;
  const to: Subfield = { field, ofs: bits >> 6, nBits: (bits & 0x3f) + 1 };
  return { type: 'multipath', hash: hash as Multipath['hash'], algorithm: name as Multipath['algorithm'], links, to };
}

export const formatMultipath = ({ hash, algorithm, links, to }: Multipath): string =>
  `multipath(${hash},${BASIS},${algorithm},${links},${ARGUMENT},${formatSubfield(to.field, to.ofs, to.nBits)})`;

/** Everything after the subtype. */
export function writeCheckLarger(writer: Writer, { bytes, field, bit }: CheckLarger): void {
  writer.u16(bytes).u16(bit);
  writeFieldHeader(writer, field);
}

export function readCheckLarger(body: Reader): Action | undefined {
  const [bytes, bit] = [body.u16(), body.u16()];
  const field = readFieldHeader(body);
  return field === undefined ? undefined : { type: 'check_larger', bytes, field, bit };
}

export const formatCheckLarger = ({ bytes, field, bit }: CheckLarger): string =>
  `check_pkt_larger(${bytes})->${formatSubfield(field, bit, 1)}`;
