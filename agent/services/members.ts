/**
 * Who is behind each service, as this host sees it. What this host holds is in its journal, and the journal alone is believed about it;
 * what the others hold is in the view. A network of which nothing has changed keeps what it had, and so does a service: a change
 * costs what its own network holds. Pure.
 */
import { isIp4, lowOf, tryParseIp } from '../../lib/addr.ts';
import { parseMac } from '../../lib/mac.ts';
import type { Endpoint, NetworkView, Service, View } from '../../lib/model.ts';
import { selects } from '../../lib/selector.ts';
import type { BpfAddress, BpfBackend } from '../bpf/model.ts';
import { ipsOf, type LocalEndpoint, type LocalNetwork } from '../contract.ts';
import type { ServiceModel } from '../flows/model.ts';
import { keyOf, numbered, preferred } from './numbers.ts';
import { NOTHING_PUBLISHED, type PublishedServices } from './published.ts';

export interface ServiceSources {
  /** Own host; what the view says of its endpoints is not read. */
  readonly hostId: string;
  readonly view: View;
  /** Journal. */
  readonly endpoints: Iterable<LocalEndpoint>;
  readonly networks: ReadonlyMap<string, LocalNetwork>;
  /** Ports of this host may lead into the network. */
  readonly leads: (row: LocalNetwork) => boolean;
  /** Ids of services whose check an endpoint of this host fails; the same object as long as they are the same. */
  readonly unhealthy: (e: LocalEndpoint) => readonly string[];
  /** Ids of hosts that this one does not reach; the same object as long as they are the same. */
  readonly unreached: ReadonlySet<string>;
}

/** The services of one network. */
export interface NetworkServices {
  /** One for each port of each virtual address; ids are unique on the host. */
  readonly models: readonly ServiceModel[];
  /** What they were made of, before numbers that two of the host have were told apart. */
  readonly plain: readonly ServiceModel[];
  readonly resolved: ReadonlyMap<Service, Resolved>;
  /** By record, which stays the same object until it changes. */
  readonly candidates: ReadonlyMap<object, Candidate>;
  /** Compared by identity. */
  readonly from: NetworkSources;
}

/** By network id; networks without services are not in it, nor are those without an endpoint here, unless ports of this host lead there. */
export type ServiceIndex = ReadonlyMap<string, NetworkServices>;

/** All that a host has to do with services. */
export interface HostServices {
  readonly index: ServiceIndex;
  readonly published: PublishedServices;
}

/** Where the first index begins. */
export const NO_SERVICES: ServiceIndex = new Map<string, NetworkServices>([]);

export const NO_HOST_SERVICES: HostServices = { index: NO_SERVICES, published: NOTHING_PUBLISHED };

interface NetworkSources {
  readonly services: NetworkView['services'];
  readonly remote: NetworkView['endpoints'];
  readonly settings: NetworkView['settings'];
  readonly local: readonly LocalEndpoint[];
  readonly unhealthy: readonly (readonly string[])[];
  readonly unreached: ReadonlySet<string>;
}

interface Resolved {
  readonly behind: readonly Candidate[];
  readonly models: readonly ServiceModel[];
}

/** An endpoint, ready to be a backend. */
interface Candidate {
  readonly id: string;
  readonly own: boolean;
  /** Empty: this host's. */
  readonly hostId: string;
  readonly labels: Readonly<Record<string, string>>;
  /**
   * Its own: whoever reaches it by its block's alias MAC reaches it by this one too, since the block of its IPv4 address describes it,
   * or an entry names it (plan/entries.ts).
   */
  readonly mac: bigint;
  readonly addresses: readonly BpfAddress[];
}

/**
 * @param before what it returned last time, for the same host
 * @returns `before` itself when nothing has changed
 */
export function indexServices(sources: ServiceSources, before: ServiceIndex): ServiceIndex {
  const local: Map<string, readonly LocalEndpoint[]> = Map.groupBy(sources.endpoints, (e) => e.networkId);
  for (const id of entered(sources)) if (!local.has(id)) local.set(id, NOBODY);
  const index = new Map<string, NetworkServices>();
  let changed = false;
  for (const [id, endpoints] of local) {
    const interest = sources.view.interests.get(id);
    if (interest === undefined || interest.services.size === 0 || !carries(sources, id)) continue;
    const from: NetworkSources = {
      services: interest.services,
      remote: interest.endpoints,
      settings: interest.settings,
      local: endpoints,
      unhealthy: endpoints.map(sources.unhealthy),
      unreached: sources.unreached,
    };
    const old = before.get(id);
    const kept = old !== undefined && sameSources(old.from, from) ? old : null;
    if (kept === null) changed = true;
    index.set(id, kept ?? resolve(from, sources.hostId, old));
  }
  return changed || index.size !== before.size ? withNumbers(index) : before;
}

const NOBODY: readonly LocalEndpoint[] = [];

/** Ids of networks that this host leads ports into, whether it has an endpoint there or not. */
function* entered({ view, networks, leads }: ServiceSources): Generator<string> {
  for (const id of view.interests.keys()) {
    const row = networks.get(id);
    if (view.networks.get(id)?.published === true && row !== undefined && leads(row)) yield id;
  }
}

/** A vlan's frames are not the mesh's: there are no virtual addresses in it. */
const carries = ({ networks }: ServiceSources, id: string): boolean => networks.get(id)?.network.encap !== 'vlan';

const same = <T>(a: readonly T[], b: readonly T[]): boolean => a.length === b.length && a.every((x, i) => x === b[i]);

