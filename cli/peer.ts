/** weft peer: tunnel ends that are not hosts of the mesh (routers, hypervisors, plain kernel devices). */
import type { Command } from 'commander';
import { ExternalPeer } from '../gen/weft/v1/types.ts';
import { WeftError } from '../lib/errors.ts';
import type { Mesh } from './client.ts';
import { connectionButKey, flagsOf, jsonFlag, networkFlag, print, remote, withMesh } from './command.ts';
import type { Io } from './io.ts';
import { keyValues, table } from './output.ts';
import { removeEach } from './remove.ts';
import { settle } from './settle.ts';
import { type PeerJson, peerJson } from './shapes.ts';
import { UsageError } from './usage.ts';
import { collect, nonEmpty, quote, wholeNumber } from './values.ts';

interface AddFlags {
  readonly network?: string;
  readonly vtep?: string;
  readonly encap?: string;
  readonly port?: string;
  readonly mac?: string[];
  readonly learn?: boolean;
}

export function register(program: Command, io: Io): void {
  const noun = program.command('peer').description('tunnel ends that are not hosts of the mesh');
  registerAdd(noun, io);
  remote(noun, 'ls', 'list external peers')
    .alias('list')
    .optionsGroup('Filter:')
    .option('--network <network>', 'only of this network')
    .action(async (_options: unknown, command: Command) => {
      const shown = await withMesh(io, command, (mesh) => listPeers(mesh, networkFlag(command)));
      print(io, command, shown, () => peerTable(shown));
    });
  remote(noun, 'inspect <peer>', 'show a peer in full')
    .optionsGroup('Filter:')
    .option('--network <network>', 'its network, where the name is in several')
    .action(async (name: string, _options: unknown, command: Command) => {
      nonEmpty('peer', name);
      const all = await withMesh(io, command, (mesh) => listPeers(mesh, networkFlag(command)));
      const found = findPeer(all, name);
      print(io, command, found, () => keyValues(found));
    });
  registerRemove(noun, io);
}

function registerAdd(noun: Command, io: Io): void {
  const command = jsonFlag(noun.command('add <name>').description('add a tunnel end to a network'));
  connectionButKey(command)
    .optionsGroup('Peer:')
    .requiredOption('--network <network>', 'network that it becomes part of')
    .requiredOption('--vtep <ip>', 'address of its tunnel end')
    .option('--encap <kind>', 'vxlan, geneve or gre (default: the network’s)')
    .option(
      '--key <n|file>',
      'VNI or GRE key that it uses (default: the network’s VNI); also the client’s key',
      collect,
    )
    .option('--port <n>', 'UDP port that it listens on (default: the mesh’s)')
    .option('--mac <mac[=ip]>', 'MAC behind it, with the address that ARP and ND answer for (may be repeated)', collect)
    .option('--learn', 'learn the MACs behind it from what it sends')
    .action(async (name: string, _options: unknown) => {
      const key = tunnelKey(command);
      const request = { project: '', network: networkFlag(command), peer: peerOf(name, key, flagsOf(command)) };
      const added = await withMesh(io, command, async (mesh) => {
        const answer = await mesh.call('addPeer', request, { timeoutMs: 30_000 });
        if (answer.peer === undefined) throw new WeftError('INTERNAL', 'The coordinator answered without a peer.');
        await settle(io, mesh, answer.revision, flagsOf(command).json === true);
        return peerJson(answer.peer, { [answer.peer.networkId]: request.network });
      });
      print(io, command, added, () => `${added.id}\n`);
    });
}

/** A number is the tunnel's key; what is none names the file of the client's, as everywhere else. */
function tunnelKey(command: Command): number {
  const given = (command.opts<{ key?: string[] }>().key ?? []) as readonly string[];
  const numbers = given.filter((text) => /^[+-]?\d+$/.test(text));
  command.setOptionValue(
    'key',
    given.find((text) => !numbers.includes(text)),
  );
  // One of each at most.
  if (numbers.length > 1 || given.length - numbers.length > 1) throw new UsageError('--key was given twice.');
  const [text] = numbers;
  return text === undefined ? 0 : wholeNumber('--key', text, 1, 2 ** 32 - 1);
}

/** What of it is an address, the coordinator judges. */
function peerOf(name: string, key: number, flags: AddFlags): ExternalPeer {
  return ExternalPeer.fromPartial({
    name: nonEmpty('peer name', name),
    vtep: nonEmpty('--vtep', flags.vtep ?? ''),
    encap: flags.encap === undefined ? '' : nonEmpty('--encap', flags.encap),
    key,
    udpPort: flags.port === undefined ? 0 : wholeNumber('--port', flags.port, 1, 65_535),
    macs: (flags.mac ?? []).map(macOf),
    learn: flags.learn ?? false,
  });
}

function macOf(text: string): { mac: string; ip: string } {
  const [mac = '', ip = '', ...rest] = text.split('=').map((part) => part.trim());
  if (mac === '' || rest.length > 0) throw new UsageError(`--mac takes MAC or MAC=IP, not ${quote(text)}.`);
  return { mac, ip };
}

function registerRemove(noun: Command, io: Io): void {
  remote(noun, 'rm <peer...>', 'remove peers of a network')
    .alias('remove')
    .optionsGroup('Peer:')
    .requiredOption('--network <network>', 'network that they are in')
    .action(async (names: string[], _options: unknown, command: Command) => {
      const network = networkFlag(command);
      await removeEach(io, command, names, (mesh, name) => {
        const request = { project: '', network, peer: nonEmpty('peer', name) };
        return mesh.call('removePeer', request, { timeoutMs: 30_000 });
      });
    });
}

async function listPeers(mesh: Mesh, network: string): Promise<PeerJson[]> {
  const { peers, networkNames } = await mesh.call('listPeers', { project: '', network });
  const order = (p: PeerJson): string => `${p.network}\0${p.name}`;
  return peers.map((p) => peerJson(p, networkNames)).sort((a, b) => (order(a) < order(b) ? -1 : 1));
}

function peerTable(peers: readonly PeerJson[]): string {
  const rows = peers.map((p) => [
    p.name,
    p.network,
    p.vtep,
    p.encap,
    p.key === null ? '-' : String(p.key),
    p.macs.length === 0 ? '-' : p.macs.map((m) => (m.ip === null ? m.mac : `${m.mac}=${m.ip}`)).join(','),
    p.learn ? 'yes' : 'no',
    p.id,
  ]);
  return table(['NAME', 'NETWORK', 'VTEP', 'ENCAP', 'KEY', 'MACS', 'LEARN', 'PEER ID'], rows);
}

function findPeer(all: readonly PeerJson[], name: string): PeerJson {
  const named = all.filter((p) => p.name === name);
  const found = named.length > 0 ? named : all.filter((p) => p.id === name);
  const [first] = found;
  if (first === undefined)
    throw new WeftError('NOT_FOUND', `There is no peer “${name}”.`, { hint: 'weft peer ls lists them' });
  if (found.length === 1) return first;
  throw new WeftError(
    'INVALID_ARGUMENT',
    `“${name}” is in several networks: ${found.map((p) => p.network).join(', ')}.`,
    {
      hint: 'give --network, or the id',
    },
  );
}
