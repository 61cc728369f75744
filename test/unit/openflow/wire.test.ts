import fc from 'fast-check';
import { describe, expect, it } from 'vitest';
import { writeInstructions } from '../../../agent/openflow/actions.ts';
import {
  type Action,
  canonicalAction,
  canonicalMatch,
  type Flow,
  flowEquals,
  flowKey,
} from '../../../agent/openflow/flow.ts';
import {
  HEADER,
  readBundleControl,
  readError,
  readFeatures,
  readFlowStats,
  readMultipart,
  splitMessages,
  TYPE,
  writeBundleControl,
  writeFlowMod,
  writeFlowStatsRequest,
  writeHello,
  writeMessage,
} from '../../../agent/openflow/messages.ts';
import { readMeterConfig, readMeterStats } from '../../../agent/openflow/meter.ts';
import { readFlowUpdates } from '../../../agent/openflow/monitor.ts';
import { writeMatch } from '../../../agent/openflow/oxm.ts';
import { readPacketIn } from '../../../agent/openflow/punted.ts';
import { Writer } from '../../../agent/openflow/wire.ts';
import { flows } from './arbitrary.ts';

/** What an NXT_PACKET_IN2 begins with. */
const PACKET_IN2 = Buffer.from('000023200000001e', 'hex');

/** A flow as the switch would report it. */
function stats(list: readonly Flow[]): Buffer {
  const writer = new Writer();
  for (const flow of list) {
    const start = writer.length;
    writer.u16(0).u8(flow.table).u8(0).u32(1).u32(2).u16(flow.priority);
    writer
      .u16(flow.idleTimeout ?? 0)
      .u16(flow.hardTimeout ?? 0)
      .u16(flow.flags ?? 0)
      .u16(flow.importance ?? 0)
      .zeros(2);
    writer.u64(flow.cookie).u64(10n).u64(20n);
    writeMatch(writer, flow.match);
    writeInstructions(writer, flow.actions);
    writer.patchU16(start, writer.length - start);
  }
  return writer.bytes();
}

const hostile = (read: (body: Buffer) => unknown, body: Buffer): void => {
  try {
    read(body);
  } catch (error) {
    expect(error).toMatchObject({ name: 'WeftError' });
  }
};

