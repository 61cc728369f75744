/**
 * Messages as bytes (RFC 1035 §4, RFC 6891). Queries are read by dns-packet, behind limits that make the worst of them cheap. Replies
 * are written here: the name that was asked for is repeated as a pointer, so that an answer has room for twice as many addresses,
 * and the question goes back byte by byte, in the case in which it was asked. Pure.
 */
import { type DecodedPacket, decode, type OptAnswer } from 'dns-packet';
import { tryParseIp } from '../../lib/addr.ts';

export const HEADER = 12;
/** Bytes of a query; a name, a question and all known EDNS options take less. */
export const MAX_QUERY = 1232;
/** Bytes that fit into a UDP reply on every path (dnsflagday.net/2020), and that everyone takes. */
const MAX_UDP = 1232;
const MIN_UDP = 512;
const MAX_TCP = 65_535;
/** Records after the question: OPT, and perhaps a signature or a padding. */
const MAX_ADDITIONAL = 8;

export const RCODE = { NOERROR: 0, FORMERR: 1, SERVFAIL: 2, NXDOMAIN: 3, NOTIMP: 4, REFUSED: 5, BADVERS: 16 } as const;
export type Rcode = keyof typeof RCODE;

const FLAG = { QR: 0x8000, AA: 0x0400, TC: 0x0200, RD: 0x0100, RA: 0x0080, CD: 0x0010 } as const;
const OPCODE = 0x7800;
const TYPE = { A: 1, SOA: 6, PTR: 12, AAAA: 28, SRV: 33, OPT: 41 } as const;
const IN = 1;
/** A pointer to the question's name, which always stands right after the header. */
const QUESTION_NAME = 0xc000 | HEADER;

export type Transport = 'udp' | 'tcp';

/** What every reply needs of its query. */
export interface Head {
  readonly id: number;
  readonly flags: number;
  /** The question as it came; empty where it cannot be read. */
  readonly question: Uint8Array;
  readonly edns: boolean;
  /** Bytes that the reply may have. */
  readonly limit: number;
}

export interface Query extends Head {
  readonly name: string;
  readonly type: string;
}

export type Parsed =
  | { readonly kind: 'query'; readonly query: Query }
  /** To be refused with `rcode`. */
  | { readonly kind: 'bad'; readonly head: Head; readonly rcode: Rcode }
  /** Not to be answered. */
  | { readonly kind: 'drop'; readonly why: 'short' | 'response' };

/** Never throws. */
export function parseQuery(message: Buffer, transport: Transport): Parsed {
  if (message.length < HEADER) return { kind: 'drop', why: 'short' };
  const flags = message.readUInt16BE(2);
  if ((flags & FLAG.QR) !== 0) return { kind: 'drop', why: 'response' };
  const limit = transport === 'tcp' ? MAX_TCP : MIN_UDP;
  const head: Head = { id: message.readUInt16BE(0), flags, question: new Uint8Array(), edns: false, limit };
  const bad = (rcode: Rcode, more: Partial<Head> = {}): Parsed => ({ kind: 'bad', head: { ...head, ...more }, rcode });
  if ((flags & OPCODE) !== 0) return bad('NOTIMP');
  const end = message.length > MAX_QUERY ? null : questionEnd(message);
  if (end === null || message.readUInt16BE(6) + message.readUInt16BE(8) > 0) return bad('FORMERR');
  const question = message.subarray(HEADER, end);
  if (message.readUInt16BE(10) > MAX_ADDITIONAL) return bad('FORMERR', { question });
  const packet = tryDecode(message);
  const [asked] = packet?.questions ?? [];
  if (packet === null || asked === undefined) return bad('FORMERR', { question });
  const opts = (packet.additionals ?? []).filter((record): record is OptAnswer => record.type === 'OPT');
  if (opts.length > 1) return bad('FORMERR', { question });
  const [opt] = opts;
  const size = Math.min(Math.max(opt?.udpPayloadSize ?? MIN_UDP, MIN_UDP), MAX_UDP);
  const full: Head = { ...head, question, edns: opt !== undefined, limit: transport === 'tcp' ? MAX_TCP : size };
  if ((opt?.ednsVersion ?? 0) !== 0) return bad('BADVERS', full);
  // AXFR and IXFR are answers of many messages; nothing here has a zone to give.
  if (asked.class !== 'IN' || (asked.type as string) === 'AXFR' || (asked.type as string) === 'IXFR')
    return bad('REFUSED', full);
  return { kind: 'query', query: { ...full, name: asked.name, type: asked.type } };
}

