/** What the checksum probe sends through, and what is rewritten on the way. Addresses are those for documentation (RFC 5737, RFC 3849). Pure. */
import { isIp4, lowOf, parseIp } from '../../lib/addr.ts';
import type { Action, FieldName, Flow, MatchField } from '../openflow/flow.ts';

interface Place {
  readonly ip4: string;
  readonly ip6: string;
  readonly port: number;
}

/** One machine of the probe: what it has, and what its peer takes it for where addresses and ports are rewritten. */
export interface ProbeSide {
  readonly mac: string;
  readonly own: Place;
  readonly alias: Place;
}

export const CLIENT: ProbeSide = {
  mac: '02:00:00:00:00:0c',
  own: { ip4: '192.0.2.1', ip6: '2001:db8:1::1', port: 40001 },
  alias: { ip4: '198.51.100.77', ip6: '2001:db8:3::4d', port: 40077 },
};
export const SERVER: ProbeSide = {
  mac: '02:00:00:00:00:0d',
  own: { ip4: '203.0.113.2', ip6: '2001:db8:ffff::2', port: 7002 },
  alias: { ip4: '198.51.100.2', ip6: '2001:db8:2::2', port: 7077 },
};

/** For checksum.pl: role, MACs, then its own place, its peer's, and its peer's alias. */
export function argumentsOf(role: 'client' | 'server'): string[] {
  const [side, peer] = role === 'client' ? [CLIENT, SERVER] : [SERVER, CLIENT];
  const places = [side.own, peer.own, peer.alias].flatMap(({ ip4, ip6, port }) => [ip4, ip6, `${port}`]);
  return [role, side.mac, peer.mac, ...places];
}

/**
 * Frames to a machine's own address pass as they are; those to its alias come out with source and destination, addresses and ports, of
 * its own and of its peer's alias.
 * @param ports OpenFlow ports of the two.
 */
export function probeFlows(ports: { readonly client: number; readonly server: number }): Flow[] {
  const client = { ...CLIENT, ofport: ports.client };
  const server = { ...SERVER, ofport: ports.server };
  const flows: Flow[] = [];
  for (const [from, to] of [
    [client, server],
    [server, client],
  ] as const) {
    for (const family of [4, 6] as const) {
      const ip = (side: 'src' | 'dst'): FieldName => `ipv${family}_${side}`;
      const at = (place: Place): bigint => numberOf(family === 4 ? place.ip4 : place.ip6);
      const match: MatchField[] = [
        { field: 'in_port', value: BigInt(from.ofport) },
        { field: 'eth_type', value: family === 4 ? 0x0800n : 0x86ddn },
      ];
      const output: Action = { type: 'output', port: to.ofport };
      flows.push(flow([...match, { field: ip('dst'), value: at(to.own) }], [output]));
      for (const [proto, number] of [
        ['tcp', 6n],
        ['udp', 17n],
      ] as const) {
        const rewritten: MatchField[] = [
          ...match,
          { field: 'ip_proto', value: number },
          { field: ip('dst'), value: at(to.alias) },
        ];
        flows.push(
          flow(rewritten, [
            { type: 'set_field', field: ip('src'), value: at(from.alias) },
            { type: 'set_field', field: ip('dst'), value: at(to.own) },
            { type: 'set_field', field: `${proto}_src`, value: BigInt(from.alias.port) },
            { type: 'set_field', field: `${proto}_dst`, value: BigInt(to.own.port) },
            output,
          ]),
        );
      }
    }
  }
  return flows;
}

const flow = (match: readonly MatchField[], actions: readonly Action[]): Flow => ({
  table: 0,
  priority: 1,
  cookie: 0n,
  match,
  actions,
});

const numberOf = (text: string): bigint => {
  const ip = parseIp(text);
  return isIp4(ip) ? BigInt(lowOf(ip)) : ip;
};
