/** weft version: of this program. Needs nobody. */
import type { Command } from 'commander';
import manifest from '../package.json' with { type: 'json' };
import { jsonFlag, print } from './command.ts';
import type { Io } from './io.ts';

export function register(program: Command, io: Io): void {
  jsonFlag(program.command('version').description('show the version')).action((_options: unknown, command: Command) => {
    const { version } = manifest;
    print(io, command, { version, node: process.versions.node }, () => `weft ${version}\n`);
  });
}