/** Where the only question of a message ends; null: there is not exactly one, or it cannot be read. */
export function questionEnd(message: Buffer): number | null {
  if (message.length < HEADER || message.readUInt16BE(4) !== 1) return null;
  let at = HEADER;
  for (;;) {
    const length = message[at];
    // Nothing stands before the first name that it could point to.
    if (length === undefined || length > 63) return null;
    at += 1 + length;
    if (length === 0) break;
  }
  return at - HEADER > 255 || at + 4 > message.length ? null : at + 4;
}

function tryDecode(message: Buffer): DecodedPacket | null {
  try {
    return decode(message);
  } catch {
    return null;
  }
}

/** The records of a reply; all belong to the name of the question, but for addresses of targets. */
export interface Records {
  readonly addresses?: readonly string[];
  readonly pointers?: readonly string[];
  /** Their addresses go with them where there is room. */
  readonly targets?: readonly Target[];
  /** Zone whose SOA says that there is nothing more. */
  readonly zone?: string | null;
}

/** An SRV record (RFC 2782). */
interface Target {
  readonly priority: number;
  readonly weight: number;
  readonly port: number;
  readonly name: string;
  readonly ips: readonly string[];
}

/** What does not fit is left out, with the TC bit set: who asked comes again by TCP. */
export function encodeReply(head: Head, rcode: Rcode, records: Records = {}): Buffer {
  const code = RCODE[rcode];
  const { addresses = [], pointers = [], targets = [], zone } = records;
  const opt = head.edns ? optRecord(code >> 4) : Buffer.alloc(0);
  let room = head.limit - HEADER - head.question.length - opt.length;
  const fitting = (all: readonly (() => Buffer)[]): Buffer[] => {
    const kept = firstOf(all, room);
    room -= kept.reduce((sum, bytes) => sum + bytes.length, 0);
    return kept;
  };
  const all = [
    ...addresses.map((ip) => () => addressRecord(questionName(), ip)),
    ...pointers.map((name) => () => pointerRecord(name)),
    ...targets.map((target) => () => serviceRecord(target)),
  ];
  const answers = fitting(all);
  const isCut = answers.length < all.length;
  const authority = isCut || typeof zone !== 'string' ? [] : fitting([() => soaRecord(zone)]);
  const additional = isCut ? [] : fitting(targets.flatMap(addressesOf));
  const header = Buffer.alloc(HEADER);
  header.writeUInt16BE(head.id, 0);
  const own = rcode === 'NOERROR' || rcode === 'NXDOMAIN' ? FLAG.AA : 0;
  header.writeUInt16BE(replyFlags(head) | own | (isCut ? FLAG.TC : 0) | (code & 15), 2);
  header.writeUInt16BE(head.question.length > 0 ? 1 : 0, 4);
  header.writeUInt16BE(answers.length, 6);
  header.writeUInt16BE(authority.length, 8);
  header.writeUInt16BE(additional.length + (head.edns ? 1 : 0), 10);
  return Buffer.concat([header, head.question, ...answers, ...authority, ...additional, opt]);
}

const replyFlags = (head: Head): number => FLAG.QR | FLAG.RA | (head.flags & (OPCODE | FLAG.RD | FLAG.CD));

const addressesOf = ({ name, ips }: Target): (() => Buffer)[] =>
  ips.map((ip) => () => addressRecord(nameBytes(name), ip));

/** Those of them, from the first, that have room. No more are written: a name may have a thousand addresses. */
function firstOf(all: readonly (() => Buffer)[], room: number): Buffer[] {
  const kept: Buffer[] = [];
  let left = room;
  for (const write of all) {
    const bytes = write();
    left -= bytes.length;
    if (left < 0) break;
    kept.push(bytes);
  }
  return kept;
}

/** A reply of somebody else's as who asked can take it: whole, or without records and with the TC bit set. */
export function fitReply(reply: Buffer, head: Head): Buffer {
  if (reply.length <= head.limit) return reply;
  const header = Buffer.from(reply.subarray(0, HEADER));
  header.writeUInt16BE(header.readUInt16BE(2) | FLAG.TC, 2);
  header.writeUInt16BE(1, 4);
  header.fill(0, 6);
  const opt = head.edns ? optRecord(0) : Buffer.alloc(0);
  header.writeUInt16BE(head.edns ? 1 : 0, 10);
  return Buffer.concat([header, head.question, opt]);
}

