/** weft reservation: names that own addresses, and perhaps a MAC, of a network, on whatever host their workload runs. */
import type { Command } from 'commander';
import type { ReservationStatus } from '../gen/weft/v1/control.ts';
import { Reservation } from '../gen/weft/v1/types.ts';
import { WeftError } from '../lib/errors.ts';
import type { Mesh } from './client.ts';
import { flagsOf, networkFlag, print, remote, withMesh } from './command.ts';
import type { Io } from './io.ts';
import { keyValues, table } from './output.ts';
import { removeEach } from './remove.ts';
import { settle } from './settle.ts';
import { type ReservationJson, reservationJson } from './shapes.ts';
import { collect, labels, nonEmpty } from './values.ts';

/** Hosts are asked whether the address is free. */
const CHANGE_MS = 30_000;

interface CreateFlags {
  readonly ip?: string[];
  readonly mac?: string;
  readonly label?: string[];
}

export function register(program: Command, io: Io): void {
  const noun = program.command('reservation').description('addresses and MACs that belong to a name, on every host');
  registerCreate(noun, io);
  remote(noun, 'ls', 'list reservations')
    .alias('list')
    .optionsGroup('Filter:')
    .option('--network <network>', 'only of this network')
    .action(async (_options: unknown, command: Command) => {
      const shown = await withMesh(io, command, (mesh) => listReservations(mesh, networkFlag(command)));
      print(io, command, shown, () => reservationTable(shown));
    });
  remote(noun, 'inspect <reservation>', 'show a reservation in full')
    .optionsGroup('Filter:')
    .option('--network <network>', 'its network, where the name is in several')
    .action(async (name: string, _options: unknown, command: Command) => {
      nonEmpty('reservation', name);
      const all = await withMesh(io, command, (mesh) => listReservations(mesh, networkFlag(command)));
      const found = findReservation(all, name);
      print(io, command, found, () => keyValues(found));
    });
  registerRemove(noun, io);
}

function registerCreate(noun: Command, io: Io): void {
  remote(noun, 'create <name>', 'reserve addresses of a network for a name')
    .optionsGroup('Reservation:')
    .requiredOption('--network <network>', 'network that the addresses are of')
    .requiredOption('--ip <ip>', 'address; may be repeated for the other family', collect)
    .option('--mac <mac>', 'MAC that goes with it (default: the function of the address, as for everybody)')
    .option('--label <key=value>', 'label (may be repeated)', collect)
    .action(async (name: string, _options: unknown, command: Command) => {
      const flags = flagsOf<CreateFlags>(command);
      const reservation = Reservation.fromPartial({
        name: nonEmpty('reservation name', name),
        ips: (flags.ip ?? []).map((ip) => nonEmpty('--ip', ip)),
        mac: flags.mac === undefined ? '' : nonEmpty('--mac', flags.mac),
        labels: labels('--label', flags.label ?? []),
      });
      const network = networkFlag(command);
      const made = await withMesh(io, command, async (mesh) => {
        const request = { project: '', network, reservation };
        const answer = await mesh.call('createReservation', request, { timeoutMs: CHANGE_MS });
        if (answer.status?.reservation === undefined)
          throw new WeftError('INTERNAL', 'The coordinator answered without a reservation.');
        await settle(io, mesh, answer.revision, flags.json === true);
        const all = await listReservations(mesh, network);
        return all.find((r) => r.name === name) ?? shape(answer.status, {}, {});
      });
      print(io, command, made, () => `${made.name}\n`);
    });
}

function registerRemove(noun: Command, io: Io): void {
  remote(noun, 'rm <reservation...>', 'remove reservations of a network; what runs keeps its address')
    .alias('remove')
    .optionsGroup('Reservation:')
    .requiredOption('--network <network>', 'network that they are of')
    .action(async (names: string[], _options: unknown, command: Command) => {
      const network = networkFlag(command);
      await removeEach(io, command, names, (mesh, name) => {
        const request = { project: '', network, name: nonEmpty('reservation', name) };
        return mesh.call('removeReservation', request, { timeoutMs: CHANGE_MS });
      });
    });
}

type Names = Readonly<Record<string, string>>;

const shape = (status: ReservationStatus, networks: Names, hosts: Names): ReservationJson =>
  reservationJson(status.reservation ?? Reservation.fromPartial({}), status.holder, { networks, hosts });

async function listReservations(mesh: Mesh, network: string): Promise<ReservationJson[]> {
  const answer = await mesh.call('listReservations', { project: '', network });
  const order = (r: ReservationJson): string => `${r.network}\0${r.name}`;
  return answer.reservations
    .map((status) => shape(status, answer.networkNames, answer.hostNames))
    .sort((a, b) => (order(a) < order(b) ? -1 : 1));
}

function reservationTable(reservations: readonly ReservationJson[]): string {
  const rows = reservations.map((r) => [
    r.name,
    r.network,
    r.ips.join(','),
    r.mac ?? '-',
    r.holder === null ? '-' : `${r.holder.host}/${r.holder.container ?? r.holder.endpoint.slice(0, 12)}`,
  ]);
  return table(['NAME', 'NETWORK', 'IP', 'MAC', 'HOLDER'], rows);
}

function findReservation(all: readonly ReservationJson[], name: string): ReservationJson {
  const found = all.filter((r) => r.name === name);
  const [first] = found;
  if (first === undefined)
    throw new WeftError('NOT_FOUND', `There is no reservation “${name}”.`, { hint: 'weft reservation ls lists them' });
  if (found.length === 1) return first;
  const networks = found.map((r) => r.network).join(', ');
  throw new WeftError('INVALID_ARGUMENT', `“${name}” is in several networks: ${networks}.`, { hint: 'give --network' });
}
