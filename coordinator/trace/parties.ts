/** Between whom a packet is followed: names and addresses that people write, as ends in one network. Pure. */
import { containsIp, type Family, familyOfText, formatIp, parseCidr, parseIp, tryParseIp } from '../../lib/addr.ts';
import { endpointName } from '../../lib/endpoint-name.ts';
import { middleCut, WeftError } from '../../lib/errors.ts';
import type { Endpoint, Host, Network, Service } from '../../lib/model.ts';
import { selects } from '../../lib/selector.ts';
import type { State } from '../contract.ts';

export type Party =
  | { readonly kind: 'endpoint'; readonly endpoint: Endpoint; readonly ips: readonly string[] }
  | { readonly kind: 'service'; readonly service: Service; readonly ips: readonly string[] }
  /** An address of a host, which ports may be published at. */
  | { readonly kind: 'host'; readonly host: Host; readonly ips: readonly string[] }
  | { readonly kind: 'address'; readonly ips: readonly string[] };

export interface Ends {
  readonly source: Party;
  readonly destination: Party;
  /** Of the source; null: it is outside. */
  readonly network: Network | null;
  readonly from: string;
  readonly to: string;
}

type Known = Pick<State, 'endpoints' | 'services' | 'hosts' | 'networks'>;

export function partyText(state: Known, p: Party, ip = ''): string {
  if (p.kind === 'endpoint') return endpointText(state, p.endpoint);
  if (p.kind === 'service') return `service ${p.service.name}`;
  return p.kind === 'host' ? `host ${p.host.name}` : ip || (p.ips[0] ?? '');
}

export const endpointText = (state: Known, e: Endpoint): string =>
  `${state.hosts.get(e.hostId)?.name ?? e.hostId}/${endpointName(e) || e.id.slice(0, 12)}`;

/**
 * @param only network by whose means it is sent; null: whichever they share
 * @throws NOT_FOUND, INVALID_ARGUMENT whom is meant is not clear; FAILED_PRECONDITION no family in common
 */
export function endsOf(
  state: Known,
  asked: { readonly source: string; readonly destination: string; readonly family: number },
  only: Network | null,
): Ends {
  const sources = candidates(state, asked.source, 'source').filter((p) => p.kind !== 'service');
  const destinations = candidates(state, asked.destination, 'destination');
  const pairs = pairsOf(state, sources, destinations, only);
  const [first] = pairs;
  if (first === undefined) throw apart(state, asked, only);
  if (pairs.length > 1) throw several(state, pairs);
  const { source, destination } = first;
  const families = asked.family === 0 ? ([4, 6] as const) : [asked.family as Family];
  for (const family of families) {
    const [from, to] = [source, destination].map((p) => p.ips.find((ip) => familyOfText(ip) === family));
    if (from !== undefined && to !== undefined) return { ...first, from, to };
  }
  const [a, b] = [partyText(state, source), partyText(state, destination)];
  const which = asked.family === 0 ? 'no family of addresses in common' : `no IPv${asked.family} addresses both`;
  throw new WeftError('FAILED_PRECONDITION', `${a} and ${b} have ${which}.`);
}

type Pair = Pick<Ends, 'source' | 'destination' | 'network'>;

/** Those that are meant most: in one network, else into it, else anywhere. */
function pairsOf(
  state: Known,
  sources: readonly Party[],
  destinations: readonly Party[],
  only: Network | null,
): Pair[] {
  const all = sources.flatMap((source) =>
    destinations.flatMap((destination): (Pair & { rank: number })[] => {
      const network = source.kind === 'endpoint' ? (state.networks.get(source.endpoint.networkId) ?? null) : null;
      if (network === null) {
        // From outside something comes to a host's address, and nowhere else.
        return source.kind === 'address' && destination.kind === 'host' && only === null
          ? [{ source, destination, network, rank: 3 }]
          : [];
      }
      if (only !== null && network.id !== only.id) return [];
      return [{ source, destination, network, rank: rankOf(network, destination) }];
    }),
  );
  const best = Math.min(...all.map(({ rank }) => rank));
  return all
    .filter(({ rank }) => rank === best)
    .map(({ source, destination, network }) => ({ source, destination, network }));
}

function rankOf(network: Network, p: Party): number {
  if (p.kind === 'endpoint') return p.endpoint.networkId === network.id ? 0 : 3;
  if (p.kind === 'service') return p.service.networkId === network.id ? 0 : 4;
  const inside = p.ips.some((ip) => isIn(network, ip));
  return p.kind === 'address' && inside ? 1 : 2;
}

