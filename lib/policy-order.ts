/** The order in which rules of policies are tried, and how many of everything there may be. Pure. */
import type { PolicyRule } from './model.ts';

/** Tried in this order. */
export const TIERS = ['platform', 'application', 'baseline'] as const;
/** Of one tier, order and level: tried in this order. */
export const ACTIONS = ['drop', 'reject', 'allow'] as const;
export type PolicyAction = (typeof ACTIONS)[number];

/** Orders are below it. */
export const ORDERS = 500;
/** Where nobody says one. */
export const DEFAULT_TIER = 'application';
export const DEFAULT_ORDER = 100;

/** Changes of action in one list. */
export const MAX_LEVEL = 12;

/** Of each rule of a list: the number of changes of action before it. */
export function levelsOf(rules: readonly Pick<PolicyRule, 'action'>[]): number[] {
  let level = 0;
  return rules.map(({ action }, i) => {
    if (i > 0 && rules[i - 1]?.action !== action) level++;
    return level;
  });
}
