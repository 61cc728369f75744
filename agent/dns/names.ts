/**
 * Which names exist on which network. What this host holds is in its journal, and the journal alone is believed about it; what the
 * others hold is in the view. A network of which neither has changed keeps the index that it had, so that a change costs what its
 * own network holds. Pure.
 */
import { type Cidr, formatIp, parseCidr, tryParseIp } from '../../lib/addr.ts';
import { endpointName } from '../../lib/endpoint-name.ts';
import type { Endpoint, Network, NetworkView, View } from '../../lib/model.ts';
import { ipsOf, type LocalEndpoint, type LocalNetwork, nameOf } from '../contract.ts';

/** Of a label, and of a whole name as text (RFC 1035 §2.3.4: 255 bytes on the wire). */
const MAX_LABEL = 63;
const MAX_NAME = 253;
/** Digits of a container's id by which Docker lets people call it. */
const SHORT_ID = 12;
/** Zone of the names that are nobody else's. */
export const ZONE = 'weft';

/** Who has a name on a network. */
export interface Holder {
  /** The same for all endpoints of a container: it answers once, whatever networks it shares with who asks. */
  readonly owner: string;
  /** What an address is resolved to: the container's name, as written. Empty when no DNS name can be made of it. */
  readonly name: string;
  /** Canonical, IPv4 first. */
  readonly ips: readonly string[];
  /** On this host. */
  readonly own: boolean;
}

/** The names of one network. */
export interface NetworkNames {
  readonly networkId: string;
  /** Docker's name of the network (PROJECT.NAME outside project "default"); empty while it has none. */
  readonly title: string;
  /** What may follow a container's name, lower-case, with the dot before: `.web`, `.web.weft`. */
  readonly suffixes: readonly string[];
  readonly subnets: readonly Cidr[];
  /** By name or alias, lower-case, without a suffix. Sorted by address. */
  readonly byName: ReadonlyMap<string, readonly Holder[]>;
  /** By canonical address. */
  readonly byIp: ReadonlyMap<string, Holder>;
  /** What it was made from; compared by identity. */
  readonly from: NetworkSources;
}

/** By network id. */
export type NameIndex = ReadonlyMap<string, NetworkNames>;

/** Where the first index begins. */
export const NO_NAMES: NameIndex = new Map<string, NetworkNames>([]);

interface NetworkSources {
  readonly network: Network | undefined;
  readonly view: NetworkView | undefined;
  readonly local: readonly LocalEndpoint[];
}

export interface NameSources {
  /** Own host; what the view says of it is not read. */
  readonly hostId: string;
  readonly view: View;
  /** Journal. */
  readonly endpoints: Iterable<LocalEndpoint>;
  readonly networks: ReadonlyMap<string, LocalNetwork>;
}

/**
 * @param before what it returned last time, for the same host
 * @returns `before` itself when no name has changed hands
 */
export function indexNames(sources: NameSources, before: NameIndex): NameIndex {
  const local = Map.groupBy(sources.endpoints, (e) => e.networkId);
  const ids = new Set([...sources.view.interests.keys(), ...local.keys()]);
  const index = new Map<string, NetworkNames>();
  let changed = ids.size !== before.size;
  for (const id of ids) {
    const from: NetworkSources = {
      network: sources.view.networks.get(id) ?? sources.networks.get(id)?.network,
      view: sources.view.interests.get(id),
      local: local.get(id) ?? [],
    };
    const old = before.get(id);
    const kept = old !== undefined && sameSources(old.from, from);
    if (!kept) changed = true;
    index.set(id, kept ? old : namesOf(id, from, sources.hostId));
  }
  return changed ? index : before;
}

const sameSources = (a: NetworkSources, b: NetworkSources): boolean =>
  a.network === b.network &&
  // Blocks, peers and the like have no names.
  a.view?.endpoints === b.view?.endpoints &&
  a.local.length === b.local.length &&
  a.local.every((e, i) => e === b.local[i]);

function namesOf(networkId: string, from: NetworkSources, hostId: string): NetworkNames {
  const byName = new Map<string, Holder[]>();
  const byIp = new Map<string, Holder>();
  const add = (holder: Holder, names: readonly string[]): void => {
    // The own journal comes first, and knows better who has an address.
    for (const ip of holder.ips) if (!byIp.has(ip)) byIp.set(ip, holder);
    for (const name of new Set(names.map(normalName))) {
      if (!isDnsName(name)) continue;
      const holders = byName.get(name);
      if (holders === undefined) byName.set(name, [holder]);
      else holders.push(holder);
    }
  };
  for (const e of from.local) if (isNamed(e)) add(...holderOf(nameOf(e), e.id, e.container, ipsOf(e), e.aliases, true));
  const others = [...(from.view?.endpoints.values() ?? [])].filter((e) => e.hostId !== hostId && e.state !== 'pending');
  // Two hosts may be told to hold one address while it moves: the later record is right.
  for (const e of others.toSorted(byRevision))
    add(...holderOf(endpointName(e), e.id, e.container ?? null, e.ips, e.aliases, false));
  for (const holders of byName.values()) holders.sort(byFirstIp);
  const { network } = from;
  return {
    networkId,
    title: network === undefined ? '' : titleOf(network),
    suffixes: network === undefined ? [] : suffixesOf(network),
    subnets: (network?.subnets ?? []).map(parseCidr),
    byName,
    byIp,
    from,
  };
}

/** A container has its names from the time when they are known until it leaves; its endpoint may outlive that a little. */
const isNamed = (e: LocalEndpoint): boolean =>
  e.attached !== undefined || (e.container !== null && e.sandbox !== null && e.sandbox !== '');

function holderOf(
  name: string,
  endpointId: string,
  container: { readonly id: string; readonly name: string } | null,
  ips: readonly string[],
  aliases: readonly string[],
  own: boolean,
): [Holder, string[]] {
  const short = container === null ? [] : [container.id.slice(0, SHORT_ID)];
  const names = [name, ...aliases, ...short];
  const holder = {
    owner: container === null ? endpointId : container.id,
    name: [name, ...short].find(isDnsName) ?? '',
    ips: ips
      .map(tryParseIp)
      .filter((ip) => ip !== null)
      .map(formatIp),
    own,
  };
  return [holder, names];
}

const byRevision = (a: Endpoint, b: Endpoint): number =>
  a.revision < b.revision ? 1 : a.revision > b.revision ? -1 : 0;

const byFirstIp = (a: Holder, b: Holder): number => {
  const [x = '', y = ''] = [a.ips[0], b.ips[0]];
  return x < y ? -1 : x > y ? 1 : 0;
};

const titleOf = (network: Network): string =>
  isDefault(network) || network.name === '' ? network.name : `${network.project}.${network.name}`;

const isDefault = (network: Network): boolean => network.project === '' || network.project === 'default';

function suffixesOf(network: Network): string[] {
  const names = new Set([network.name, titleOf(network)].map(normalName).filter(isDnsName));
  return [...names].flatMap((name) => [`.${name}`, `.${name}.${ZONE}`]);
}

/** Names are compared without regard to case and to a dot at the end. */
export const normalName = (name: string): string => (name.endsWith('.') ? name.slice(0, -1) : name).toLowerCase();

/** True when DNS can carry it: labels of 1 to 63 bytes, 253 together. */
export function isDnsName(name: string): boolean {
  if (Buffer.byteLength(name) > MAX_NAME) return false;
  return name.split('.').every((label) => label !== '' && Buffer.byteLength(label) <= MAX_LABEL);
}
