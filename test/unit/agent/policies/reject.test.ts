import fc from 'fast-check';
import { describe, expect, it } from 'vitest';
import { REG, TABLE } from '../../../../agent/flows/pipeline.ts';
import { checksum } from '../../../../agent/multicast/frame.ts';
import { OFPP } from '../../../../agent/openflow/flow.ts';
import { rejection } from '../../../../agent/policies/reject-frame.ts';
import { answerOf } from '../../../../agent/policies/rejecter.ts';

const hex = (text: string): Buffer => Buffer.from(text.replaceAll(' ', ''), 'hex');
const MACS = '02580a800003 02580a800002';
const V4 = (protocol: string, length: string): string =>
  `0800 4500${length} 00004000 40${protocol}0000 0a800002 0a800003`;
const V6 = (next: string, length: string): string =>
  `86dd 60000000 ${length}${next}40 fd000000000000000000000000000002 fd000000000000000000000000000003`;
/** Ports 40000 to 80, sequence 1000. */
const SYN = '9c400050 000003e8 00000000 5002ffff 00000000';
const ACK = '9c400050 000003e8 00001234 5010ffff 00000000';

const ip4 = (frame: Buffer): Buffer => frame.subarray(14, 34);
const sum4 = (frame: Buffer, protocol: number): number => {
  const segment = frame.subarray(34);
  const tail = Buffer.from([0, protocol, segment.length >> 8, segment.length & 255]);
  return checksum([frame.subarray(26, 34), tail, segment]);
};
const sum6 = (frame: Buffer, protocol: number): number => {
  const segment = frame.subarray(54);
  const tail = Buffer.alloc(8);
  tail.writeUInt32BE(segment.length, 0);
  tail[7] = protocol;
  return checksum([frame.subarray(22, 54), tail, segment]);
};

describe('what is rejected', () => {
  it('gets a reset, where it is TCP: of what has come, or of nothing', () => {
    const syn = rejection(hex(`${MACS} ${V4('06', '0028')} ${SYN}`))!;
    expect(syn.subarray(0, 14).toString('hex')).toBe('02580a80000202580a8000030800');
    expect(ip4(syn).subarray(12).toString('hex')).toBe('0a8000030a800002');
    expect([checksum([ip4(syn)]), sum4(syn, 6)]).toEqual([0, 0]);
    expect(syn.subarray(34, 50).toString('hex')).toBe('00509c40' + '00000000' + '000003e9' + '50140000');
    const ack = rejection(hex(`${MACS} ${V4('06', '0028')} ${ACK}`))!;
    expect(ack.subarray(34, 50).toString('hex')).toBe('00509c40' + '00001234' + '00000000' + '50040000');
    const six = rejection(hex(`${MACS} ${V6('06', '0014')} ${SYN}`))!;
    expect(six.subarray(54, 70).toString('hex')).toBe('00509c40' + '00000000' + '000003e9' + '50140000');
    expect(sum6(six, 6)).toBe(0);
  });

  it('is told that it is prohibited, else', () => {
    const udp = '9c400035 000a0000 abcd';
    const four = rejection(hex(`${MACS} ${V4('11', '001e')} ${udp}`))!;
    expect(ip4(four)[9]).toBe(1);
    expect(four.subarray(34, 36).toString('hex')).toBe('030d');
    expect([checksum([ip4(four)]), checksum([four.subarray(34)])]).toEqual([0, 0]);
    // With what it was about, whole.
    expect(four.subarray(42).toString('hex')).toBe(hex(`${V4('11', '001e').slice(5)} ${udp}`).toString('hex'));
    const six = rejection(hex(`${MACS} ${V6('11', '000a')} ${udp}`))!;
    expect(six.subarray(54, 56).toString('hex')).toBe('0101');
    expect(sum6(six, 58)).toBe(0);
  });

  it('is not answered where no answer is due', () => {
    for (const frame of [
      `${MACS} ${V4('06', '0028')} 9c400050 000003e8 00000000 5004ffff 00000000`, // a reset
      `${MACS} ${V4('01', '001c')} 030d0000 00000000`, // an error
      `${MACS} ${V6('3a', '0008')} 01010000 00000000`,
      `${MACS} 0800 45000028 00000010 40060000 0a800002 0a800003 ${SYN}`, // a later fragment
      `01005e000001 02580a800002 ${V4('11', '001c')} 9c400035 00080000`, // to a group
      `${MACS} ${V4('06', '0028')} 9c400050`, // cut short
      `${MACS} 0806 0001`,
      MACS,
    ])
      expect(rejection(hex(frame)), frame).toBeNull();
  });

  it('may be anything: nothing is read that is not there', () => {
    const head = fc.constantFrom(
      `${MACS} 0800 45`,
      `${MACS} 86dd 60`,
      `${MACS} ${V4('06', '0028')}`,
      `${MACS} ${V6('3a', '0014')}`,
    );
    fc.assert(
      fc.property(head, fc.uint8Array({ maxLength: 100 }), (start, rest) => {
        const answer = rejection(Buffer.concat([hex(start), rest]));
        expect(answer === null || answer.length <= 1294).toBe(true);
      }),
      { numRuns: 2000 },
    );
  });

  it('is answered to the port that it came by, or as the one who was called', () => {
    const data = hex(`${MACS} ${V4('06', '0028')} ${SYN}`);
    const fields = new Map([
      [REG.network, 1n],
      ['in_port', 2n],
      [REG.out, 3n],
    ] as const);
    expect(answerOf({ data, fields, table: TABLE.policyEgress })).toMatchObject({
      inPort: OFPP.CONTROLLER,
      actions: [{ type: 'output', port: 2 }],
    });
    expect(answerOf({ data, fields, table: TABLE.policyIngress })).toMatchObject({
      inPort: 3,
      actions: [
        { field: REG.network, value: 1n },
        { field: REG.side, value: 1n },
        { type: 'resubmit', table: TABLE.l2 },
      ],
    });
    expect(answerOf({ data: data.subarray(0, 20), fields, table: TABLE.policyIngress })).toBeNull();
  });
});
