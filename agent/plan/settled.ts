/**
 * Tells drift from work: what was as it should be after the last pass, is still wanted so, and now is not, was changed by somebody
 * else. Pure but for its memory of the last pass.
 */
import { formatFlow } from '../openflow/format.ts';
import type { FlowTable } from './flows.ts';
import type { Planned } from './planned.ts';

export class Settled {
  /** kind and id → what was wanted, of the last pass that ended well. Null before the first. */
  #last: ReadonlyMap<string, string> | null = null;
  #flows: FlowTable = new Map();

  static key(kind: string, id: string): string {
    return `${kind} ${id}`;
  }

  /**
   * A pass ended well: this is what is wanted, and there.
   * @param refused kind and id of what is wanted and could not be had: of these, what was there before counts
   */
  settle(wanted: ReadonlyMap<string, string>, flows: FlowTable, refused: readonly string[] = []): void {
    const last = new Map(wanted);
    for (const key of refused) {
      const before = this.#last?.get(key);
      if (before === undefined) last.delete(key);
      else last.set(key, before);
    }
    this.#last = last;
    this.#flows = flows;
  }

  isDrift(p: Omit<Planned<unknown>, 'step'>): boolean {
    if (this.#last === null) return false;
    const last = this.#wanted(p);
    return p.change === 'extra' ? last === undefined : last === p.want;
  }

  /** Wanted by this process until now: may be removed at any time. Others only when in sync (invariant I6). */
  isReleased(p: Omit<Planned<unknown>, 'step'>): boolean {
    return this.#wanted(p) !== undefined;
  }

  #wanted(p: Omit<Planned<unknown>, 'step'>): string | undefined {
    if (p.kind !== 'flow') return this.#last?.get(Settled.key(p.kind, p.id));
    const flow = this.#flows.get(p.id);
    return flow === undefined ? undefined : formatFlow(flow);
  }
}
