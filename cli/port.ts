/** weft port: which ports of a host lead to a container. `docker port` does not know those of a remote driver. */
import type { Command } from 'commander';
import { WeftError } from '../lib/errors.ts';
import type { Mesh } from './client.ts';
import { flagsOf, print, remote, withMesh } from './command.ts';
import { listEndpoints } from './endpoint.ts';
import type { Io } from './io.ts';
import type { EndpointJson } from './shapes.ts';
import { UsageError } from './usage.ts';
import { nonEmpty, quote } from './values.ts';

interface PortFlags {
  readonly host?: string;
}

export interface PortJson {
  readonly container: string;
  readonly host: string;
  readonly network: string;
  readonly protocol: string;
  readonly port: number;
  readonly hostIp: string;
  readonly hostPort: number;
}

export function register(program: Command, io: Io): void {
  remote(
    program,
    'port <container> [port]',
    'ports of its host that lead to a container: NAME or HOST/NAME, PORT[/PROTOCOL]',
  )
    .optionsGroup('Filter:')
    .option('--host <host>', 'only of this host')
    .action(async (name: string, port: string | undefined, _options: unknown, command: Command) => {
      nonEmpty('container', name);
      const wanted = port === undefined ? null : parsePort(port);
      const { host } = flagsOf<PortFlags>(command);
      const published = await withMesh(io, command, async (mesh) => {
        const all = await listEndpoints(mesh, host === undefined ? {} : { host });
        if (endpointsOf(all, name).length === 0) await refuseUnknownHost(mesh, name);
        return portsOf(all, name);
      });
      const shown = wanted === null ? published : wantedOf(published, name, wanted);
      print(io, command, shown, () => shown.map((p) => line(p, wanted === null)).join(''));
    });
}

interface Wanted {
  readonly port: number;
  readonly protocol: string;
}

/** As docker port writes it. @throws UsageError */
function parsePort(text: string): Wanted {
  const m = /^(\d{1,5})(?:\/(tcp|udp|sctp))?$/.exec(text);
  const port = Number(m?.[1]);
  if (m === null || port < 1 || port > 65_535)
    throw new UsageError(`A port is PORT or PORT/PROTOCOL, not ${quote(text)}.`, 'like 80 or 53/udp');
  return { port, protocol: m[2] ?? 'tcp' };
}

/** @throws NOT_FOUND; its hint says so where the number is published by another protocol */
function wantedOf(published: readonly PortJson[], name: string, { port, protocol }: Wanted): PortJson[] {
  const same = published.filter((p) => p.port === port);
  const shown = same.filter((p) => p.protocol === protocol);
  if (shown.length > 0) return shown;
  const others = [...new Set(same.map((p) => `weft port ${name} ${port}/${p.protocol}`))];
  throw new WeftError('NOT_FOUND', `Port ${port}/${protocol} of ${quote(name)} is not published.`, {
    hint: others.length === 0 ? `weft port ${name} lists those that are` : `another protocol is: ${others.join(', ')}`,
  });
}

/** Of HOST/NAME, the host is looked at where the whole means nobody. @throws NOT_FOUND */
async function refuseUnknownHost(mesh: Mesh, name: string): Promise<void> {
  const at = name.indexOf('/');
  if (at < 0) return;
  const { hosts } = await mesh.call('listHosts', { localOnly: false });
  if (hosts.some(({ host }) => host?.name === name.slice(0, at))) return;
  throw new WeftError('NOT_FOUND', `There is no host ${name.slice(0, at)}.`, { hint: 'weft host ls lists them' });
}

/** @param name NAME, HOST/NAME, an id or the first 12 digits of it */
const endpointsOf = (all: readonly EndpointJson[], name: string): EndpointJson[] =>
  all.filter(({ container, host }) => {
    if (container === null) return false;
    if (container.name === name || `${host}/${container.name}` === name || container.id === name) return true;
    return /^[0-9a-f]{12,}$/.test(name) && container.id.startsWith(name);
  });

/** @throws NOT_FOUND; INVALID_ARGUMENT where containers of several hosts have the name */
export function portsOf(all: readonly EndpointJson[], name: string): PortJson[] {
  const found = endpointsOf(all, name);
  if (found.length === 0)
    throw new WeftError('NOT_FOUND', `No network of the mesh has a container ${quote(name)}.`, {
      hint: 'weft endpoint ls lists them',
    });
  const containers = new Map(found.map((e) => [e.container?.id, `${e.host}/${e.container?.name}`]));
  if (containers.size > 1)
    throw new WeftError('INVALID_ARGUMENT', `${quote(name)} means ${[...containers.values()].join(' and ')}.`, {
      hint: 'give HOST/NAME',
    });
  const ports = found.flatMap((e) =>
    e.ports.map((p): PortJson => ({ container: e.container?.name ?? '', host: e.host, network: e.network, ...p })),
  );
  const order = (p: PortJson): string => `${String(p.port).padStart(5, '0')} ${p.protocol} ${p.hostIp}`;
  return ports.sort((a, b) => (order(a) < order(b) ? -1 : 1));
}

const line = (p: PortJson, whole: boolean): string => {
  const at = `${p.hostIp.includes(':') ? `[${p.hostIp}]` : p.hostIp}:${p.hostPort}`;
  return whole ? `${p.port}/${p.protocol} -> ${at} on ${p.host}\n` : `${at}\n`;
};
