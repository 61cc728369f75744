/** What is to be done to flows: one diff over keys. Pure. */
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
  const planned: Planned<FlowStep>[] = [];
  for (const [key, flow] of desired) {
    const present = actual.get(key);
    if (present === flow || (present !== undefined && flowEquals(present, flow))) continue;
    planned.push({
      kind: 'flow',
      id: key,
      object: formatFlowKey(flow),
      change: present === undefined ? 'missing' : 'differs',
      want: formatFlow(flow),
      have: present === undefined ? '' : formatFlow(present),
      step: { kind: 'addFlow', flow },
    });
  }
  for (const [key, flow] of actual)
    if (!desired.has(key))
      planned.push({
        kind: 'flow',
        id: key,
        object: formatFlowKey(flow),
        change: 'extra',
        want: '',
        have: formatFlow(flow),
        step: { kind: 'removeFlow', flow },
      });
  return planned;
}
