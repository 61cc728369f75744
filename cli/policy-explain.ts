/** weft policy explain: what policies say of a connection, and which rule it is. */
import type { Command } from 'commander';
import type { Network, Policy, Router, Service } from '../gen/weft/v1/types.ts';
import { familyOfText, formatIp, tryParseIp } from '../lib/addr.ts';
import { WeftError } from '../lib/errors.ts';
import { PORT_EXAMPLES, parsePort, portText } from '../lib/policy-port.ts';
import {
  type Direction,
  type End,
  type Judgement,
  judge,
  type Packet,
  type PolicyWorld,
  verdictOf,
} from '../lib/policy-verdict.ts';
import { linkedTo } from '../lib/routers.ts';
import type { Mesh } from './client.ts';
import { networkFlag, print, remote, withMesh } from './command.ts';
import { listEndpoints, matchEndpoints } from './endpoint.ts';
import type { Io } from './io.ts';
import { clean } from './output.ts';
import { routersOf } from './routers.ts';
import type { EndpointJson } from './shapes.ts';
import { UsageError } from './usage.ts';
import { nonEmpty, quote } from './values.ts';

export function registerExplain(noun: Command, io: Io): void {
  remote(noun, 'explain <source> <destination> <port>', 'which rule decides about a connection (80/tcp, icmp, icmp/8)')
    .addHelpText('after', '\nSource and destination: container (NAME or HOST/NAME), endpoint, or address.')
    .optionsGroup('Filter:')
    .option('--network <network>', 'network of the source (or else of the destination), where there are several')
    .action(async (source: string, destination: string, port: string, _options: unknown, command: Command) => {
      const asked = { source: nonEmpty('source', source), destination: nonEmpty('destination', destination) };
      const packet = packetOf(port);
      const network = networkFlag(command);
      const shown = explain(await withMesh(io, command, (mesh) => learn(mesh, network)), asked, packet);
      print(io, command, shown, () => explainText(shown));
    });
}

/** What is known of the mesh. */
export interface Known {
  readonly endpoints: readonly EndpointJson[];
  readonly networks: readonly Network[];
  readonly policies: readonly Policy[];
  readonly services: readonly Service[];
  readonly routers: readonly Router[];
  /** Name or id of the one that is meant, where an end is in several; empty: whichever. */
  readonly network: string;
}

async function learn(mesh: Mesh, network: string): Promise<Known> {
  const all = { project: '', network: '' };
  const { networks } = await mesh.call('listNetworks', { project: '' });
  const { policies } = await mesh.call('listPolicies', all);
  const { services } = await mesh.call('listServices', all);
  const routers = await routersOf(mesh);
  const endpoints = await listEndpoints(mesh, {});
  return { networks, policies, services: services.flatMap((s) => s.service ?? []), routers, endpoints, network };
}

/** `icmpType` null: an echo request, of either family. */
interface Asked extends Omit<Packet, 'icmpType'> {
  readonly icmpType: number | null;
  readonly text: string;
}

/** @throws UsageError */
export function packetOf(text: string): Asked {
  const port = parsePort(text);
  if (port === null) throw new UsageError(`A port is meant by ${quote(text)}?`, `write it ${PORT_EXAMPLES}`);
  const { protocol, first, last, icmpType, icmpCode } = port;
  if (protocol !== 'icmp' && (first === 0 || first !== last))
    throw new UsageError(`A connection goes to one port, not to ${quote(text)}.`, 'like 9042/tcp');
  return { protocol, port: first, icmpType: icmpType ?? null, icmpCode: icmpCode ?? 0, text: portText(port) };
}

interface Party {
  readonly endpoint: EndpointJson | null;
  /** One of a family. */
  readonly ips: readonly string[];
}

const nameOf = ({ endpoint, ips }: Party): string =>
  endpoint === null ? (ips[0] ?? '') : `${endpoint.host}/${endpoint.name ?? endpoint.id.slice(0, 12)}`;

export type Explanation = ReturnType<typeof explain>;

/**
 * @throws NOT_FOUND, INVALID_ARGUMENT whom is meant is not clear; FAILED_PRECONDITION nothing goes between them, whatever policies say
 */
