import { Command } from 'commander';
import { WeftError } from '../lib/errors.ts';
import { registerLab } from './lab/command.ts';

const program = new Command('weft');
registerLab(program);
try {
  await program.parseAsync();
} catch (thrown) {
  const error = WeftError.from(thrown);
  process.stderr.write(`error: ${error.message}\n${error.hint === null ? '' : `${error.hint}\n`}`);
  process.exitCode = 1;
}
