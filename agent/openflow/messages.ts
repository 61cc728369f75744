/** OpenFlow 1.4 messages (wire version 5), both ways, for what Weft speaks. Pure. */
import { WeftError } from '../../lib/errors.ts';
import { readInstructions, writeInstructions } from './actions.ts';
import type { Flow } from './flow.ts';
import { readMatch, writeMatch } from './oxm.ts';
import { Reader, type Writer } from './wire.ts';

export const VERSION = 5;
export const HEADER = 8;

export const TYPE = Object.freeze({
  hello: 0,
  error: 1,
  echoRequest: 2,
  echoReply: 3,
  experimenter: 4,
  featuresRequest: 5,
  featuresReply: 6,
  setConfig: 9,
  packetIn: 10,
  packetOut: 13,
  flowMod: 14,
  multipartRequest: 18,
  multipartReply: 19,
  barrierRequest: 20,
  barrierReply: 21,
  setAsync: 28,
  meterMod: 29,
  bundleControl: 33,
  bundleAdd: 34,
});

export const BUNDLE = Object.freeze({ open: 0, opened: 1, commit: 4, committed: 5, discard: 6, discarded: 7 });
/** All or nothing, in the order given. */
const ATOMIC_ORDERED = 3;

const COMMAND = { add: 0, deleteStrict: 4 };
const NONE = 0xffffffff;
const STATS_FLOW = 1;

export interface Message {
  readonly version: number;
  readonly type: number;
  readonly xid: number;
  readonly body: Buffer;
}

/** A whole message around what `body` writes. */
export function writeMessage(writer: Writer, type: number, xid: number, body?: () => void): void {
  const start = writer.length;
  writer.u8(VERSION).u8(type).u16(HEADER).u32(xid);
  if (body === undefined) return;
  body();
  writer.patchU16(start + 2, writer.length - start);
}

/** Cuts a stream into messages. `rest` is what is not complete yet. Throws INTERNAL for a length that cannot be. */
export function splitMessages(buffer: Buffer): { messages: Message[]; rest: Buffer } {
  const messages: Message[] = [];
  let at = 0;
  while (buffer.length - at >= HEADER) {
    const length = buffer.readUInt16BE(at + 2);
    if (length < HEADER) throw new WeftError('INTERNAL', `The switch sent an OpenFlow message of length ${length}.`);
    if (buffer.length - at < length) break;
    messages.push({
      version: buffer[at]!,
      type: buffer[at + 1]!,
      xid: buffer.readUInt32BE(at + 4),
      body: buffer.subarray(at + HEADER, at + length),
    });
    at += length;
  }
  return { messages, rest: buffer.subarray(at) };
}

/** HELLO with a bitmap that offers our version alone. */
export const writeHello = (writer: Writer, xid: number): void =>
  writeMessage(writer, TYPE.hello, xid, () =>
    writer
      .u16(1)
      .u16(8)
      .u32(1 << VERSION),
  );

/** ADD (which replaces a flow of the same key), or DELETE_STRICT. */
export function writeFlowMod(writer: Writer, xid: number, command: 'add' | 'remove', flow: Flow): void {
  writeMessage(writer, TYPE.flowMod, xid, () => {
    const add = command === 'add';
    writer.u64(add ? flow.cookie : 0n).u64(0n);
    writer.u8(flow.table).u8(add ? COMMAND.add : COMMAND.deleteStrict);
    writer.u16(add ? (flow.idleTimeout ?? 0) : 0).u16(add ? (flow.hardTimeout ?? 0) : 0);
    writer.u16(flow.priority).u32(NONE).u32(NONE).u32(NONE);
    writer.u16(add ? (flow.flags ?? 0) : 0).u16(add ? (flow.importance ?? 0) : 0);
    writeMatch(writer, flow.match);
    if (add) writeInstructions(writer, flow.actions);
  });
}

export const writeBundleControl = (writer: Writer, xid: number, bundle: number, type: number): void =>
  writeMessage(writer, TYPE.bundleControl, xid, () => writer.u32(bundle).u16(type).u16(ATOMIC_ORDERED));

/** A message of a bundle; the inner message must have the same xid. */
export const writeBundleAdd = (writer: Writer, xid: number, bundle: number, inner: () => void): void =>
  writeMessage(writer, TYPE.bundleAdd, xid, () => {
    writer.u32(bundle).u16(0).u16(ATOMIC_ORDERED);
    inner();
  });

export function readBundleControl(body: Buffer): { bundle: number; type: number } {
  const reader = new Reader(body);
  return { bundle: reader.u32(), type: reader.u16() };
}

/** Multipart request for all flows of a table, or of all tables. */
export const writeFlowStatsRequest = (writer: Writer, xid: number, table = 0xff): void =>
  writeMessage(writer, TYPE.multipartRequest, xid, () => {
    writer.u16(STATS_FLOW).u16(0).u32(0);
    writer.u8(table).zeros(3).u32(NONE).u32(NONE).u32(0).u64(0n).u64(0n);
    writeMatch(writer, []);
  });

export interface MultipartReply {
  readonly kind: number;
  /** More replies of the same xid follow. */
  readonly more: boolean;
  readonly body: Buffer;
}

export function readMultipart(body: Buffer): MultipartReply {
  const reader = new Reader(body);
  const kind = reader.u16();
  const more = (reader.u16() & 1) === 1;
  return { kind, more, body: reader.skip(4).rest() };
}

export interface FlowStats extends Flow {
  readonly packets: bigint;
  readonly bytes: bigint;
}

/** The flows of one flow-stats reply, canonical. */
export function readFlowStats(body: Buffer): FlowStats[] {
  const reader = new Reader(body);
  const flows: FlowStats[] = [];
  while (reader.left > 0) {
    const entry = reader.sub(checkLength(reader.u16()) - 2);
    const table = entry.u8();
    const priority = entry.skip(1 + 4 + 4).u16();
    const idleTimeout = entry.u16();
    const hardTimeout = entry.u16();
    const flags = entry.u16();
    const importance = entry.u16();
    const cookie = entry.skip(2).u64();
    const packets = entry.u64();
    const bytes = entry.u64();
    const match = readMatch(entry);
    flows.push({
      table,
      priority,
      cookie,
      match,
      actions: readInstructions(entry),
      ...(idleTimeout !== 0 && { idleTimeout }),
      ...(hardTimeout !== 0 && { hardTimeout }),
      ...(flags !== 0 && { flags }),
      ...(importance !== 0 && { importance }),
      packets,
      bytes,
    });
  }
  return flows;
}

function checkLength(length: number): number {
  if (length < 48 + 8) throw new WeftError('INTERNAL', `The switch described a flow in ${length} bytes.`);
  return length;
}

export interface Features {
  readonly datapathId: bigint;
  readonly tables: number;
}

export function readFeatures(body: Buffer): Features {
  const reader = new Reader(body);
  return { datapathId: reader.u64(), tables: reader.skip(4).u8() };
}

export function readError(body: Buffer): { type: number; code: number } {
  const reader = new Reader(body);
  return { type: reader.u16(), code: reader.u16() };
}
