/** weft status: coordinators, hosts and conflicts at a glance. */
import type { Command } from 'commander';
import { print, remote, withMesh } from './command.ts';
import { hostTable } from './host.ts';
import type { Io } from './io.ts';
import { clean, table } from './output.ts';
import { conflictJson, hostJson, revisionJson } from './shapes.ts';

export function register(program: Command, io: Io): void {
  remote(program, 'status', 'show coordinators, hosts and conflicts').action(
    async (_options: unknown, command: Command) => {
      const answer = await withMesh(io, command, (mesh) => mesh.call('getStatus', {}));
      const status = {
        revision: revisionJson(answer.revision),
        coordinators: answer.coordinators.map((c) => ({ ...c, revision: revisionJson(c.revision) })),
        hosts: answer.hosts.map(hostJson),
        conflicts: answer.conflicts.map(conflictJson),
      };
      print(io, command, status, () => {
        const rows = status.coordinators.map((c) => [
          c.name,
          c.address,
          c.state === 'up' ? 'up' : 'unreachable',
          String(c.sessions),
          c.revision ?? '-',
          c.version,
        ]);
        const parts = [
          `Revision ${status.revision ?? '-'}\n`,
          table(['COORDINATOR', 'ADDRESS', 'STATE', 'SESSIONS', 'REVISION', 'VERSION'], rows),
          hostTable(status.hosts),
        ];
        const away = status.coordinators.filter((c) => c.state !== 'up').map((c) => `${c.name}: ${c.state}`);
        const reasons = status.hosts.filter((h) => h.reason !== null).map((h) => `${h.name}: ${h.reason}`);
        const conflicts = status.conflicts.map((c) => `${c.host ?? '-'}: ${c.network ?? '-'}: ${c.message}`);
        for (const [head, lines] of [
          ['Unreachable', away],
          ['Lagging', reasons],
          ['Conflicts', conflicts],
        ] as const)
          if (lines.length > 0) parts.push(`${head}:\n${lines.map((line) => `  ${clean(line)}\n`).join('')}`);
        return parts.join('\n');
      });
    },
  );
}
