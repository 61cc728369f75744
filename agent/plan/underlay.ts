/** What is to be done to the queues of the underlay's interface, and what was there before. Pure. */
import {
  type ClassTree,
  classLine,
  classText,
  type FoundTree,
  filterLines,
  filterText,
  isOurRoot,
  isSameClass,
  isSameLeaf,
  isWhole,
  leafLine,
  leafText,
  treeLines,
  treeText,
} from '../shaping/classes.ts';
import type { Planned } from './planned.ts';

/** A queue that somebody has set, as tc takes it back. */
export interface SetQueue {
  readonly handle: string;
  /** Kind and options, for tc. */
  readonly args: string;
}

/** Remembered on disk from before ours is set until the other is back. */
export interface Before {
  readonly interface: string;
  readonly ifindex: number;
  /** The kernel's boot id: after another boot the interface has what it is then given. */
  readonly boot: string;
  /** Null: what the kernel gives every interface. */
  readonly queue: SetQueue | null;
}

/** What is at the root of an interface. */
export type FoundRoot =
  | { readonly kind: 'ours' }
  /** The kernel's own choice. */
  | { readonly kind: 'default' }
  /** One queue, which can be put back. */
  | { readonly kind: 'set'; readonly queue: SetQueue }
  /** It cannot; in tc's words. */
  | { readonly kind: 'foreign'; readonly text: string };

/** An interface; `root` says what is to be made of its queues. */
export interface FoundInterface extends FoundTree {
  readonly root: FoundRoot;
}

export interface UnderlayStep {
  readonly interface: string;
  /** Of `tc -batch`. */
  readonly lines: readonly string[];
  /** What takes it back where that is not to stay half done; empty: nothing. */
  readonly undo: readonly string[];
}

export interface UnderlayPlan {
  /** What is to be remembered before anything is done, and after. */
  readonly during: readonly Before[];
  readonly after: readonly Before[];
  readonly planned: readonly Planned<UnderlayStep>[];
  /** A sentence; empty: all can be done. */
  readonly problem: string;
}

/**
 * @param wanted null: nothing is to be shaped; undefined: the interface is not known just now, and nothing is given back
 * @param found by interface: each that has or is to have a tree of ours
 */
export function planUnderlay(
  wanted: { readonly interface: string; readonly tree: ClassTree } | null | undefined,
  found: ReadonlyMap<string, FoundInterface>,
  known: readonly Before[],
  boot: string,
): UnderlayPlan {
  const planned: Planned<UnderlayStep>[] = [];
  const during: Before[] = [];
  const after: Before[] = [];
  let problem = '';
  for (const [name, have] of found) {
    const remembered = known.find((b) => b.ifindex === have.ifindex && b.boot === boot);
    const isOurs = have.root.kind === 'ours';
    if (wanted?.interface !== name) {
      if (!isOurs) continue;
      if (remembered !== undefined) during.push(remembered);
      if (wanted !== undefined) planned.push(givenBack(name, remembered?.queue ?? null));
      else if (remembered !== undefined) after.push(remembered);
      continue;
    }
    if (have.root.kind === 'foreign') {
      for (const list of [during, after]) if (remembered !== undefined) list.push(remembered);
      problem = refusal(name, have.root.text);
      continue;
    }
    const queue = have.root.kind === 'set' ? have.root.queue : null;
    const before = remembered ?? { interface: name, ifindex: have.ifindex, boot, queue };
    during.push(before);
    after.push(before);
    planned.push(...(isOurs ? mended(name, wanted.tree, have) : [taken(name, wanted.tree, have, before)]));
  }
  return { during, after, planned, problem };
}

export const refusal = (name: string, text: string): string =>
  `${name} is not shaped: its queue, ${text}, is somebody else's, and could not be put back. ` +
  `Remove it (tc qdisc del dev ${name} root), or run the agent without underlay.shape.`;

const named = (id: string) => ({ kind: 'queue', id, object: id });

/** The kernel puts its own in place when the root goes. */
const backLines = (name: string, queue: SetQueue | null): string[] => [
  queue === null ? `qdisc del dev ${name} root` : `qdisc replace dev ${name} root handle ${queue.handle} ${queue.args}`,
];

const givenBack = (name: string, queue: SetQueue | null): Planned<UnderlayStep> => ({
  ...named(name),
  change: 'extra',
  want: '',
  have: 'htb',
  step: { interface: name, lines: backLines(name, queue), undo: [] },
});

function taken(name: string, tree: ClassTree, have: FoundInterface, before: Before): Planned<UnderlayStep> {
  const there = have.root.kind === 'set' ? `${have.root.queue.handle} ${have.root.queue.args}` : '';
  return {
    ...named(name),
    change: there === '' ? 'missing' : 'differs',
    want: treeText(tree),
    have: there,
    step: { interface: name, lines: treeLines(name, tree, false), undo: backLines(name, before.queue) },
  };
}

