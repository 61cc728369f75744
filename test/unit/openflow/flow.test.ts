import fc from 'fast-check';
import { describe, expect, it } from 'vitest';
import {
  type Action,
  canonicalMatch,
  type Flow,
  flowEquals,
  flowKey,
  type MatchField,
  OFPP,
} from '../../../agent/openflow/flow.ts';
import { formatActions, formatFlow, formatFlowKey, formatMatch } from '../../../agent/openflow/format.ts';
import { formatEth, formatIpv4, formatIpv6 } from '../../../agent/openflow/values.ts';
import { flows } from './arbitrary.ts';

const flow = (more: Partial<Flow> = {}): Flow => ({
  table: 0,
  priority: 1,
  cookie: 0n,
  match: [],
  actions: [],
  ...more,
});

describe('flowKey', () => {
  it('does not depend on the order of fields, nor on how masks are written', () => {
    fc.assert(
      fc.property(flows, (one) => {
        const other = { ...one, match: [...one.match].reverse(), cookie: 0n, actions: [] };
        expect(flowKey(other)).toBe(flowKey(one));
        expect(flowKey({ ...one, match: canonicalMatch(one.match) })).toBe(flowKey(one));
      }),
    );
    const key = (match: MatchField[]): string => flowKey(flow({ match }));
    expect(key([{ field: 'reg0', value: 5n, mask: 0xffffffffn }])).toBe(key([{ field: 'reg0', value: 5n }]));
    expect(key([{ field: 'reg0', value: 5n, mask: 0n }])).toBe(key([]));
    expect(key([{ field: 'reg0', value: 0xffn, mask: 0xf0n }])).toBe(
      key([{ field: 'reg0', value: 0xf0n, mask: 0xf0n }]),
    );
    expect(key([{ field: 'xreg1', value: 0x1_0000_0002n }])).toBe(
      key([
        { field: 'reg3', value: 2n },
        { field: 'reg2', value: 1n },
      ]),
    );
    expect(key([{ field: 'vlan_tci', value: 0x1005n, mask: 0x1fffn }])).toBe(
      key([{ field: 'vlan_vid', value: 0x1005n }]),
    );
  });

  it('tells tables, priorities and matches apart', () => {
    const keys = [
      flow(),
      flow({ table: 1 }),
      flow({ priority: 2 }),
      flow({ match: [{ field: 'reg0', value: 1n }] }),
      flow({ match: [{ field: 'reg1', value: 1n }] }),
      flow({ match: [{ field: 'reg0', value: 1n, mask: 1n }] }),
      flow({ match: [{ field: 'raw', raw: '00' }] }),
    ].map(flowKey);
    expect(new Set(keys).size).toBe(keys.length);
  });
});

describe('flowEquals', () => {
  const base = flow({
    actions: [
      { type: 'set_field', field: 'reg0', value: 1n },
      { type: 'ct', table: 3, zone: 4 },
    ],
  });
  it('holds for spellings of the same', () => {
    const same = (a: Action, b: Action): boolean => flowEquals(flow({ actions: [a] }), flow({ actions: [b] }));
    expect(same({ type: 'output', port: OFPP.IN_PORT }, { type: 'in_port' })).toBe(true);
    expect(same({ type: 'output_reg', field: 'reg1' }, { type: 'output_reg', field: 'reg1', ofs: 0, nBits: 32 })).toBe(
      true,
    );
    expect(same({ type: 'ct', commit: false }, { type: 'ct' })).toBe(true);
    expect(
      same(
        { type: 'set_field', field: 'reg1', value: 1n, mask: 0xffffffffn },
        { type: 'set_field', field: 'reg1', value: 1n },
      ),
    ).toBe(true);
    expect(flowEquals(base, { ...base, idleTimeout: 0 })).toBe(true);
  });
  it.each<[string, Partial<Flow>]>([
    ['cookie', { cookie: 1n }],
    ['timeout', { idleTimeout: 1 }],
    ['flags', { flags: 1 }],
    ['fewer actions', { actions: base.actions.slice(1) }],
    ['order of actions', { actions: [...base.actions].reverse() }],
    ['value', { actions: [{ type: 'set_field', field: 'reg0', value: 2n }, base.actions[1]!] }],
    ['zone', { actions: [base.actions[0]!, { type: 'ct', table: 3, zone: { field: 'reg1', ofs: 0, nBits: 16 } }] }],
    ['commit', { actions: [base.actions[0]!, { type: 'ct', table: 3, zone: 4, commit: true }] }],
    ['priority', { priority: 9 }],
  ])('sees another %s', (_name, change) => {
    expect(flowEquals(base, { ...base, ...change })).toBe(false);
    expect(flowEquals({ ...base, ...change }, base)).toBe(false);
  });
});

describe('text', () => {
  it('is what ovs-ofctl prints', () => {
    const responder = flow({
      table: 2,
      priority: 100,
      cookie: 0xabcn,
      match: [
        { field: 'arp_tpa', value: 0x0a800040n, mask: 0xffffffc0n },
        { field: 'arp_op', value: 1n },
        { field: 'reg1', value: 7n },
        { field: 'eth_type', value: 0x0806n },
      ],
      actions: [
        { type: 'move', src: 'eth_src', srcOfs: 0, dst: 'eth_dst', dstOfs: 0, nBits: 48 },
        { type: 'set_field', field: 'eth_src', value: 0x0258_0000_0000n },
        { type: 'move', src: 'arp_tpa', srcOfs: 0, dst: 'eth_src', dstOfs: 0, nBits: 32 },
        { type: 'set_field', field: 'arp_op', value: 2n },
        { type: 'in_port' },
      ],
    });
    expect(formatFlow(responder)).toBe(
      'cookie=0xabc, table=2, priority=100,arp,reg1=0x7,arp_tpa=10.128.0.64/26,arp_op=1 ' +
        'actions=move:NXM_OF_ETH_SRC[]->NXM_OF_ETH_DST[],set_field:02:58:00:00:00:00->eth_src,' +
        'move:NXM_OF_ARP_TPA[]->NXM_OF_ETH_SRC[0..31],set_field:2->arp_op,IN_PORT',
    );
    expect(formatFlowKey(responder)).toBe('table=2,priority=100,arp,reg1=0x7,arp_tpa=10.128.0.64/26,arp_op=1');
    expect(formatFlow(flow({ priority: 32768 }))).toBe('actions=drop');
    expect(formatFlow(flow({ priority: 0 }))).toBe('priority=0 actions=drop');
    expect(formatMatch([])).toBe('');
    expect(formatActions([{ type: 'raw', raw: '00' }])).toBe('raw:00');
  });

  it('exists for every flow', () => {
    fc.assert(
      fc.property(flows, (any) => {
        expect(formatFlow(any)).toMatch(/actions=.+$/);
      }),
    );
  });

  it('writes addresses as the C library does', () => {
    expect(formatIpv4(0x0a0000ffn)).toBe('10.0.0.255');
    expect(formatEth(0x25800n)).toBe('00:00:00:02:58:00');
    for (const [value, text] of [
      [0n, '::'],
      [1n, '::1'],
      [0x1_0000n, '::0.1.0.0'],
      [0xffff_0102_0304n, '::ffff:1.2.3.4'],
      [0x2001_0db8n << 96n, '2001:db8::'],
      [0x2001_0000_0000_0001_0000_0000_0000_0001n, '2001:0:0:1::1'],
      [0x0001_0000_0002_0003_0004_0005_0006_0007n, '1:0:2:3:4:5:6:7'],
    ] as const) {
      expect(formatIpv6(value)).toBe(text);
    }
  });
});
