/** weft service: names with addresses of their own, in front of containers. */
import type { Command } from 'commander';
import type { ServiceStatus } from '../gen/weft/v1/control.ts';
import { Service } from '../gen/weft/v1/types.ts';
import { WeftError } from '../lib/errors.ts';
import type { Mesh } from './client.ts';
import { flagsOf, networkFlag, print, remote, withMesh } from './command.ts';
import type { Io } from './io.ts';
import { keyValues, showWarning, table } from './output.ts';
import { removeEach } from './remove.ts';
import { type ServiceFlags, serviceOf } from './service-flags.ts';
import { settle } from './settle.ts';
import { type ServiceJson, serviceJson } from './shapes.ts';
import { collect, nonEmpty } from './values.ts';

/** Hosts are asked whether the address is free. */
const CHANGE_MS = 30_000;

export function register(program: Command, io: Io): void {
  const noun = program.command('service').description('names with addresses of their own, in front of containers');
  registerCreate(noun, io);
  remote(noun, 'ls', 'list services')
    .alias('list')
    .optionsGroup('Filter:')
    .option('--network <network>', 'only of this network')
    .action(async (_options: unknown, command: Command) => {
      const shown = await withMesh(io, command, (mesh) => listServices(mesh, networkFlag(command)));
      print(io, command, shown, () => serviceTable(shown));
    });
  remote(noun, 'inspect <service>', 'show a service in full, with the endpoints behind it')
    .optionsGroup('Filter:')
    .option('--network <network>', 'its network, where the name is in several')
    .action(async (name: string, _options: unknown, command: Command) => {
      nonEmpty('service', name);
      const all = await withMesh(io, command, (mesh) => listServices(mesh, networkFlag(command)));
      const found = findService(all, name);
      print(io, command, found, () => keyValues(found));
    });
  remote(noun, 'rm <service...>', 'remove services of a network; their endpoints stay')
    .alias('remove')
    .optionsGroup('Service:')
    .requiredOption('--network <network>', 'network that they are in')
    .action(async (names: string[], _options: unknown, command: Command) => {
      const network = networkFlag(command);
      await removeEach(io, command, names, (mesh, name) => {
        const request = { project: '', network, name: nonEmpty('service', name) };
        return mesh.call('removeService', request, { timeoutMs: CHANGE_MS });
      });
    });
}

function registerCreate(noun: Command, io: Io): void {
  remote(noun, 'create <name>', 'put a name and an address in front of containers')
    .optionsGroup('Service:')
    .requiredOption('--network <network>', 'network that it is in')
    .requiredOption('--selector <label=value>', 'label of the containers behind it (several: all of them)', collect)
    .option('--port <[name=]port[:target][/tcp|udp]>', 'port, and that of the containers (may be repeated)', collect)
    .option('--ip <ip>', 'its address, repeated for the other family (default: a free one of each)', collect)
    .option('--headless', 'no address of its own: its name means the containers themselves')
    .option('--affinity <seconds>', 'a client stays with its container for that long')
    .option('--local-first', "containers on the client's own host go before others")
    .option('--label <key=value>', 'label of the service (may be repeated)', collect)
    .optionsGroup('Health:')
    .option(
      '--health <check>',
      'tcp[:PORT], http:[PORT]/PATH or none (default: tcp, where it has a port of TCP; else none)',
    )
    .option('--health-interval <time>', 'between two checks, like 500ms or 5s (default: 1s)')
    .option('--health-timeout <time>', 'how long an answer may take (default: 500ms)')
    .option('--health-rise <n>', 'answers in a row that make it healthy (default: 1)')
    .option('--health-fall <n>', 'failures in a row after which it is not (default: 2)')
    .optionsGroup('Published:')
    .option('--publish <[hostport:]port>', 'port of every host that leads to a port of it (may be repeated)', collect)
    .option('--publish-local <[hostport:]port>', 'the same, of hosts with a healthy container of it', collect)
    .action(async (name: string, _options: unknown, command: Command) => {
      const flags = flagsOf<ServiceFlags>(command);
      const service = serviceOf(name, flags);
      const network = networkFlag(command);
      const json = flags.json === true;
      const made = await withMesh(io, command, async (mesh) => {
        const request = { project: '', network, service };
        const { status, revision } = await mesh.call('createService', request, { timeoutMs: CHANGE_MS });
        if (status?.service === undefined)
          throw new WeftError('INTERNAL', 'The coordinator answered without a service.');
        await settle(io, mesh, revision, json);
        const all = await listServices(mesh, network);
        return all.find((s) => s.name === name) ?? shape(status, {}, {});
      });
      if (made.backends.length === 0)
        showWarning(
          io,
          'No endpoint matches the selector yet.',
          'containers with these labels are behind it as soon as they start',
          json,
        );
      print(io, command, made, () => `${made.name}\n`);
    });
}

type Names = Readonly<Record<string, string>>;

const shape = (status: ServiceStatus, networks: Names, hosts: Names): ServiceJson =>
  serviceJson(status.service ?? Service.fromPartial({}), status.backends, { networks, hosts });

async function listServices(mesh: Mesh, network: string): Promise<ServiceJson[]> {
  const answer = await mesh.call('listServices', { project: '', network });
  const order = (s: ServiceJson): string => `${s.network}\0${s.name}`;
  return answer.services
    .map((status) => shape(status, answer.networkNames, answer.hostNames))
    .sort((a, b) => (order(a) < order(b) ? -1 : 1));
}

const or = (texts: readonly string[]): string => (texts.length === 0 ? '-' : texts.join(','));

function serviceTable(services: readonly ServiceJson[]): string {
  const rows = services.map((s) => {
    const published = s.ports.filter((p) => p.hostPort !== null).map((p) => `${p.hostPort}:${p.port}/${p.protocol}`);
    return [
      s.name,
      s.network,
      s.headless ? 'headless' : or(s.ips),
      or(s.ports.map((p) => `${p.port}${p.targetPort === p.port ? '' : `:${p.targetPort}`}/${p.protocol}`)),
      `${s.backends.filter((b) => b.state === 'healthy').length}/${s.backends.length}`,
      s.publish === null ? '-' : `${s.publish} ${or(published)}`,
    ];
  });
  return table(['NAME', 'NETWORK', 'IP', 'PORTS', 'HEALTHY', 'PUBLISHED'], rows);
}

function findService(all: readonly ServiceJson[], name: string): ServiceJson {
  const found = all.filter((s) => s.name === name);
  const [first] = found;
  if (first === undefined)
    throw new WeftError('NOT_FOUND', `There is no service “${name}”.`, { hint: 'weft service ls lists them' });
  if (found.length === 1) return first;
  const networks = found.map((s) => s.network).join(', ');
  throw new WeftError('INVALID_ARGUMENT', `“${name}” is in several networks: ${networks}.`, { hint: 'give --network' });
}
