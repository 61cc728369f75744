/**
 * Transactions as plain data, and the loop that commits them: plan from the cache, compare, and on a failed compare wait for the
 * cache and plan again. Every plan compares something that it changes itself, so that a transaction whose answer was lost can
 * be sent again: if it was done, the second one fails, and the next plan finds its effect.
 */
import { setTimeout as delay } from 'node:timers/promises';
import type { ICompare, IRequestOp } from 'etcd3';
import { WeftError } from '../../lib/errors.ts';
import type { Cache } from '../cache.ts';
import type { EtcdClient } from './client.ts';
import { keys } from './keys.ts';
import { endOfPrefix } from './watch.ts';

export type Compare =
  /** Last changed at this revision; 0 = not there. */
  | { readonly key: string; readonly mod: bigint }
  | { readonly key: string; readonly create: bigint }
  | { readonly key: string; readonly exists: true }
  /** No key at all has this prefix. */
  | { readonly prefix: string; readonly empty: true };

export type Op =
  | { readonly put: string; readonly value: string; readonly lease?: string }
  | { readonly del: string }
  | { readonly delPrefix: string };

export interface Txn {
  readonly compares: readonly Compare[];
  readonly ops: readonly Op[];
}

/** What a plan comes to: nothing to do, or a transaction and what it will have done. */
export type Planned<T> = { readonly done: T } | { readonly txn: Txn; readonly result: (revision: bigint) => T };

/** etcd refuses transactions of more than 128 operations or compares; one is the stamp. */
export const MAX_OPS = 100;
const TRIES = 24;

export interface CommitterOptions {
  readonly client: EtcdClient;
  readonly cache: Cache;
  readonly coordinatorId: string;
}

export class Committer {
  readonly #o: CommitterOptions;
  readonly #queues = new Map<string, Promise<unknown>>();
  /** Compares that failed: contention between coordinators. */
  conflicts = 0;

  constructor(options: CommitterOptions) {
    this.#o = options;
  }

  get cache(): Cache {
    return this.#o.cache;
  }

  /** One after the other for each guard, so that only replicas ever contend. */
  serial<T>(guard: string, run: () => Promise<T>): Promise<T> {
    const before = this.#queues.get(guard) ?? Promise.resolve();
    const mine = before.then(run, run);
    this.#queues.set(guard, mine);
    const clear = (): void => {
      if (this.#queues.get(guard) === mine) this.#queues.delete(guard);
    };
    mine.then(clear, clear);
    return mine;
  }

  /**
   * Plans and commits until it is done; resolves when the cache has the effect.
   * @param plan reads the cache; called once for each try. `unsure`: an earlier try may have been done, its answer was lost
   * @throws what the plan throws; UNAVAILABLE when etcd is; ABORTED when others keep changing the same keys
   */
  run<T>(guard: string, plan: (unsure: boolean) => Planned<T>): Promise<T> {
    return this.serial(guard, () => this.#run(plan));
  }

  async #run<T>(plan: (unsure: boolean) => Planned<T>): Promise<T> {
    const end = performance.now() + this.#o.client.deadlineMs;
    let unsure = false;
    for (let attempt = 1; ; attempt++) {
      const planned = plan(unsure);
      if ('done' in planned) return planned.done;
      const outcome = await this.#try(planned.txn, end);
      if (outcome === null) {
        unsure = true;
        continue;
      }
      if (outcome.succeeded) {
        await this.#o.cache.reached(outcome.revision);
        return planned.result(outcome.revision);
      }
      await this.#caughtUp(outcome.revision);
      this.conflicts++;
      if (attempt >= TRIES)
        throw new WeftError('ABORTED', 'other coordinators keep changing the same thing', { hint: 'try again' });
      await delay(Math.random() * Math.min(200, 5 * 2 ** attempt));
    }
  }

  /** etcd's newest revision may be a key that is not ours, of which no event comes: then a barrier brings the cache past it. */
  async #caughtUp(revision: bigint): Promise<void> {
    const soon = this.#o.cache.reached(revision, AbortSignal.timeout(200));
    if (
      await soon.then(
        () => true,
        () => false,
      )
    )
      return;
    await this.#o.cache.reached(await this.barrier());
  }

  /** Null: not known whether it was done; then the plan is made again and sent again. */
  async #try(txn: Txn, end: number): Promise<{ succeeded: boolean; revision: bigint } | null> {
    try {
      return await this.send(txn);
    } catch (error) {
      if (WeftError.from(error).code !== 'UNAVAILABLE' || performance.now() + 200 > end) throw error;
      await delay(50 + Math.random() * 100);
      return null;
    }
  }

  /** One transaction, once. @returns the newest revision of etcd; with `succeeded` it is the transaction's own */
  async send(txn: Txn): Promise<{ succeeded: boolean; revision: bigint }> {
    const stamp: Op = { put: keys.stamp(), value: this.#o.coordinatorId };
    const request = { compare: txn.compares.map(compareOf), success: [...txn.ops, stamp].map(opOf) };
    const reply = await this.#o.client.once((etcd, options) => etcd.kv.txn(request, options));
    return { succeeded: reply.succeeded, revision: BigInt(reply.header.revision) };
  }

  /** Writes the stamp alone: whoever sees its event has seen everything before. */
  async barrier(): Promise<bigint> {
    return (await this.send({ compares: [], ops: [] })).revision;
  }
}

function compareOf(compare: Compare): ICompare {
  if ('prefix' in compare)
    return {
      key: Buffer.from(compare.prefix),
      range_end: endOfPrefix(compare.prefix),
      target: 'Create',
      result: 'Equal',
      create_revision: '0',
    };
  const key = Buffer.from(compare.key);
  if ('mod' in compare) return { key, target: 'Mod', result: 'Equal', mod_revision: String(compare.mod) };
  if ('create' in compare) return { key, target: 'Create', result: 'Equal', create_revision: String(compare.create) };
  return { key, target: 'Create', result: 'Greater', create_revision: '0' };
}

function opOf(op: Op): IRequestOp {
  if ('put' in op)
    return {
      request_put: { key: Buffer.from(op.put), value: Buffer.from(op.value), ...(op.lease ? { lease: op.lease } : {}) },
    };
  if ('del' in op) return { request_delete_range: { key: Buffer.from(op.del) } };
  return { request_delete_range: { key: Buffer.from(op.delPrefix), range_end: endOfPrefix(op.delPrefix) } };
}

/** Splits work into transactions that etcd takes. */
export function chunks<T>(items: readonly T[], size: number): readonly (readonly T[])[] {
  const result: T[][] = [];
  for (let i = 0; i < items.length; i += size) result.push(items.slice(i, i + size));
  return result;
}
