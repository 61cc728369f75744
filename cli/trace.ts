/** weft trace: what becomes of one packet, and who decides. Exit 1 = it does not arrive, or that cannot be told. */
import type { Command } from 'commander';
import type { TraceResponse } from '../gen/weft/v1/control.ts';
import type { TraceAnswer, TraceHop, TracePacket } from '../gen/weft/v1/types.ts';
import { familyOfText, tryParseIp } from '../lib/addr.ts';
import { flagsOf, networkFlag, print, remote, withMesh } from './command.ts';
import type { Io } from './io.ts';
import { clean, table } from './output.ts';
import { packetOf } from './policy-explain.ts';
import { UsageError } from './usage.ts';
import { nonEmpty, wholeNumber } from './values.ts';

/** Six hosts, each of which may take its time. */
const TRACE_MS = 60_000;

interface Flags {
  readonly established?: boolean;
  readonly fromPort?: string;
  readonly fromIp?: string;
  readonly fromMac?: string;
  readonly ttl?: string;
  readonly length?: string;
  readonly ipv6?: boolean;
  readonly detail?: boolean;
  readonly socket?: string;
}

export function register(program: Command, io: Io): void {
  remote(
    program,
    'trace <source> <destination> <port>',
    'follow one packet through what is installed on the hosts (9042/tcp, icmp); none is sent',
  )
    .addHelpText(
      'after',
      '\nSource: container (NAME or HOST/NAME), endpoint, or address; from outside to a host: any address.' +
        '\nDestination: the same, a service, a host, or any address.',
    )
    .optionsGroup('Packet:')
    .option('--network <network>', 'network that it is sent in, where there are several')
    .option('--established', 'of a connection that there is already')
    .option('--from-port <port>', 'source port (default: 40000)')
    .option('--from-ip <ip>', 'source address (default: its own)')
    .option('--from-mac <mac>', 'source MAC (default: its own)')
    .option('--ttl <n>', 'time to live (default: 64)')
    .option('--length <bytes>', 'of the IP packet (default: 60)')
    .option('--ipv6', 'IPv6, where both ends have both families')
    .optionsGroup('Output:')
    .option('--detail', 'show the flow, map entry or rule of each hop')
    .optionsGroup('Agent:')
    .option('--socket <path>', 'ask this host’s agent alone, for its part of the way: works without a coordinator')
    .action(async (source: string, destination: string, port: string, _options: unknown, command: Command) => {
      const flags = flagsOf<Flags>(command);
      const asked = requestOf(source, destination, port, networkFlag(command), flags);
      const shown =
        flags.socket === undefined
          ? meshJson(await withMesh(io, command, (mesh) => mesh.call('trace', asked, { timeoutMs: TRACE_MS })), asked)
          : await locally(io, nonEmpty('--socket', flags.socket), asked);
      print(io, command, shown, () => traceText(shown, flags.detail === true));
      if (!ARRIVED.has(shown.verdict)) io.setExit(1);
    });
}

/** It got where it was to go. */
const ARRIVED: ReadonlySet<string> = new Set(['delivered', 'answered', 'left']);

type Asked = ReturnType<typeof requestOf>;

/** 9042/tcp as tcp/9042. */
const turned = (port: string): string => port.replace(/^(tcp|udp|sctp)\/(.*)$/, '$2/$1');

function requestOf(source: string, destination: string, port: string, network: string, flags: Flags) {
  const { protocol, port: number, icmpType, icmpCode } = packetOf(turned(port));
  const whole = (flag: string, text: string | undefined, least: number, most: number): number =>
    text === undefined ? 0 : wholeNumber(flag, text, least, most);
  return {
    project: '',
    source: nonEmpty('source', source),
    destination: nonEmpty('destination', destination),
    network,
    protocol,
    port: number,
    icmpType: icmpType ?? undefined,
    icmpCode: icmpType === null ? undefined : icmpCode,
    fromPort: whole('--from-port', flags.fromPort, 1, 65_535),
    ttl: whole('--ttl', flags.ttl, 1, 255),
    length: whole('--length', flags.length, 28, 65_535),
    established: flags.established === true,
    fromIp: flags.fromIp === undefined ? '' : nonEmpty('--from-ip', flags.fromIp),
    fromMac: flags.fromMac === undefined ? '' : nonEmpty('--from-mac', flags.fromMac),
    family: flags.ipv6 === true ? 6 : 0,
  };
}

