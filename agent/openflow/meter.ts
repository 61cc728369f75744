/** Meters (OpenFlow 1.4 §7.3.4.4, §7.3.5.12–13): one drop band each, both ways on the wire. Pure. */
import { WeftError } from '../../lib/errors.ts';
import { TYPE, writeMessage } from './messages.ts';
import { Reader, type Writer } from './wire.ts';

export interface Meter {
  /** 1 … 0xffff0000. */
  readonly id: number;
  readonly unit: 'packets' | 'kbit';
  /** Per second, in the unit. */
  readonly rate: number;
  /** What may pass at once after a quiet time: packets, or kilobits. */
  readonly burst: number;
}

export interface MeterStats {
  readonly id: number;
  readonly packets: bigint;
  readonly bytes: bigint;
  readonly dropped: bigint;
}

/** Kinds of multipart message. */
export const METER_STATS = 9;
export const METER_CONFIG = 10;
const METER_FEATURES = 11;
const ALL = 0xffffffff;
const COMMAND = { add: 0, modify: 1, delete: 2 };
const FLAG = { kbps: 1, packets: 2, burst: 4, stats: 8 };
const DROP_BAND = 1;

export function writeMeterMod(writer: Writer, xid: number, command: 'add' | 'modify' | 'delete', meter: Meter): void {
  if (meter.id < 1 || meter.id > 0xffff0000)
    throw new WeftError('INVALID_ARGUMENT', `${meter.id} is not a number that a meter can have.`);
  writeMessage(writer, TYPE.meterMod, xid, () => {
    const unit = meter.unit === 'packets' ? FLAG.packets : FLAG.kbps;
    writer.u16(COMMAND[command]).u16(command === 'delete' ? 0 : unit | FLAG.burst | FLAG.stats);
    writer.u32(meter.id);
    if (command !== 'delete') writer.u16(DROP_BAND).u16(16).u32(meter.rate).u32(meter.burst).zeros(4);
  });
}

/** @param kind METER_CONFIG or METER_STATS, of all meters. */
export const writeMeterRequest = (writer: Writer, xid: number, kind: number): void =>
  writeMessage(writer, TYPE.multipartRequest, xid, () => writer.u16(kind).u16(0).u32(0).u32(ALL).u32(0));

export const writeMeterFeaturesRequest = (writer: Writer, xid: number): void =>
  writeMessage(writer, TYPE.multipartRequest, xid, () => writer.u16(METER_FEATURES).u16(0).u32(0));

/** Greatest number of a meter. */
export const readMeterFeatures = (body: Buffer): number => new Reader(body).u32();

/** A meter that somebody made in a way that this program does not is told as one of rate 0. */
export function readMeterConfig(body: Buffer): Meter[] {
  const reader = new Reader(body);
  const meters: Meter[] = [];
  while (reader.left > 0) {
    const length = reader.u16();
    if (length < 8) throw new WeftError('INTERNAL', `The switch described a meter in ${length} bytes.`);
    const entry = reader.sub(length - 2);
    const flags = entry.u16();
    const id = entry.u32();
    const unit = (flags & FLAG.packets) !== 0 ? 'packets' : 'kbit';
    const drop = entry.left === 16 && entry.u16() === DROP_BAND;
    if (!drop) meters.push({ id, unit, rate: 0, burst: 0 });
    else meters.push({ id, unit, rate: entry.skip(2).u32(), burst: entry.u32() });
  }
  return meters;
}

export function readMeterStats(body: Buffer): MeterStats[] {
  const reader = new Reader(body);
  const all: MeterStats[] = [];
  while (reader.left > 0) {
    const id = reader.u32();
    const length = reader.u16();
    if (length < 40) throw new WeftError('INTERNAL', `The switch described a meter in ${length} bytes.`);
    const entry = reader.sub(length - 6);
    const packets = entry.skip(6 + 4).u64();
    const bytes = entry.u64();
    entry.skip(8);
    let dropped = 0n;
    while (entry.left >= 16) {
      dropped += entry.u64();
      entry.skip(8);
    }
    all.push({ id, packets, bytes, dropped });
  }
  return all;
}

export const meterEquals = (a: Meter, b: Meter): boolean =>
  a.id === b.id && a.unit === b.unit && a.rate === b.rate && a.burst === b.burst;

/** As `ovs-ofctl dump-meters` names them. */
export const formatMeter = (m: Meter): string =>
  `meter=${m.id} ${m.unit === 'packets' ? 'pktps' : 'kbps'} burst bands=type=drop rate=${m.rate} burst_size=${m.burst}`;
