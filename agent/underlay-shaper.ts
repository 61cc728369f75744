/**
 * Keeps the underlay's interface shaped by classes, if that is asked for, and gives back what it had when it is not any more. What was
 * there is on disk before anything is changed. The kernel tells of no change: each audit looks.
 */
import { readFile, rename, rm, writeFile } from 'node:fs/promises';
import { isDeepStrictEqual } from 'node:util';
import { WeftError } from '../lib/errors.ts';
import type { Log } from '../lib/log.ts';
import type { Drift } from '../lib/model.ts';
import { driftOf, type Planned } from './plan/planned.ts';
import {
  type Before,
  type FoundInterface,
  planUnderlay,
  type UnderlayPlan,
  type UnderlayStep,
} from './plan/underlay.ts';
import { classTree, type LeafKind } from './shaping/classes.ts';
import type { UnderlayQueues } from './shaping/underlay.ts';

export interface UnderlayShaperOptions {
  readonly queues: Pick<UnderlayQueues, 'boot' | 'observe' | 'apply' | 'leafKind'>;
  /** Bits per second; null: the underlay is left alone. */
  readonly bits: number | null;
  /** The interface of the VTEP; undefined: there is none just now. */
  readonly where: () => Promise<string | undefined>;
  /** Why frames of this host's tunnels do not come by such a queue; empty: they do. */
  readonly unable: string;
  /** Where it is kept what was there before. */
  readonly file: string;
  readonly onDrift: (drift: Drift, detectedAt: number, healedAt: number | null) => void;
  /** Empty: all is as it is wanted. */
  readonly onProblem: (problem: string) => void;
  /** Epoch milliseconds. */
  readonly now: () => number;
  readonly log: Log;
}

interface Look {
  readonly plan: UnderlayPlan;
  /** Of the interface that is shaped; empty: none is. A new one of the old name is another. */
  readonly place: string;
}

export class UnderlayShaper {
  readonly #o: UnderlayShaperOptions;
  #queue: Promise<unknown> = Promise.resolve();
  #leaf: LeafKind | null = null;
  /** Where all was as it should be: what differs there since is drift. Null before the first pass. */
  #settled: string | null = null;

  constructor(options: UnderlayShaperOptions) {
    this.#o = options;
  }

  /** Nothing is known of the host yet: makes it as it should be. What fails is told as a problem, and tried again with each audit. */
  start(): Promise<unknown> {
    return this.audit(true);
  }

  /** The work of the last audit has ended; the queues stay. */
  async close(): Promise<void> {
    await this.#queue;
  }

  /** What somebody else has changed since the last look; with `heal` it is mended. */
  audit(heal: boolean): Promise<Drift[]> {
    const work = () => this.#pass(heal);
    const next = this.#queue.then(work, work);
    this.#queue = next.catch(() => undefined);
    return next.catch((error: unknown) => {
      const { message, hint } = WeftError.from(error);
      this.#o.log.warn({ reason: message }, 'the underlay is not shaped as it should be');
      this.#o.onProblem(`The underlay is not shaped as it should be: ${message}${hint ? ` (${hint})` : ''}.`);
      return [];
    });
  }

  async #pass(heal: boolean): Promise<Drift[]> {
    // Nothing is wanted, and all has been given back: the rest is nobody's business here.
    if (this.#o.bits === null && this.#settled !== null) return [];
    const at = this.#o.now();
    const known = await read(this.#o.file);
    const { plan, place } = await this.#look(known);
    const drift = this.#settled === place ? plan.planned.map(driftOf) : [];
    if (drift.length > 0 && !heal) return drift;
    let healedAt: number | null = null;
    try {
      await this.#do(plan, known);
      this.#settled = place;
      healedAt = this.#o.now();
    } finally {
      for (const d of drift) this.#o.onDrift(d, at, healedAt);
    }
    this.#o.onProblem(plan.problem || this.#unable());
    return drift;
  }

  async #look(known: readonly Before[]): Promise<Look> {
    const { queues, bits, where } = this.#o;
    const name = bits === null || this.#o.unable !== '' ? null : await where();
    const found = await queues.observe(name ?? null);
    const wanted =
      name === null || name === undefined || bits === null
        ? (name as null | undefined)
        : { interface: name, tree: classTree(bits, await this.#leafKind()) };
    const plan = planUnderlay(wanted, found, known, await queues.boot());
    return { plan, place: placeOf(name, found) };
  }

  async #do(plan: UnderlayPlan, known: readonly Before[]): Promise<void> {
    if (plan.planned.length > 0 && !isDeepStrictEqual(plan.during, known)) await write(this.#o.file, plan.during);
    for (const p of plan.planned) {
      this.#o.log.info({ object: p.object, change: p.change, want: p.want, have: p.have }, 'queue of the underlay');
      await this.#apply(p);
    }
    const remembered = plan.planned.length > 0 ? plan.during : known;
    if (!isDeepStrictEqual(plan.after, remembered)) await write(this.#o.file, plan.after);
  }

  /** Half a tree is none. */
  async #apply({ step }: Planned<UnderlayStep>): Promise<void> {
    try {
      await this.#o.queues.apply(step.lines);
    } catch (error) {
      if (step.undo.length > 0) await this.#o.queues.apply(step.undo).catch(() => undefined); // there may be nothing to undo
      throw error;
    }
  }

  async #leafKind(): Promise<LeafKind> {
    this.#leaf ??= await this.#o.queues.leafKind();
    return this.#leaf;
  }

  #unable(): string {
    return this.#o.bits === null || this.#o.unable === '' ? '' : `The underlay is not shaped: ${this.#o.unable}.`;
  }
}

function placeOf(name: string | null | undefined, found: ReadonlyMap<string, FoundInterface>): string {
  const there = found.get(name ?? '');
  return there === undefined || there.root.kind === 'foreign' ? '' : `${name} ${there.ifindex}`;
}

/** @throws UNAVAILABLE a file that cannot be read, rather than to forget what it says */
async function read(file: string): Promise<readonly Before[]> {
  try {
    return JSON.parse(await readFile(file, 'utf8')) as Before[];
  } catch (error) {
    if ((error as NodeJS.ErrnoException).code === 'ENOENT') return [];
    throw new WeftError('UNAVAILABLE', `${file} cannot be read: ${(error as Error).message}`, {
      hint: 'it says what the queue of the underlay was before: put it back by hand, and remove the file',
    });
  }
}

/** A power cut takes the queue with it: of that nothing need be remembered. */
async function write(file: string, all: readonly Before[]): Promise<void> {
  if (all.length === 0) return rm(file, { force: true });
  await writeFile(`${file}.tmp`, `${JSON.stringify(all)}\n`, { mode: 0o600 });
  await rename(`${file}.tmp`, file);
}
