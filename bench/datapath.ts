/**
 * `npm run bench:datapath`: Weft's datapath beside Docker Swarm, a kernel bridge with VXLAN and bare veth, all on the underlay of one lab, in
 * one run and in turns. Prints tables; writes datapath.json, .svg and .md in bench/results, unless only a part is asked for. Less than 20 minutes.
 *
 *   -- [--rounds N] [--seconds N] [--paths raw,swarm,…] [--no-guest] [--lab NAME] [--where guest]
 *
 * --lab takes a lab that is up (two hosts for each of Weft's paths); containers and networks stay there. With --where guest it is the part that runs in a
 * guest, whose kernel has openvswitch: it prints its samples as JSON, and writes no file.
 */
import { mkdirSync, writeFileSync } from 'node:fs';
import { parseArgs } from 'node:util';
import { installPackages } from '../cli/lab/packages.ts';
import { WeftError } from '../lib/errors.ts';
import { chart } from './datapath/chart.ts';
import { answerLine, benchInGuest } from './datapath/guest.ts';
import { aimsOf, quiet, ratiosOf, reportText, rowsOf } from './datapath/report.ts';
import { type Outcome, runPaths } from './datapath/run.ts';
import { NOTE, PATHS, type PathName, WEFT_PATHS, type Where } from './datapath/shape.ts';
import { removeNodes, underlayOf } from './datapath/underlay.ts';
import { describeMachine, type Machine, ownLab, prepare } from './machine.ts';

const RESULTS = new URL('./results/', import.meta.url);
/** All of a run ends within 20 minutes: what the guest may take is what is left. */
const BUDGET_MS = 1_170_000;
const DEFAULT: Readonly<Record<Where, readonly PathName[]>> = {
  native: ['raw', 'bridge-vxlan', 'swarm', 'weft-express', 'weft-express-routed', 'weft-netdev', 'weft-netdev-routed'],
  guest: ['raw', 'bridge-vxlan', 'swarm', 'weft-system', 'weft-system-routed'],
};

const { values: flags } = parseArgs({
  allowNegative: true,
  options: {
    rounds: { type: 'string', default: '3' },
    seconds: { type: 'string', default: '3' },
    paths: { type: 'string' },
    guest: { type: 'boolean', default: true },
    lab: { type: 'string' },
    where: { type: 'string', default: 'native' },
  },
});
await main();

async function main(): Promise<void> {
  const where: Where = flags.where === 'guest' ? 'guest' : 'native';
  const { outcome, machine } = await here(where);
  if (where === 'guest') return say(answerLine({ ...outcome, machine }));
  const guest = flags.guest ? await inGuest() : null;
  const samples = [...outcome.samples, ...(guest?.samples ?? [])];
  const missing = [...outcome.missing, ...(guest?.missing ?? [])];
  const audits = [outcome.audit, ...(guest === null ? [] : [guest.audit])];
  report({ samples, missing, audit: audits.find((a) => a !== 'clean') ?? 'clean' }, machine, guest?.machine ?? null);
}

/** The paths of the guest; all of them left out, with the reason, when there is no guest. */
async function inGuest(): Promise<Outcome & { machine: Machine | null }> {
  const asked = pathsAsked() ?? DEFAULT.guest;
  const paths = asked.filter((path) => DEFAULT.guest.includes(path));
  const left = BUDGET_MS - performance.now();
  const args = ['--paths', paths.join(','), '--rounds', flags.rounds, '--seconds', flags.seconds];
  try {
    return await benchInGuest(args, left, say);
  } catch (error) {
    const reason = WeftError.from(error).message;
    return {
      samples: [],
      missing: paths.map((path) => ({ path, where: 'guest', reason })),
      audit: 'clean',
      machine: null,
    };
  }
}

/** The paths of this machine, or of the guest that this is. */
async function here(where: Where): Promise<{ outcome: Outcome; machine: Machine }> {
  await using stack = new AsyncDisposableStack();
  const paths = pathsAsked() ?? DEFAULT[where];
  await installPackages(say, [{ name: 'sockperf', files: ['sockperf'] }]);
  if (flags.lab !== undefined) process.env['WEFT_LAB'] = flags.lab;
  else {
    if (where === 'native') await prepare();
    const hosts = 2 * WEFT_PATHS.filter((p) => paths.includes(p)).length;
    stack.use(await ownLab(`dp${process.pid}`, ['--hosts', String(Math.max(1, hosts)), '--coordinators', '1']));
  }
  const machine = await describeMachine();
  say(`the lab is up after ${Math.round(performance.now() / 1000)} s`);
  const lab = process.env['WEFT_LAB'] ?? '';
  const [rounds, seconds] = [Number(flags.rounds), Number(flags.seconds)];
  if (flags.lab !== undefined) stack.defer(() => removeNodes(underlayOf(lab)));
  return { outcome: await runPaths({ lab, where, paths, rounds, seconds, say }), machine };
}

function pathsAsked(): PathName[] | null {
  if (flags.paths === undefined) return null;
  return flags.paths.split(',').map((word) => {
    const path = PATHS.find((p) => p === word);
    if (path === undefined) throw new Error(`“${word}” is none of ${PATHS.join(', ')}`);
    return path;
  });
}

function report({ samples, missing, audit }: Outcome, machine: Machine, guest: Machine | null): void {
  if (samples.length === 0) throw new Error('nothing could be measured');
  const rows = rowsOf(samples);
  const [rounds, seconds] = [Number(flags.rounds), Number(flags.seconds)];
  const load = quiet(samples);
  const text = reportText(rows, missing, rounds, load);
  say(`\n${text}\n\naudit: ${audit}`);
  if (audit !== 'clean') process.exitCode = 1;
  // What is published is whole.
  if (flags.paths !== undefined || !flags.guest) return;
  const date = new Date().toISOString();
  const result = {
    date,
    note: NOTE,
    machine: { ...machine, ...load },
    guest,
    rounds,
    seconds,
    rows,
    ratios: ratiosOf(rows),
    aims: aimsOf(rows),
    missing,
    audit,
    samples,
  };
  const title = `${date.slice(0, 10)}, ${machine.cpus} CPUs, kernel ${machine.kernel}`;
  const page = `# The datapath beside others\n\n${title}\n\n![Bars](datapath.svg)\n\n\`\`\`\n${text}\n\`\`\`\n`;
  mkdirSync(RESULTS, { recursive: true });
  writeFileSync(new URL('datapath.json', RESULTS), `${JSON.stringify(result, null, 2)}\n`);
  writeFileSync(new URL('datapath.md', RESULTS), page);
  writeFileSync(new URL('datapath.svg', RESULTS), chart(rows, `${title}, medians of ${rounds} rounds taken in turns`));
}

function say(text: string): void {
  process.stdout.write(`${text}\n`);
}
