/** Which ports of the host lead to an endpoint: what `docker run -p` asks for, and what is still free. Pure. */
import { canonicalIp, familyOfText, tryParseIp } from '../../lib/addr.ts';
import { middleCut, WeftError } from '../../lib/errors.ts';
import type { PublishedPort } from '../../lib/model.ts';

const PROTOCOLS = new Map([
  [6, 'tcp'],
  [17, 'udp'],
  [132, 'sctp'],
]);
export const ANY4 = '0.0.0.0';
export const ANY6 = '::';

/** A port that Docker's user wants published (libnetwork types.PortBinding). */
export interface PortWish {
  readonly protocol: string;
  /** The container's. */
  readonly port: number;
  /** Empty: every address of the host. */
  readonly hostIp: string;
  /** First and last of those that will do; 0 = any that is free. */
  readonly first: number;
  readonly last: number;
}

/** @param portMap option com.docker.network.portmap. @throws INVALID_ARGUMENT */
export function parsePortMap(portMap: unknown): PortWish[] {
  if (portMap === undefined || portMap === null) return [];
  if (!Array.isArray(portMap)) throw invalid('Docker’s list of ports is no list', 'start the container again');
  return portMap.map((item): PortWish => {
    const o = (item ?? {}) as Readonly<Record<string, unknown>>;
    const protocol = PROTOCOLS.get(Number(o['Proto']));
    if (protocol === undefined)
      throw invalid(`protocol ${middleCut(String(o['Proto']))} cannot be published`, 'use tcp, udp or sctp');
    const port = portOf(o['Port'], 'the container’s port');
    const first = o['HostPort'] === 0 || o['HostPort'] === undefined ? 0 : portOf(o['HostPort'], 'the host’s port');
    const end = o['HostPortEnd'];
    const last = first === 0 || end === 0 || end === undefined ? first : portOf(end, 'the host’s last port');
    if (last < first) throw invalid(`ports ${first}-${last} are no range`, 'write the smaller number first');
    return { protocol, port, hostIp: hostIpOf(o['HostIP']), first, last };
  });
}

function portOf(value: unknown, what: string): number {
  if (typeof value === 'number' && Number.isInteger(value) && value > 0 && value < 65_536) return value;
  throw invalid(`${what} is ${middleCut(String(value))}`, 'choose 1 to 65535');
}

function hostIpOf(value: unknown): string {
  if (value === undefined || value === null || value === '') return '';
  if (typeof value === 'string' && tryParseIp(value) !== null) return canonicalIp(value);
  throw invalid(
    `${middleCut(JSON.stringify(value))} is no address`,
    'give an IPv4 or IPv6 address of this host with -p',
  );
}

const invalid = (message: string, hint: string): WeftError => new WeftError('INVALID_ARGUMENT', message, { hint });

/** A port of the host that leads somewhere already. */
export interface TakenPort extends HostPort {
  /** Name of the service that it leads to; absent: to a container. */
  readonly service?: string;
}

export interface PortState {
  /** What leads to other endpoints, and to services. */
  readonly taken: readonly TakenPort[];
  /** Whether no process of the host has it. */
  readonly free: (port: Omit<PublishedPort, 'port'>) => boolean;
  /** Addresses of the host, canonical. */
  readonly hostIps: ReadonlySet<string>;
  /** Families of the endpoint's addresses. */
  readonly families: readonly (4 | 6)[];
  /** Where a port that Docker's user left open is looked for, first and last (ip(7), ip_local_port_range). */
  readonly ephemeral: readonly [number, number];
}

/**
 * One host port for each wish, the same in both families. All of them or none.
 * @throws ALREADY_EXISTS taken; INVALID_ARGUMENT an address that the host has not, or of a family that the endpoint has not
 */
export function allocatePorts(wishes: readonly PortWish[], state: PortState): PublishedPort[] {
  const out: PublishedPort[] = [];
  for (const wish of wishes) {
    const ips = hostIpsFor(wish, state);
    const [first, last] = wish.first === 0 ? state.ephemeral : [wish.first, wish.last];
    let chosen: number | null = null;
    for (let port = first; port <= last && chosen === null; port++) {
      const fits = ips.every((hostIp) => {
        const asked = { protocol: wish.protocol, hostIp, hostPort: port };
        return ![...state.taken, ...out].some((other) => clash(asked, other)) && state.free(asked);
      });
      if (fits) chosen = port;
    }
    if (chosen === null) {
      const asked = ips.map((hostIp) => ({ protocol: wish.protocol, hostIp, hostPort: first }));
      const service = state.taken.find((other) => asked.some((port) => clash(port, other)))?.service;
      throw taken(wish, first, last, first === last ? service : undefined);
    }
    for (const hostIp of ips) out.push({ protocol: wish.protocol, port: wish.port, hostIp, hostPort: chosen });
  }
  return out;
}

function hostIpsFor(wish: PortWish, { families, hostIps }: PortState): string[] {
  if (wish.hostIp === '') return families.map((family) => (family === 4 ? ANY4 : ANY6));
  const family = familyOfText(wish.hostIp);
  if (!families.includes(family))
    throw invalid(
      `port ${wish.port} is published at ${wish.hostIp}, and the container has no IPv${family} address`,
      `give an IPv${family === 4 ? 6 : 4} address with -p, or none`,
    );
  if (wish.hostIp !== ANY4 && wish.hostIp !== ANY6 && !hostIps.has(wish.hostIp) && !wish.hostIp.startsWith('127.'))
    throw invalid(`this host has no address ${wish.hostIp}`, 'give one of its own with -p, or none');
  return [wish.hostIp];
}

type HostPort = Omit<PublishedPort, 'port'>;
const isAny = (ip: string): boolean => ip === ANY4 || ip === ANY6;

/** Both would get the same packets. */
export function clash(a: HostPort, b: HostPort): boolean {
  if (a.protocol !== b.protocol || a.hostPort !== b.hostPort) return false;
  if (familyOfText(a.hostIp) !== familyOfText(b.hostIp)) return false;
  return a.hostIp === b.hostIp || isAny(a.hostIp) || isAny(b.hostIp);
}

/** @param service that a single port leads to */
function taken(wish: PortWish, first: number, last: number, service: string | undefined): WeftError {
  const at = wish.hostIp === '' ? '' : `${wish.hostIp}:`;
  const ports =
    first === last ? `port ${at}${first}/${wish.protocol} is` : `ports ${at}${first}-${last}/${wish.protocol} are`;
  const why = service === undefined ? '' : `: it leads to service ${service}`;
  return new WeftError('ALREADY_EXISTS', `${ports} taken on this host${why}`, {
    hint:
      service === undefined
        ? 'publish another one; weft port, weft service ls and ss -lntup say who has it'
        : 'publish another one; weft service ls shows those that lead to services',
  });
}
