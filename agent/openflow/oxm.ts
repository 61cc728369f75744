/** OXM and NXM: match fields as type-length-value (OpenFlow 1.4 section 7.2.3, ovs-fields(7)), both ways. Pure. */
import { WeftError } from '../../lib/errors.ts';
import { EXPERIMENTER, FIELDS, type FieldName, fieldOf, fullMask, NXM_OF } from './fields.ts';
import { canonicalMatch, type KnownMatch, type MatchField } from './flow.ts';
import { Reader, type Writer } from './wire.ts';

const PACKET_TYPE = 44;

/** Throws INVALID_ARGUMENT for a value that does not fit the field. */
function checkFits(field: FieldName, value: bigint): void {
  const spec: (typeof FIELDS)[FieldName] | undefined = FIELDS[field];
  if (spec === undefined) throw new WeftError('INVALID_ARGUMENT', `There is no field ${String(field)}.`);
  if (value < 0n || value > fullMask(field)) {
    throw new WeftError('INVALID_ARGUMENT', `${field} has ${spec.bits} bits, 0x${value.toString(16)} does not fit.`);
  }
}

/** The four (with experimenter: eight) bytes that name a field and the length of what follows. */
function writeHeader(writer: Writer, field: FieldName, payload: number, masked: boolean): void {
  const [cls, number, experimenter] = FIELDS[field].wire[0]!;
  writer
    .u16(cls)
    .u8((number << 1) | (masked ? 1 : 0))
    .u8(payload + (experimenter === undefined ? 0 : 4));
  if (experimenter !== undefined) writer.u32(experimenter);
}

/** One field with its value, and its mask if it has one. */
export function writeOxm(writer: Writer, { field, value, mask }: KnownMatch): void {
  checkFits(field, value);
  const { bytes } = FIELDS[field];
  if (mask === undefined) {
    writeHeader(writer, field, bytes, false);
    writer.uint(value, bytes);
  } else {
    checkFits(field, mask);
    writeHeader(writer, field, bytes * 2, true);
    writer.uint(value, bytes).uint(mask, bytes);
  }
}

/** What names a field as a subfield: always four bytes, so not by an experimenter's number. */
function subfieldWire(field: FieldName): readonly [cls: number, number: number, bytes: number] {
  const { wire, bytes, subfieldWire: own } = FIELDS[field];
  if (own !== undefined) return own;
  const [cls, number] = wire.find(([, , experimenter]) => experimenter === undefined)!;
  return [cls, number, bytes];
}

/** A bare header, as load, move and output take it to name a field. */
export function writeFieldHeader(writer: Writer, field: FieldName): void {
  checkFits(field, 0n);
  const [cls, number, bytes] = subfieldWire(field);
  writer
    .u16(cls)
    .u8(number << 1)
    .u8(bytes);
}

/** The field of a bare header, undefined for an unknown one. */
export function readFieldHeader(reader: Reader): FieldName | undefined {
  const cls = reader.u16();
  const number = reader.u8() >> 1;
  const length = reader.u8();
  const field = fieldOf(cls, number) ?? (cls === NXM_OF && number === 0 ? 'in_port' : undefined);
  return field !== undefined && subfieldWire(field)[2] === length ? field : undefined;
}

/** One field; what is not in the table comes back as its bytes. */
export function readOxm(reader: Reader): MatchField {
  const header = reader.bytes(4);
  const payload = reader.bytes(header[3]!);
  const raw = (): MatchField => ({ field: 'raw', raw: header.toString('hex') + payload.toString('hex') });
  const cls = header.readUInt16BE(0);
  const body = new Reader(payload);
  const experimenter = cls === EXPERIMENTER && body.left >= 4 ? body.u32() : 0;
  const field = fieldOf(cls, header[2]! >> 1, experimenter);
  if (field === undefined) return raw();
  const { bytes } = FIELDS[field];
  const masked = (header[2]! & 1) === 1;
  if (body.left !== bytes * (masked ? 2 : 1)) return raw();
  const value = body.uint(bytes);
  return masked ? { field, value, mask: body.uint(bytes) & fullMask(field) } : { field, value };
}

/** struct ofp_match, padded to eight bytes. Canonical: a switch refuses fields before their prerequisites. */
export function writeMatch(writer: Writer, match: readonly MatchField[]): void {
  const start = writer.length;
  writer.u16(1).u16(0);
  for (const field of canonicalMatch(match)) {
    if (field.field === 'raw') writer.raw(Buffer.from(field.raw, 'hex'));
    else writeOxm(writer, field);
  }
  writer.patchU16(start + 2, writer.length - start);
  writer.align8(start);
}

/** struct ofp_match with its padding, as a canonical match. */
export function readMatch(reader: Reader): MatchField[] {
  const type = reader.u16();
  const length = reader.u16();
  if (type !== 1 || length < 4)
    throw new WeftError('INTERNAL', `A flow has a match of type ${type}, length ${length}.`);
  const body = reader.sub(length - 4);
  reader.skip((8 - (length % 8)) % 8);
  const fields: MatchField[] = [];
  while (body.left > 0) {
    const field = readOxm(body);
    if (!isEthernet(field)) fields.push(field);
  }
  return canonicalMatch(fields);
}

/** "It is an Ethernet packet" is said of each flow that does not imply it, and means nothing here. */
const isEthernet = (field: MatchField): boolean =>
  field.field === 'raw' && field.raw === `8000${(PACKET_TYPE << 1).toString(16)}0400000000`;