export function explain(known: Known, asked: { source: string; destination: string }, packet: Asked) {
  const { source, destination } = partiesOf(known, asked);
  const networks = new Map(known.networks.map((n) => [n.id, n]));
  /** Each end is judged by its own network; an address that no endpoint has, by nobody. */
  const networkOf = ({ endpoint }: Party, other: Party): Network => {
    const name = (endpoint ?? other.endpoint)?.network ?? '';
    const found = known.networks.find((n) => n.name === name || n.id === name);
    if (found !== undefined) return found;
    throw new WeftError('NOT_FOUND', `Network ${name} has gone meanwhile.`, { hint: 'try again' });
  };
  const [here, there] = [networkOf(source, destination), networkOf(destination, source)];
  const worldOf = (network: Network): PolicyWorld => ({
    network,
    policies: known.policies,
    services: known.services.filter((s) => s.networkId === network.id),
    networks,
  });
  const endOf = ({ endpoint }: Party, network: Network, ip: string): End => ({
    ip,
    endpoint: endpoint === null ? null : { networkId: network.id, labels: endpoint.identity },
  });
  const paths = source.ips.flatMap((from) => {
    const family = familyOfText(from);
    const to = destination.ips.find((ip) => familyOfText(ip) === family);
    if (to === undefined) return [];
    const [a, b] = [endOf(source, here, from), endOf(destination, there, to)];
    const first = { ...packet, icmpType: packet.icmpType ?? (family === 4 ? 8 : 128) };
    const egress = a.endpoint === null ? null : judge(worldOf(here), 'egress', a, b, first);
    const ingress = b.endpoint === null ? null : judge(worldOf(there), 'ingress', b, a, first);
    const verdict = verdictOf(egress, ingress);
    return [{ source: from, destination: to, verdict, egress: judgementJson(egress), ingress: judgementJson(ingress) }];
  });
  if (paths.length === 0)
    throw new WeftError(
      'FAILED_PRECONDITION',
      `${nameOf(source)} and ${nameOf(destination)} have no family in common.`,
    );
  return {
    source: nameOf(source),
    destination: nameOf(destination),
    network: here.name,
    /** Another one where a router leads there. */
    destinationNetwork: there.name,
    port: packet.text,
    allowed: paths.every(({ verdict }) => verdict === 'allow'),
    paths,
  };
}

const judgementJson = (j: Judgement | null) =>
  j === null
    ? null
    : {
        action: j.action,
        /**
         * "rule"; "default" of the network; "pending": labels that rules ask for are not known yet; "exempt": never judged (neighbour
         * discovery, the resolver).
         */
        by: j.by,
        policy: j.policy?.name ?? null,
        rule: j.rule,
        tier: j.policy?.tier ?? null,
        order: j.policy?.order ?? null,
        /** What staged policies would decide instead; null: the same. */
        staged: otherJson(j.staged),
        /** What is decided where the address stands for a name that rules give; null: the same. */
        named: otherJson(j.named),
      };

const otherJson = (d: Judgement['staged']) =>
  d === null
    ? null
    : {
        action: d.action,
        policy: d.policy?.name ?? null,
        rule: d.rule,
        tier: d.policy?.tier ?? null,
        order: d.policy?.order ?? null,
      };

/** Both ends, in one network or in two with a router. */
function partiesOf(known: Known, asked: { source: string; destination: string }) {
  const [sources, destinations] = [asked.source, asked.destination].map((text) => candidates(known, text)) as [
    Party[],
    Party[],
  ];
  const pairs = sources.flatMap((source) =>
    destinations.flatMap((destination) => {
      const [a, b] = [source.endpoint, destination.endpoint];
      if (a === null && b === null) return [];
      if (a !== null && b !== null && (a.id === b.id || !isLed(known, a.network, b.network))) return [];
      return [{ source, destination }];
    }),
  );
  const meant = networkMeant(known);
  const those = pairs.filter(
    ({ source, destination }) => meant === null || (source.endpoint ?? destination.endpoint)?.network === meant,
  );
  // An address of an endpoint means that endpoint, where the other one is in its network.
  const between = those.filter(({ source, destination }) => source.endpoint !== null && destination.endpoint !== null);
  // The network that they share comes before a way by a router.
  const within = between.filter(
    ({ source, destination }) => source.endpoint?.network === destination.endpoint?.network,
  );
  const found = [within, between, those].find((some) => some.length > 0) ?? [];
  const [first] = found;
  if (first === undefined) throw apart(asked, sources, destinations);
  if (found.length === 1) return first;
  const one = (pair: (typeof found)[number]): string =>
    `${nameOf(pair.source)} to ${nameOf(pair.destination)} on ${(pair.source.endpoint ?? pair.destination.endpoint)?.network}`;
  throw new WeftError('INVALID_ARGUMENT', `Several connections are meant: ${found.slice(0, 10).map(one).join('; ')}.`, {
    hint: 'give --network, HOST/NAME, or the endpoint’s id',
  });
}

