/** Ports of this host that lead to services: by which transit address, and to whom. Pure. */
import { formatIp, parseIp } from '../../lib/ip.ts';
import { formatIp6 } from '../../lib/ip6.ts';
import type { Service } from '../../lib/model.ts';
import type { BpfBackend } from '../bpf/model.ts';
import type { ServiceModel } from '../flows/model.ts';
import { pickServiceTransit, transit6 } from '../gateway/addresses.ts';
import type { ServiceIndex } from './members.ts';
import { hash32, keyOf, numbered } from './numbers.ts';

/** A port that hosts lead to a service. */
export interface ServicePublication {
  /** Ids. */
  readonly networkId: string;
  readonly service: Pick<Service, 'id' | 'name'>;
  readonly protocol: 'tcp' | 'udp';
  readonly hostPort: number;
  /** The service's. */
  readonly port: number;
  /** Transit addresses, one of each family that it has backends of; text. */
  readonly to: readonly string[];
}

export interface PublishedServices {
  /** In the order of the services' creation: the first has a port that several want. */
  readonly publications: readonly ServicePublication[];
  /** By network id, for every network with a published service; ids are unlike all others of the host. */
  readonly models: ReadonlyMap<string, readonly ServiceModel[]>;
}

export const NOTHING_PUBLISHED: PublishedServices = { publications: [], models: new Map() };

/** @param transits of the host's endpoints */
export function publishedServices(index: ServiceIndex, transits: Iterable<string>): PublishedServices {
  const all = [...index].flatMap(([networkId, n]) =>
    [...n.resolved]
      .filter(([service]) => service.publish !== '' && !service.headless)
      .map(([service, { behind }]) => ({ networkId, service, behind })),
  );
  if (all.length === 0) return NOTHING_PUBLISHED;
  const used = new Set(transits);
  const ids = new Set([...index.values()].flatMap((n) => n.models.map((m) => m.id)));
  const publications: ServicePublication[] = [];
  const models = new Map<string, ServiceModel[]>();
  // Who has which transit address must not depend on what else changes.
  for (const { networkId, service, behind } of all.sort((a, b) => (a.service.id < b.service.id ? -1 : 1))) {
    const list = models.get(networkId) ?? [];
    models.set(networkId, list);
    const transit = pickServiceTransit(service.id, used);
    if (transit === null) continue;
    used.add(transit);
    const answering = service.publish === 'local' ? behind.filter((c) => c.own) : behind;
    for (const { protocol, port, targetPort, hostPort } of service.ports) {
      if (hostPort === 0 || (protocol !== 'tcp' && protocol !== 'udp')) continue;
      const to: string[] = [];
      for (const family of [4, 6] as const) {
        const backends = answering.flatMap((c): BpfBackend[] => {
          const address = c.addresses.find((a) => a.family === family);
          return address === undefined ? [] : [{ address, mac: c.mac, port: targetPort }];
        });
        // A port that leads nowhere is refused by the host itself.
        if (backends.length === 0) continue;
        const number = protocol === 'tcp' ? 6 : 17;
        const at = parseIp(transit);
        const address =
          family === 4 ? ({ family, address: at } as const) : ({ family, address: transit6(at) } as const);
        const id = hash32(`out/${keyOf(service.id, family, number, port)}`);
        list.push({ id, address, protocol: number, port, affinity: service.affinityS, backends });
        to.push(family === 4 ? formatIp(at) : formatIp6(transit6(at)));
      }
      if (to.length > 0) publications.push({ networkId, service, protocol, hostPort, port, to });
    }
  }
  for (const [id, list] of models) models.set(id, numbered(list, ids));
  const order = new Map(all.map(({ service }) => [service.id, `${service.createdAt} ${service.id}`]));
  const orderOf = (p: ServicePublication): string => order.get(p.service.id) ?? '';
  publications.sort((a, b) => (orderOf(a) < orderOf(b) ? -1 : orderOf(a) > orderOf(b) ? 1 : a.hostPort - b.hostPort));
  return { publications, models };
}
