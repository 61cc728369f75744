/** Answers what a policy rejects. While the agent is away nobody answers, and what is rejected is dropped. */
import { REG, SIDE, TABLE } from '../flows/pipeline.ts';
import { PUNT } from '../flows/punt.ts';
import { ANYCAST_MAC, ROUTER_PREFIX } from '../gateway/addresses.ts';
import { bytes } from '../multicast/frame.ts';
import { OFPP } from '../openflow/flow.ts';
import type { Packets } from '../openflow/packets.ts';
import type { PacketIn, PacketOut } from '../openflow/punted.ts';
import { rejection } from './reject-frame.ts';

/** From now on, for as long as there are packets. */
export function answerRejected(packets: Pick<Packets, 'on' | 'send'>): void {
  packets.on(PUNT.reject, async (packet) => {
    const answer = answerOf(packet);
    if (answer !== null) await packets.send(answer);
  });
}

/** @returns null where no answer is due */
export function answerOf({
  data: frame,
  fields,
  table,
}: Pick<PacketIn, 'data' | 'fields' | 'table'>): PacketOut | null {
  const data = rejection(frame);
  const network = fields.get(REG.network);
  if (data === null || network === undefined) return null;
  if (table === TABLE.policyEgress) {
    const port = fields.get('in_port');
    return port === undefined
      ? null
      : { data, inPort: OFPP.CONTROLLER, actions: [{ type: 'output', port: Number(port) }] };
  }
  const called = fields.get(REG.out);
  if (called === undefined) return null;
  // A caller in another network is behind the gateway.
  if (data.readUInt16BE(0) === ROUTER_PREFIX) bytes(ANYCAST_MAC, 6).copy(data);
  // As if the endpoint itself had answered, and port security let it through: to wherever the caller is.
  return {
    data,
    inPort: Number(called),
    actions: [
      { type: 'set_field', field: REG.network, value: network },
      { type: 'set_field', field: REG.side, value: SIDE.local },
      { type: 'resubmit', table: TABLE.l2 },
    ],
  };
}
