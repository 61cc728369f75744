/**
 * What a container is told: a function of its question, of the networks that it is in, and of the index. Names of other networks do
 * not exist for it. Names that nobody here knows are for the host's resolvers, except below `.weft`, and addresses of its own
 * networks, which nobody else can know anything about. Pure.
 */
import { type Cidr, containsIp, formatIp } from '../../lib/addr.ts';
import { type Holder, isDnsName, normalName } from './holders.ts';
import { type NameIndex, type NetworkNames, nameOn, ZONE } from './names.ts';
import { addressOf } from './reverse.ts';
import { portOf, type ServiceName } from './services.ts';

export interface Question {
  /** Any case; with or without a dot at the end. */
  readonly name: string;
  /** A, AAAA, PTR, … */
  readonly type: string;
}

/** Who asks. */
export interface Asker {
  /** Ids of its networks: where a container shares several with another, the first gives its address. */
  readonly networks: readonly string[];
}

export interface Order {
  /** From 0 up to 1, not included. */
  readonly random: () => number;
}

/** Where a service is answered (RFC 2782). */
export interface ServiceTarget {
  readonly priority: number;
  readonly weight: number;
  readonly port: number;
  readonly name: string;
  /** Addresses of `name`. */
  readonly ips: readonly string[];
}

/** All belong to the name that was asked for, and may not be kept (TTL 0). */
export type Answer =
  | { readonly kind: 'addresses'; readonly type: 'A' | 'AAAA'; readonly ips: readonly string[] }
  | { readonly kind: 'pointers'; readonly names: readonly string[] }
  | { readonly kind: 'targets'; readonly targets: readonly ServiceTarget[] }
  /** NOERROR without records: the name is known. `zone`: whose SOA goes with it; null: none. */
  | { readonly kind: 'empty'; readonly zone: string | null }
  | { readonly kind: 'nxdomain'; readonly zone: string }
  | { readonly kind: 'forward' };

export function answer(question: Question, asker: Asker, index: NameIndex, order: Order): Answer {
  const name = normalName(question.name);
  const networks = asker.networks.map((id) => index.get(id)).filter((n) => n !== undefined);
  const ip = addressOf(name);
  if (ip !== null) return answerReverse(question, name, ip, networks);
  const zone = isInZone(name) ? ZONE : null;
  const service = serviceOf(networks, name);
  const port = service === null && name.startsWith('_') ? answerPort(question, name, networks, order) : null;
  if (port !== null && port.kind !== 'nxdomain') return port;
  const found =
    service === null
      ? networks.flatMap((network) => containers(network, name))
      : holdersOf(service.of, service.network);
  if (service !== null || found.length > 0) {
    const { type } = question;
    const ips = type === 'A' || type === 'AAAA' ? addresses(found, type, order) : [];
    return ips.length === 0 ? { kind: 'empty', zone } : { kind: 'addresses', type: type as 'A' | 'AAAA', ips };
  }
  if (port !== null) return port;
  if (zone === null) return { kind: 'forward' };
  // The zone, and its networks, are above names that exist, so they do too (RFC 8020).
  const above = name === ZONE || networks.some((n) => n.suffixes.includes(`.${name}`));
  return above ? { kind: 'empty', zone } : { kind: 'nxdomain', zone };
}

const isInZone = (name: string): boolean => name === ZONE || name.endsWith(`.${ZONE}`);

interface Found {
  readonly holder: Holder;
  /** On the host of who asks, and to be told first because of that. */
  readonly near: boolean;
}

/** Ways in which a name may be meant on a network: written alone, or with the network's name after it. */
const meanings = (network: NetworkNames, name: string): string[] => [
  name,
  ...network.suffixes.filter((suffix) => name.endsWith(suffix)).map((suffix) => name.slice(0, -suffix.length)),
];

const containers = (network: NetworkNames, name: string): readonly Found[] =>
  meanings(network, name).flatMap((meant) =>
    (network.byName.get(meant) ?? []).map((holder) => ({ holder, near: holder.own && network.nearest })),
  );

interface FoundService {
  readonly of: ServiceName;
  readonly network: NetworkNames;
}

/** Two services of one name are two things: that of the first network that has one is meant. */
function serviceOf(networks: readonly NetworkNames[], name: string): FoundService | null {
  for (const network of networks) {
    if (network.services.size === 0) continue;
    for (const meant of meanings(network, name)) {
      const of = network.services.get(meant);
      if (of !== undefined) return { of, network };
    }
  }
  return null;
}

