/** Actions and instructions on the wire (OpenFlow 1.4 sections 7.2.4, 7.2.5; Nicira extensions: ovs-actions(7)), both ways. Pure. */
import { WeftError } from '../../lib/errors.ts';
import { isPlain, readController, writeController } from './controller.ts';
import { FIELDS, NICIRA } from './fields.ts';
import { type Action, type CtAction, canonicalAction, type FieldName, OFPP } from './flow.ts';
import { readLearn, writeLearn } from './learn.ts';
import { readFieldHeader, readOxm, writeFieldHeader, writeOxm } from './oxm.ts';
import { readCheckLarger, readMultipath, writeCheckLarger, writeMultipath } from './routing-actions.ts';
import { Reader, type Writer } from './wire.ts';

const ACTION = {
  output: 0,
  pushVlan: 17,
  popVlan: 18,
  setQueue: 21,
  group: 22,
  decTtl: 24,
  setField: 25,
  experimenter: 0xffff,
};
const NX = {
  resubmit: 1,
  move: 6,
  load: 7,
  multipath: 10,
  resubmitTable: 14,
  outputReg: 15,
  learn: 16,
  load2: 33,
  conjunction: 34,
  ct: 35,
  controller2: 37,
  ctClear: 43,
  learn2: 45,
  checkLarger: 49,
};
const INSTRUCTION = { goto: 1, apply: 4, meter: 6 };
const NX_IN_PORT = 0xfff8;
/** Actions inside of actions: Open vSwitch has ct in nothing but lists. */
const MAX_DEPTH = 4;
const CT = { commit: 1, force: 2, noTable: 0xff };

/** Reserved ports have numbers of 16 bits in OpenFlow 1.0, in Nicira's actions, and in OVSDB. */
function checkPort(port: number): number {
  if (port > 0 && (port < 0xff00 || port >= OFPP.MAX) && port <= 0xffffffff) return port;
  const hint = port === 65534 ? 'The local port is OFPP.LOCAL here.' : 'Reserved ports are in OFPP.';
  throw new WeftError('INVALID_ARGUMENT', `${port} is not a port that a packet can be sent to.`, { hint });
}

const toNxPort = (port: number): number => (port >= OFPP.MAX ? port & 0xffff : port);
const fromNxPort = (port: number): number => (port >= 0xff00 ? port + 0xffff0000 : port);

function standard(writer: Writer, type: number, body: () => void): void {
  const start = writer.length;
  writer.u16(type).u16(0);
  body();
  writer.align8(start);
  writer.patchU16(start + 2, writer.length - start);
}

const nicira = (writer: Writer, subtype: number, body: () => void): void =>
  standard(writer, ACTION.experimenter, () => {
    writer.u32(NICIRA).u16(subtype);
    body();
  });

/** Where in a field, as `(offset << 6) | (bits - 1)`. */
function range(field: FieldName, ofs: number, nBits: number): number {
  if (nBits < 1 || nBits > 64 || ofs < 0 || ofs + nBits > FIELDS[field].subfieldBits) {
    throw new WeftError('INVALID_ARGUMENT', `${field} has no bits ${ofs} to ${ofs + nBits - 1}.`);
  }
  return (ofs << 6) | (nBits - 1);
}

/** Throws INVALID_ARGUMENT for what has no place in a list of actions: goto and meter are instructions. */
export function writeAction(writer: Writer, action: Action): void {
  switch (action.type) {
    case 'output':
      return standard(writer, ACTION.output, () => writer.u32(checkPort(action.port)).u16(0xffff).zeros(6));
    case 'in_port':
      return standard(writer, ACTION.output, () => writer.u32(OFPP.IN_PORT).u16(0xffff).zeros(6));
    case 'controller':
      if (!isPlain(action)) return nicira(writer, NX.controller2, () => writeController(writer, action));
      return standard(writer, ACTION.output, () => writer.u32(OFPP.CONTROLLER).u16(action.maxLen).zeros(6));
    case 'group':
      return standard(writer, ACTION.group, () => writer.u32(action.group));
    case 'set_queue':
      return standard(writer, ACTION.setQueue, () => writer.u32(action.queue));
    case 'push_vlan':
      return standard(writer, ACTION.pushVlan, () => writer.u16(action.etherType));
    case 'pop_vlan':
      return standard(writer, ACTION.popVlan, () => writer.zeros(4));
    case 'dec_ttl':
      return standard(writer, ACTION.decTtl, () => writer.zeros(4));
    case 'set_field': {
      const { field, value, mask } = canonicalAction(action) as typeof action;
      // OpenFlow 1.4's own set-field has no mask.
      if (mask === undefined) return standard(writer, ACTION.setField, () => writeOxm(writer, { field, value }));
      return nicira(writer, NX.load2, () => writeOxm(writer, { field, value, mask }));
    }
    case 'raw':
      writer.raw(Buffer.from(action.raw, 'hex'));
      return;
    case 'goto':
    case 'meter':
    case 'raw_instruction':
      throw new WeftError('INVALID_ARGUMENT', `${action.type} stands at the wrong place in a list of actions.`, {
        hint: 'meter is the first, goto the last action of a flow, neither inside of ct.',
      });
    case 'move':
    case 'load':
    case 'output_reg':
    case 'resubmit':
    case 'conjunction':
    case 'ct':
    case 'ct_clear':
    case 'learn':
    case 'multipath':
    case 'check_larger':
      return writeNicira(writer, action);
  }
}