/** A message as it goes over TCP: its length before it. */
export function framed(message: Buffer): Buffer {
  const length = Buffer.alloc(2);
  length.writeUInt16BE(message.length);
  return Buffer.concat([length, message]);
}

export const isTruncated = (reply: Buffer): boolean => (reply.readUInt16BE(2) & FLAG.TC) !== 0;
export const rcodeOf = (reply: Buffer): number => reply.readUInt16BE(2) & 15;

/** The same message with another id. */
export function withId(message: Buffer, id: number): Buffer {
  const copy = Buffer.from(message);
  copy.writeUInt16BE(id, 0);
  return copy;
}

/** True when it is a reply to this query: its id, and its question in whatever case. */
export function isReplyTo(reply: Buffer, query: Buffer): boolean {
  if (reply.length < HEADER || (reply.readUInt16BE(2) & (FLAG.QR | OPCODE)) !== FLAG.QR) return false;
  if (reply.readUInt16BE(0) !== query.readUInt16BE(0)) return false;
  const [a, b] = [questionEnd(reply), questionEnd(query)];
  return a !== null && a === b && lower(reply.subarray(HEADER, a)).equals(lower(query.subarray(HEADER, b)));
}

/** A to Z as a to z; lengths and types that look like letters are changed on both sides alike. */
const lower = (bytes: Buffer): Buffer =>
  Buffer.from(bytes.map((byte) => (byte >= 65 && byte <= 90 ? byte + 32 : byte)));

function record(owner: Buffer, type: number, data: Buffer): Buffer {
  const head = Buffer.alloc(10);
  head.writeUInt16BE(type, 0);
  head.writeUInt16BE(IN, 2);
  head.writeUInt16BE(data.length, 8);
  return Buffer.concat([owner, head, data]);
}

/** @param owner name as bytes. @param ip address as text */
function addressRecord(owner: Buffer, ip: string): Buffer {
  const value = tryParseIp(ip) ?? 0n;
  const isV6 = ip.includes(':');
  const hex = (isV6 ? value : value & 0xffff_ffffn).toString(16).padStart(isV6 ? 32 : 8, '0');
  return record(owner, isV6 ? TYPE.AAAA : TYPE.A, Buffer.from(hex, 'hex'));
}

const pointerRecord = (name: string): Buffer => record(questionName(), TYPE.PTR, nameBytes(name));

/** The target is written in full, as RFC 2782 wants it. */
function serviceRecord(target: Target): Buffer {
  const numbers = Buffer.alloc(6);
  numbers.writeUInt16BE(target.priority, 0);
  numbers.writeUInt16BE(target.weight, 2);
  numbers.writeUInt16BE(target.port, 4);
  return record(questionName(), TYPE.SRV, Buffer.concat([numbers, nameBytes(target.name)]));
}

function questionName(): Buffer {
  const pointer = Buffer.alloc(2);
  pointer.writeUInt16BE(QUESTION_NAME);
  return pointer;
}

/** Nothing in it says more than "do not keep this": minimum 0 (RFC 2308). */
function soaRecord(zone: string): Buffer {
  const numbers = Buffer.alloc(20);
  for (const [i, value] of [1, 3600, 600, 86_400, 0].entries()) numbers.writeUInt32BE(value, 4 * i);
  return record(
    nameBytes(zone),
    TYPE.SOA,
    Buffer.concat([nameBytes('dns.weft'), nameBytes('hostmaster.weft'), numbers]),
  );
}

/** @param rcode upper eight bits */
function optRecord(rcode: number): Buffer {
  const opt = Buffer.alloc(11);
  opt.writeUInt16BE(TYPE.OPT, 1);
  opt.writeUInt16BE(MAX_UDP, 3);
  opt.writeUInt8(rcode, 5);
  return opt;
}

/** @param name of labels that fit (isDnsName) */
function nameBytes(name: string): Buffer {
  const labels = name.split('.').map((label) => Buffer.from(label));
  return Buffer.concat([...labels.flatMap((label) => [Buffer.from([label.length]), label]), Buffer.alloc(1)]);
}
