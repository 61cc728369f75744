/** weft router: ways between networks, in every host's own bridge. */
import type { Command } from 'commander';
import { type Revision, Router } from '../gen/weft/v1/types.ts';
import { WeftError } from '../lib/errors.ts';
import type { Mesh } from './client.ts';
import { flagsOf, print, remote, withMesh } from './command.ts';
import type { Io } from './io.ts';
import { keyValues, table } from './output.ts';
import { removeEach } from './remove.ts';
import { routesOf } from './router-flags.ts';
import { settle } from './settle.ts';
import { type RouterJson, routerJson } from './shapes.ts';
import { UsageError } from './usage.ts';
import { collect, labels, list, nonEmpty } from './values.ts';

const CHANGE_MS = 30_000;

interface RouterFlags {
  readonly network?: string[];
  readonly route?: string[];
  readonly label?: string[];
  readonly addNetwork?: string[];
  readonly removeNetwork?: string[];
  readonly removeRoute?: string[];
}

export function register(program: Command, io: Io): void {
  const noun = program.command('router').description('ways between networks, on every host');
  remote(noun, 'create <name>', 'lead between networks, and from them to ranges behind a container')
    .optionsGroup('Router:')
    .requiredOption('--network <network>', 'network that it is in (may be repeated)', collect)
    .option('--route <cidr via ip...>', 'a range and its next hop: CIDR via IP[,IP…] (may be repeated)', collect)
    .option('--label <key=value>', 'label (may be repeated)', collect)
    .action(async (name: string, _options: unknown, command: Command) => {
      const flags = flagsOf<RouterFlags>(command);
      const router = Router.fromPartial({
        name: nonEmpty('router name', name),
        networkIds: names('--network', flags.network),
        routes: routesOf('--route', flags.route ?? []),
        labels: labels('--label', flags.label ?? []),
      });
      await change(io, command, (mesh) => mesh.call('createRouter', { project: '', router }, { timeoutMs: CHANGE_MS }));
    });
  remote(noun, 'ls', 'list routers')
    .alias('list')
    .action(async (_options: unknown, command: Command) => {
      const shown = await withMesh(io, command, listRouters);
      print(io, command, shown, () => routerTable(shown));
    });
  remote(noun, 'inspect <router>', 'show a router in full').action(
    async (name: string, _options: unknown, command: Command) => {
      nonEmpty('router', name);
      const found = await withMesh(io, command, async (mesh) => findRouter(await listRouters(mesh), name));
      print(io, command, found, () => keyValues(found));
    },
  );
  registerSet(noun, io);
  remote(noun, 'rm <router...>', 'remove routers: their networks stay, and reach each other no more')
    .alias('remove')
    .action(async (all: string[], _options: unknown, command: Command) => {
      await removeEach(io, command, all, (mesh, name) =>
        mesh.call('removeRouter', { project: '', name: nonEmpty('router', name) }, { timeoutMs: CHANGE_MS }),
      );
    });
}

function registerSet(noun: Command, io: Io): void {
  remote(noun, 'set <router>', 'change a router while it is in use')
    .optionsGroup('Router:')
    .option('--add-network <network>', 'lead there too (may be repeated)', collect)
    .option('--remove-network <network>', 'lead there no more (may be repeated)', collect)
    .option('--route <cidr via ip...>', 'add a route, or replace the one to that range (may be repeated)', collect)
    .option('--remove-route <cidr>', 'take a route away (may be repeated)', collect)
    .action(async (name: string, _options: unknown, command: Command) => {
      const flags = flagsOf<RouterFlags>(command);
      const request = {
        project: '',
        name: nonEmpty('router', name),
        addNetworks: names('--add-network', flags.addNetwork),
        removeNetworks: names('--remove-network', flags.removeNetwork),
        addRoutes: routesOf('--route', flags.route ?? []),
        removeRoutes: names('--remove-route', flags.removeRoute),
      };
      const { addNetworks, removeNetworks, addRoutes, removeRoutes } = request;
      if ([addNetworks, removeNetworks, addRoutes, removeRoutes].every((given) => given.length === 0))
        throw new UsageError('Nothing to change was given.', 'see weft router set --help');
      await change(io, command, (mesh) => mesh.call('updateRouter', request, { timeoutMs: CHANGE_MS }));
    });
}

/** Several flags, or several names in one, divided by commas. */
const names = (flag: string, given: readonly string[] | undefined): string[] =>
  (given ?? []).flatMap((text) => list(nonEmpty(flag, text)));

async function change(
  io: Io,
  command: Command,
  call: (mesh: Mesh) => Promise<{ router?: Router | undefined; revision?: Revision | undefined }>,
): Promise<void> {
  const made = await withMesh(io, command, async (mesh) => {
    const { router, revision } = await call(mesh);
    if (router === undefined) throw new WeftError('INTERNAL', 'The coordinator answered without a router.');
    await settle(io, mesh, revision, flagsOf(command).json === true);
    return findRouter(await listRouters(mesh), router.name);
  });
  print(io, command, made, () => `${made.name}\n`);
}

async function listRouters(mesh: Mesh): Promise<RouterJson[]> {
  const { routers, networkNames } = await mesh.call('listRouters', { project: '' });
  return routers.map((r) => routerJson(r, networkNames)).sort((a, b) => (a.name < b.name ? -1 : 1));
}

function routerTable(routers: readonly RouterJson[]): string {
  const rows = routers.map((r) => [
    r.name,
    r.networks.join(','),
    r.routes.map(({ cidr, via }) => `${cidr} via ${via.join(',')}`).join('; ') || '-',
  ]);
  return table(['NAME', 'NETWORKS', 'ROUTES'], rows);
}

function findRouter(all: readonly RouterJson[], name: string): RouterJson {
  const found = all.find((r) => r.name === name);
  if (found !== undefined) return found;
  throw new WeftError('NOT_FOUND', `There is no router “${name}”.`, { hint: 'weft router ls lists them' });
}
