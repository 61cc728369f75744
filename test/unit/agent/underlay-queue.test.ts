import { mkdtemp, readFile, rm } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterEach, beforeEach, describe, expect, it } from 'vitest';
import {
  argsOf,
  type Before,
  type FoundInterface,
  type FoundRoot,
  planUnderlay,
  rootOf,
} from '../../../agent/plan/underlay.ts';
import {
  type ClassTree,
  classTree,
  type FoundClass,
  type FoundQdisc,
  filterText,
  type LeafKind,
  rateText,
  treeLines,
} from '../../../agent/shaping/classes.ts';
import { UnderlayShaper } from '../../../agent/underlay-shaper.ts';
import { WeftError } from '../../../lib/errors.ts';
import { silentLog } from '../../../lib/log.ts';
import type { Drift } from '../../../lib/model.ts';

const TREE = classTree(200e6, 'fq_codel');
const HTB: FoundQdisc = { kind: 'htb', handle: '57ef:', parent: null, options: { r2q: 10, default: '0x20' } };
const NONE: FoundQdisc = { kind: 'noqueue', handle: '0:', parent: null, options: {} };

/** What tc would show where a tree is set. */
function shown(tree: ClassTree, more: Partial<FoundInterface> = {}): FoundInterface {
  const leaves = tree.leaves.map((l): FoundQdisc => {
    const options =
      l.kind === 'bfifo'
        ? { limit: l.limit }
        : { limit: 10_240, flows: 1024, target: l.targetUs - 1, interval: l.intervalUs - 1 };
    return { kind: l.kind, handle: l.handle, parent: l.classId, options };
  });
  const classes = tree.classes.map(
    (c): FoundClass => ({ ...c, rate: rateText(c.rate), ceil: rateText(c.ceil), burst: c.burst - 10 }),
  );
  const filters = tree.filters.map(filterText);
  return { ifindex: 7, root: { kind: 'ours' }, qdiscs: [HTB, ...leaves], classes, filters, ...more };
}
const bare = (root: FoundRoot = { kind: 'default' }, ifindex = 7): FoundInterface => ({
  ifindex,
  root,
  qdiscs: [NONE],
  classes: [],
  filters: [],
});
const kept = (more: Partial<Before> = {}): Before => ({
  interface: 'eth0',
  ifindex: 7,
  boot: 'b1',
  queue: null,
  ...more,
});
const WANTED = { interface: 'eth0', tree: TREE };
const plan = (have: FoundInterface, known: Before[] = [], wanted: typeof WANTED | null | undefined = WANTED) =>
  planUnderlay(wanted, new Map([['eth0', have]]), known, 'b1');
const linesOf = (p: ReturnType<typeof plan>): string[] => p.planned.flatMap(({ step }) => step.lines);

describe('what was there before', () => {
  const root = (qdiscs: Partial<FoundQdisc>[], filters: string[] = []) =>
    rootOf({ ifindex: 7, classes: [], filters, qdiscs: qdiscs.map((q) => ({ ...NONE, ...q })) });

  it('is the kernel’s own, one queue, or a tree of somebody', () => {
    expect(root([{}])).toEqual({ kind: 'default' });
    expect(root([{ kind: 'mq' }, { kind: 'fq_codel', parent: ':1' }])).toEqual({ kind: 'default' });
    expect(root([{ kind: 'fq', handle: '8001:' }])).toEqual({ kind: 'try', handle: '8001:' });
    expect(root([HTB])).toEqual({ kind: 'ours' });
    for (const [all, text] of [
      [[{ kind: 'htb', handle: '1:' }], 'htb 1:'],
      [[{ kind: 'mq' }, { kind: 'fq', handle: '8002:', parent: ':1' }], 'fq 8002:'],
      [
        [
          { kind: 'mq', handle: '1:' },
          { kind: 'fq', parent: '1:1' },
        ],
        'mq 1:',
      ],
      [
        [
          { kind: 'tbf', handle: '1:' },
          { kind: 'netem', handle: '2:', parent: '1:1' },
        ],
        'tbf 1:',
      ],
    ] as const)
      expect(root([...all])).toEqual({ kind: 'foreign', text });
    expect(root([{ kind: 'fq', handle: '1:' }], ['ip … flowid 1:1'])).toEqual({ kind: 'foreign', text: 'fq 1:' });
  });

  it('is what tc takes, out of what it shows', () => {
    expect(argsOf('qdisc fq_codel 8001: root refcnt 2 limit 10240p flows 1024 quantum 1514 target 5ms ecn \n')).toEqual(
      ['fq_codel limit 10240 flows 1024 quantum 1514 target 5ms ecn', 'fq_codel'],
    );
    expect(argsOf('qdisc clsact ffff: parent ffff:fff1\nqdisc pfifo 9: root refcnt 3 limit 7p')[0]).toBe(
      'pfifo limit 7',
    );
    const tbf = 'qdisc tbf 1:[00010000] root refcnt 3 rate 10Mbit burst 10Kb [0001f400] lat 73.7ms limit 100Kb \n';
    expect(argsOf(tbf)[1]).toBe('tbf rate 10Mbit burst 10Kb limit 100Kb');
    expect(argsOf('')).toEqual([]);
  });
});