/** Of a host alone: what goes on elsewhere is not followed. */
async function locally(io: Io, path: string, asked: Asked) {
  if (asked.family === 6 && tryParseIp(asked.destination) === null)
    throw new UsageError('With --socket, --ipv6 needs the destination’s address.');
  const { Agent } = await import('./agent-client.ts');
  const agent = new Agent(path, io.signal());
  const six = asked.family === 6 || (tryParseIp(asked.destination) !== null && familyOfText(asked.destination) === 6);
  const icmp = asked.protocol === 'icmp';
  const protocol = { tcp: 6, udp: 17, sctp: 132 }[asked.protocol] ?? (six ? 58 : 1);
  const packet: TracePacket = {
    sourceMac: asked.fromMac,
    destinationMac: '',
    sourceIp: asked.fromIp,
    destinationIp: '',
    protocol,
    sourcePort: icmp ? 0 : asked.fromPort || 40_000,
    destinationPort: asked.port,
    icmpType: icmp ? (asked.icmpType ?? (six ? 128 : 8)) : 0,
    icmpCode: icmp ? (asked.icmpCode ?? 0) : 0,
    ttl: asked.ttl || 64,
    length: asked.length || 60,
    established: asked.established,
  };
  const { source, destination, network } = asked;
  try {
    return localJson(await agent.trace({ source, destination, network, packet }, TRACE_MS), asked);
  } finally {
    agent.close();
  }
}

const hopJson = (h: TraceHop) => ({
  host: h.host,
  engine: h.engine,
  stage: h.stage,
  table: h.table ?? null,
  what: h.what,
  detail: h.detail === '' ? null : h.detail,
});

const packetJson = (p: TracePacket | undefined) => ({
  sourceIp: p?.sourceIp ?? null,
  destinationIp: p?.destinationIp ?? null,
  sourcePort: p?.sourcePort ?? 0,
  destinationPort: p?.destinationPort ?? 0,
  icmpType: p?.icmpType ?? 0,
  icmpCode: p?.icmpCode ?? 0,
  ttl: p?.ttl ?? 0,
  length: p?.length ?? 0,
  established: p?.established === true,
});

export type TraceJson = ReturnType<typeof meshJson>;

const portTextOf = (asked: Asked): string => (asked.protocol === 'icmp' ? 'icmp' : `${asked.port}/${asked.protocol}`);

const meshJson = (t: TraceResponse, asked: Asked) => ({
  source: t.source,
  destination: t.destination,
  network: t.network === '' ? null : t.network,
  port: portTextOf(asked),
  packet: packetJson(t.packet),
  verdict: t.verdict,
  reason: t.reason,
  /** At which it ends. */
  host: t.host === '' ? null : t.host,
  hops: t.hops.map(hopJson),
});

function localJson(a: TraceAnswer, asked: Asked): TraceJson {
  const hops = a.hops.map(hopJson);
  const [verdict, reason] =
    a.outcome === 'tunnel'
      ? ['unknown', `it goes on ${a.reason}, and this host alone cannot say what becomes of it there`]
      : [a.outcome === 'outside' ? 'left' : a.outcome, a.reason];
  return {
    source: asked.source,
    destination: asked.destination,
    network: asked.network === '' ? null : asked.network,
    port: portTextOf(asked),
    packet: packetJson(a.packet),
    verdict,
    reason: reason === '' ? `endpoint ${a.endpointId.slice(0, 12)} of this host gets it` : reason,
    host: hops.at(-1)?.host ?? null,
    hops,
  };
}

export function traceText(t: TraceJson, detail: boolean): string {
  const { sourceIp, destinationIp, sourcePort, destinationPort } = t.packet;
  const end = (ip: string | null, port: number): string =>
    port === 0 ? (ip ?? '') : `${ip?.includes(':') === true ? `[${ip}]` : ip}:${port}`;
  const ends = `${end(sourceIp, sourcePort)} → ${end(destinationIp, destinationPort)}`;
  const on = t.network === null ? '' : ` on ${t.network}`;
  const rows = t.hops.flatMap((h) => {
    const stage = h.table === null ? h.stage : `${h.table} ${h.stage}`;
    const row = [h.host, h.engine, stage, h.what];
    return detail && h.detail !== null ? [row, ['', '', '', `  ${h.detail}`]] : [row];
  });
  const head = `${t.source} → ${t.destination}, ${t.port}${on} (${ends})`;
  const hops = rows.length === 0 ? '' : table(['HOST', 'ENGINE', 'STAGE', 'WHAT'], rows);
  return `${clean(head)}\n${hops}${clean(`${t.verdict}: ${t.reason}`)}\n`;
}
