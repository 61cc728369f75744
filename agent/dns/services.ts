/**
 * Names of services on one network. A service with virtual addresses has these; a headless one is resolved to its endpoints: those
 * that have all labels of its selector, are not draining, do not fail its health check as far as their host knows, and are reached. Pure.
 */
import type { Endpoint, EndpointSettings, Service, ServicePort } from '../../lib/model.ts';
import { selects } from '../../lib/selector.ts';
import type { LocalEndpoint } from '../contract.ts';
import { byFirstIp, canonical, type Entry, type Holder, isDnsName, normalName } from './holders.ts';

export interface ServiceName {
  readonly service: Service;
  /** Who answers to its name: the service itself with its virtual addresses, or its endpoints. Sorted by address. */
  readonly holders: readonly Holder[];
}

export interface ServiceSources {
  readonly services: Iterable<Service>;
  /** Of all endpoints that have a name on the network, own and others'. */
  readonly entries: Iterable<Entry>;
  /** By endpoint id. */
  readonly settings: ReadonlyMap<string, EndpointSettings>;
  /** Ids of the services whose health check it fails. */
  readonly unhealthy: (of: LocalEndpoint | Endpoint) => readonly string[];
  /** Ids of hosts that this one does not reach: who is there is passed over while others are there. */
  readonly unreached: ReadonlySet<string>;
  /** What it returned last time for the network. */
  readonly before: ReadonlyMap<string, ServiceName>;
}

/** @returns by lower-case name */
export function serviceNames(from: ServiceSources): Map<string, ServiceName> {
  const services = [...from.services].filter((s) => isDnsName(s.name));
  const groups = groupsOf(services, from.entries);
  const names = new Map<string, ServiceName>();
  for (const service of services) {
    const name = normalName(service.name);
    const old = from.before.get(name);
    if (!service.headless) names.set(name, old?.service === service ? old : { service, holders: [virtual(service)] });
    else {
      const fit = (groups.get(keyOf(service)) ?? []).filter((e) => answers(e, service, from));
      const reached = fit.filter(({ of }) => !('hostId' in of && from.unreached.has(of.hostId)));
      // Who reaches nobody may be wrong.
      const holders = (reached.length > 0 ? reached : fit).map((e) => e.holder);
      names.set(name, { service, holders: holders.toSorted(byFirstIp) });
    }
  }
  return names;
}

/** Endpoints by one label of each headless service's selector: a service costs what has that label, not what the network holds. */
function groupsOf(services: readonly Service[], entries: Iterable<Entry>): ReadonlyMap<string, readonly Entry[]> {
  const groups = new Map<string, Entry[]>();
  for (const service of services) if (service.headless) groups.set(keyOf(service), []);
  if (groups.size > 0)
    for (const entry of entries)
      for (const [key, value] of Object.entries(entry.of.labels)) groups.get(`${key}=${value}`)?.push(entry);
  return groups;
}

const keyOf = (service: Service): string => Object.entries(service.selector)[0]?.join('=') ?? '';

const answers = ({ of }: Entry, service: Service, from: ServiceSources): boolean =>
  selects(service.selector, of.labels) &&
  from.settings.get(of.id)?.draining !== true &&
  !from.unhealthy(of).includes(service.id);

const virtual = (service: Service): Holder => ({
  owner: service.id,
  name: service.name,
  short: '',
  ips: canonical(service.ips),
  own: false,
});

/** The port that a label of an SRV name stands for: by its name, or by its number where it has none. Lower-case, without "_". */
export const portOf = (service: Service, label: string, protocol: string): ServicePort | undefined =>
  service.ports.find(
    (port) => port.protocol === protocol && (port.name === '' ? String(port.port) : port.name.toLowerCase()) === label,
  );
