/** weft network: the words and flags of `docker network`, for the whole mesh. */
import type { Command } from 'commander';
import type { Revision } from '../gen/weft/v1/types.ts';
import { WeftError } from '../lib/errors.ts';
import type { Mesh } from './client.ts';
import { flagsOf, print, remote, withMesh } from './command.ts';
import type { Io } from './io.ts';
import { type CreateFlags, createRequest, given } from './network-flags.ts';
import { registerSet } from './network-set.ts';
import { keyValues, showError, table } from './output.ts';
import { ofThisEpoch, settle } from './settle.ts';
import { networkJson } from './shapes.ts';
import { collect, nonEmpty, quote } from './values.ts';

export function register(program: Command, io: Io): void {
  const noun = program.command('network').description('networks that exist on every host');
  registerCreate(noun, io);
  remote(noun, 'ls', 'list networks')
    .alias('list')
    .option('-q, --quiet', 'only ids')
    .action(async (_options: unknown, command: Command) => {
      const { networks } = await withMesh(io, command, (mesh) => mesh.call('listNetworks', { project: '' }));
      const shown = networks.filter((n) => n.state !== 'reserved').map(networkJson);
      shown.sort((a, b) => (a.name < b.name ? -1 : 1));
      if (flagsOf<{ quiet?: boolean }>(command).quiet === true)
        return print(io, command, shown, () => shown.map((n) => `${n.id}\n`).join(''));
      const encap = (n: (typeof shown)[number]): string =>
        n.uplink === null ? n.encap : `${n.encap} ${n.uplink}.${n.vlanTag}`;
      const rows = shown.map((n) => [
        n.name,
        n.vni === null ? '-' : String(n.vni),
        n.subnets.join(','),
        encap(n),
        String(n.mtu),
        n.id,
      ]);
      print(io, command, shown, () => table(['NAME', 'VNI', 'SUBNET', 'ENCAP', 'MTU', 'NETWORK ID'], rows));
    });
  remote(noun, 'inspect <network...>', 'show networks in full').action(
    async (names: string[], _options: unknown, command: Command) => {
      const shown = await withMesh(io, command, (mesh) => inspectAll(mesh, names));
      print(io, command, shown.length === 1 ? shown[0] : shown, () => shown.map(keyValues).join('\n'));
    },
  );
  registerSet(noun, io);
  registerRemove(noun, io);
  registerConnect(noun, io);
}

async function inspectAll(mesh: Mesh, names: readonly string[]): Promise<ReturnType<typeof networkJson>[]> {
  const shown = [];
  for (const name of names)
    shown.push(networkJson(await mesh.call('getNetwork', { project: '', network: nonEmpty('network name', name) })));
  return shown;
}

function registerCreate(noun: Command, io: Io): void {
  remote(noun, 'create <name>', 'create a network')
    .optionsGroup('Network:')
    .option(
      '--subnet <cidr>',
      'address range, e.g. 10.10.0.0/16 or fd00:10::/64, once for each family (default: from the pool)',
      collect,
    )
    .option('--ip-range <cidr>', 'part of the subnet that addresses are given from')
    .option('--gateway <ip>', 'gateway of the subnet', collect)
    .option('--ipv6', 'IPv6 beside IPv4 (a single IPv6 --subnet without it: IPv6 alone)')
    .option('--encap <kind>', 'vxlan, geneve, gre or vlan')
    .option('--vni <n>', 'network identifier, 1 to 16777215 (default: allocated)')
    .option('--mtu <n>', 'MTU of the containers’ interfaces')
    .option('--uplink <interface>', 'physical interface of a vlan network, the same on every host')
    .option('--tag <n>', '802.1Q tag of a vlan network, 1 to 4094')
    .option('--allow-trust', 'endpoints may be made trusted (weft.trust=true)')
    .option('--internal', 'no way out of the mesh')
    .option('--publish-by <who>', 'who leads out and publishes ports: weft (default) or docker')
    .option('--dns-order <order>', 'addresses of a name: rotate (default) or nearest first')
    .option('--policy-default <action>', 'what no policy is about: allow (default) or drop')
    .option('--encrypt', 'encrypt between hosts')
    .option('--space <name>', 'address space; the same subnet may be in several (default: default)')
    .option('--label <key=value>', 'label (may be repeated)', collect)
    .action(async (name: string, _options: unknown, command: Command) => {
      const request = createRequest(name, flagsOf<CreateFlags>(command));
      const made = await withMesh(io, command, async (mesh) => {
        const network = await mesh.call('createNetwork', request, { timeoutMs: 30_000 });
        await settle(io, mesh, ofThisEpoch(network.revision), flagsOf(command).json === true);
        return network;
      });
      print(io, command, networkJson(made), () => `${made.id}\n`);
    });
}

