/**
 * Packets between switch and agent: the controller action (NXAST_CONTROLLER2), packet-in (OpenFlow 1.4 §7.4.1, and Nicira's
 * NXT_PACKET_IN2, which carries registers and userdata), packet-out (§7.3.7). Pure.
 */
import { writeActions } from './actions.ts';
import { NICIRA } from './fields.ts';
import type { Action, FieldName } from './flow.ts';
import { TYPE, writeMessage } from './messages.ts';
import { readMatch, readOxm } from './oxm.ts';
import { Reader, type Writer } from './wire.ts';

const NXT = { setPacketInFormat: 16, packetIn2: 30 };
const FORMAT_PACKET_IN2 = 2;
const PROP = { packet: 0, fullLen: 1, table: 3, cookie: 4, reason: 5, metadata: 6, userdata: 7 };
/** OFPACPT_* (§7.3.10): masks for connections that are not slaves. */
const ASYNC = { packetIn: 1, portStatus: 3, flowRemoved: 5, roleStatus: 7, tableStatus: 9, requestForward: 11 };
const EVERY_REASON = 0x3f;
const NO_BUFFER = 0xffffffff;

export interface PacketIn {
  readonly table: number;
  /** Of the flow that punted it. */
  readonly cookie: bigint;
  /** OFPR_*: 1 = a controller action. */
  readonly reason: number;
  /** The frame. Without buffers Open vSwitch sends all of it, whatever maxLen says. */
  readonly data: Buffer;
  /** Length of the whole frame. */
  readonly fullLength: number;
  /** Registers, in_port, tun_id and what else the pipeline knew. Absent = zero. */
  readonly fields: ReadonlyMap<FieldName, bigint>;
  /** What the controller action said. */
  readonly userdata: Buffer;
}

/** Asks for packet-ins, of kind NXT_PACKET_IN2, and for nothing else that comes unasked. Three messages, without replies. */
export function writePacketInSetup(writer: Writer, allocate: () => number): void {
  // Without a length a management connection gets no packet-in at all.
  writeMessage(writer, TYPE.setConfig, allocate(), () => writer.u16(0).u16(0xffff));
  writeMessage(writer, TYPE.experimenter, allocate(), () =>
    writer.u32(NICIRA).u32(NXT.setPacketInFormat).u32(FORMAT_PACKET_IN2),
  );
  writeMessage(writer, TYPE.setAsync, allocate(), () => {
    for (const type of [ASYNC.packetIn, ASYNC.portStatus, ASYNC.flowRemoved])
      writer
        .u16(type)
        .u16(8)
        .u32(type === ASYNC.packetIn ? EVERY_REASON : 0);
  });
}

/** Null for a message that is no packet-in. Throws INTERNAL for one that cannot be read. */
export function readPacketIn(type: number, body: Buffer): PacketIn | null {
  if (type === TYPE.packetIn) return readStandard(new Reader(body));
  if (type !== TYPE.experimenter) return null;
  const reader = new Reader(body);
  if (reader.left < 8 || reader.u32() !== NICIRA || reader.u32() !== NXT.packetIn2) return null;
  return readProperties(reader);
}

function readStandard(reader: Reader): PacketIn {
  const fullLength = reader.skip(4).u16();
  const reason = reader.u8();
  const table = reader.u8();
  const cookie = reader.u64();
  const fields = new Map<FieldName, bigint>();
  for (const f of readMatch(reader)) if (f.field !== 'raw') fields.set(f.field, f.value);
  return { table, cookie, reason, fields, data: reader.skip(2).rest(), fullLength, userdata: Buffer.alloc(0) };
}

function readProperties(reader: Reader): PacketIn {
  const props = new Map<number, Buffer>();
  while (reader.left >= 4) {
    const type = reader.u16();
    const length = reader.u16();
    props.set(type, reader.bytes(length - 4));
    reader.skip(Math.min(reader.left, (8 - (length % 8)) % 8));
  }
  const none = Buffer.alloc(0);
  const number = (type: number, bytes: number): bigint => {
    const body = props.get(type);
    return body === undefined || body.length < bytes ? 0n : new Reader(body.subarray(body.length - bytes)).uint(bytes);
  };
  const byte = (type: number): number => props.get(type)?.[0] ?? 0;
  const data = props.get(PROP.packet) ?? none;
  const fields = new Map<FieldName, bigint>();
  const metadata = new Reader(props.get(PROP.metadata) ?? none);
  while (metadata.left >= 4) {
    const f = readOxm(metadata);
    if (f.field !== 'raw') fields.set(f.field, f.value);
  }
  return {
    table: byte(PROP.table),
    cookie: number(PROP.cookie, 8),
    reason: byte(PROP.reason),
    data,
    fullLength: props.has(PROP.fullLen) ? Number(number(PROP.fullLen, 4)) : data.length,
    fields,
    userdata: props.get(PROP.userdata) ?? none,
  };
}

export interface PacketOut {
  /** What `in_port` is meanwhile; OFPP.CONTROLLER, or a port whose frame it stands for. */
  readonly inPort: number;
  readonly actions: readonly Action[];
  /** A whole Ethernet frame. */
  readonly data: Uint8Array;
}

/** The frame goes through the actions (which may resubmit to a table). Throws INVALID_ARGUMENT like `writeAction`. */
export const writePacketOut = (writer: Writer, xid: number, { inPort, actions, data }: PacketOut): void =>
  writeMessage(writer, TYPE.packetOut, xid, () => {
    writer.u32(NO_BUFFER).u32(inPort);
    const at = writer.length;
    writer.u16(0).zeros(6);
    writeActions(writer, actions);
    writer.patchU16(at, writer.length - at - 8);
    writer.raw(data);
  });
