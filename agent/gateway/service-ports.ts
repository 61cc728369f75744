/** Which of the ports that services want of this host lead to them, and why the others do not. Pure. */
import { familyOfText } from '../../lib/addr.ts';
import type { PublishedPort } from '../../lib/model.ts';
import type { ServicePublication } from '../services/published.ts';
import type { Publication } from './nft.ts';
import { ANY4, ANY6, clash } from './ports.ts';

/** A port of the host that leads to a service. */
export interface ServicePort extends Publication {
  /** Name. */
  readonly service: string;
}

export interface ServicePorts {
  readonly publications: readonly ServicePort[];
  /** Sentences. */
  readonly problems: readonly string[];
}

export interface HostPorts {
  /** What leads to containers: they have asked first, and keep what they have. */
  readonly containers: readonly PublishedPort[];
  /** Whether no process of the host has it. */
  readonly free: (port: Omit<PublishedPort, 'port'>) => boolean;
  /** What leads to services already (portKey): a process that comes later does not get it. */
  readonly held: ReadonlySet<string>;
}

type HostPort = Omit<PublishedPort, 'port'>;

export const portKey = (p: Pick<HostPort, 'protocol' | 'hostIp' | 'hostPort'>): string =>
  `${p.protocol} ${p.hostIp} ${p.hostPort}`;

/** @param wanted in the order in which they are served */
export function servicePorts(wanted: readonly ServicePublication[], host: HostPorts): ServicePorts {
  const publications: ServicePort[] = [];
  const problems: string[] = [];
  for (const { service, protocol, hostPort, port, to } of wanted) {
    const asked = to.map((transit) => ({
      protocol,
      hostIp: familyOfText(transit) === 4 ? ANY4 : ANY6,
      hostPort,
      to: transit,
      port,
      service: service.name,
    }));
    const who = asked.map((p) => whoHas(p, host, publications)).find((name) => name !== null);
    if (who === undefined) publications.push(...asked);
    else
      problems.push(
        `port ${hostPort}/${protocol} of this host does not lead to service ${service.name}: ${who} has it`,
      );
  }
  return { publications, problems };
}

function whoHas(asked: Publication, host: HostPorts, given: readonly Publication[]): string | null {
  if (host.containers.some((other) => clash(asked, other))) return 'a container';
  if (given.some((other) => clash(asked, other))) return 'another service';
  return host.held.has(portKey(asked)) || host.free(asked) ? null : 'a process';
}