function registerRemove(noun: Command, io: Io): void {
  remote(noun, 'rm <network...>', 'remove networks without endpoints')
    .alias('remove')
    .action(async (names: string[], _options: unknown, command: Command) => {
      const removed: string[] = [];
      const failures: unknown[] = [];
      const json = flagsOf(command).json === true;
      await withMesh(io, command, async (mesh) => {
        let last: Revision | undefined;
        // As docker does: each is tried, whatever becomes of the others.
        for (const name of names) {
          try {
            const request = { project: '', network: nonEmpty('network name', name) };
            last = (await mesh.call('deleteNetwork', request, { timeoutMs: 30_000 })).revision ?? last;
            removed.push(name);
          } catch (error) {
            failures.push(error);
          }
        }
        if (last !== undefined) await settle(io, mesh, last, json);
      });
      if (removed.length > 0) print(io, command, { removed }, () => removed.map((n) => `${n}\n`).join(''));
      for (const failure of failures) io.setExit(showError(io, failure, json));
    });
}

interface ConnectFlags {
  readonly host?: string;
  readonly ip?: string;
  readonly ip6?: string;
  readonly mac?: string;
  readonly force?: boolean;
}

function registerConnect(noun: Command, io: Io): void {
  remote(noun, 'connect <network> <container>', 'connect a running container, NAME or HOST/NAME')
    .optionsGroup('Endpoint:')
    .option('--host <host>', 'host that the container runs on')
    .option('--ip <ip>', 'IPv4 address')
    .option('--ip6 <ip>', 'IPv6 address')
    .option('--mac <mac>', 'MAC address')
    .action(async (network: string, container: string, _options: unknown, command: Command) => {
      const flags = flagsOf<ConnectFlags>(command);
      const request = {
        ...whom(network, container, flags),
        ip: given('--ip', flags.ip),
        ip6: given('--ip6', flags.ip6),
        mac: given('--mac', flags.mac),
      };
      const { host, ip, ip6 } = await withMesh(io, command, (mesh) =>
        mesh.call('connectContainer', request, { timeoutMs: 60_000 }),
      );
      const name = containerName(container);
      const has = [ip, ip6].filter((text) => text !== '').join(', ');
      print(
        io,
        command,
        { network, container: name, host, ip, ip6: ip6 === '' ? null : ip6 },
        () => `${host}/${name} has ${has} on ${network}\n`,
      );
    });
  remote(noun, 'disconnect <network> <container>', 'disconnect a container')
    .optionsGroup('Endpoint:')
    .option('--host <host>', 'host that the container runs on')
    .option('-f, --force', 'also when it does not run')
    .action(async (network: string, container: string, _options: unknown, command: Command) => {
      const flags = flagsOf<ConnectFlags>(command);
      const request = { ...whom(network, container, flags), force: flags.force ?? false };
      const { host } = await withMesh(io, command, (mesh) =>
        mesh.call('disconnectContainer', request, { timeoutMs: 60_000 }),
      );
      const name = containerName(container);
      print(io, command, { network, container: name, host }, () => `${host}/${name} has left ${network}\n`);
    });
}

const containerName = (container: string): string => container.replace(/^[^/]*\//, '');

function whom(network: string, container: string, flags: ConnectFlags) {
  if (container.split('/').length > 2 || container.endsWith('/') || container.startsWith('/'))
    throw new WeftError('INVALID_ARGUMENT', `${quote(container)} is no container’s name.`, {
      hint: 'a container is NAME or HOST/NAME',
    });
  return {
    project: '',
    network: nonEmpty('network name', network),
    container: nonEmpty('container name', container),
    host: given('--host', flags.host),
  };
}
