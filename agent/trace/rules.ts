/** Which rule of a policy a flow stands for (flows/policies.ts), by the name that people know it by. Pure. */
import { containsIp, familyOf, parseIp } from '../../lib/addr.ts';
import type { TracePacket } from '../../lib/model.ts';
import type { Direction, PortMatch } from '../flows/policy-model.ts';
import type { NamedRule } from '../policies/resolve.ts';
import { fieldOf, type MetFlow } from './ofproto.ts';
import { hasPorts, PROTOCOL } from './packet.ts';

/** Of one network, as the view has it now. */
export interface Policing {
  readonly rules: readonly NamedRule[];
  readonly shut: boolean;
  /** OpenFlow ports of endpoints whose labels are not known yet. */
  readonly pending: readonly number[];
}

/** "policy db, ingress rule 2 (application, order 100)", as `weft policy explain` says it. */
export const ruleText = ({ policy, rule, model }: NamedRule): string =>
  `policy ${policy.name}, ${model.direction} rule ${rule} (${policy.tier}, order ${policy.order})`;

/**
 * @param subject OpenFlow port of the endpoint that is judged
 * @returns null: none that this host's view has
 */
export function ruleOf(
  rules: readonly NamedRule[],
  direction: Direction,
  flow: MetFlow,
  packet: TracePacket,
  subject: number,
): NamedRule | null {
  const same = rules.filter(({ model }) => model.direction === direction && model.priority === flow.priority);
  const conjunction = fieldOf(flow.match, 'conj_id');
  // Without a conjunction it has one dimension, or none; several rules may share the flow.
  if (conjunction !== null) return same.find(({ model }) => model.id === Number(conjunction)) ?? null;
  const plain = ({ model }: NamedRule): boolean =>
    [model.subjects, model.peers, model.ports].filter((dimension) => dimension !== null).length < 2;
  const other = parseIp(direction === 'egress' ? packet.destinationIp : packet.sourceIp);
  const about = ({ model }: NamedRule): boolean =>
    (model.subjects === null || model.subjects.includes(subject)) &&
    (model.peers === null || model.peers.some((c) => familyOf(c.base) === familyOf(other) && containsIp(c, other))) &&
    (model.ports === null || model.ports.some((port) => isPort(port, packet)));
  return same.find((named) => plain(named) && about(named)) ?? null;
}

function isPort(port: PortMatch, p: TracePacket): boolean {
  if (port.protocol !== 'icmp') {
    // 0: all of them.
    const inRange = port.first === 0 || (p.destinationPort >= port.first && p.destinationPort <= port.last);
    return p.protocol === PROTOCOL[port.protocol] && inRange;
  }
  return (
    !hasPorts(p.protocol) &&
    (port.type === null || port.type === p.icmpType) &&
    (port.code === null || port.code === p.icmpCode)
  );
}
