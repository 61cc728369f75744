/**
 * What a host says of its memberships: IGMPv1 (RFC 1112), v2 (RFC 2236), v3 (RFC 3376 §4), MLDv1 (RFC 2710), MLDv2 (RFC 3810 §5).
 * Source lists are not kept: whoever wants a group from some senders is told of all. Pure.
 */
import { checksum, type Datagram, number, PROTOCOL, pseudoHeader } from './frame.ts';

export interface Change {
  readonly group: bigint;
  readonly wants: boolean;
}

export type Message =
  | { readonly kind: 'query' }
  | { readonly kind: 'report'; readonly family: 4 | 6; readonly changes: readonly Change[] };

const IGMP = { query: 0x11, report1: 0x12, report2: 0x16, leave: 0x17, report3: 0x22 };
const MLD = { query: 130, report: 131, done: 132, report2: 143 };
/** RFC 3376 §4.2.12, RFC 3810 §5.2.12. */
const RECORD = { isInclude: 1, isExclude: 2, toInclude: 3, toExclude: 4, allow: 5 };

/** Null for what is neither, malformed, or from where it cannot come. */
export function readMessage(datagram: Datagram): Message | null {
  const { family, protocol } = datagram;
  if (family === 4) return protocol === PROTOCOL.igmp ? readIgmp(datagram.payload) : null;
  return protocol === PROTOCOL.icmp6 ? readMld(datagram) : null;
}

function readIgmp(payload: Buffer): Message | null {
  if (payload.length < 8 || checksum([payload]) !== 0) return null;
  const type = payload[0];
  const group = number(payload.subarray(4, 8));
  if (type === IGMP.query) return { kind: 'query' };
  if (type === IGMP.report1 || type === IGMP.report2) return report(4, [{ group, wants: true }]);
  if (type === IGMP.leave) return report(4, [{ group, wants: false }]);
  return type === IGMP.report3 ? records(payload, 4) : null;
}

function readMld({ source, destination, ttl, payload }: Datagram): Message | null {
  // RFC 3810 §5.2.13: from this link, or from a host that has no address yet.
  const local = source === 0n || source >> 118n === 0x3fan;
  if (ttl !== 1 || !local || payload.length < 8) return null;
  if (checksum([pseudoHeader(source, destination, payload.length), payload]) !== 0) return null;
  const type = payload[0];
  if (type === MLD.report2) return records(payload, 6);
  if (payload.length < 24) return null;
  const group = number(payload.subarray(8, 24));
  if (type === MLD.query) return { kind: 'query' };
  if (type === MLD.report) return report(6, [{ group, wants: true }]);
  return type === MLD.done ? report(6, [{ group, wants: false }]) : null;
}

/** Group records: a count at byte 6, records from byte 8. One that does not fit spoils all of them. */
function records(payload: Buffer, family: 4 | 6): Message | null {
  const width = family === 4 ? 4 : 16;
  const changes: Change[] = [];
  let at = 8;
  for (let left = payload.readUInt16BE(6); left > 0; left--) {
    if (at + 4 + width > payload.length) return null;
    const type = payload[at]!;
    const aux = payload[at + 1]! * 4;
    const sources = payload.readUInt16BE(at + 2);
    const group = number(payload.subarray(at + 4, at + 4 + width));
    at += 4 + width + sources * width + aux;
    if (at > payload.length) return null;
    const wants = wantsGroup(type, sources);
    if (wants !== null) changes.push({ group, wants });
  }
  return report(family, changes);
}

/** Null: the record does not tell (blocked sources, types of the future). */
function wantsGroup(type: number, sources: number): boolean | null {
  if (type === RECORD.isExclude || type === RECORD.toExclude) return true;
  if (type === RECORD.isInclude || type === RECORD.allow) return sources > 0 ? true : null;
  return type === RECORD.toInclude ? sources > 0 : null;
}

const report = (family: 4 | 6, changes: readonly Change[]): Message => ({
  kind: 'report',
  family,
  changes: changes.filter(({ group }) => isPrunable(family, group)),
});

/**
 * True for groups that are sent only where they are wanted. Never: what is no group, and groups of the link itself (224.0.0.0/24,
 * ff02::/16), which hosts need not report (RFC 4541 §2.1.2).
 */
export function isPrunable(family: 4 | 6, group: bigint): boolean {
  if (family === 4) return group >> 28n === 0xen && group >> 8n !== 0xe00000n;
  // Scopes 0 and 1 never leave a host.
  return group >> 120n === 0xffn && ((group >> 112n) & 0xfn) > 2n;
}
