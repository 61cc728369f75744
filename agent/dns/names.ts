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
/** Above those of all records in etcd. */
const OWN_REVISION = 2n ** 64n;
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
  /** By endpoint record, whose object stands for its content: most are the same after a change. */
  readonly entries: ReadonlyMap<object, Entry>;
  /** What it was made from; compared by identity. */
  readonly from: NetworkSources;
}

/** What an endpoint brings. */
interface Entry {
  readonly of: LocalEndpoint | Endpoint;
  readonly holder: Holder;
  /** Lower-case, each once. */
  readonly names: readonly string[];
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
    index.set(id, kept ? old : namesOf(id, from, sources.hostId, old));
  }
  return changed ? index : before;
}

const sameSources = (a: NetworkSources, b: NetworkSources): boolean =>
  a.network === b.network &&
  // Blocks, peers and the like have no names.
  a.view?.endpoints === b.view?.endpoints &&
  a.local.length === b.local.length &&
  a.local.every((e, i) => e === b.local[i]);

function namesOf(
  networkId: string,
  from: NetworkSources,
  hostId: string,
  before: NetworkNames | undefined,
): NetworkNames {
  const entries = new Map<object, Entry>();
  const byName = new Map<string, Holder[]>();
  const byIp = new Map<string, Holder>();
  const revisions = new Map<string, bigint>();
  const add = (entry: Entry, revision: bigint): void => {
    entries.set(entry.of, entry);
    for (const ip of entry.holder.ips) {
      // Two hosts may be told to hold one address while it moves: the later record is right, and the own journal before all.
      if (revision <= (revisions.get(ip) ?? -1n)) continue;
      revisions.set(ip, revision);
      byIp.set(ip, entry.holder);
    }
    for (const name of entry.names) {
      const holders = byName.get(name);
      if (holders === undefined) byName.set(name, [entry.holder]);
      else holders.push(entry.holder);
    }
  };
  for (const e of from.local)
    if (isNamed(e))
      add(before?.entries.get(e) ?? entryOf(e, nameOf(e), e.container ?? undefined, ipsOf(e), true), OWN_REVISION);
  for (const e of from.view?.endpoints.values() ?? [])
    if (e.hostId !== hostId && e.state !== 'pending')
      add(before?.entries.get(e) ?? entryOf(e, endpointName(e), e.container, e.ips, false), e.revision);
  for (const holders of byName.values()) if (holders.length > 1) holders.sort(byFirstIp);
  const { network } = from;
  return {
    networkId,
    title: network === undefined ? '' : titleOf(network),
    suffixes: network === undefined ? [] : suffixesOf(network),
    subnets: (network?.subnets ?? []).map(parseCidr),
    byName,
    byIp,
    entries,
    from,
  };
}

/** A container has its names from the time when they are known until it leaves; its endpoint may outlive that a little. */
const isNamed = (e: LocalEndpoint): boolean =>
  e.attached !== undefined || (e.container !== null && e.sandbox !== null && e.sandbox !== '');

function entryOf(
  of: LocalEndpoint | Endpoint,
  name: string,
  container: { readonly id: string } | undefined,
  ips: readonly string[],
  own: boolean,
): Entry {
  const short = container === undefined ? [] : [container.id.slice(0, SHORT_ID)];
  const holder = {
    owner: container === undefined ? of.id : container.id,
    name: [name, ...short].find(isDnsName) ?? '',
    ips: ips
      .map(tryParseIp)
      .filter((ip) => ip !== null)
      .map(formatIp),
    own,
  };
  const names = new Set([name, ...of.aliases, ...short].map(normalName).filter(isDnsName));
  return { of, holder, names: [...names] };
}

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
