/**
 * Which names exist on which network. What this host holds is in its journal, and the journal alone is believed about it; what the
 * others hold is in the view. A network of which neither has changed keeps the index that it had, so that a change costs what its
 * own network holds. Pure.
 */
import { type Cidr, parseCidr } from '../../lib/addr.ts';
import { endpointName } from '../../lib/endpoint-name.ts';
import type { Network, NetworkView, View } from '../../lib/model.ts';
import { NEAREST } from '../../lib/network-options.ts';
import { ipsOf, type LocalEndpoint, type LocalNetwork, nameOf } from '../contract.ts';
import { byFirstIp, type Entry, entryOf, type Holder, isDnsName, normalName } from './holders.ts';
import { type ServiceName, serviceNames } from './services.ts';

/** Above those of all records in etcd. */
const OWN_REVISION = 2n ** 64n;
/** Zone of the names that are nobody else's. */
export const ZONE = 'weft';

/** The names of one network. */
export interface NetworkNames {
  readonly networkId: string;
  /** Docker's name of the network (PROJECT.NAME outside project "default"); empty while it has none. */
  readonly title: string;
  /** What may follow a container's name, lower-case, with the dot before: `.web`, `.web.weft`. */
  readonly suffixes: readonly string[];
  readonly subnets: readonly Cidr[];
  /** Its users want the answers of their own host first. */
  readonly nearest: boolean;
  /** By name, lower-case, without a suffix: they hide equal names of containers. */
  readonly services: ReadonlyMap<string, ServiceName>;
  /** By name or alias, lower-case, without a suffix. Sorted by address. */
  readonly byName: ReadonlyMap<string, readonly Holder[]>;
  /** By canonical address; a service has its virtual ones. */
  readonly byIp: ReadonlyMap<string, Holder>;
  /** By endpoint record, whose object stands for its content: most are the same after a change. */
  readonly entries: ReadonlyMap<object, Entry>;
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
  /** Of each of `local`: ids of services whose health check it fails. */
  readonly unhealthy: readonly (readonly string[])[];
  readonly unreached: ReadonlySet<string>;
}

export interface NameSources {
  /** Own host; what the view says of it is not read. */
  readonly hostId: string;
  readonly view: View;
  /** Journal. */
  readonly endpoints: Iterable<LocalEndpoint>;
  readonly networks: ReadonlyMap<string, LocalNetwork>;
  /** Ids of services whose health check an endpoint of this host fails. Absent: nobody fails any. */
  readonly unhealthy?: Unhealthy;
  /** Ids of hosts that this one does not reach; the same object as long as they are the same. Absent: none. */
  readonly unreached?: ReadonlySet<string>;
}

export type Unhealthy = (e: LocalEndpoint) => readonly string[];

const NOTHING: readonly string[] = [];
const NO_HOSTS: ReadonlySet<string> = new Set<string>([]);
const nobody: Unhealthy = () => NOTHING;

/**
 * @param before what it returned last time, for the same host
 * @returns `before` itself when no name has changed hands
 */
export function indexNames(sources: NameSources, before: NameIndex): NameIndex {
  const local = Map.groupBy(sources.endpoints, (e) => e.networkId);
  const ids = new Set([...sources.view.interests.keys(), ...local.keys()]);
  const index = new Map<string, NetworkNames>();
  let changed = ids.size !== before.size;
  const { unhealthy = nobody, unreached = NO_HOSTS } = sources;
  for (const id of ids) {
    const own = local.get(id) ?? [];
    const view = sources.view.interests.get(id);
    const from: NetworkSources = {
      network: sources.view.networks.get(id) ?? sources.networks.get(id)?.network,
      view,
      local: own,
      unhealthy: own.map((e) => (hasServices(view) ? unhealthy(e) : NOTHING)),
      unreached: hasServices(view) ? unreached : NO_HOSTS,
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
  a.view?.services === b.view?.services &&
  (a.view?.settings === b.view?.settings || !hasServices(b.view)) &&
  a.unreached === b.unreached &&
  a.local.length === b.local.length &&
  a.local.every((e, i) => e === b.local[i] && sameTexts(a.unhealthy[i] ?? NOTHING, b.unhealthy[i] ?? NOTHING));

const hasServices = (view: NetworkView | undefined): boolean => (view?.services.size ?? 0) > 0;

const sameTexts = (a: readonly string[], b: readonly string[]): boolean =>
  a === b || (a.length === b.length && a.every((text, i) => text === b[i]));

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
  const failing = new Map(from.local.map((e, i) => [e.id, from.unhealthy[i] ?? NOTHING]));
  const services = serviceNames({
    services: from.view?.services.values() ?? [],
    entries: entries.values(),
    settings: from.view?.settings ?? new Map(),
    before: before?.services ?? new Map(),
    unreached: from.unreached,
    unhealthy: (e) => ('hostId' in e ? e.unhealthy : (failing.get(e.id) ?? NOTHING)),
  });
  for (const { service, holders } of services.values())
    if (!service.headless) for (const holder of holders) for (const ip of holder.ips) byIp.set(ip, holder);
  return {
    networkId,
    title: network === undefined ? '' : titleOf(network),
    suffixes: network === undefined ? [] : suffixesOf(network),
    subnets: (network?.subnets ?? []).map(parseCidr),
    nearest: network?.dnsOrder === NEAREST,
    services,
    byName,
    byIp,
    entries,
    from,
  };
}

/** A container has its names from the time when they are known until it leaves; its endpoint may outlive that a little. */
const isNamed = (e: LocalEndpoint): boolean =>
  e.attached !== undefined || (e.container !== null && e.sandbox !== null && e.sandbox !== '');

const titleOf = (network: Network): string =>
  isDefault(network) || network.name === '' ? network.name : `${network.project}.${network.name}`;

const isDefault = (network: Network): boolean => network.project === '' || network.project === 'default';

function suffixesOf(network: Network): string[] {
  const names = new Set([network.name, titleOf(network)].map(normalName).filter(isDnsName));
  return [...names].flatMap((name) => [`.${name}`, `.${name}.${ZONE}`]);
}

/**
 * The name by which a holder is found on its network: a container whose own is a service's is found by its short id. Empty: by none.
 */
export function nameOn(network: NetworkNames, holder: Holder): string {
  const hiding = network.services.get(normalName(holder.name));
  return hiding === undefined || hiding.service.id === holder.owner ? holder.name : holder.short;
}