export const isIn = (network: Pick<Network, 'subnets'>, ip: string): boolean =>
  network.subnets.some((s) => familyOfText(s) === familyOfText(ip) && containsIp(parseCidr(s), parseIp(ip)));

function several(state: Known, pairs: readonly Pair[]): WeftError {
  const one = ({ source, destination, network }: Pair): string =>
    `${partyText(state, source)} to ${partyText(state, destination)}${network === null ? '' : ` on ${network.name}`}`;
  const shown = pairs.slice(0, 10).map(one).join('; ');
  return new WeftError('INVALID_ARGUMENT', `Several ways are meant: ${shown}.`, {
    hint: 'give --network, HOST/NAME, or an endpoint’s id',
  });
}

function apart(
  state: Known,
  { source, destination }: { readonly source: string; readonly destination: string },
  only: Network | null,
): WeftError {
  const known = candidates(state, source, 'source').some((p) => p.kind === 'endpoint');
  if (known && only !== null)
    return new WeftError('FAILED_PRECONDITION', `${middleCut(source)} is not in network ${only.name}.`, {
      hint: 'weft endpoint ls shows where it is',
    });
  return new WeftError(
    'NOT_FOUND',
    `A packet comes from an endpoint, or from outside to a host: ${middleCut(source)} is no endpoint, and ${middleCut(destination)} is no host.`,
    { hint: 'weft endpoint ls lists endpoints; from outside: weft trace ADDRESS HOST PORT' },
  );
}

/** All that a text may mean. @throws NOT_FOUND */
function candidates(state: Known, text: string, what: string): Party[] {
  if (text === '')
    throw new WeftError('INVALID_ARGUMENT', `The ${what} is empty.`, { hint: 'give it a name or address' });
  const all = [...state.endpoints.values()].flatMap((byId) => [...byId.values()]);
  const services = [...state.services.values()].flatMap((byName) => [...byName.values()]);
  const hosts = [...state.hosts.values()];
  const ip = tryParseIp(text);
  if (ip !== null) {
    const address = formatIp(ip);
    const here = all.filter((e) => e.ips.includes(address));
    const virtual = services.filter((s) => s.ips.includes(address));
    const host = hosts.find((h) => h.vteps.some((v) => v.address === address));
    return [
      ...here.map((endpoint): Party => ({ kind: 'endpoint', endpoint, ips: [address] })),
      ...virtual.map((service): Party => ({ kind: 'service', service, ips: [address] })),
      host === undefined ? { kind: 'address', ips: [address] } : { kind: 'host', host, ips: [address] },
    ];
  }
  const named = all.filter((e) => namesOf(state, e).includes(text));
  const prefix = /^[0-9a-f]{4,}$/.test(text)
    ? all.filter((e) => e.id.startsWith(text) || e.container?.id.startsWith(text) === true)
    : [];
  const endpoints = (named.length > 0 ? named : prefix).map(
    (endpoint): Party => ({ kind: 'endpoint', endpoint, ips: endpoint.ips }),
  );
  if (endpoints.length > 0) return endpoints;
  const virtual = services.filter((s) => s.name === text && s.ips.length > 0);
  if (virtual.length > 0) return virtual.map((service): Party => ({ kind: 'service', service, ips: service.ips }));
  const host = hosts.find((h) => h.name === text);
  if (host !== undefined) return [{ kind: 'host', host, ips: host.vteps.map((v) => v.address) }];
  throw new WeftError('NOT_FOUND', `There is no endpoint “${middleCut(text)}”.`, {
    hint: 'weft endpoint ls lists them; a container that is not running has none',
  });
}

const namesOf = (state: Known, e: Endpoint): string[] => [
  e.id,
  endpointName(e),
  endpointText(state, e),
  ...(e.container === undefined ? [] : [e.container.id]),
];

/** Is it who was meant? */
export function isMeant(p: Party, e: Endpoint): boolean {
  if (p.kind === 'endpoint') return p.endpoint.id === e.id;
  if (p.kind === 'service') return p.service.networkId === e.networkId && selects(p.service.selector, e.labels);
  // A published port may lead to anybody.
  return p.kind === 'host' || e.ips.includes(p.ips[0] ?? '');
}
