/** Carries ICMP errors between endpoints and their host. While the agent is away they are lost. */
import { isIp4, lowOf, parseIp } from '../../lib/addr.ts';
import { parseMac } from '../../lib/mac.ts';
import type { Journal, LocalEndpoint } from '../contract.ts';
import { REG, TABLE } from '../flows/pipeline.ts';
import { PUNT } from '../flows/punt.ts';
import { bytes } from '../multicast/frame.ts';
import type { Packets } from '../openflow/packets.ts';
import type { PacketIn, PacketOut } from '../openflow/punted.ts';
import { ANYCAST_MAC, HOST_MAC, transit6 } from './addresses.ts';
import { errorEnds, type Renamed, renamed } from './quoted.ts';

export interface ErrorSources {
  readonly journal: Pick<Journal, 'endpoints'>;
  /** OpenFlow port of an endpoint; null while it has none. */
  readonly ofport: (endpointId: string) => number | null;
}

/** From now on, for as long as there are packets. */
export function carryErrors(packets: Pick<Packets, 'on' | 'send'>, sources: ErrorSources): void {
  packets.on(PUNT.error, async (packet) => {
    const carried = carriedOf(packet, sources);
    if (carried !== null) await packets.send(carried);
  });
}

/** @returns null for what is nobody's */
export function carriedOf(
  { data, fields, table }: Pick<PacketIn, 'data' | 'fields' | 'table'>,
  { journal, ofport }: ErrorSources,
): PacketOut | null {
  const ends = errorEnds(data);
  const inPort = Number(fields.get('in_port') ?? 0n);
  if (ends === null) return null;
  const out = table === TABLE.routing;
  const size = ends.source.length;
  for (const e of journal.endpoints.values()) {
    const names = namesOf(e, size);
    const port = ofport(e.id);
    if (names === null || port === null) continue;
    const [own, transit] = names;
    if (out ? port !== inPort : !ends.destination.equals(transit)) continue;
    const to: Renamed = out ? { was: own, now: transit } : { was: transit, now: own };
    const frame = renamed(data, out ? 'source' : 'destination', to);
    if (frame === null) return null;
    bytes(out ? HOST_MAC : parseMac(e.mac), 6).copy(frame, 0);
    bytes(ANYCAST_MAC, 6).copy(frame, 6);
    const exit = out ? Number(fields.get(REG.out) ?? 0n) : port;
    return exit === 0 ? null : { data: frame, inPort, actions: [{ type: 'output', port: exit }] };
  }
  return null;
}

/** Its own address, and that by which the host knows it; null: it has none of the family. */
function namesOf(e: LocalEndpoint, size: number): readonly [Buffer, Buffer] | null {
  const text = size === 4 ? e.ip : e.ip6;
  if (text === '' || e.transit === undefined) return null;
  const ip = parseIp(text);
  const transit = lowOf(parseIp(e.transit));
  if (isIp4(ip)) return [bytes(BigInt(lowOf(ip)), 4), bytes(BigInt(transit), 4)];
  return [bytes(ip, 16), bytes(transit6(transit), 16)];
}
