import { spawnSync } from 'node:child_process';
import { resolve } from 'node:path';
import type { Command } from 'commander';
import { WeftError } from '../../lib/errors.ts';
import { flagsOf, jsonFlag } from '../command.ts';
import { UsageError } from '../usage.ts';
import { asset, labName } from './paths.ts';

/**
 * `weft lab …`. Everything but the options is loaded when it is needed. `lab exec` is here for `--help` only: bin/weft hands
 * it to exec.pl before Node is started.
 */
interface LabFlags {
  readonly name?: string;
}
interface UpFlags extends LabFlags {
  readonly hosts: number;
  readonly coordinators: number;
  readonly etcdMembers: number;
  readonly bare: number;
  readonly dockerRoot?: string;
}

const say = (line: string): void => {
  process.stderr.write(`lab: ${line}\n`);
};

/** Adds `lab` and its commands. */
export function registerLab(program: Command): void {
  const lab = program
    .command('lab')
    .description('simulated hosts on this machine: dockerd, OVS and agents, etcd and coordinators');
  const command = (name: string, text: string): Command =>
    jsonFlag(lab.command(name).description(text).option('--name <lab>', 'which lab (WEFT_LAB)'));

  command('up', 'bring the lab up, or add what is missing')
    .option('--hosts <n>', 'hosts with an agent', count, 3)
    .option('--coordinators <n>', 'coordinators', count, 1)
    .option('--etcd-members <n>', 'etcd members', count, 1)
    .option('--bare <n>', 'hosts with dockerd and OVS, without an agent', count, 0)
    .option('--docker-root <dir>', 'take dockerd from the system below this directory (WEFT_LAB_DOCKER_ROOT)')
    .action(async (_flags: unknown, self: Command) => {
      const flags = flagsOf<UpFlags>(self);
      if (flags.coordinators < 1 || flags.etcdMembers < 1) {
        throw new UsageError('A lab has at least one coordinator and one etcd member.');
      }
      const name = nameOf(self);
      requireRoot();
      const { up } = await import('./up.ts');
      const root = flags.dockerRoot ?? (process.env.WEFT_LAB_DOCKER_ROOT || undefined);
      await up(name, { ...flags, dockerRoot: root === undefined ? undefined : resolve(root) }, say);
      await printStatus(name, flags.json === true);
    });

  command('down', 'remove everything of the lab').action(async (_flags: unknown, self: Command) => {
    const name = nameOf(self);
    requireRoot();
    const { down } = await import('./down.ts');
    await down(name);
    if (flagsOf<LabFlags>(self).json === true) process.stdout.write(`${JSON.stringify({ name, removed: true })}\n`);
  });

  command('status', 'machines, paths and processes of the lab').action(async (_flags: unknown, self: Command) => {
    await printStatus(nameOf(self), flagsOf<LabFlags>(self).json === true);
  });

  lab
    .command('exec')
    .description('run a command inside a host; everything after HOST is the command’s')
    .usage('[--name LAB] HOST CMD…')
    .argument('[words...]')
    .allowUnknownOption()
    .helpOption(false)
    .action(() => {
      const rest = process.argv.slice(process.argv.indexOf('exec', process.argv.indexOf('lab')) + 1);
      const { status } = spawnSync('perl', [asset('exec.pl'), ...rest], { stdio: 'inherit' });
      process.exitCode = status ?? 125;
    });

  for (const action of ['start', 'stop', 'kill'] as const) {
    const texts = {
      start: 'start a host, coordinator or etcd member, or one component of it',
      stop: 'stop it in good order',
      kill: 'kill it; for a host: a power cut',
    };
    command(action, texts[action])
      .argument('<target>', 'hN, coordN or etcdN')
      .argument('[component]', 'agent, dockerd, ovs or underlay')
      .action(async (target: string, component: string | undefined, _flags: unknown, self: Command) => {
        const name = nameOf(self);
        requireRoot();
        const { act, findTarget } = await import('./components.ts');
        await act(
          action,
          usage(() => findTarget(name, target, component)),
        );
        if (flagsOf<LabFlags>(self).json === true) {
          process.stdout.write(`${JSON.stringify({ name, action, target, component: component ?? null })}\n`);
        }
      });
  }
}

const nameOf = (self: Command): string => usage(() => labName(flagsOf<LabFlags>(self).name));

/** A name that does not exist is the user's, like a flag that does not. */
function usage<T>(work: () => T): T {
  try {
    return work();
  } catch (error) {
    if (!(error instanceof WeftError) || error.code !== 'INVALID_ARGUMENT') throw error;
    throw new UsageError(error.message, error.hint ?? undefined);
  }
}

async function printStatus(name: string, json: boolean): Promise<void> {
  const { status, statusText } = await import('./status.ts');
  const lab = await status(name);
  process.stdout.write(`${json ? JSON.stringify(lab, null, 2) : statusText(lab)}\n`);
}

function requireRoot(): void {
  if (process.getuid?.() === 0) return;
  throw new WeftError('PERMISSION_DENIED', 'The lab makes network namespaces and starts daemons: it needs root.', {
    hint: 'sudo weft lab …',
  });
}

/** More machines than this are a slip of the finger: each has a dockerd of its own. */
const MOST = 64;

function count(text: string): number {
  if (/^\d{1,4}$/.test(text) && Number(text) <= MOST) return Number(text);
  throw new UsageError(`“${text}” is not a number from 0 to ${MOST}.`);
}