const holdersOf = ({ service, holders }: ServiceName, network: NetworkNames): readonly Found[] =>
  holders.map((holder) => ({ holder, near: holder.own && (network.nearest || service.localFirst) }));

/**
 * One address of each container: software that finds a peer by two of them takes it for two peers. Turned by a random number of
 * places, so that everyone is first equally often.
 */
function addresses(found: readonly Found[], type: 'A' | 'AAAA', order: Order): readonly string[] {
  const near = new Set<string>();
  const far = new Set<string>();
  const owners = new Set<string>();
  for (const { holder, near: isNear } of found) {
    const ip = holder.ips.find((text) => text.includes(':') === (type === 'AAAA'));
    if (ip === undefined || owners.has(holder.owner)) continue;
    owners.add(holder.owner);
    (isNear ? near : far).add(ip);
  }
  return [...new Set([...turned([...near], order.random), ...turned([...far], order.random)])];
}

function turned<T>(list: readonly T[], random: () => number): readonly T[] {
  if (list.length < 2) return list;
  const start = Math.floor(random() * list.length) % list.length;
  return [...list.slice(start), ...list.slice(0, start)];
}

/**
 * `_PORT._PROTOCOL.SERVICE` (RFC 2782), and what is above it.
 * @returns null: it is not of a service
 */
function answerPort(question: Question, name: string, networks: readonly NetworkNames[], order: Order): Answer | null {
  const empty: Answer = { kind: 'empty', zone: isInZone(name) ? ZONE : null };
  const [first = '', second = '', ...rest] = name.split('.');
  const above = serviceOf(networks, [second, ...rest].join('.'));
  if (above !== null) {
    // A service's protocols are above names that exist.
    const isThere = above.of.service.ports.some(({ protocol }) => `_${protocol}` === first);
    return isThere ? empty : { kind: 'nxdomain', zone: zoneOf(name, 1) };
  }
  if (!second.startsWith('_')) return null;
  const found = serviceOf(networks, rest.join('.'));
  if (found === null) return null;
  const port = portOf(found.of.service, first.slice(1), second.slice(1));
  if (port === undefined) return { kind: 'nxdomain', zone: zoneOf(name, 2) };
  const targets = question.type === 'SRV' ? targetsOf(found, port, order) : [];
  return targets.length === 0 ? empty : { kind: 'targets', targets };
}

/** Whose SOA says that there is nothing: of all that is ours in a name, the top. @param labels that stand before the service's name */
const zoneOf = (name: string, labels: number): string =>
  isInZone(name) ? ZONE : name.split('.').slice(labels).join('.');

/** A headless service's are its endpoints: where the near ones go first, the others are for when none of them answers. */
function targetsOf(
  { of, network }: FoundService,
  port: { readonly port: number; readonly targetPort: number },
  order: Order,
): ServiceTarget[] {
  const found = holdersOf(of, network);
  const [near, far] = [found.filter((f) => f.near), found.filter((f) => !f.near)];
  const target =
    (priority: number) =>
    ({ holder }: Found): ServiceTarget => ({
      priority,
      weight: 1,
      port: of.service.headless ? port.targetPort : port.port,
      name: `${nameOn(network, holder)}.${network.title}`,
      ips: holder.ips,
    });
  return [
    ...turned(near, order.random).map(target(0)),
    ...turned(far, order.random).map(target(near.length === 0 ? 0 : 1)),
  ].filter(({ name }) => isDnsName(name));
}

function answerReverse(question: Question, name: string, ip: bigint, networks: readonly NetworkNames[]): Answer {
  const text = formatIp(ip);
  const holding = networks.flatMap((network) => {
    const holder = network.byIp.get(text);
    const known = holder === undefined ? '' : nameOn(network, holder);
    return known === '' ? [] : [{ name: known, title: network.title }];
  });
  // The whole reverse zone is not ours, so the SOA is that of the name above.
  const zone = name.slice(name.indexOf('.') + 1);
  if (holding.length === 0) {
    const ours = networks.some((network) => network.subnets.some((subnet: Cidr) => containsIp(subnet, ip)));
    return ours ? { kind: 'nxdomain', zone } : { kind: 'forward' };
  }
  if (question.type !== 'PTR') return { kind: 'empty', zone };
  const names = holding.flatMap((n) => (n.title === '' ? [] : pointers(n.name, n.title)));
  return names.length === 0 ? { kind: 'empty', zone } : { kind: 'pointers', names };
}

/** First what Docker's own resolver says, then what is unmistakable. */
const pointers = (name: string, title: string): string[] =>
  [`${name}.${title}`, `${name}.${title}.${ZONE}`].filter(isDnsName);
