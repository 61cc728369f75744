/** weft events: what happened; with --follow, what happens. One line each, also as JSON. */
import type { Command } from 'commander';
import { flagsOf, remote, withMesh } from './command.ts';
import type { Io } from './io.ts';
import { clean, toJson } from './output.ts';
import { eventJson } from './shapes.ts';

type EventJson = ReturnType<typeof eventJson>;

export function register(program: Command, io: Io): void {
  remote(program, 'events', 'show what happened')
    .option('-f, --follow', 'go on until interrupted')
    .action(async (_options: unknown, command: Command) => {
      const { follow = false, json = false } = flagsOf<{ follow?: boolean }>(command);
      await withMesh(io, command, async (mesh) => {
        for await (const event of mesh.events(follow)) {
          const shown = eventJson(event);
          io.out(json ? `${toJson(shown, 0)}\n` : line(shown));
        }
      });
    });
}

function line(event: EventJson): string {
  const what = event.type === 'drift' ? drift(event) : [event.action, event.object].filter((word) => word !== null);
  const words = [event.time ?? '-', event.type, event.host ?? '-', ...what, event.message ?? ''];
  return `${words.map(clean).join('  ').trimEnd()}\n`;
}

const drift = (event: EventJson): string[] => [
  event.kind ?? '-',
  event.object ?? '-',
  event.healedAt === null ? 'not healed' : `healed ${event.healedAt}`,
];
