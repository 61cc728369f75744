/**
 * The learn action (NXAST_LEARN, NXAST_LEARN2: ovs-actions(7)): a packet adds a flow, made of its own fields and of constants.
 * Both ways on the wire, and as text. Pure.
 */
import { WeftError } from '../../lib/errors.ts';
import { FIELDS } from './fields.ts';
import type { LearnAction, LearnSpec, Subfield } from './flow.ts';
import { canonicalLearn } from './learn-data.ts';
import { readFieldHeader, writeFieldHeader } from './oxm.ts';
import { formatSetValue, formatSubfield, hashHex, hex } from './values.ts';
import type { Reader, Writer } from './wire.ts';

const SRC_IMMEDIATE = 1 << 13;
const DST = { match: 0, load: 1 << 11, output: 2 << 11 } as const;
const DST_MASK = 3 << 11;
const N_BITS_MASK = 0x3ff;
const DEFAULT_PRIORITY = 32768;
/** Flags that this program understands: tell of the flow's end; remove what was learned together with this flow. */
export const LEARN = Object.freeze({ sendFlowRem: 1, deleteLearned: 2 });
const WRITE_RESULT = 4;

/** Everything after the subtype. @param extended NXAST_LEARN2, which has room for a limit. */
export function writeLearn(writer: Writer, learn: LearnAction, extended: boolean): void {
  writer.u16(learn.idleTimeout ?? 0).u16(learn.hardTimeout ?? 0);
  writer.u16(learn.priority).u64(learn.cookie ?? 0n);
  writer
    .u16(learn.flags ?? 0)
    .u8(learn.table)
    .u8(0);
  writer.u16(learn.finIdleTimeout ?? 0).u16(learn.finHardTimeout ?? 0);
  if (extended)
    writer
      .u32(learn.limit ?? 0)
      .u16(0)
      .u16(0);
  for (const spec of learn.specs) writeSpec(writer, spec);
}

function writeSpec(writer: Writer, spec: LearnSpec): void {
  const { nBits } = spec.to === 'output' ? spec.from : spec.dst;
  const { from } = spec;
  if (typeof from === 'bigint') {
    if (from < 0n || from >> BigInt(nBits) !== 0n)
      throw new WeftError('INVALID_ARGUMENT', `${hex(from)} does not fit into the ${nBits} bits to be learned.`);
    writer.u16(SRC_IMMEDIATE | DST[spec.to] | nBits).uint(from, 2 * Math.ceil(nBits / 16));
  } else {
    if (from.nBits !== nBits)
      throw new WeftError('INVALID_ARGUMENT', `${from.nBits} bits of ${from.field} are learned into ${nBits} bits.`);
    writer.u16(DST[spec.to] | nBits);
    writeSubfield(writer, from);
  }
  if (spec.to !== 'output') writeSubfield(writer, spec.dst);
}

function writeSubfield(writer: Writer, { field, ofs, nBits }: Subfield): void {
  if (nBits < 1 || nBits > N_BITS_MASK || ofs < 0 || ofs + nBits > FIELDS[field].subfieldBits)
    throw new WeftError('INVALID_ARGUMENT', `${field} has no bits ${ofs} to ${ofs + nBits - 1}.`);
  writeFieldHeader(writer, field);
  writer.u16(ofs);
}