function writeNicira(
  writer: Writer,
  action: Extract<
    Action,
    {
      type:
        | 'move'
        | 'load'
        | 'output_reg'
        | 'resubmit'
        | 'conjunction'
        | 'ct'
        | 'ct_clear'
        | 'learn'
        | 'multipath'
        | 'check_larger';
    }
  >,
): void {
  switch (action.type) {
    case 'move': {
      const { src, srcOfs, dst, dstOfs, nBits } = action;
      range(src, srcOfs, Math.min(nBits, 64));
      range(dst, dstOfs, Math.min(nBits, 64));
      return nicira(writer, NX.move, () => {
        writer.u16(nBits).u16(srcOfs).u16(dstOfs);
        writeFieldHeader(writer, src);
        writeFieldHeader(writer, dst);
      });
    }
    case 'load': {
      const { field, ofs, nBits, value } = action;
      if (value < 0n || value >> BigInt(nBits) !== 0n) {
        throw new WeftError('INVALID_ARGUMENT', `0x${value.toString(16)} does not fit into ${nBits} bits of ${field}.`);
      }
      return nicira(writer, NX.load, () => {
        writer.u16(range(field, ofs, nBits));
        writeFieldHeader(writer, field);
        writer.u64(value);
      });
    }
    case 'output_reg': {
      const { field, ofs, nBits } = canonicalAction(action) as { field: FieldName; ofs: number; nBits: number };
      return nicira(writer, NX.outputReg, () => {
        writer.u16(range(field, ofs, nBits));
        writeFieldHeader(writer, field);
        writer.u16(0xffff).zeros(6);
      });
    }
    case 'resubmit':
      return nicira(writer, NX.resubmitTable, () =>
        writer
          .u16(action.port === undefined ? NX_IN_PORT : toNxPort(action.port))
          .u8(action.table)
          .zeros(3),
      );
    case 'conjunction':
      return nicira(writer, NX.conjunction, () => writer.u8(action.clause).u8(action.nClauses).u32(action.id));
    case 'ct':
      return nicira(writer, NX.ct, () => writeCt(writer, action));
    case 'ct_clear':
      return nicira(writer, NX.ctClear, () => writer.zeros(6));
    case 'learn': {
      const extended = (action.limit ?? 0) !== 0;
      return nicira(writer, extended ? NX.learn2 : NX.learn, () => writeLearn(writer, action, extended));
    }
    case 'multipath':
      return nicira(writer, NX.multipath, () => writeMultipath(writer, action));
    case 'check_larger':
      return nicira(writer, NX.checkLarger, () => writeCheckLarger(writer, action));
  }
}

function writeCt(writer: Writer, ct: CtAction): void {
  const { zone = 0, exec = [] } = ct;
  writer.u16((ct.commit === true ? CT.commit : 0) | (ct.force === true ? CT.force : 0));
  if (typeof zone === 'number') writer.u32(0).u16(zone);
  else {
    writeFieldHeader(writer, zone.field);
    writer.u16(range(zone.field, zone.ofs, zone.nBits));
  }
  writer
    .u8(ct.table ?? CT.noTable)
    .zeros(3)
    .u16(ct.alg ?? 0);
  writeActions(writer, exec);
}

export function writeActions(writer: Writer, actions: readonly Action[]): void {
  for (const action of actions) writeAction(writer, action);
}

/** A flow's actions as instructions: meter, apply-actions, goto. */
export function writeInstructions(writer: Writer, actions: readonly Action[]): void {
  const [first] = actions;
  const last = actions.at(-1);
  const meter = first?.type === 'meter' ? first : undefined;
  const goto = last?.type === 'goto' ? last : undefined;
  if (meter !== undefined) writer.u16(INSTRUCTION.meter).u16(8).u32(meter.meter);
  const applied = actions.slice(meter === undefined ? 0 : 1, goto === undefined ? undefined : -1);
  if (applied.length > 0) {
    const start = writer.length;
    writer.u16(INSTRUCTION.apply).u16(0).u32(0);
    writeActions(writer, applied);
    writer.patchU16(start + 2, writer.length - start);
  }
  if (goto !== undefined) writer.u16(INSTRUCTION.goto).u16(8).u8(goto.table).zeros(3);
}

/** All that is left in `reader`, as actions. What is not understood stays as its bytes. */
export function readActions(reader: Reader, depth = 0): Action[] {
  const actions: Action[] = [];
  while (reader.left > 0) {
    const bytes = takeElement(reader, 'an action');
    const body = new Reader(bytes);
    const type = body.u16();
    body.skip(2);
    const known = type === ACTION.experimenter ? readNicira(body, depth) : readStandard(type, body);
    actions.push(known ?? { type: 'raw', raw: bytes.toString('hex') });
  }
  return actions;
}

