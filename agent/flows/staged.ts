/**
 * Staged policies as flows: they decide nothing. A new connection is looked up among all rules first, as if the staged ones were in force;
 * where one of these comes first it is noted (reg12), and the packet is looked up again without them. Whoever decides then says what
 * (reg13), and where the two differ a flow of the staged rule counts it. Pure.
 */
import type { Action, Flow, MatchField } from '../openflow/flow.ts';
import { flow, is, set } from './build.ts';
import type { NetworkModel } from './model.ts';
import { REG, type Stage, TABLE } from './pipeline.ts';
import type { RuleModel, Verdict } from './policy-model.ts';
import { told } from './punt.ts';

/** What reg13 says. */
export const VERDICTS: readonly Verdict[] = ['drop', 'reject', 'allow'];
const codeOf = (verdict: Verdict): number => VERDICTS.indexOf(verdict) + 1;

/** No staged rule has been noted: they are still looked up. */
export const UNDECIDED: MatchField = is(REG.staged, 0);
const FORGET: Action = set(REG.staged, 0);

/** What a staged rule does: it is noted, and the others are asked. */
export const suspected = ({ id }: RuleModel, stage: Stage): Action[] => [
  set(REG.staged, id),
  { type: 'resubmit', table: TABLE[stage] },
];

/** Before what is in force does what it decides. */
export const compared = (verdict: Verdict): Action[] => [
  set(REG.verdict, codeOf(verdict)),
  { type: 'resubmit', table: TABLE.staged },
];

/** They agree, or no staged rule is about it. The next judge of the same packet begins anew. */
export const stagedBase = (): Flow => flow('staged', 0, 0, [], [FORGET]);

/** A counter of each rule and verdict that it would change. */
export const renderStaged = (n: Pick<NetworkModel, 'index'>, rules: readonly RuleModel[], maxMeters: number): Flow[] =>
  rules.flatMap(({ id, action }) =>
    VERDICTS.filter((verdict) => verdict !== action).map((verdict) =>
      flow(
        'staged',
        n.index,
        1,
        [is(REG.network, n.index), is(REG.staged, id), is(REG.verdict, codeOf(verdict))],
        // Told while the register still says which rule it is.
        [...told(maxMeters), FORGET],
      ),
    ),
  );