describe('flows on the wire', () => {
  it('come back as they went', () => {
    fc.assert(
      fc.property(fc.array(flows, { maxLength: 3 }), (list) => {
        const back = readFlowStats(stats(list));
        expect(back).toHaveLength(list.length);
        for (const [i, flow] of list.entries()) {
          const seen = back[i]!;
          expect(seen.match).toEqual(canonicalMatch(flow.match));
          expect(seen.actions).toEqual(flow.actions.map(canonicalAction));
          expect(flowKey(seen)).toBe(flowKey(flow));
          expect(flowEquals(seen, flow)).toBe(true);
          expect({ ...seen, packets: 0, bytes: 0 }).toMatchObject({
            table: flow.table,
            priority: flow.priority,
            cookie: flow.cookie,
          });
        }
      }),
      { numRuns: 500 },
    );
  });

  it('are whole multiples of eight bytes, with their length in the header', () => {
    fc.assert(
      fc.property(flows, (flow) => {
        const writer = new Writer(16);
        writeFlowMod(writer, 77, 'add', flow);
        const bytes = writer.bytes();
        expect(bytes.length % 8).toBe(0);
        expect(bytes.readUInt16BE(2)).toBe(bytes.length);
        expect(bytes.readUInt32BE(4)).toBe(77);
      }),
    );
  });

  it('cut anywhere: an error of ours, or fewer flows', () => {
    fc.assert(
      fc.property(flows, fc.nat(), (flow, cut) => {
        const bytes = stats([flow]);
        hostile(readFlowStats, bytes.subarray(0, cut % bytes.length));
      }),
    );
  });

  it('damaged anywhere: an error of ours, or other flows', () => {
    fc.assert(
      fc.property(flows, fc.array(fc.tuple(fc.nat(), fc.nat(255)), { minLength: 1, maxLength: 4 }), (flow, damage) => {
        const bytes = Buffer.from(stats([flow]));
        for (const [at, byte] of damage) bytes[at % bytes.length] = byte;
        hostile(readFlowStats, bytes);
      }),
      { numRuns: 1000 },
    );
  });

  it('random bytes: an error of ours', () => {
    fc.assert(
      fc.property(fc.uint8Array({ maxLength: 200 }), (bytes) => {
        const body = Buffer.from(bytes);
        for (const type of [TYPE.packetIn, TYPE.experimenter]) hostile((b) => readPacketIn(type, b), body);
        hostile((b) => readPacketIn(TYPE.experimenter, b), Buffer.concat([PACKET_IN2, body]));
        for (const read of [readMeterConfig, readMeterStats]) hostile(read, body);
        for (const read of [readFlowStats, readFlowUpdates, readMultipart, readFeatures, readError, readBundleControl])
          hostile(read, body);
      }),
      { numRuns: 1000 },
    );
  });

  it('unknown fields, actions and instructions stay as they are', () => {
    const flow: Flow = {
      table: 0,
      priority: 1,
      cookie: 0n,
      match: [{ field: 'raw', raw: '00014c020005' }],
      actions: [{ type: 'raw', raw: 'ffff0010000023200008010203000000' }],
    };
    const [seen] = readFlowStats(stats([flow]));
    expect(seen?.match).toEqual(flow.match);
    expect(seen?.actions).toEqual(flow.actions);
  });

  it.each<[string, Partial<Flow>]>([
    ['a value too wide', { match: [{ field: 'vlan_pcp', value: 8n }] }],
    ['a negative value', { match: [{ field: 'reg0', value: -1n }] }],
    [
      'goto in the middle',
      {
        actions: [
          { type: 'goto', table: 1 },
          { type: 'output', port: 1 },
        ],
      },
    ],
    [
      'meter at the end',
      {
        actions: [
          { type: 'output', port: 1 },
          { type: 'meter', meter: 1 },
        ],
      },
    ],
    ['port 0', { actions: [{ type: 'output', port: 0 }] }],
    ['the local port by its OVSDB number', { actions: [{ type: 'output', port: 65534 }] }],
    ['bits that a field has not', { actions: [{ type: 'load', field: 'reg0', ofs: 16, nBits: 17, value: 0n }] }],
    ['a load too wide', { actions: [{ type: 'load', field: 'reg0', ofs: 0, nBits: 4, value: 16n }] }],
    [
      'more than a message holds',
      { actions: Array.from({ length: 5000 }, (): Action => ({ type: 'output', port: 1 })) },
    ],
  ])('refuses %s', (_name, wrong) => {
    const flow: Flow = { table: 0, priority: 1, cookie: 0n, match: [], actions: [], ...wrong };
    expect(() => writeFlowMod(new Writer(), 1, 'add', flow)).toThrow(
      expect.objectContaining({ code: 'INVALID_ARGUMENT' }),
    );
  });
});

describe('messages', () => {
  const stream = (): Buffer => {
    const writer = new Writer();
    writeHello(writer, 1);
    writeMessage(writer, TYPE.barrierRequest, 2);
    writeBundleControl(writer, 3, 9, 4);
    writeFlowStatsRequest(writer, 4);
    return Buffer.from(writer.bytes());
  };

  it('are found wherever the stream is cut', () => {
    const bytes = stream();
    const whole = splitMessages(bytes);
    expect(whole.messages.map(({ type, xid }) => [type, xid])).toEqual([
      [TYPE.hello, 1],
      [TYPE.barrierRequest, 2],
      [TYPE.bundleControl, 3],
      [TYPE.multipartRequest, 4],
    ]);
    expect(whole.rest).toHaveLength(0);
    expect(readBundleControl(whole.messages[2]!.body)).toEqual({ bundle: 9, type: 4 });
    for (let cut = 0; cut <= bytes.length; cut++) {
      const first = splitMessages(bytes.subarray(0, cut));
      const second = splitMessages(Buffer.concat([first.rest, bytes.subarray(cut)]));
      expect([...first.messages, ...second.messages]).toEqual(whole.messages);
      expect(second.rest).toHaveLength(0);
    }
  });

  it('of impossible length end the connection instead of hanging it', () => {
    const bytes = stream();
    bytes.writeUInt16BE(HEADER - 1, 2);
    expect(() => splitMessages(bytes)).toThrow(expect.objectContaining({ code: 'INTERNAL' }));
  });
});
