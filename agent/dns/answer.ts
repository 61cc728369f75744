/**
 * What a container is told: a function of its question, of the networks that it is in, and of the index. Names of other networks do
 * not exist for it. Names that nobody here knows are for the host's resolvers, except below `.weft`, and addresses of its own
 * networks, which nobody else can know anything about. Pure.
 */
import { type Cidr, containsIp, formatIp, mapped } from '../../lib/addr.ts';
import { tryParseIp as tryParseIp4 } from '../../lib/ip.ts';
import { type Holder, isDnsName, type NameIndex, type NetworkNames, normalName, ZONE } from './names.ts';

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
  /** True for networks whose users want the answers of their own host first. */
  readonly nearest: (networkId: string) => boolean;
}

/** All belong to the name that was asked for, and may not be kept (TTL 0). */
export type Answer =
  | { readonly kind: 'addresses'; readonly type: 'A' | 'AAAA'; readonly ips: readonly string[] }
  | { readonly kind: 'pointers'; readonly names: readonly string[] }
  /** NOERROR without records: the name is known. `zone`: whose SOA goes with it; null: none. */
  | { readonly kind: 'empty'; readonly zone: string | null }
  | { readonly kind: 'nxdomain'; readonly zone: string }
  | { readonly kind: 'forward' };

const REVERSE4 = '.in-addr.arpa';
const REVERSE6 = '.ip6.arpa';

export function answer(question: Question, asker: Asker, index: NameIndex, order: Order): Answer {
  const name = normalName(question.name);
  const networks = asker.networks.map((id) => index.get(id)).filter((n) => n !== undefined);
  const ip = addressOf(name);
  if (ip !== null) return answerReverse(question, name, ip, networks);
  const found = networks.flatMap((network) => holders(network, name).map((holder) => ({ holder, network })));
  const zone = isInZone(name) ? ZONE : null;
  if (found.length > 0) {
    const ips = question.type === 'A' || question.type === 'AAAA' ? addresses(found, question.type, order) : [];
    return ips.length === 0 ? { kind: 'empty', zone } : { kind: 'addresses', type: question.type as 'A' | 'AAAA', ips };
  }
  if (zone === null) return { kind: 'forward' };
  // The zone, and its networks, are above names that exist, so they do too (RFC 8020).
  const above = name === ZONE || networks.some((n) => n.suffixes.includes(`.${name}`));
  return above ? { kind: 'empty', zone } : { kind: 'nxdomain', zone };
}

const isInZone = (name: string): boolean => name === ZONE || name.endsWith(`.${ZONE}`);

/** Who has a name on a network: written alone, or with the network's name after it. */
function holders(network: NetworkNames, name: string): readonly Holder[] {
  const found = [network.byName.get(name) ?? []];
  for (const suffix of network.suffixes)
    if (name.endsWith(suffix)) found.push(network.byName.get(name.slice(0, -suffix.length)) ?? []);
  return found.flat();
}

interface Found {
  readonly holder: Holder;
  readonly network: NetworkNames;
}

/**
 * One address of each container: software that finds a peer by two of them takes it for two peers. Turned by a random number of
 * places, so that everyone is first equally often.
 */
function addresses(found: readonly Found[], type: 'A' | 'AAAA', order: Order): readonly string[] {
  const near = new Set<string>();
  const far = new Set<string>();
  const owners = new Set<string>();
  for (const { holder, network } of found) {
    const ip = holder.ips.find((text) => text.includes(':') === (type === 'AAAA'));
    if (ip === undefined || owners.has(holder.owner)) continue;
    owners.add(holder.owner);
    (holder.own && order.nearest(network.networkId) ? near : far).add(ip);
  }
  return [...new Set([...turned([...near], order.random), ...turned([...far], order.random)])];
}

function turned<T>(list: readonly T[], random: () => number): readonly T[] {
  if (list.length < 2) return list;
  const start = Math.floor(random() * list.length) % list.length;
  return [...list.slice(start), ...list.slice(0, start)];
}

function answerReverse(question: Question, name: string, ip: bigint, networks: readonly NetworkNames[]): Answer {
  const text = formatIp(ip);
  const holding = networks.filter((network) => (network.byIp.get(text)?.name ?? '') !== '');
  // The whole reverse zone is not ours, so the SOA is that of the name above.
  const zone = name.slice(name.indexOf('.') + 1);
  if (holding.length === 0) {
    const ours = networks.some((network) => network.subnets.some((subnet: Cidr) => containsIp(subnet, ip)));
    return ours ? { kind: 'nxdomain', zone } : { kind: 'forward' };
  }
  if (question.type !== 'PTR') return { kind: 'empty', zone };
  const names = holding.flatMap((n) => (n.title === '' ? [] : pointers(n.byIp.get(text)!.name, n.title)));
  return names.length === 0 ? { kind: 'empty', zone } : { kind: 'pointers', names };
}

/** First what Docker's own resolver says, then what is unmistakable. */
const pointers = (name: string, title: string): string[] =>
  [`${name}.${title}`, `${name}.${title}.${ZONE}`].filter(isDnsName);

/** The address that a reverse name is of; null: it is none, or not a whole one. */
export function addressOf(name: string): bigint | null {
  if (name.endsWith(REVERSE4)) {
    const ip = tryParseIp4(name.slice(0, -REVERSE4.length).split('.').toReversed().join('.'));
    return ip === null ? null : mapped(ip);
  }
  if (!name.endsWith(REVERSE6)) return null;
  const digits = name.slice(0, -REVERSE6.length);
  return /^[0-9a-f](\.[0-9a-f]){31}$/.test(digits) ? BigInt(`0x${digits.split('.').toReversed().join('')}`) : null;
}

/** The reverse name of an address (RFC 1035 §3.5, RFC 3596 §2.5). @param ip canonical */
export function reverseName(ip: string, value: bigint): string {
  if (!ip.includes(':')) return `${ip.split('.').toReversed().join('.')}${REVERSE4}`;
  return `${value.toString(16).padStart(32, '0').split('').toReversed().join('.')}${REVERSE6}`;
}
