/**
 * Where a rule stands among the others, as a priority of OpenFlow: a function of the rule alone, so that a policy that comes or goes moves
 * no other rule's flows. Tiers, orders and levels in turn; of one level "drop" goes before "reject" before "allow", so all rules of one
 * priority have one action. Pure.
 */
import type { PolicyRule } from '../../lib/model.ts';

const TOP = { platform: 60_000, application: 40_000, baseline: 20_000 } as const;
export const ORDERS = 500;
export const LEVELS = 13;
const ACTIONS = ['drop', 'reject', 'allow'];

/** @returns 501 (last) to 60000 (first); null for what an agent of this version does not know */
export function priorityOf(tier: string, order: number, level: number, action: string): number | null {
  const top = (TOP as Readonly<Record<string, number>>)[tier];
  const last = ACTIONS.indexOf(action);
  if (top === undefined || last < 0 || order >= ORDERS || level >= LEVELS) return null;
  return top - (order * LEVELS + level) * ACTIONS.length - last;
}

/** Of each rule of a list: the number of changes of action before it. */
export function levelsOf(rules: readonly Pick<PolicyRule, 'action'>[]): number[] {
  let level = 0;
  return rules.map(({ action }, i) => {
    if (i > 0 && rules[i - 1]?.action !== action) level++;
    return level;
  });
}