describe('the plan', () => {
  it('is nothing where all is as it is wanted, and where nothing is wanted or ours', () => {
    expect(plan(shown(TREE), [kept()])).toEqual({
      during: [kept()],
      after: [kept()],
      planned: [],
      problem: '',
    });
    for (const root of [{ kind: 'default' }, { kind: 'foreign', text: 'htb 1:' }] as const)
      expect(plan(bare(root), [], null)).toEqual({ during: [], after: [], planned: [], problem: '' });
    expect(planUnderlay(WANTED, new Map(), [kept()], 'b1').planned).toEqual([]);
  });

  it('remembers what was there, and takes half a tree back', () => {
    const queue = { handle: '9:', args: 'pfifo limit 7' };
    const taken = plan(bare({ kind: 'set', queue }));
    expect(taken.during).toEqual([kept({ queue })]);
    expect(taken.planned).toMatchObject([
      { kind: 'queue', object: 'eth0', change: 'differs', have: '9: pfifo limit 7', step: { interface: 'eth0' } },
    ]);
    expect(taken.planned[0]?.step.undo).toEqual(['qdisc replace dev eth0 root handle 9: pfifo limit 7']);
    expect(plan(bare()).planned[0]).toMatchObject({ change: 'missing', step: { undo: ['qdisc del dev eth0 root'] } });
  });

  it('forgets nothing when somebody takes the tree away; of another interface, or after a boot, it looks anew', () => {
    const queue = { handle: '9:', args: 'pfifo limit 7' };
    expect(plan(bare(), [kept({ queue })]).after).toEqual([kept({ queue })]);
    expect(plan(bare({ kind: 'default' }, 8), [kept({ queue })]).after).toEqual([kept({ ifindex: 8 })]);
    expect(plan(bare(), [kept({ queue, boot: 'b0' })]).after).toEqual([kept()]);
  });

  it('leaves alone what cannot be put back, and says what to do', () => {
    const refused = plan(bare({ kind: 'foreign', text: 'hfsc 1:' }));
    expect(refused.planned).toEqual([]);
    expect(refused.problem).toMatch(/^eth0 is not shaped: its queue, hfsc 1:, .*tc qdisc del dev eth0 root/);
    expect(plan(bare({ kind: 'foreign', text: 'hfsc 1:' }), [kept()]).after).toEqual([kept()]);
  });

  it('gives back what was there, also where nothing of it is known', () => {
    const queue = { handle: '9:', args: 'pfifo limit 7' };
    const back = plan(shown(TREE), [kept({ queue })], null);
    expect(back).toMatchObject({ during: [kept({ queue })], after: [], problem: '' });
    expect(linesOf(back)).toEqual(['qdisc replace dev eth0 root handle 9: pfifo limit 7']);
    expect(linesOf(plan(shown(TREE), [], null))).toEqual(['qdisc del dev eth0 root']);
    // The VTEP is on another interface now.
    const moved = planUnderlay(
      { interface: 'eth1', tree: TREE },
      new Map([
        ['eth0', shown(TREE)],
        ['eth1', bare({ kind: 'default' }, 8)],
      ]),
      [kept({ queue })],
      'b1',
    );
    expect(moved.planned.map((p) => `${p.object} ${p.change}`)).toEqual(['eth0 extra', 'eth1 missing']);
    expect(moved.after).toEqual([kept({ interface: 'eth1', ifindex: 8 })]);
    // Or nowhere just now.
    expect(plan(shown(TREE), [kept({ queue })], undefined)).toMatchObject({
      planned: [],
      after: [kept({ queue })],
    });
  });

  it('mends what differs, piece by piece', () => {
    const have = shown(TREE);
    const changed = (id: string, more: Partial<FoundClass>) =>
      have.classes.map((c) => (c.id === id ? { ...c, ...more } : c));
    const cases: [Partial<FoundInterface>, string, RegExp[]][] = [
      [{ classes: changed('57ef:30', { rate: '1Mbit' }) }, 'eth0 57ef:30 differs', [/^class replace .* 57ef:30 /]],
      [{ classes: have.classes.slice(0, 3) }, 'eth0 57ef:30 missing', [/^class replace .* 57ef:30 /]],
      [
        { qdiscs: have.qdiscs.filter((q) => q.parent !== '57ef:10') },
        'eth0 57ef:10 57e1: missing',
        [/^qdisc replace .* 57e1: /],
      ],
      [
        { qdiscs: have.qdiscs.map((q) => (q.parent === '57ef:10' ? { ...q, kind: 'netem', handle: '2:' } : q)) },
        'eth0 57ef:10 57e1: differs',
        [/^qdisc del dev eth0 parent 57ef:10$/, /^qdisc replace .* 57e1: /],
      ],
      [{ filters: [] }, 'eth0 filters missing', Array.from({ length: 10 }, () => /^filter add /)],
      [
        { filters: have.filters.toReversed() },
        'eth0 filters differs',
        [/^filter del dev eth0 parent 57ef:$/, ...Array.from({ length: 10 }, () => /^filter add /)],
      ],
    ];
    for (const [more, text, lines] of cases) {
      const p = plan(shown(TREE, more), [kept()]);
      expect(p.planned.map(({ object, change }) => `${object} ${change}`)).toEqual([text]);
      expect(linesOf(p)).toHaveLength(lines.length);
      for (const [i, line] of lines.entries()) expect(linesOf(p)[i]).toMatch(line);
    }
    // Another rate is another one of each class, and nothing else.
    const slower = planUnderlay(
      { interface: 'eth0', tree: classTree(100e6, 'fq_codel') },
      new Map([['eth0', have]]),
      [kept()],
      'b1',
    );
    expect(slower.planned.map((one) => one.object)).toEqual([
      'eth0 57ef:1',
      'eth0 57ef:10',
      'eth0 57ef:20',
      'eth0 57ef:30',
    ]);
  });

  it('begins anew where that cannot be', () => {
    const have = shown(TREE);
    const more: FoundClass = { id: '57ef:99', parent: '57ef:1', prio: 0, rate: '', ceil: '', burst: 0, cburst: 0 };
    const other = { ...HTB, options: { default: '0' } };
    for (const there of [{ classes: [...have.classes, more] }, { qdiscs: [other, ...have.qdiscs.slice(1)] }])
      expect(linesOf(plan(shown(TREE, there), [kept()]))).toEqual(treeLines('eth0', TREE, true));
  });
});