/** Piece by piece, so that what waits in the others stays. */
function mended(name: string, tree: ClassTree, have: FoundInterface): Planned<UnderlayStep>[] {
  const root = have.qdiscs.find((q) => q.parent === null);
  const known = new Set(tree.classes.map((c) => c.id));
  const others = have.classes.filter((c) => !known.has(c.id)).map((c) => c.id);
  const step = (...lines: string[]): UnderlayStep => ({ interface: name, lines, undo: [] });
  // A default, and a class that is in the way of others, cannot be changed where they are.
  if (!isWhole(root) || others.length > 0) {
    const said = [`htb default ${String(root?.options['default'])}`, ...others.map((id) => `class ${id}`)].join(', ');
    const all = { ...named(name), change: 'differs', want: treeText(tree), have: said } as const;
    return [{ ...all, step: step(...treeLines(name, tree, true)) }];
  }
  const out: Planned<UnderlayStep>[] = [];
  for (const c of tree.classes) {
    const there = have.classes.find((one) => one.id === c.id);
    if (there !== undefined && isSameClass(c, there)) continue;
    const said =
      there === undefined
        ? ''
        : `htb prio ${there.prio} rate ${there.rate} ceil ${there.ceil} burst ${there.burst}b cburst ${there.cburst}b`;
    const change = there === undefined ? 'missing' : 'differs';
    out.push({ ...named(`${name} ${c.id}`), change, want: classText(c), have: said, step: step(classLine(name, c)) });
  }
  for (const l of tree.leaves) {
    const there = have.qdiscs.find((q) => q.parent === l.classId);
    if (there !== undefined && isSameLeaf(l, there)) continue;
    const first = there === undefined || there.handle === '0:' ? [] : [`qdisc del dev ${name} parent ${l.classId}`];
    const said = there === undefined ? '' : `${there.kind} ${there.handle} ${JSON.stringify(there.options)}`;
    const change = there === undefined ? 'missing' : 'differs';
    const lines = step(...first, leafLine(name, l));
    out.push({ ...named(`${name} ${l.classId} ${l.handle}`), change, want: leafText(l), have: said, step: lines });
  }
  const filters = tree.filters.map(filterText);
  if (filters.join() !== have.filters.join())
    out.push({
      ...named(`${name} filters`),
      change: have.filters.length === 0 ? 'missing' : 'differs',
      want: filters.join(', '),
      have: have.filters.join(', '),
      step: step(...filterLines(name, tree.filters, have.filters.length > 0)),
    });
  return out;
}

/** Kinds that are trees, or that give each of the card's queues one of its own: what is in them tc does not show in one line. */
const TREES: ReadonlySet<string> = new Set(
  'htb hfsc prio drr qfq ets cbq dsmark multiq mq mqprio taprio atm teql'.split(' '),
);

/**
 * What the queues of an interface are, as far as that can be said without trying; `try`: one queue, if tc takes back what it shows of it.
 */
export function rootOf({ qdiscs, filters }: FoundTree): FoundRoot | { readonly kind: 'try'; readonly handle: string } {
  const root = qdiscs.find((q) => q.parent === null);
  if (isOurRoot(root)) return { kind: 'ours' };
  const set = qdiscs.filter((q) => q.handle !== '0:');
  if (set.length === 0 && filters.length === 0) return { kind: 'default' };
  const [one] = set;
  const foreign = { kind: 'foreign', text: `${one?.kind ?? root?.kind ?? ''} ${one?.handle ?? ''}`.trim() } as const;
  if (root === undefined || one !== root || set.length > 1 || filters.length > 0 || TREES.has(root.kind))
    return foreign;
  return { kind: 'try', handle: root.handle };
}

/**
 * Of `tc -r qdisc show dev …`: what tc may take for the root that it shows, to be tried in this order. It writes a "p" behind numbers of
 * packets and numbers of the kernel in brackets, and takes neither; tbf shows its limit twice; pfifo_fast shows what it need not be told.
 */
export function argsOf(text: string): string[] {
  const m = /^qdisc (\S+) \S+ root (?:refcnt \d+ )?(.*)$/m.exec(text);
  if (m === null) return [];
  const [, kind = '', shown = ''] = m;
  const options = shown.replace(/\[\w+\]/g, '').replace(/\b(\d+)p\b/g, '$1');
  const all = [options, options.replace(/\blat \S+/, ''), ''];
  return [...new Set(all.map((o) => `${kind} ${o}`.replace(/\s+/g, ' ').trim()))];
}
