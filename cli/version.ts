/** weft version: of this program. Needs nobody. */
import type { Command } from 'commander';
import { VERSION } from '../lib/version.ts';
import { jsonFlag, print } from './command.ts';
import type { Io } from './io.ts';

export function register(program: Command, io: Io): void {
  jsonFlag(program.command('version').description('show the version')).action((_options: unknown, command: Command) => {
    const version = VERSION;
    print(io, command, { version, node: process.versions.node }, () => `weft ${version}\n`);
  });
}