describe('the shaper', () => {
  let dir = '';
  beforeEach(async () => {
    dir = await mkdtemp(join(tmpdir(), 'weft-shape-'));
  });
  afterEach(() => rm(dir, { recursive: true, force: true }));

  /** An interface that holds what it is told to, whole. */
  function host(bits: number | null, o: { where?: string; unable?: string; leaf?: LeafKind | Error } = {}) {
    const state = {
      root: { kind: 'default' } as FoundRoot,
      ifindex: 7,
      failNext: false,
      applied: [] as string[][],
      drift: [] as (Drift & { healed: boolean })[],
      problem: null as string | null,
      remembered: [] as unknown[],
    };
    const file = join(dir, 'before.json');
    const read = () => readFile(file, 'utf8').then(JSON.parse, () => []) as Promise<unknown>;
    const queues = {
      boot: () => Promise.resolve('b1'),
      leafKind: () => (o.leaf instanceof Error ? Promise.reject(o.leaf) : Promise.resolve(o.leaf ?? 'fq_codel')),
      observe: () => {
        const have = state.root.kind === 'ours' ? shown(TREE) : bare(state.root);
        return Promise.resolve(new Map([['eth0', { ...have, ifindex: state.ifindex }]]));
      },
      apply: async (lines: readonly string[]) => {
        state.applied.push([...lines]);
        state.remembered.push(await read());
        if (state.failNext) {
          state.failNext = false;
          throw new WeftError('UNAVAILABLE', 'tc: no');
        }
        state.root = lines.at(-1)?.startsWith('filter') ? { kind: 'ours' } : { kind: 'default' };
      },
    };
    const shaper = new UnderlayShaper({
      queues,
      bits,
      where: () => Promise.resolve('where' in o ? o.where : 'eth0'),
      unable: o.unable ?? '',
      file,
      onDrift: (d, _at, healedAt) => state.drift.push({ ...d, healed: healedAt !== null }),
      onProblem: (problem) => {
        state.problem = problem;
      },
      now: () => 1,
      log: silentLog(),
    });
    return { state, shaper, read };
  }

  it('remembers before it changes anything; then there is nothing to do, also for the next agent', async () => {
    const { state, shaper, read } = host(200e6);
    await shaper.start();
    expect(state.applied).toHaveLength(1);
    expect(state.remembered).toEqual([[kept()]]);
    expect(await shaper.audit(true)).toEqual([]);
    const next = host(200e6);
    next.state.root = state.root;
    await next.shaper.start();
    expect([state.applied.length, next.state.applied.length]).toEqual([1, 0]);
    expect(await read()).toEqual([kept()]);
    expect([state.drift, state.problem]).toEqual([[], '']);
  });

  it('what somebody takes away is drift, and comes back; only told of without healing', async () => {
    const { state, shaper } = host(200e6);
    await shaper.start();
    state.root = { kind: 'default' };
    expect(await shaper.audit(false)).toMatchObject([{ kind: 'queue', object: 'eth0', change: 'missing' }]);
    expect([state.applied.length, state.drift.length]).toEqual([1, 0]);
    await shaper.audit(true);
    expect(state.drift).toMatchObject([{ object: 'eth0', healed: true }]);
    expect(state.root.kind).toBe('ours');
    state.root = { kind: 'default' };
    state.failNext = true;
    await shaper.audit(true);
    expect(state.drift.at(-1)?.healed).toBe(false);
    expect(state.problem).toBe('The underlay is not shaped as it should be: tc: no.');
    // What was begun was undone, and is begun again.
    expect(state.applied.at(-1)).toEqual(['qdisc del dev eth0 root']);
    await shaper.audit(true);
    expect([state.root.kind, state.problem]).toEqual(['ours', '']);
  });

  it('an interface that has come back is shaped again, and that is no drift', async () => {
    const { state, shaper, read } = host(200e6);
    await shaper.start();
    Object.assign(state, { root: { kind: 'default' }, ifindex: 9 });
    await shaper.audit(true);
    expect([state.applied.length, state.drift.length]).toEqual([2, 0]);
    expect(await read()).toEqual([kept({ ifindex: 9 })]);
  });

  it('is given back when it is not wanted any more, or cannot be; and nothing is remembered then', async () => {
    for (const next of [host(null), host(200e6, { unable: 'no' })]) {
      const { state, shaper, read } = host(200e6);
      await shaper.start();
      next.state.root = state.root;
      await next.shaper.start();
      expect(next.state.applied).toEqual([['qdisc del dev eth0 root']]);
      expect(await read()).toEqual([]);
      await next.shaper.audit(true);
      expect([next.state.applied.length, next.state.drift.length]).toEqual([1, 0]);
    }
  });

  it('a kernel that cannot is told, and nothing is touched', async () => {
    const { state, shaper } = host(200e6, {
      leaf: new WeftError('FAILED_PRECONDITION', 'no classes', { hint: 'HTB' }),
    });
    await shaper.start();
    expect(state.applied).toEqual([]);
    expect(state.problem).toBe('The underlay is not shaped as it should be: no classes (HTB).');
    const other = host(200e6, { unable: 'it is so' });
    await other.shaper.start();
    expect([other.state.applied, other.state.problem]).toEqual([[], 'The underlay is not shaped: it is so.']);
  });

  it('what cannot be put back is not taken; a file that cannot be read is not forgotten', async () => {
    const { state, shaper, read } = host(200e6);
    state.root = { kind: 'foreign', text: 'htb 1:' };
    await shaper.start();
    expect([state.applied, await read()]).toEqual([[], []]);
    expect(state.problem).toMatch(/^eth0 is not shaped/);
    state.root = { kind: 'default' };
    await shaper.audit(false);
    expect([state.root.kind, state.problem]).toEqual(['ours', '']);
  });
});
