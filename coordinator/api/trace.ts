/** Control: follows one packet through what is installed on the hosts. */
import type { ControlServer, TraceRequest } from '../../gen/weft/v1/control.ts';
import { canonicalIp, containsIp, familyOfText, parseCidr, parseIp } from '../../lib/addr.ts';
import { middleCut, WeftError } from '../../lib/errors.ts';
import { normalMac } from '../../lib/mac.ts';
import type { TracePacket } from '../../lib/model.ts';
import type { Parts } from '../parts.ts';
import { type Ends, endsOf, partyText } from '../trace/parties.ts';
import { type Ask, follow } from '../trace/way.ts';
import type { Method } from './method.ts';
import { networkOf } from './resolve.ts';

/** A host reads its packet filter and asks Open vSwitch a few times. */
const ASK_MS = 15_000;
const FROM_PORT = 40_000;
const TTL = 64;
/** A TCP segment without data, with options. */
const LENGTH = 60;

export function traceMethods(parts: Parts, method: Method): Pick<ControlServer, 'trace'> {
  const { state, fanout } = parts;
  return {
    trace: method(async ({ request, signal }) => {
      const network = request.network === '' ? null : networkOf(state, request.project, request.network);
      const ends = endsOf(state, request, network);
      const packet = packetOf(request, ends);
      const ask: Ask = async (host, now, from) => {
        const query = { $case: 'trace', value: { packet: now, from } } as const;
        const answer = await fanout.ask(host.id, query, ASK_MS, signal);
        if (answer.body?.$case === 'trace') return answer.body.value;
        throw new WeftError('INTERNAL', `Host ${host.name} answered something else.`);
      };
      const found = await follow(state, ends, packet, ask);
      return {
        ...found,
        hops: [...found.hops],
        source: partyText(state, ends.source, ends.from),
        destination: partyText(state, ends.destination, ends.to),
        network: ends.network?.name ?? '',
        packet,
      };
    }),
  };
}

const PROTOCOLS: Readonly<Record<string, readonly [v4: number, v6: number]>> = {
  tcp: [6, 6],
  udp: [17, 17],
  sctp: [132, 132],
  icmp: [1, 58],
};

/** The groups, and what is written for nobody or everybody (RFC 6890). */
const NO_DESTINATION = [
  '0.0.0.0/8',
  '127.0.0.0/8',
  '224.0.0.0/4',
  '255.255.255.255/32',
  '::/128',
  '::1/128',
  'ff00::/8',
  'fe80::/10',
];

/** @throws INVALID_ARGUMENT no packet can be like that */
export function packetOf(r: TraceRequest, { from, to }: Ends): TracePacket {
  const six = familyOfText(to) === 6;
  const protocol = PROTOCOLS[r.protocol]?.[six ? 1 : 0];
  if (protocol === undefined)
    throw new WeftError('INVALID_ARGUMENT', `There is no protocol "${middleCut(r.protocol)}".`, {
      hint: 'tcp, udp, sctp or icmp',
    });
  const icmp = r.protocol === 'icmp';
  if (!icmp) range('The port', r.port, 1, 65_535);
  range('--from-port', r.fromPort, 0, 65_535);
  range('--ttl', r.ttl, 0, 255);
  range('--length', r.length, 0, 65_535);
  range('The type of ICMP', r.icmpType ?? 0, 0, 255);
  range('The code of ICMP', r.icmpCode ?? 0, 0, 255);
  for (const text of NO_DESTINATION)
    if (familyOfText(text) === familyOfText(to) && containsIp(parseCidr(text), parseIp(to)))
      throw new WeftError('INVALID_ARGUMENT', `${to} is not an address of one destination.`, {
        hint: 'a trace follows one packet to one receiver: give the address of one',
      });
  const given = r.fromIp === '' ? '' : canonicalIp(r.fromIp);
  if (given !== '' && familyOfText(given) !== familyOfText(to))
    throw new WeftError('INVALID_ARGUMENT', `--from-ip ${given} and ${to} are of two families.`);
  return {
    sourceMac: r.fromMac === '' ? '' : normalMac(r.fromMac),
    destinationMac: '',
    sourceIp: given || from,
    destinationIp: to,
    protocol,
    sourcePort: icmp ? 0 : r.fromPort || FROM_PORT,
    destinationPort: icmp ? 0 : r.port,
    icmpType: icmp ? (r.icmpType ?? (six ? 128 : 8)) : 0,
    icmpCode: icmp ? (r.icmpCode ?? 0) : 0,
    ttl: r.ttl || TTL,
    length: r.length || LENGTH,
    established: r.established,
  };
}

function range(what: string, n: number, least: number, most: number): void {
  if (Number.isInteger(n) && n >= least && n <= most) return;
  throw new WeftError('INVALID_ARGUMENT', `${what} ${n} is out of range.`, { hint: `${least} to ${most}` });
}