const sameSources = (a: NetworkSources, b: NetworkSources): boolean =>
  a.services === b.services &&
  a.remote === b.remote &&
  a.settings === b.settings &&
  a.unreached === b.unreached &&
  same(a.local, b.local) &&
  same(a.unhealthy, b.unhealthy);

function resolve(from: NetworkSources, hostId: string, before: NetworkServices | undefined): NetworkServices {
  // Who has no endpoint here has no client here, but for those who come in by a port.
  const wanted = (s: Service): boolean => s.ips.length > 0 && (from.local.length > 0 || s.publish === 'all');
  const services = [...from.services.values()].filter(wanted).sort(byId);
  const keys = new Set(services.flatMap((s) => Object.keys(s.selector)));
  const { find, candidates } = byLabels(from, hostId, keys, before?.candidates);
  const resolved = new Map<Service, Resolved>();
  const plain: ServiceModel[] = [];
  for (const service of services) {
    const behind = find(service);
    const old = before?.resolved.get(service);
    const kept = old !== undefined && same(old.behind, behind) ? old : { behind, models: modelsOf(service, behind) };
    resolved.set(service, kept);
    plain.push(...kept.models);
  }
  return { models: before?.models ?? [], plain, resolved, candidates, from };
}

/** Answers who is fit for a service. @param keys labels that selectors name: the others are not looked at */
function byLabels(
  from: NetworkSources,
  hostId: string,
  keys: ReadonlySet<string>,
  before: ReadonlyMap<object, Candidate> | undefined,
): { find: (s: Service) => Candidate[]; candidates: Map<object, Candidate> } {
  const known = new Map<string, Map<string, Candidate[]>>([...keys].map((key) => [key, new Map()]));
  const candidates = new Map<object, Candidate>();
  const unfit = new Map<string, readonly string[]>();
  const add = (e: LocalEndpoint | Endpoint, own: boolean, ips: () => readonly string[]): void => {
    for (const [key, values] of known) {
      const value = e.labels[key];
      if (value === undefined) continue;
      const candidate = candidates.get(e) ?? before?.get(e) ?? candidateOf(e, own, ips());
      candidates.set(e, candidate);
      const holders = values.get(value);
      if (holders === undefined) values.set(value, [candidate]);
      else holders.push(candidate);
    }
  };
  for (const [i, e] of from.local.entries()) {
    // Whose container is not known yet is nobody's backend: its labels are not known either.
    if (e.container === null && e.attached === undefined) continue;
    unfit.set(e.id, from.unhealthy[i] ?? []);
    add(e, true, () => ipsOf(e));
  }
  for (const e of from.remote.values()) {
    if (e.hostId === hostId || e.state !== 'known') continue;
    unfit.set(e.id, e.unhealthy);
    add(e, false, () => e.ips);
  }
  const isFit = (service: Service, c: Candidate): boolean =>
    unfit.get(c.id)?.includes(service.id) !== true && from.settings.get(c.id)?.draining !== true;
  const find = (service: Service): Candidate[] => {
    const lists = Object.entries(service.selector).map(([key, value]) => known.get(key)?.get(value) ?? []);
    const [fewest = []] = lists.sort((a, b) => a.length - b.length);
    const fit = fewest.filter((c) => selects(service.selector, c.labels) && isFit(service, c)).sort(byId);
    const own = service.localFirst ? fit.filter((c) => c.own) : [];
    if (own.length > 0) return own;
    const reached = fit.filter((c) => !from.unreached.has(c.hostId));
    // Who reaches nobody may be wrong.
    return reached.length > 0 ? reached : fit;
  };
  return { find, candidates };
}

function candidateOf(e: LocalEndpoint | Endpoint, own: boolean, ips: readonly string[]): Candidate {
  const addresses = ips.map(addressOf).filter((a) => a !== null);
  const hostId = 'hostId' in e ? e.hostId : '';
  return { id: e.id, own, hostId, labels: e.labels, mac: parseMac(e.mac), addresses };
}

function addressOf(text: string): BpfAddress | null {
  const ip = tryParseIp(text);
  if (ip === null) return null;
  return isIp4(ip) ? { family: 4, address: lowOf(ip) } : { family: 6, address: ip };
}

const PROTOCOLS: Readonly<Record<string, ServiceModel['protocol']>> = { tcp: 6, udp: 17 };

function modelsOf(service: Service, behind: readonly Candidate[]): ServiceModel[] {
  const models: ServiceModel[] = [];
  for (const address of service.ips.map(addressOf)) {
    if (address === null) continue;
    for (const { protocol: name, port, targetPort } of service.ports) {
      const protocol = PROTOCOLS[name];
      if (protocol === undefined) continue; // of a coordinator that knows more than this agent
      const backends = behind.flatMap((c): BpfBackend[] => {
        const to = c.addresses.find((a) => a.family === address.family);
        return to === undefined ? [] : [{ address: to, mac: c.mac, port: targetPort }];
      });
      const id = preferred(keyOf(service.id, address.family, protocol, port));
      models.push({ id, address, protocol, port, affinity: service.affinityS, backends });
    }
  }
  return models;
}

/** Numbers are unique on the host, so all its networks are looked at together. */
function withNumbers(index: ReadonlyMap<string, NetworkServices>): ServiceIndex {
  const used = new Set<number>();
  const out = new Map<string, NetworkServices>();
  for (const [id, n] of [...index].sort(([a], [b]) => (a < b ? -1 : 1))) {
    const models = numbered(n.plain, used);
    // What is compared by identity elsewhere stays as it was.
    out.set(id, { ...n, models: same(models, n.models) ? n.models : models });
  }
  return out;
}

const byId = (a: { readonly id: string }, b: { readonly id: string }): number =>
  a.id < b.id ? -1 : a.id > b.id ? 1 : 0;
