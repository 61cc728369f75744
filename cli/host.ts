/** weft host: the machines of the mesh. */
import type { Command } from 'commander';
import type { HostStatus } from '../gen/weft/v1/control.ts';
import { WeftError } from '../lib/errors.ts';
import { flagsOf, print, remote, withMesh } from './command.ts';
import type { Io } from './io.ts';
import { keyValues, showError, table } from './output.ts';
import { settle } from './settle.ts';
import { type HostJson, hostJson } from './shapes.ts';
import { nonEmpty } from './values.ts';

export function register(program: Command, io: Io): void {
  const noun = program.command('host').description('machines of the mesh');
  remote(noun, 'ls', 'list hosts')
    .alias('list')
    .action(async (_options: unknown, command: Command) => {
      const { hosts } = await withMesh(io, command, (mesh) => mesh.call('listHosts', { localOnly: false }));
      const shown = hosts.map(hostJson).sort(byName);
      print(io, command, shown, () => hostTable(shown));
    });
  remote(noun, 'inspect <host...>', 'show hosts in full').action(
    async (names: string[], _options: unknown, command: Command) => {
      const { hosts } = await withMesh(io, command, (mesh) => mesh.call('listHosts', { localOnly: false }));
      const shown = names.map((name) => hostJson(findHost(hosts, nonEmpty('host name', name))));
      print(io, command, shown.length === 1 ? shown[0] : shown, () => shown.map(keyValues).join('\n'));
    },
  );
  const drain = (spec: string, summary: string, draining: boolean): void => {
    remote(noun, spec, summary).action(async (host: string, _options: unknown, command: Command) => {
      const request = { host: nonEmpty('host name', host), draining };
      const changed = await withMesh(io, command, async (mesh) => {
        const updated = await mesh.call('updateHost', request);
        await settle(io, mesh, undefined, flagsOf(command).json === true);
        return hostJson(updated);
      });
      print(io, command, changed, () => `${changed.name}\n`);
    });
  };
  drain('drain <host>', 'no new endpoints or blocks there; running ones stay', true);
  drain('undrain <host>', 'take new endpoints again', false);
  remote(noun, 'rm <host...>', 'forget hosts that are down, and free what they hold')
    .alias('remove')
    .action(async (names: string[], _options: unknown, command: Command) => {
      const removed: string[] = [];
      const failures: unknown[] = [];
      await withMesh(io, command, async (mesh) => {
        for (const host of names) {
          try {
            await mesh.call('deleteHost', { host: nonEmpty('host name', host) }, { timeoutMs: 30_000 });
            removed.push(host);
          } catch (error) {
            failures.push(error);
          }
        }
      });
      if (removed.length > 0) print(io, command, { removed }, () => removed.map((n) => `${n}\n`).join(''));
      for (const failure of failures) io.setExit(showError(io, failure, flagsOf(command).json === true));
    });
}

const byName = (a: HostJson, b: HostJson): number =>
  (a.name ?? '').localeCompare(b.name ?? '', 'en', { numeric: true });

export function hostTable(hosts: readonly HostJson[]): string {
  const rows = hosts.map((h) => [
    h.name ?? '',
    h.draining ? `${h.state} (draining)` : h.state,
    h.vteps.map((vtep) => vtep.address).join(','),
    h.datapath ?? '-',
    h.appliedRevision ?? '-',
    h.id ?? '',
  ]);
  return table(['NAME', 'STATE', 'VTEP', 'DATAPATH', 'APPLIED', 'HOST ID'], rows);
}

/** By name, id, or a prefix of an id (4 digits or more). */
function findHost(hosts: readonly HostStatus[], name: string): HostStatus {
  const exact = hosts.find((h) => h.host?.name === name || h.host?.id === name);
  if (exact !== undefined) return exact;
  const similar = /^[0-9a-f]{4,}$/.test(name) ? hosts.filter((h) => h.host?.id.startsWith(name) === true) : [];
  if (similar.length === 1 && similar[0] !== undefined) return similar[0];
  if (similar.length > 1)
    throw new WeftError('INVALID_ARGUMENT', `Several hosts have an id that begins with ${name}.`, {
      hint: similar.map((h) => h.host?.name).join(', '),
    });
  throw new WeftError('NOT_FOUND', `There is no host “${name}”.`, { hint: 'weft host ls lists them' });
}
