import { describe, expect, it } from 'vitest';
import {
  classTree,
  type FoundQdisc,
  filterText,
  isSameClass,
  parseClasses,
  parseFilters,
  parseQdiscs,
  rateText,
  treeLines,
} from '../../../agent/shaping/classes.ts';

const TREE = classTree(200e6, 'fq_codel');
const HTB: FoundQdisc = { kind: 'htb', handle: '57ef:', parent: null, options: { r2q: 10, default: '0x20' } };

describe('the tree', () => {
  it('guarantees shares that are the whole together; each may have all', () => {
    const [root, ...leaves] = TREE.classes;
    expect(root).toMatchObject({ id: '57ef:1', parent: 'root', rate: 200e6, ceil: 200e6, prio: null });
    expect(leaves.map(({ rate, ceil, prio }) => [rate, ceil, prio])).toEqual([
      [100e6, 200e6, 0],
      [80e6, 200e6, 1],
      [20e6, 200e6, 2],
    ]);
  });

  it('is told apart by the outer class, IPv4 and IPv6', () => {
    const filters = TREE.filters.map(filterText);
    // AF41 is 34: 0x88 in IPv4's second byte, 0x880 in the 12 bits after IPv6's version.
    expect(filters).toContain('ip 00880000/00fc0000 57ef:10');
    expect(filters).toContain('ipv6 08800000/0fc00000 57ef:10');
    expect(filters).toContain('ip 00040000/00fc0000 57ef:30');
    expect(filters).toContain('ipv6 00400000/0fc00000 57ef:30');
    expect(filters).toHaveLength(10);
  });

  it('is set from the root down', () => {
    const lines = treeLines('eth0', TREE, false);
    expect(lines.map((line) => line.split(' ').slice(0, 2).join(' '))).toEqual([
      'qdisc replace',
      ...Array.from({ length: 4 }, () => 'class replace'),
      ...Array.from({ length: 3 }, () => 'qdisc replace'),
      ...Array.from({ length: 10 }, () => 'filter add'),
    ]);
    expect(lines[0]).toBe('qdisc replace dev eth0 root handle 57ef: htb default 0x20');
    expect(lines[2]).toBe(
      'class replace dev eth0 parent 57ef:1 classid 57ef:10 ' +
        'htb prio 0 rate 100000000bit ceil 200000000bit burst 50000b cburst 100000b quantum 1514',
    );
    expect(lines[5]).toBe(
      'qdisc replace dev eth0 parent 57ef:10 handle 57e1: fq_codel limit 10240 target 5000us interval 100000us',
    );
    expect(lines[8]).toBe(
      'filter add dev eth0 parent 57ef: protocol ip pref 1 u32 match u32 0x00880000 0x00fc0000 at 0 classid 57ef:10',
    );
    expect(treeLines('eth0', TREE, true)[0]).toBe('qdisc del dev eth0 root');
  });

  it('lets a frame of a slow class wait for itself, and bounds what waits without fq_codel', () => {
    expect(classTree(1e6, 'fq_codel').leaves[2]).toMatchObject({ targetUs: 181_680, intervalUs: 181_680 });
    expect(classTree(1e6, 'bfifo').leaves[2]).toMatchObject({ limit: 131_072 });
    expect(classTree(10e9, 'bfifo').leaves[0]).toMatchObject({ limit: 62_500_000 });
  });
});

describe('what tc says', () => {
  it('of queues', () => {
    const all = [
      { ...HTB, dev: 'eth0', root: true, parent: undefined },
      { kind: 'fq_codel', handle: '57e1:', dev: 'eth0', parent: '57ef:10', options: { limit: 10240 } },
      { kind: 'clsact', handle: 'ffff:', dev: 'eth0', parent: 'ffff:fff1', options: {} },
    ];
    expect(parseQdiscs(JSON.stringify(all)).get('eth0')).toEqual([
      HTB,
      { kind: 'fq_codel', handle: '57e1:', parent: '57ef:10', options: { limit: 10240 } },
    ]);
    expect(parseQdiscs('').size).toBe(0);
  });

  it('of classes', () => {
    const text = `class htb 57ef:10 parent 57ef:1 leaf 57e1: prio 0 rate 100Mbit ceil 200Mbit burst 49987b cburst 97Kb
class htb 57ef:1 root rate 200Mbit ceil 200Mbit burst 100000b cburst 2Mb
class fq_codel 57e1:1a4 parent 57e1: `;
    const found = parseClasses(text);
    expect(found).toEqual([
      { id: '57ef:10', parent: '57ef:1', prio: 0, rate: '100Mbit', ceil: '200Mbit', burst: 49_987, cburst: 99_328 },
      { id: '57ef:1', parent: 'root', prio: null, rate: '200Mbit', ceil: '200Mbit', burst: 100_000, cburst: 2 ** 21 },
    ]);
    const [, high] = TREE.classes;
    const [same] = found;
    if (high === undefined || same === undefined) throw new Error('none');
    expect(isSameClass(high, same)).toBe(true);
    for (const other of [{ rate: '99Mbit' }, { ceil: '100Mbit' }, { prio: 1 }, { burst: 9e4 }, { parent: 'root' }])
      expect(isSameClass(high, { ...same, ...other })).toBe(false);
  });

  it.each([
    [200e6, '200Mbit'],
    [1_500_000, '1500Kbit'],
    [123_456_784, '123456Kbit'],
    [1_234_567_888, '1234Mbit'],
    [10e9, '10Gbit'],
    [999, '999bit'],
  ])('of rates: %d is %s', (bits, text) => {
    expect(rateText(bits)).toBe(text);
  });

  it('of filters, others’ too', () => {
    const text = `filter parent 57ef: protocol ip pref 1 u32 chain 0
filter parent 57ef: protocol ip pref 1 u32 chain 0 fh 800: ht divisor 1
filter parent 57ef: protocol ip pref 1 u32 chain 0 fh 800::800 order 2048 key ht 800 bkt 0 *flowid 57ef:10 not_in_hw
  match 00880000/00fc0000 at 0
filter parent 57ef: protocol ip pref 1 u32 chain 0 fh 800::801 order 2049 key ht 800 bkt 0 *flowid 57ef:10 not_in_hw
  match 00b80000/00fc0000 at 0
  match 00000016/0000ffff at 20
filter parent 57ef: protocol all pref 8 bpf chain 0
filter parent 57ef: protocol all pref 8 bpf chain 0 handle 0x1 flowid 57ef:10 not_in_hw bytecode '1,6 0 0 22'
`;
    expect(parseFilters(text)).toEqual([
      'ip 00880000/00fc0000 57ef:10',
      expect.stringContaining('match 00000016/0000ffff at 20'),
      expect.stringContaining('bytecode'),
    ]);
    expect(parseFilters('')).toEqual([]);
  });
});
