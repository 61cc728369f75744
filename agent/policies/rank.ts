/**
 * Where a rule stands among the others, as a priority of OpenFlow: a function of the rule alone, so that a policy that comes or goes moves
 * no other rule's flows. Tiers, orders and levels in turn; of one level "drop" goes before "reject" before "allow", so all rules of one
 * priority have one action. Pure.
 */
import { ACTIONS, MAX_LEVEL, ORDERS, type PolicyAction } from '../../lib/policy-order.ts';

const TOP = { platform: 60_000, application: 40_000, baseline: 20_000 } as const;
const LEVELS = MAX_LEVEL + 1;

/** @returns 501 (last) to 60000 (first); null for what an agent of this version does not know */
export function priorityOf(tier: string, order: number, level: number, action: string): number | null {
  const top = (TOP as Readonly<Record<string, number>>)[tier];
  const last = ACTIONS.indexOf(action as PolicyAction);
  if (top === undefined || last < 0 || order >= ORDERS || level >= LEVELS) return null;
  return top - (order * LEVELS + level) * ACTIONS.length - last;
}