/** An element that begins with type and length (both of 16 bits); the length counts all of it. */
function takeElement(reader: Reader, what: string): Buffer {
  const length = reader.peekU16(2);
  if (length < 8 || length % 8 !== 0) throw new WeftError('INTERNAL', `A flow has ${what} of length ${length}.`);
  return reader.bytes(length);
}

function readStandard(type: number, body: Reader): Action | undefined {
  switch (type) {
    case ACTION.output: {
      const port = body.u32();
      const maxLen = body.u16();
      if (port === OFPP.CONTROLLER) return { type: 'controller', maxLen };
      return port === OFPP.IN_PORT ? { type: 'in_port' } : { type: 'output', port };
    }
    case ACTION.group:
      return { type: 'group', group: body.u32() };
    case ACTION.setQueue:
      return { type: 'set_queue', queue: body.u32() };
    case ACTION.pushVlan:
      return { type: 'push_vlan', etherType: body.u16() };
    case ACTION.popVlan:
      return { type: 'pop_vlan' };
    case ACTION.decTtl:
      return { type: 'dec_ttl' };
    case ACTION.setField:
      return readSetField(body);
    default:
      return undefined;
  }
}

function readSetField(body: Reader): Action | undefined {
  const oxm = readOxm(body);
  if (oxm.field === 'raw') return undefined;
  const { field, value, mask } = oxm;
  return canonicalAction(
    mask === undefined ? { type: 'set_field', field, value } : { type: 'set_field', field, value, mask },
  );
}

function readNicira(body: Reader, depth: number): Action | undefined {
  if (body.u32() !== NICIRA) return undefined;
  switch (body.u16()) {
    case NX.move: {
      const [nBits, srcOfs, dstOfs] = [body.u16(), body.u16(), body.u16()];
      const [src, dst] = [readFieldHeader(body), readFieldHeader(body)];
      return src === undefined || dst === undefined ? undefined : { type: 'move', src, srcOfs, dst, dstOfs, nBits };
    }
    case NX.load: {
      const bits = body.u16();
      const field = readFieldHeader(body);
      if (field === undefined) return undefined;
      return { type: 'load', field, ofs: bits >> 6, nBits: (bits & 0x3f) + 1, value: body.u64() };
    }
    case NX.load2:
      return readSetField(body);
    case NX.outputReg: {
      const bits = body.u16();
      const field = readFieldHeader(body);
      if (field === undefined || body.u16() !== 0xffff) return undefined;
      return { type: 'output_reg', field, ofs: bits >> 6, nBits: (bits & 0x3f) + 1 };
    }
    case NX.resubmit:
      return { type: 'resubmit', table: 255, port: fromNxPort(body.u16()) };
    case NX.resubmitTable: {
      const [port, table] = [body.u16(), body.u8()];
      return port === NX_IN_PORT ? { type: 'resubmit', table } : { type: 'resubmit', table, port: fromNxPort(port) };
    }
    case NX.conjunction: {
      const [clause, nClauses, id] = [body.u8(), body.u8(), body.u32()];
      return { type: 'conjunction', id, clause, nClauses };
    }
    case NX.ct:
      return depth < MAX_DEPTH ? readCt(body, depth) : undefined;
    case NX.ctClear:
      return { type: 'ct_clear' };
    case NX.controller2:
      return readController(body);
    case NX.learn:
      return readLearn(body, false);
    case NX.learn2:
      return readLearn(body, true);
    case NX.multipath:
      return readMultipath(body);
    case NX.checkLarger:
      return readCheckLarger(body);
    default:
      return undefined;
  }
}

function readCt(body: Reader, depth: number): Action | undefined {
  const flags = body.u16();
  const source = body.bytes(4);
  const zoneBits = body.u16();
  const field = source.readUInt32BE(0) === 0 ? null : readFieldHeader(new Reader(source));
  const table = body.u8();
  const alg = body.skip(3).u16();
  const exec = readActions(body, depth + 1);
  if (field === undefined) return undefined;
  const zone = field === null ? zoneBits : { field, ofs: zoneBits >> 6, nBits: (zoneBits & 0x3f) + 1 };
  return {
    type: 'ct',
    ...((flags & CT.commit) !== 0 && { commit: true }),
    ...((flags & CT.force) !== 0 && { force: true }),
    ...(zone !== 0 && { zone }),
    ...(table !== CT.noTable && { table }),
    ...(alg !== 0 && { alg }),
    ...(exec.length > 0 && { exec }),
  };
}

/** A flow's instructions as actions, in the order in which they are written. */
export function readInstructions(reader: Reader): Action[] {
  const actions: Action[] = [];
  while (reader.left > 0) {
    const bytes = takeElement(reader, 'an instruction');
    const body = new Reader(bytes);
    const type = body.u16();
    body.skip(2);
    if (type === INSTRUCTION.goto) actions.push({ type: 'goto', table: body.u8() });
    else if (type === INSTRUCTION.meter) actions.push({ type: 'meter', meter: body.u32() });
    else if (type === INSTRUCTION.apply) actions.push(...readActions(body.skip(4)));
    else actions.push({ type: 'raw_instruction', raw: bytes.toString('hex') });
  }
  return actions;
}
