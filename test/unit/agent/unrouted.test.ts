import fc from 'fast-check';
import { describe, expect, it } from 'vitest';
import type { LocalEndpoint, LocalNetwork } from '../../../agent/contract.ts';
import { REG, SIDE, TABLE } from '../../../agent/flows/pipeline.ts';
import { PUNT, ROUTE } from '../../../agent/flows/punt.ts';
import { checksum } from '../../../agent/multicast/frame.ts';
import { type FieldName, OFPP } from '../../../agent/openflow/flow.ts';
import { answerOf } from '../../../agent/policies/rejecter.ts';
import { type UnroutedSources, unroutedAnswer } from '../../../agent/routing/unrouted.ts';
import { networkOf } from '../../harness/fake-network.ts';

const hex = (text: string): Buffer => Buffer.from(text.replaceAll(' ', ''), 'hex');
const GATEWAY = '025765667401';
const SENDER = '02580a010002';
/** Datagrams from 10.1.0.2 to 10.2.0.2, and the same in IPv6. */
const UDP = '9c400035 000a0000 abcd';
const four = (protocol = '11', fragment = '4000'): string =>
  `${GATEWAY} ${SENDER} 0800 4500001e 0000${fragment} 01${protocol}0000 0a010002 0a020002`;
const six = (next = '11'): string =>
  `${GATEWAY} ${SENDER} 86dd 60000000 000a${next}01 fd000001000000000000000000000002 fd000002000000000000000000000002`;

const network = (index: number, gateways: string[]): [string, LocalNetwork] => [
  `n${index}`,
  {
    networkId: `n${index}`,
    dockerNetworkId: null,
    name: `n${index}`,
    index,
    network: networkOf({
      id: `n${index}`,
      name: `n${index}`,
      subnets: [`10.${index}.0.0/24`],
      gateways,
      internal: true,
    }),
  },
];
const SOURCES: UnroutedSources = {
  journal: {
    endpoints: new Map([['e', { id: 'e', networkId: 'n1', mac: '02:58:0a:01:00:02' } as LocalEndpoint]]),
    networks: new Map([network(1, ['10.1.0.1', 'fd00:1::1']), network(2, ['10.2.0.1'])]),
  },
  ofport: (id) => (id === 'e' ? 5 : null),
};
const answer = (frame: string, why: number, mtu = 0, fields: [FieldName, bigint][] = [['in_port', 5n]]) =>
  unroutedAnswer(
    {
      data: hex(frame),
      fields: new Map<FieldName, bigint>([[REG.network, 2n], [REG.side, SIDE.local], ...fields]),
      userdata: Buffer.from([PUNT.route, why, mtu >> 8, mtu & 255]),
    },
    SOURCES,
  );
const icmp4 = (data: Uint8Array): Buffer => Buffer.from(data).subarray(34);

describe('a packet that is not routed', () => {
  it.each([
    [ROUTE.ended, 0, '0b00', '0300'],
    [ROUTE.unreachable, 0, '0301', '0103'],
    [ROUTE.tooBig, 1300, '0304', '0200'],
  ])('is answered by the gateway of its sender’s network: reason %d, MTU %d', (why, mtu, kind4, kind6) => {
    const a = answer(`${four()} ${UDP}`, why, mtu)!;
    expect(a).toMatchObject({ inPort: OFPP.CONTROLLER, actions: [{ type: 'output', port: 5 }] });
    const data = Buffer.from(a.data);
    expect(data.subarray(0, 14).toString('hex')).toBe(`${SENDER}${GATEWAY}0800`);
    expect(data.subarray(26, 34).toString('hex')).toBe('0a0100010a010002');
    expect([checksum([data.subarray(14, 34)]), checksum([icmp4(data)])]).toEqual([0, 0]);
    expect(icmp4(data).subarray(0, 2).toString('hex')).toBe(kind4);
    expect(icmp4(data).readUInt32BE(4)).toBe(mtu);
    expect(icmp4(data).subarray(8).toString('hex')).toBe(hex(`${four()} ${UDP}`).subarray(14).toString('hex'));
    const b = Buffer.from(answer(`${six()} ${UDP}`, why, mtu)!.data);
    expect(b.subarray(22, 54).toString('hex')).toBe('fd000001000000000000000000000001fd000001000000000000000000000002');
    expect(b.subarray(54, 56).toString('hex')).toBe(kind6);
    expect(b.readUInt32BE(58)).toBe(mtu);
    const tail = Buffer.alloc(8);
    tail.writeUInt32BE(b.length - 54, 0);
    tail[7] = 58;
    expect(checksum([b.subarray(22, 54), tail, b.subarray(54)])).toBe(0);
  });

  it('of another host is answered from here, by the way back', () => {
    const fields: [FieldName, bigint][] = [
      ['in_port', 1n],
      [REG.side, SIDE.tunnel],
    ];
    const a = answer(`${four()} ${UDP}`, ROUTE.unreachable, 0, fields)!;
    expect(a.actions).toEqual([
      { type: 'set_field', field: REG.network, value: 2n },
      { type: 'set_field', field: REG.side, value: SIDE.local },
      { type: 'resubmit', table: TABLE.l2 },
    ]);
    expect(Buffer.from(a.data).subarray(0, 12).toString('hex')).toBe(`${GATEWAY}${GATEWAY}`);
    expect(Buffer.from(a.data).subarray(26, 34).toString('hex')).toBe('0a0200010a010002');
    // It has no gateway of that family; nobody has the port; a port that an endpoint had is not one of a tunnel.
    expect(answer(`${six()} ${UDP}`, ROUTE.unreachable, 0, fields)).toBeNull();
    expect(answer(`${four()} ${UDP}`, ROUTE.unreachable, 0, [['in_port', 6n]])).toBeNull();
  });

  it('is not answered where no answer is due', () => {
    for (const frame of [
      `${four('01')} 03000000 00000000 0000`, // an error
      `${four('01')} 0b000000 00000000 0000`,
      `${six('3a')} 01000000 00000000 0000`,
      `${four('11', '0010')} ${UDP}`, // a later fragment
      `01005e000001 ${SENDER} ${four().slice(26)} ${UDP}`, // to a group
      `${four().replace('0a020002', 'e0000001')} ${UDP}`,
      `${four().replace('0a010002 0a02', '00000000 0a02')} ${UDP}`, // from nobody
      four(), // cut short
    ])
      expect(answer(frame, ROUTE.ended), frame).toBeNull();
    expect(answer(`${four()} ${UDP}`, 9)).toBeNull();
    expect(answer(`${four('01')} 08000000 00000000 0000`, ROUTE.ended)).not.toBeNull();
  });

  it('may be anything: nothing is read that is not there', () => {
    const head = fc.constantFrom(four().slice(0, 40), six(), four(), '');
    fc.assert(
      fc.property(head, fc.uint8Array({ maxLength: 80 }), fc.nat(5), (start, rest, why) => {
        answer(`${start} ${Buffer.from(rest).toString('hex')}`, why);
      }),
    );
  });
});

it('what a policy rejects of another network goes back by the gateway', () => {
  const fields = new Map<FieldName, bigint>([
    [REG.network, 2n],
    [REG.out, 7n],
  ]);
  const routed = four().replace(SENDER, '025c00000001').replace(GATEWAY, '02580a020002');
  const back = answerOf({ data: hex(`${routed} ${UDP}`), fields, table: TABLE.policyIngress });
  expect(Buffer.from(back!.data).subarray(0, 12).toString('hex')).toBe(`${GATEWAY}02580a020002`);
  expect(back).toMatchObject({ inPort: 7 });
});
