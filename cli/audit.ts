/** weft audit: what is not as it should be, as a diff. Exit 1 = drift, 3 = a host could not be audited. */
import type { Command } from 'commander';
import { flagsOf, print, remote, withMesh } from './command.ts';
import type { Io } from './io.ts';
import { clean } from './output.ts';
import { hostAuditJson } from './shapes.ts';
import { nonEmpty } from './values.ts';

type HostResult = ReturnType<typeof hostAuditJson>;

export function register(program: Command, io: Io): void {
  remote(program, 'audit', 'compare what is installed on the hosts with what should be')
    .optionsGroup('What:')
    .option('--host <host>', 'only this host')
    .option('--no-heal', 'report only')
    .action(async (_options: unknown, command: Command) => {
      const { host, heal } = flagsOf<{ host?: string; heal?: boolean }>(command);
      const request = {
        host: host === undefined ? '' : nonEmpty('--host', host),
        noHeal: heal === false,
        localOnly: false,
      };
      const answer = await withMesh(io, command, (mesh) => mesh.call('audit', request, { timeoutMs: 60_000 }));
      const hosts = answer.hosts.map(hostAuditJson).sort((a, b) => (a.host < b.host ? -1 : 1));
      const failed = hosts.some((h) => h.error !== null);
      const clear = !failed && hosts.every((h) => h.drift.length === 0);
      print(io, command, { clean: clear, hosts }, () => hosts.map(explain).join('') || 'There are no hosts.\n');
      if (!clear) io.setExit(failed ? 3 : 1);
    });
}

function explain(result: HostResult): string {
  const host = clean(result.host);
  if (result.error !== null) return `${host}: could not be audited: ${clean(result.error)}\n`;
  if (result.drift.length === 0) return `${host}: clean\n`;
  const count = result.drift.length === 1 ? '1 difference' : `${result.drift.length} differences`;
  return `${host}: ${count}\n${result.drift.map(difference).join('')}`;
}

/** "-" is what should be and is not, "+" is what is and should not be. */
function difference(drift: HostResult['drift'][number]): string {
  const sign = { missing: '-', extra: '+', differs: '~' }[drift.change] ?? '?';
  const lines = [`${sign} ${drift.kind} ${drift.object} (${drift.change})`];
  if (drift.want !== null) lines.push(`    - ${drift.want}`);
  if (drift.have !== null) lines.push(`    + ${drift.have}`);
  return lines.map((line) => `  ${line.startsWith(' ') ? `    ${clean(line.trim())}` : clean(line)}\n`).join('');
}
