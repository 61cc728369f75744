/** What all commands have in common: --json, the flags of the connection, and a client that is closed at the end. */
import type { Command } from 'commander';
import type { Mesh } from './client.ts';
import { type ConnectionFlags, resolveTarget } from './context.ts';
import type { Io } from './io.ts';
import { toJson } from './output.ts';
import { UsageError } from './usage.ts';
import { collect, nonEmpty } from './values.ts';

export interface CommonFlags extends ConnectionFlags {
  readonly json?: boolean;
}

/** A command's own flags, with those of the program before it (`weft --json network ls`). */
export const flagsOf = <T extends object>(command: Command): T & CommonFlags =>
  command.optsWithGlobals<T & CommonFlags>();

/** What --network says; empty: nothing. */
export function networkFlag(command: Command): string {
  const { network } = flagsOf<{ network?: string }>(command);
  return network === undefined ? '' : nonEmpty('--network', network);
}

export const jsonFlag = (command: Command): Command => command.option('--json', 'print JSON');

/** For the program and for each command that talks to a coordinator. */
export function connectionFlags(command: Command): Command {
  return connectionButKey(command).option('--key <file>', 'its key (WEFT_KEY)');
}

/** For a command that has a --key of its own. */
export function connectionButKey(command: Command): Command {
  return command
    .optionsGroup('Connection:')
    .option('--coordinator <addresses>', 'HOST:PORT[,HOST:PORT] (WEFT_COORDINATOR)')
    .option('--ca <file>', 'certificate of the authority (WEFT_CA)')
    .option('--cert <file>', 'client certificate (WEFT_CERT)');
}

/**
 * A flag that takes one value takes it once: of two, whichever was taken, the other would be lost without a word. For the program and
 * all commands below it; a flag that both have (`weft --ca F network ls --ca G`) counts as one.
 * @throws UsageError, when the command line is parsed
 */
export function onceEach(program: Command): void {
  const given = new Set<string>();
  const watch = (command: Command): void => {
    for (const option of command.options) {
      if (!(option.required || option.optional) || option.variadic || option.parseArg === collect) continue;
      const parse = option.parseArg;
      const name = `${option.flags} ${option.description}`;
      option.argParser((value: string, previous: unknown) => {
        if (given.has(name)) throw new UsageError(`${option.long ?? option.flags} was given twice.`, 'give it once');
        given.add(name);
        return parse === undefined ? value : parse(value, previous);
      });
    }
    for (const below of command.commands) watch(below);
  };
  watch(program);
}

/** Connects, runs, closes. gRPC is loaded here and not before: commands that need no coordinator start without it. */
export async function withMesh<T>(io: Io, command: Command, run: (mesh: Mesh) => Promise<T>): Promise<T> {
  const target = await resolveTarget(flagsOf(command), io);
  const { Mesh } = await import('./client.ts');
  const mesh = await Mesh.connect(target, io.signal());
  try {
    return await run(mesh);
  } finally {
    mesh.close();
  }
}

/** Prints a result in the form that was asked for. */
export function print(io: Io, command: Command, json: unknown, text: () => string): void {
  io.out(flagsOf(command).json === true ? `${toJson(json)}\n` : text());
}

/** A command of a noun that talks to a coordinator. The last argument of commander's actions is the command itself. */
export function remote(parent: Command, spec: string, summary: string): Command {
  return connectionFlags(jsonFlag(parent.command(spec).description(summary)));
}
