/**
 * Tells the sender of a packet that is not routed why: by an ICMP error from the gateway of the sender's network, or, where the packet
 * has come from another host, of the network that it is for. While the agent is away such packets are just dropped.
 */
import { parseMac } from '../../lib/mac.ts';
import type { Journal, LocalNetwork } from '../contract.ts';
import { REG, SIDE, TABLE } from '../flows/pipeline.ts';
import { PUNT, ROUTE } from '../flows/punt.ts';
import { ANYCAST_MAC } from '../gateway/addresses.ts';
import { gatewaysOf } from '../gateway/egress.ts';
import { bytes } from '../multicast/frame.ts';
import { type Action, OFPP } from '../openflow/flow.ts';
import type { Packets } from '../openflow/packets.ts';
import type { PacketIn, PacketOut } from '../openflow/punted.ts';
import { type ErrorKind, errorAbout, readPacket } from './packet.ts';

export interface UnroutedSources {
  readonly journal: Pick<Journal, 'endpoints' | 'networks'>;
  /** OpenFlow port of an endpoint; null while it has none. */
  readonly ofport: (endpointId: string) => number | null;
}

/** RFC 792, RFC 1191 §4; RFC 4443 §3.1 to §3.3. */
const KINDS: ReadonlyMap<number, ErrorKind> = new Map([
  [ROUTE.ended, { ip4: [11, 0], ip6: [3, 0] }],
  [ROUTE.unreachable, { ip4: [3, 1], ip6: [1, 3] }],
  [ROUTE.tooBig, { ip4: [3, 4], ip6: [2, 0] }],
]);

/** From now on, for as long as there are packets. */
export function answerUnrouted(packets: Pick<Packets, 'on' | 'send'>, sources: UnroutedSources): void {
  packets.on(PUNT.route, async (packet) => {
    const answer = unroutedAnswer(packet, sources);
    if (answer !== null) await packets.send(answer);
  });
}

/** @returns null where no answer is due, or nobody could give it */
export function unroutedAnswer(
  { data: frame, fields, userdata }: Pick<PacketIn, 'data' | 'fields' | 'userdata'>,
  { journal, ofport }: UnroutedSources,
): PacketOut | null {
  const kind = KINDS.get(userdata[1] ?? 0);
  const packet = readPacket(frame);
  if (kind === undefined || packet === null) return null;
  const inPort = Number(fields.get('in_port') ?? 0n);
  const sender = [...journal.endpoints.values()].find((e) => ofport(e.id) === inPort);
  const network = sender === undefined ? byIndex(journal, fields) : journal.networks.get(sender.networkId);
  const from = network === undefined ? null : gatewayOf(network, packet.family);
  if (from === null) return null;
  const mtu = userdata.length < 4 ? 0 : userdata.readUInt16BE(2);
  const error = errorAbout(packet, kind, from, mtu);
  if (error === null) return null;
  const to = sender === undefined ? ANYCAST_MAC : parseMac(sender.mac);
  const data = Buffer.concat([bytes(to, 6), bytes(ANYCAST_MAC, 6), frame.subarray(12, 14), error]);
  const actions: Action[] =
    sender === undefined ? routed(fields.get(REG.network) ?? 0n) : [{ type: 'output', port: inPort }];
  return { data, inPort: OFPP.CONTROLLER, actions };
}

/** As if an endpoint of the network sent it: to wherever the caller is. */
const routed = (network: bigint): Action[] => [
  { type: 'set_field', field: REG.network, value: network },
  { type: 'set_field', field: REG.side, value: SIDE.local },
  { type: 'resubmit', table: TABLE.l2 },
];

/** Only what has come from a tunnel: of what an endpoint sends, the register says where it was led to. */
function byIndex({ networks }: Pick<Journal, 'networks'>, fields: PacketIn['fields']): LocalNetwork | undefined {
  if (fields.get(REG.side) !== SIDE.tunnel) return undefined;
  return [...networks.values()].find((n) => BigInt(n.index) === fields.get(REG.network));
}

function gatewayOf({ network }: LocalNetwork, family: 4 | 6): Buffer | null {
  const gateways = gatewaysOf(network);
  if (family === 4) return gateways?.ip == null ? null : bytes(BigInt(gateways.ip), 4);
  return gateways?.ip6 == null ? null : bytes(gateways.ip6, 16);
}
