import { describe, expect, it } from 'vitest';
import { compile } from '../../../agent/ovs/compile.ts';
import { applyUpdates, emptyRows, type Rows } from '../../../agent/ovs/rows.ts';
import { type OvsStep, stateOf } from '../../../agent/ovs/steps.ts';

const rows = (): Rows => {
  const found = emptyRows();
  applyUpdates(found, {
    Open_vSwitch: { root: { new: { bridges: ['uuid', 'b1'], cur_cfg: 3, next_cfg: 3 } } },
    Bridge: {
      b1: {
        new: {
          name: 'br',
          ports: ['set', [['uuid', 'p1']]],
          datapath_type: 'netdev',
          fail_mode: 'secure',
          external_ids: ['map', [['a', 'b']]],
        },
      },
    },
    Port: { p1: { new: { name: 'v1', interfaces: ['uuid', 'i1'], tag: ['set', []] } } },
    Interface: {
      i1: {
        new: { name: 'v1', type: '', ofport: 4, error: ['set', []], options: ['map', []], ingress_policing_rate: 7 },
      },
    },
  });
  return found;
};
const add = (name: string, bridge = 'br'): OvsStep => ({
  kind: 'addPort',
  bridge,
  name,
  type: '',
  options: {},
  externalIds: {},
});
const tables = (steps: OvsStep[], from = rows()): string[] =>
  compile(steps, from).operations.map((op) => `${op.op} ${op.table}`);

describe('compile', () => {
  it('nothing makes nothing', () => {
    expect(compile([], rows())).toEqual({ operations: [], expects: [] });
  });

  it('adds, sets, moves, removes a port', () => {
    expect(tables([add('v2')])).toEqual(['insert Interface', 'insert Port', 'mutate Bridge']);
    expect(compile([add('v1')], rows())).toEqual({
      operations: [
        {
          op: 'update',
          table: 'Interface',
          where: [['_uuid', '==', ['uuid', 'i1']]],
          row: {
            type: '',
            options: ['map', []],
            external_ids: ['map', []],
            mtu_request: ['set', []],
            ingress_policing_rate: 0,
            ingress_policing_burst: 0,
          },
        },
      ],
      expects: [0],
    });
    expect(tables([{ kind: 'delPort', bridge: 'br', name: 'v1' }])).toEqual(['mutate Bridge']);
    expect(tables([{ kind: 'delPort', bridge: 'br', name: 'v9' }])).toEqual([]);
    expect(tables([{ kind: 'delPort', bridge: 'other', name: 'v1' }])).toEqual([]);
  });

  it('later steps win', () => {
    expect(tables([add('v2'), { kind: 'delPort', bridge: 'br', name: 'v2' }])).toEqual([]);
    expect(tables([{ kind: 'delPort', bridge: 'br', name: 'v1' }, add('v1')])).toEqual(['update Interface']);
    expect(tables([add('v2'), { kind: 'delBridge', name: 'br' }])).toEqual(['mutate Open_vSwitch']);
    const { operations } = compile(
      [add('v2'), { kind: 'setPort', bridge: 'br', name: 'v2', mtuRequest: 1400 }],
      rows(),
    );
    expect(operations).toHaveLength(3);
    expect(operations[0]).toMatchObject({ op: 'insert', row: { mtu_request: 1400 } });
  });

  it('makes the root row where there is none, and a bridge with its local port', () => {
    const bridge: OvsStep = {
      kind: 'ensureBridge',
      name: 'n',
      datapathType: '',
      failMode: 'secure',
      externalIds: {},
      otherConfig: {},
    };
    expect(tables([bridge], emptyRows())).toEqual([
      'insert Open_vSwitch',
      'insert Interface',
      'insert Port',
      'insert Bridge',
      'mutate Open_vSwitch',
    ]);
    expect(tables([{ ...bridge, name: 'br' }])).toEqual(['update Bridge']);
  });

  it('refuses what has no place', () => {
    expect(() => compile([add('v2', 'none')], rows())).toThrow(expect.objectContaining({ code: 'NOT_FOUND' }));
    const set: OvsStep = { kind: 'setPort', bridge: 'br', name: 'v2' };
    expect(() => compile([set], rows())).toThrow(expect.objectContaining({ code: 'NOT_FOUND' }));
  });
});

describe('rows', () => {
  it('become bridges with ports', () => {
    const { bridges } = stateOf(rows());
    expect(bridges.get('br')).toMatchObject({ datapathType: 'netdev', failMode: 'secure', externalIds: { a: 'b' } });
    expect(bridges.get('br')?.ports.get('v1')).toMatchObject({
      ofport: 4,
      error: null,
      ingress: { rate: 7, burst: 0 },
    });
  });

  it('tell changes from counters', () => {
    const cached = rows();
    const root = { bridges: ['uuid', 'b1'], cur_cfg: 4, next_cfg: 4 };
    expect(applyUpdates(cached, { Open_vSwitch: { root: { old: { cur_cfg: 3 }, new: root } } })).toBe(false);
    expect(applyUpdates(cached, { Open_vSwitch: { root: { old: { bridges: ['set', []] }, new: root } } })).toBe(true);
    expect(applyUpdates(cached, { Unknown: { x: { new: {} } } })).toBe(false);
    expect(applyUpdates(cached, { Port: { p1: { old: { name: 'v1' } } } })).toBe(true);
    expect(stateOf(cached).bridges.get('br')?.ports.size).toBe(0);
  });
});
