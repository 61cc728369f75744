/** Flow monitoring (OpenFlow 1.4 section 7.3.5.18): the switch tells of flows that somebody changes. Pure. */
import { WeftError } from '../../lib/errors.ts';
import type { MatchField } from './flow.ts';
import { TYPE, writeMessage } from './messages.ts';
import { readMatch, writeMatch } from './oxm.ts';
import { Reader, type Writer } from './wire.ts';

/** Kind of multipart message. */
export const FLOW_MONITOR = 16;

const ANY = 0xffffffff;
const FLAGS = { added: 2, removed: 4, modified: 8 };
const EVENTS = ['initial', 'added', 'removed', 'modified', 'abbreviated', 'paused', 'resumed'] as const;

export type FlowUpdate =
  | {
      readonly event: 'initial' | 'added' | 'removed' | 'modified';
      readonly table: number;
      readonly priority: number;
      readonly cookie: bigint;
      readonly match: readonly MatchField[];
    }
  /** A change that this connection asked for itself, by the xid of its message. */
  | { readonly event: 'abbreviated'; readonly xid: number }
  /** The switch has no room for more updates: some are lost until `resumed`. */
  | { readonly event: 'paused' | 'resumed' };

/** Asks for every change of every table, without actions; our own changes come abbreviated. */
export const writeMonitorRequest = (writer: Writer, xid: number, id: number): void =>
  writeMessage(writer, TYPE.multipartRequest, xid, () => {
    writer.u16(FLOW_MONITOR).u16(0).u32(0);
    writer.u32(id).u32(ANY).u32(ANY);
    writer
      .u16(FLAGS.added | FLAGS.removed | FLAGS.modified)
      .u8(0xff)
      .u8(0);
    writeMatch(writer, []);
  });

/** The updates of one multipart message of kind FLOW_MONITOR. */
export function readFlowUpdates(body: Buffer): FlowUpdate[] {
  const reader = new Reader(body);
  const updates: FlowUpdate[] = [];
  while (reader.left > 0) {
    const length = reader.u16();
    if (length < 8) throw new WeftError('INTERNAL', `The switch described a change in ${length} bytes.`);
    const entry = reader.sub(length - 2);
    const event = EVENTS[entry.u16()];
    if (event === undefined) continue;
    if (event === 'abbreviated') updates.push({ event, xid: entry.u32() });
    else if (event === 'paused' || event === 'resumed') updates.push({ event });
    else {
      const table = entry.u8();
      const priority = entry.skip(5).u16();
      const cookie = entry.skip(4).u64();
      updates.push({ event, table, priority, cookie, match: readMatch(entry) });
    }
  }
  return updates;
}