/** What `writeLearn` wrote; undefined for what this program does not know. */
export function readLearn(body: Reader, extended: boolean): LearnAction | undefined {
  const [idleTimeout, hardTimeout, priority] = [body.u16(), body.u16(), body.u16()];
  const cookie = body.u64();
  const flags = body.u16();
  const table = body.u8();
  const [finIdleTimeout, finHardTimeout] = [body.skip(1).u16(), body.u16()];
  const limit = extended ? body.u32() : 0;
  if (extended) body.skip(4);
  if ((flags & ~(LEARN.sendFlowRem | LEARN.deleteLearned | WRITE_RESULT)) !== 0 || (flags & WRITE_RESULT) !== 0)
    return undefined;
  const specs: LearnSpec[] = [];
  while (body.left >= 2) {
    const header = body.u16();
    if (header === 0) break;
    const spec = readSpec(body, header);
    if (spec === undefined) return undefined;
    specs.push(spec);
  }
  return canonicalLearn({
    type: 'learn',
    table,
    priority,
    idleTimeout,
    hardTimeout,
    finIdleTimeout,
    finHardTimeout,
    cookie,
    limit,
    flags,
    specs,
  });
}

function readSpec(body: Reader, header: number): LearnSpec | undefined {
  const nBits = header & N_BITS_MASK;
  const immediate = (header & SRC_IMMEDIATE) !== 0;
  const to = header & DST_MASK;
  if ((header & ~(SRC_IMMEDIATE | DST_MASK | N_BITS_MASK)) !== 0 || nBits === 0) return undefined;
  const from = immediate ? body.uint(2 * Math.ceil(nBits / 16)) : readSubfield(body, nBits);
  if (from === undefined) return undefined;
  if (to === DST.output) return typeof from === 'bigint' ? undefined : { to: 'output', from };
  if (to !== DST.match && to !== DST.load) return undefined;
  const dst = readSubfield(body, nBits);
  return dst === undefined ? undefined : { to: to === DST.match ? 'match' : 'load', dst, from };
}

function readSubfield(body: Reader, nBits: number): Subfield | undefined {
  const field = readFieldHeader(body);
  const ofs = body.u16();
  return field === undefined || ofs + nBits > FIELDS[field].subfieldBits ? undefined : { field, ofs, nBits };
}

/** `learn(table=48,idle_timeout=60,…)`, as Open vSwitch's lib/learn.c writes it. */
export function formatLearn(learn: LearnAction): string {
  const l = canonicalLearn(learn);
  const parts = [`table=${l.table}`];
  if (l.idleTimeout !== undefined) parts.push(`idle_timeout=${l.idleTimeout}`);
  if (l.hardTimeout !== undefined) parts.push(`hard_timeout=${l.hardTimeout}`);
  if (l.finIdleTimeout !== undefined) parts.push(`fin_idle_timeout=${l.finIdleTimeout}`);
  if (l.finHardTimeout !== undefined) parts.push(`fin_hard_timeout=${l.finHardTimeout}`);
  if (l.priority !== DEFAULT_PRIORITY) parts.push(`priority=${l.priority}`);
  if (((l.flags ?? 0) & LEARN.sendFlowRem) !== 0) parts.push('send_flow_rem');
  if (((l.flags ?? 0) & LEARN.deleteLearned) !== 0) parts.push('delete_learned');
  if (l.cookie !== undefined) parts.push(`cookie=${hex(l.cookie)}`);
  if (l.limit !== undefined) parts.push(`limit=${l.limit}`);
  return `learn(${[...parts, ...l.specs.map(formatSpec)].join(',')})`;
}

const text = ({ field, ofs, nBits }: Subfield): string => formatSubfield(field, ofs, nBits);

function formatSpec(spec: LearnSpec): string {
  if (spec.to === 'output') return `output:${text(spec.from)}`;
  const { dst, from } = spec;
  if (spec.to === 'load') return `load:${typeof from === 'bigint' ? hashHex(from) : text(from)}->${text(dst)}`;
  if (typeof from !== 'bigint') {
    return from.field === dst.field && from.ofs === dst.ofs ? text(dst) : `${text(dst)}=${text(from)}`;
  }
  const whole = dst.ofs === 0 && dst.nBits === FIELDS[dst.field].bits;
  return whole
    ? `${FIELDS[dst.field].setName}=${formatSetValue(dst.field, from, undefined)}`
    : `${text(dst)}=${hashHex(from)}`;
}
