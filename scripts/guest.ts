/**
 * `npm run guest -- COMMAND [ARGUMENT...]`: runs a command in a guest whose kernel has openvswitch, for instance
 * `npm run guest -- bash -c 'bin/weft lab up --hosts 2 && bin/weft status'`. Its output and status are the command's.
 * `--writable DIR` before the command: what it writes there stays. `--timeout SECONDS`: 900 unless told.
 */
import { resolve } from 'node:path';
import { parseArgs } from 'node:util';
import { WeftError } from '../lib/errors.ts';
import { prepareGuest } from './guest/prepare.ts';
import { runInGuest } from './guest/run.ts';

const USAGE = 'usage: npm run guest -- [--writable DIR]... [--timeout SECONDS] COMMAND [ARGUMENT...]';

process.exitCode = await main().catch((thrown: unknown) => {
  const error = WeftError.from(thrown);
  console.error(`guest: ${error.message}${error.hint === null ? '' : `\n${error.hint}`}`);
  return 125;
});

async function main(): Promise<number> {
  const { own, command } = split(process.argv.slice(2));
  const { values } = parseArgs({
    args: own,
    options: { writable: { type: 'string', multiple: true, default: [] }, timeout: { type: 'string', default: '900' } },
  });
  const seconds = Number(values.timeout);
  if (command.length === 0 || !(seconds > 0)) throw new WeftError('INVALID_ARGUMENT', USAGE);
  await prepareGuest((line) => console.error(`guest: ${line}`));
  const { status } = await runInGuest(command, {
    writable: values.writable.map((folder) => resolve(folder)),
    timeoutMs: seconds * 1000,
    env: process.stdout.isTTY ? { FORCE_COLOR: '1' } : {},
    onStdout: (chunk) => process.stdout.write(chunk),
    onStderr: (chunk) => process.stderr.write(chunk),
  });
  return status;
}

/** Our options come first; from the first word that is none of them on, all is the command's. */
function split(args: readonly string[]): { own: string[]; command: string[] } {
  let at = 0;
  while (args[at]?.startsWith('--') === true) at += args[at]?.includes('=') === true ? 1 : 2;
  return { own: args.slice(0, at), command: args.slice(at) };
}