function apart(
  { source, destination }: { source: string; destination: string },
  sources: readonly Party[],
  destinations: readonly Party[],
): WeftError {
  const ends = [...sources, ...destinations].flatMap(({ endpoint }) => endpoint ?? []);
  if (ends.length === 0)
    return new WeftError('NOT_FOUND', `Neither ${source} nor ${destination} is an endpoint of the mesh.`, {
      hint: 'weft endpoint ls lists them',
    });
  if (new Set(ends.map(({ id }) => id)).size === 1)
    return new WeftError('INVALID_ARGUMENT', `${source} and ${destination} are the same endpoint.`);
  const where = (parties: readonly Party[]): string =>
    [...new Set(parties.flatMap(({ endpoint }) => endpoint?.network ?? []))].join(', ');
  return new WeftError(
    'FAILED_PRECONDITION',
    `${source} (${where(sources)}) and ${destination} (${where(destinations)}) share no network, and no router leads from one to the other: nothing goes between them, whatever policies say.`,
    { hint: 'connect one to a network of the other (weft network connect), or make a router (weft router create)' },
  );
}

/** By its name. @throws NOT_FOUND */
function networkMeant({ network, networks }: Known): string | null {
  if (network === '') return null;
  const found = networks.find((n) => n.name === network) ?? networks.find((n) => n.id.startsWith(network));
  if (found !== undefined) return found.name;
  throw new WeftError('NOT_FOUND', `There is no network ${clean(network)}.`, { hint: 'weft network ls lists them' });
}

/** It is one network, or a router leads from one to the other. */
function isLed({ networks, routers }: Known, from: string, to: string): boolean {
  const idOf = (name: string): string => networks.find((n) => n.name === name)?.id ?? name;
  return from === to || linkedTo(routers, idOf(from)).has(idOf(to));
}

/** Whom a text may mean; an address also means itself. */
function candidates(known: Known, text: string): Party[] {
  const ip = tryParseIp(text);
  if (ip === null) {
    const found = matchEndpoints(known.endpoints, text).map((endpoint) => ({ endpoint, ips: endpoint.ips }));
    if (found.length > 0) return found;
    throw new WeftError('NOT_FOUND', `There is no endpoint “${text}”.`, { hint: 'weft endpoint ls lists them' });
  }
  const address = formatIp(ip);
  const service = known.services.find(({ ips }) => ips.includes(address));
  if (service !== undefined)
    throw new WeftError('INVALID_ARGUMENT', `${address} is the address of service ${service.name}.`, {
      hint: `name an endpoint behind it: weft service inspect ${service.name} shows them`,
    });
  const endpoints = known.endpoints.filter(({ ips }) => ips.includes(address));
  return [...endpoints.map((endpoint) => ({ endpoint, ips: [address] })), { endpoint: null, ips: [address] }];
}

export function explainText(e: Explanation): string {
  const line = (direction: Direction, whose: string, j: Explanation['paths'][number]['egress']): string => {
    const what = `${direction} of ${whose}`;
    if (j === null) return `  ${what}: nobody is judged, it is no endpoint`;
    if (j.by === 'pending') return `  ${what}: ${j.action}, rules ask for its labels, which are not known yet`;
    if (j.by === 'exempt') return `  ${what}: ${j.action}, this is never judged`;
    const whoseDefault = direction === 'egress' ? e.network : e.destinationNetwork;
    if (j.by === 'default')
      return `  ${what}: ${j.action}, no rule is about it: the default of network ${whoseDefault}`;
    return `  ${what}: ${j.action}, policy ${j.policy}, ${direction} rule ${j.rule} (${j.tier}, order ${j.order})`;
  };
  const otherwise = (direction: Direction, j: Explanation['paths'][number]['egress']): string[] => {
    const others = [
      ['where the address stands for a name in it:', j?.named ?? null],
      ['staged: would', j?.staged ?? null],
    ] as const;
    return others.flatMap(([how, one]) =>
      one === null
        ? []
        : [
            `    ${how} ${one.action}, policy ${one.policy}, ${direction} rule ${one.rule} (${one.tier}, order ${one.order})`,
          ],
    );
  };
  const where = e.network === e.destinationNetwork ? e.network : `${e.network} to ${e.destinationNetwork}`;
  const lines = e.paths.flatMap((p) => {
    const ends = [p.source, p.destination].join(' → ');
    return [
      `${e.source} → ${e.destination}, ${e.port} on ${where} (${ends}): ${p.verdict}`,
      line('egress', e.source, p.egress),
      ...otherwise('egress', p.egress),
      line('ingress', e.destination, p.ingress),
      ...otherwise('ingress', p.ingress),
    ];
  });
  return lines.map((text) => `${clean(text)}\n`).join('');
}
