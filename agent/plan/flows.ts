/** What is to be done to flows: one diff over keys. Pure. */
import { diff } from '../../lib/delta.ts';
import { isLearned } from '../flows/pipeline.ts';
import { type Flow, flowEquals, flowKey } from '../openflow/flow.ts';
import { formatFlow, formatFlowKey } from '../openflow/format.ts';
import type { Planned } from './planned.ts';

export type FlowStep =
  | { readonly kind: 'addFlow'; readonly flow: Flow }
  | { readonly kind: 'removeFlow'; readonly flow: Flow };

/** Flows by identity (table, priority, match). */
export type FlowTable = ReadonlyMap<string, Flow>;

export const keyed = (flows: Iterable<Flow>): Map<string, Flow> => {
  const out = new Map<string, Flow>();
  for (const f of flows) out.set(flowKey(f), f);
  return out;
};

export function planFlows(desired: FlowTable, actual: FlowTable): Planned<FlowStep>[] {
  // What the switch has learned comes and goes by itself.
  const rendered = new Map([...actual].filter(([, f]) => !isLearned(f)));
  const { missing, differs, extra } = diff(desired, rendered, (want, have) => want === have || flowEquals(want, have));
  const planned = (id: string, want: Flow | null, have: Flow | null): Planned<FlowStep> => {
    const flow = want ?? have!;
    return {
      kind: 'flow',
      id,
      object: formatFlowKey(flow),
      change: have === null ? 'missing' : want === null ? 'extra' : 'differs',
      want: want === null ? '' : formatFlow(want),
      have: have === null ? '' : formatFlow(have),
      step: want === null ? { kind: 'removeFlow', flow } : { kind: 'addFlow', flow },
    };
  };
  return [
    ...[...missing].map(([id, want]) => planned(id, want, null)),
    ...[...differs].map(([id, { want, have }]) => planned(id, want, have)),
    ...[...extra].map(([id, have]) => planned(id, null, have)),
  ];
}
