/** weft apply, diff, export: the mesh as files have it. */
import { createReadStream } from 'node:fs';
import type { Command } from 'commander';
import { WeftError } from '../../lib/errors.ts';
import { flagsOf, print, remote, withMesh } from '../command.ts';
import type { Io } from '../io.ts';
import { clean, showError, showWarning } from '../output.ts';
import { settle } from '../settle.ts';
import { UsageError } from '../usage.ts';
import { collect, nonEmpty, quote } from '../values.ts';
import { exported, exportYaml } from './export.ts';
import { readActual } from './fetch.ts';
import { type Desired, type Plan, type Ref, refText } from './model.ts';
import { type Outcome, type Performed, perform } from './perform.ts';
import { plan } from './plan.ts';
import { changeJson, planText } from './show.ts';
import { MAX_FILE, readSources, type Source } from './source.ts';
import { readWishes } from './wish.ts';

/** Messages of one run; there may be as many as lines in the files. */
const MAX_TOLD = 50;

interface Flags {
  readonly file: string[];
  readonly prune?: boolean;
  readonly dryRun?: boolean;
}

const FILE = 'YAML (may be repeated; "-": standard input)';
const PRUNE = 'what the files do not have, of the kinds and networks that they speak of, goes';

export function registerApply(program: Command, io: Io): void {
  remote(program, 'apply', 'make the mesh as files say')
    .optionsGroup('What:')
    .requiredOption('-f, --file <file>', FILE, collect)
    .option('--prune', `remove too: ${PRUNE}`)
    .option('--dry-run', 'only show what would be done, as weft diff does')
    .addHelpText('after', APPLY_HELP)
    .action(async (_options: unknown, command: Command) => {
      const flags = flagsOf<Flags>(command);
      if (flags.dryRun === true) return diff(io, command);
      const files = readWishes(readSources(await sourcesOf(io, flags.file)));
      await withPlan(io, command, files, async (found, mesh) => {
        const performed = await perform(mesh, found.changes);
        if (performed.revision !== undefined) await settle(io, mesh, performed.revision, flags.json === true);
        report(io, command, found, performed);
      });
    });
}

export function registerDiff(program: Command, io: Io): void {
  remote(program, 'diff', 'show what weft apply would do; exit status 0: nothing, 1: something')
    .optionsGroup('What:')
    .requiredOption('-f, --file <file>', FILE, collect)
    .option('--prune', `count as a difference too: ${PRUNE}`)
    .addHelpText('after', DIFF_HELP)
    .action(async (_options: unknown, command: Command) => diff(io, command));
}

export function registerExport(program: Command, io: Io): void {
  remote(program, 'export', 'print the mesh as a file that weft apply takes')
    .optionsGroup('What:')
    .option('--network <network>', 'only of this network (may be repeated)', collect)
    .addHelpText('after', EXPORT_HELP)
    .action(async (_options: unknown, command: Command) => {
      const { network, json } = flagsOf<{ network?: string[] }>(command);
      const only = network === undefined ? null : new Set(network.map((name) => nonEmpty('--network', name)));
      const actual = await withMesh(io, command, readActual);
      for (const name of only ?? [])
        if (!actual.networks.some((n) => n.name === name))
          throw new WeftError('NOT_FOUND', `There is no network ${quote(name)}.`, {
            hint: 'weft network ls lists them',
          });
      const { document, warnings } = exported(actual, only);
      for (const warning of warnings)
        showWarning(io, warning, 'docs/apply.md says what a file may have', json === true);
      print(io, command, document, () => exportYaml(document));
    });
}

async function diff(io: Io, command: Command): Promise<void> {
  const files = readWishes(readSources(await sourcesOf(io, flagsOf<Flags>(command).file)));
  await withPlan(io, command, files, async (found) => {
    const clear = found.changes.length === 0;
    print(io, command, { clean: clear, changes: found.changes.map(changeJson) }, () => planText(found));
    if (!clear) io.setExit(1);
  });
}

type Mesh = Parameters<Parameters<typeof withMesh>[2]>[0];

