/** weft endpoint: attachments to networks. */
import type { Command } from 'commander';
import { WeftError } from '../lib/errors.ts';
import type { Mesh } from './client.ts';
import { flagsOf, print, remote, withMesh } from './command.ts';
import type { Io } from './io.ts';
import { keyValues, table } from './output.ts';
import { isShaping, shapingRequest } from './rates.ts';
import { settle } from './settle.ts';
import { type EndpointJson, endpointJson } from './shapes.ts';
import { UsageError } from './usage.ts';
import { collect, nonEmpty, quote } from './values.ts';

interface Filter {
  readonly network?: string;
  readonly host?: string;
}

export function register(program: Command, io: Io): void {
  const noun = program.command('endpoint').description('attachments to networks: of containers, VMs and processes');
  const filtered = (command: Command): Command =>
    command
      .optionsGroup('Filter:')
      .option('--network <network>', 'only of this network')
      .option('--host <host>', 'only of this host');
  filtered(remote(noun, 'ls', 'list endpoints').alias('list')).action(async (_options: unknown, command: Command) => {
    const shown = await withMesh(io, command, (mesh) => listEndpoints(mesh, flagsOf<Filter>(command)));
    print(io, command, shown, () => endpointTable(shown));
  });
  filtered(remote(noun, 'inspect <endpoint>', 'by id, prefix of an id, address, NAME or HOST/NAME')).action(
    async (name: string, _options: unknown, command: Command) => {
      nonEmpty('endpoint', name);
      const all = await withMesh(io, command, (mesh) => listEndpoints(mesh, flagsOf<Filter>(command)));
      const found = findEndpoint(all, name);
      print(io, command, found, () => keyValues(found));
    },
  );
  registerSet(noun, io);
}

interface SetFlags {
  readonly network?: string;
  readonly allowAddress?: string[];
  readonly disallowAddress?: string[];
  readonly drain?: boolean;
  readonly undrain?: boolean;
  readonly rate?: string;
  readonly burst?: string;
  readonly priority?: string;
}

function registerSet(noun: Command, io: Io): void {
  remote(noun, 'set <endpoint>', 'change an endpoint while it is in use')
    .optionsGroup('Endpoint:')
    .option('--network <network>', 'its network, where the name is in several')
    .option('--allow-address <ip[,mac]>', 'may send from this address too (may be repeated)', collect)
    .option('--disallow-address <ip[,mac]>', 'may not any more (may be repeated)', collect)
    .option('--drain', 'services give it no new connections; those that it has go on')
    .option('--undrain', 'services give it new connections again')
    .option('--rate <rate>', 'may send, and receive, so much: 200mbit; none; default: as its container or network says')
    .option('--burst <bytes>', 'may go at once after a silence: 64kb (made from the rate)')
    .option('--priority <priority>', 'mark what it sends: high, normal or low; default: as its container says')
    .action(async (name: string, _options: unknown, command: Command) => {
      const flags = flagsOf<SetFlags>(command);
      const allow = (flags.allowAddress ?? []).map((text) => allowedAddress('--allow-address', text));
      const disallow = (flags.disallowAddress ?? []).map((text) => allowedAddress('--disallow-address', text));
      if (flags.drain === true && flags.undrain === true)
        throw new UsageError('--drain and --undrain exclude each other.');
      const draining = flags.drain === true || (flags.undrain === true ? false : undefined);
      const shaping = shapingRequest(flags);
      if (allow.length + disallow.length === 0 && draining === undefined && !isShaping(shaping))
        throw new UsageError('Nothing to change was given.', 'see weft endpoint set --help');
      const request = {
        project: '',
        endpoint: nonEmpty('endpoint', name),
        network: flags.network === undefined ? '' : nonEmpty('--network', flags.network),
        allow,
        disallow,
        draining,
        ...shaping,
      };
      const changed = await withMesh(io, command, async (mesh) => {
        const { endpoint, revision } = await mesh.call('updateEndpoint', request, { timeoutMs: 30_000 });
        if (endpoint === undefined) throw new WeftError('INTERNAL', 'The coordinator answered without an endpoint.');
        await settle(io, mesh, revision, flagsOf(command).json === true);
        const all = await listEndpoints(mesh, {});
        return (
          all.find((e) => e.id === endpoint.id) ??
          endpointJson(endpoint, { networks: {}, hosts: {} }, { draining: draining === true })
        );
      });
      print(io, command, changed, () => `${changed.id.slice(0, 12)}\n`);
    });
}

/** IP, IP,MAC or ,MAC: what of it is an address, the coordinator judges. @throws UsageError */
export function allowedAddress(flag: string, text: string): { ip: string; mac: string } {
  const [ip = '', mac = '', ...rest] = text.split(',').map((part) => part.trim());
  // "IP," is half of something: IP alone has no comma.
  if (rest.length > 0 || (mac === '' && (ip === '' || text.includes(','))))
    throw new UsageError(`${flag} takes IP, IP,MAC or ,MAC, not ${quote(text)}.`);
  return { ip, mac };
}

export async function listEndpoints(mesh: Mesh, filter: Filter): Promise<EndpointJson[]> {
  const request = {
    project: '',
    network: filter.network === undefined ? '' : nonEmpty('--network', filter.network),
    host: filter.host === undefined ? '' : nonEmpty('--host', filter.host),
  };
  const { endpoints, networkNames, hostNames, drainingIds, rates, priorities } = await mesh.call(
    'listEndpoints',
    request,
  );
  const names = { networks: networkNames, hosts: hostNames };
  const shown = endpoints.map((e) =>
    endpointJson(e, names, { draining: drainingIds.includes(e.id), rate: rates[e.id], priority: priorities[e.id] }),
  );
  const order = (e: EndpointJson): string => `${e.network}\0${e.host}\0${e.name ?? ''}\0${e.id}`;
  return shown.sort((a, b) => (order(a) < order(b) ? -1 : 1));
}

function endpointTable(endpoints: readonly EndpointJson[]): string {
  const rows = endpoints.map((e) => [
    e.id.slice(0, 12),
    e.network,
    e.host,
    e.name ?? '-',
    e.ips.join(','),
    e.mac,
    e.ofport === 0 ? '-' : String(e.ofport),
    e.state,
  ]);
  return table(['ENDPOINT ID', 'NETWORK', 'HOST', 'NAME', 'IP', 'MAC', 'OFPORT', 'STATE'], rows);
}

/** All that a text may mean. */
export function matchEndpoints(all: readonly EndpointJson[], name: string): EndpointJson[] {
  const exact = all.filter(
    (e) =>
      e.id === name ||
      e.name === name ||
      e.container?.id === name ||
      `${e.host}/${e.name}` === name ||
      e.ips.includes(name),
  );
  const prefix = /^[0-9a-f]{4,}$/.test(name)
    ? all.filter((e) => e.id.startsWith(name) || e.container?.id.startsWith(name) === true)
    : [];
  return exact.length > 0 ? exact : prefix;
}

function findEndpoint(all: readonly EndpointJson[], name: string): EndpointJson {
  const found = matchEndpoints(all, name);
  const [first] = found;
  if (first === undefined)
    throw new WeftError('NOT_FOUND', `There is no endpoint “${name}”.`, { hint: 'weft endpoint ls lists them' });
  if (found.length === 1) return first;
  const one = (e: EndpointJson): string => `${e.id.slice(0, 12)} (${e.host}/${e.name ?? '-'} on ${e.network})`;
  throw new WeftError('INVALID_ARGUMENT', `“${name}” means several endpoints: ${found.map(one).join(', ')}.`, {
    hint: 'give the id, or --network and --host',
  });
}
