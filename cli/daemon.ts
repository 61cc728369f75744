/** weft agent, weft coordinator: the daemons, each a bundle of its own, loaded only here. */
import type { Command } from 'commander';
import { WeftError } from '../lib/errors.ts';
import type { Io } from './io.ts';
import { collect } from './values.ts';

/** What agent/main.ts and coordinator/main.ts export: resolves once it runs; it stops itself on SIGTERM and SIGINT. */
interface DaemonModule {
  main(argv: readonly string[]): Promise<void>;
}

interface DaemonFlags {
  readonly config?: string;
  readonly etcd?: string;
  readonly listen?: string[];
  readonly name?: string;
  readonly underlay?: string;
  readonly shapeUnderlay?: string;
}

export function registerAgent(program: Command, _io: Io): void {
  program
    .command('agent')
    .description('run the agent of this host')
    .option('--config <file>', 'configuration (default: /etc/weft/agent.yaml)')
    .option('--underlay <where>', "this host's VTEP: a CIDR that contains it, its interface, or the address itself")
    .option(
      '--shape-underlay <rate>',
      "shape the VTEP's interface to RATE (such as 950mbit), by priority classes; or none",
    )
    .option('--json', 'errors as JSON')
    .action(({ config, underlay, shapeUnderlay }: DaemonFlags) =>
      start('agent', [
        ...given('--config', config),
        ...given('--underlay', underlay),
        ...given('--shape-underlay', shapeUnderlay),
      ]),
    );
}

export function registerCoordinator(program: Command, _io: Io): void {
  program
    .command('coordinator')
    .description('run a coordinator')
    .option('--config <file>', 'configuration (default: /etc/weft/coordinator.yaml)')
    .option('--etcd <urls>', 'URL[,URL…], or "embedded" for an etcd of its own')
    .option('--listen <address>', 'HOST:PORT to serve on (may be repeated)', collect)
    .option('--name <name>', 'name of this coordinator')
    .option('--json', 'errors as JSON')
    .action(({ config, etcd, listen, name }: DaemonFlags) =>
      start('coordinator', [
        ...given('--config', config),
        ...given('--etcd', etcd),
        ...(listen ?? []).flatMap((address) => given('--listen', address)),
        ...given('--name', name),
      ]),
    );
}

const given = (flag: string, value: string | undefined): string[] => (value === undefined ? [] : [flag, value]);

/** By path, so that neither the bundler nor the import rules see the daemons as part of the CLI. */
async function start(daemon: 'agent' | 'coordinator', argv: readonly string[]): Promise<void> {
  const here = import.meta.url;
  const bundle = `./weft-${daemon}.mjs`;
  const url = new URL(here.endsWith('.ts') ? `../${daemon}/main.ts` : bundle, here);
  const { main } = (await import(url.href)) as DaemonModule;
  try {
    await main(argv);
  } catch (error) {
    throw ours(error);
  }
}

/** Each bundle has a class WeftError of its own. */
function ours(error: unknown): unknown {
  const { name, code, message, hint } = error as Partial<WeftError>;
  if (error instanceof WeftError || name !== 'WeftError' || code === undefined) return error;
  return new WeftError(code, message ?? '', hint ? { hint, cause: error } : { cause: error });
}