/** Runs with a plan that can be done. Where there is none, all that is wrong is told, and nothing is done. */
async function withPlan(
  io: Io,
  command: Command,
  files: { readonly desired: Desired; readonly problems: readonly WeftError[] },
  run: (found: Plan, mesh: Mesh) => Promise<void>,
): Promise<void> {
  const flags = flagsOf<Flags>(command);
  const tell = (problems: readonly WeftError[]): void => {
    for (const problem of problems.slice(0, MAX_TOLD)) io.setExit(showError(io, problem, flags.json === true));
    const more = problems.length - MAX_TOLD;
    if (more > 0) showWarning(io, `There are ${more} more problems.`, 'mend these first', flags.json === true);
  };
  // What of the files could not be read is not what they do not have.
  const prune = flags.prune === true && files.problems.length === 0;
  if (files.problems.length === 0 && isEmpty(files.desired))
    throw new WeftError('INVALID_ARGUMENT', 'There is nothing in the files.', {
      hint: 'docs/apply.md says what a file may have',
    });
  try {
    await withMesh(io, command, async (mesh) => {
      const found = plan(files.desired, await readActual(mesh), { prune });
      const problems = [...files.problems, ...found.problems];
      if (problems.length > 0) tell(problems);
      else await run(found, mesh);
    });
  } catch (error) {
    if (files.problems.length === 0) throw error;
    // What is wrong with the files is known without a coordinator.
    tell(files.problems);
  }
}

const isEmpty = ({ sections }: Desired): boolean => sections.size === 0;

function report(io: Io, command: Command, { unchanged }: Plan, { results, failure }: Performed): void {
  const json = flagsOf(command).json === true;
  const rows: (Ref & { outcome: Outcome })[] = [
    ...results,
    ...unchanged.map((ref) => ({ ...ref, outcome: 'unchanged' as const })),
  ];
  print(io, command, rows, () => rows.map((one) => `${clean(refText(one))} ${one.outcome}\n`).join(''));
  const missing = rows.filter(({ outcome }) => outcome === 'missing');
  for (const one of missing) {
    const error = new WeftError('NOT_FOUND', `There is no ${refText(one)}: its settings are not applied.`, {
      hint: 'apply again when it runs',
    });
    io.setExit(showError(io, error, json));
  }
  if (failure === null) return;
  io.setExit(showError(io, failure, json));
  const done = results.filter(({ outcome }) => !['failed', 'not done', 'missing'].includes(outcome)).length;
  showWarning(
    io,
    `Stopped there: ${done} of ${results.length - missing.length} changes are done.`,
    'weft diff shows what is left, and weft apply goes on with it',
    json,
  );
}

async function sourcesOf(io: Io, files: readonly string[]): Promise<Source[]> {
  if (files.filter((file) => file === '-').length > 1)
    throw new UsageError('Standard input was given twice.', 'give "-f -" once');
  const sources: Source[] = [];
  for (const file of files) {
    nonEmpty('--file', file);
    if (file === '-') sources.push({ file: 'standard input', text: await io.stdin() });
    else sources.push({ file, text: await textOf(file) });
  }
  return sources;
}

/** No more than tells that it is too much. */
async function textOf(file: string): Promise<string> {
  let text = '';
  try {
    const stream = createReadStream(file, { encoding: 'utf8', end: 4 * MAX_FILE });
    for await (const part of stream) text += part as string;
  } catch (error) {
    throw new WeftError('INVALID_ARGUMENT', `${file} cannot be read: ${(error as Error).message}.`);
  }
  return text;
}

const APPLY_HELP = `
Examples:
  weft apply -f mesh.yaml                  make what is new, change what differs; take nothing away
  weft apply -f mesh.yaml --dry-run        only show it
  weft apply -f mesh.yaml --prune          and remove what the file does not have
  weft export | ssh other weft apply -f -  the same mesh elsewhere

A file:
  networks:
    - name: web
      subnet: 10.20.0.0/16
      rate: 500mbit
  services:
    - name: shop
      network: web
      port: 80:8080
      selector: {app: shop}
  policies:
    - name: shop
      network: web
      select: {app: shop}
      ingress:
        - {action: allow, ports: [8080/tcp]}
        - {action: drop}

Sections: networks, reservations, routers, services, policies, endpoints. Keys are the flags of the commands that make and set
these things; policies are as weft policy apply takes them. All is judged before anything is changed. See docs/apply.md.
`;

const DIFF_HELP = `
Examples:
  weft diff -f mesh.yaml                   "+" comes, "-" goes, "~" changes
  weft diff -f mesh.yaml --json            {"clean", "changes": [{"kind", "network", "name", "action", "differences"}]}
  weft export > now.yaml; weft diff -f now.yaml --prune     nothing: a mesh is as its export says
`;

const EXPORT_HELP = `
Examples:
  weft export > mesh.yaml                  all of it
  weft export --network web                one network, and what is in it
`;
