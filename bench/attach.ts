/**
 * `npm run bench:attach [-- --smoke] [--lab NAME] [--runs N]`: what a container's network costs, beside Docker's own networks and Docker
 * Swarm, on a lab of its own. Writes bench/results/attach.json (not with --smoke) and prints it as tables. Three to five minutes; with
 * --smoke (few runs, no Swarm) 20 seconds. --lab takes a lab that is up: with --bare 3 for Swarm.
 */
import { mkdirSync, writeFileSync } from 'node:fs';
import { parseArgs } from 'node:util';
import { type AttachFigures, attachRuns } from './attach-runs.ts';
import { type CrowdFigures, crowdRuns } from './crowds.ts';
import { swarmFabric, weftFabric } from './fabrics.ts';
import { table } from './figures.ts';
import { describeMachine, ownLab, prepare } from './machine.ts';
import { type MoveFigures, moveRuns } from './moves.ts';

const RESULTS = new URL('./results/attach.json', import.meta.url);
/** What it should be, ms. */
const AIM = { attachOverBridge: 25, outageOverRun: 20 };

const { values: flags } = parseArgs({
  options: { smoke: { type: 'boolean', default: false }, lab: { type: 'string' }, runs: { type: 'string' } },
});
await main();

async function main(): Promise<void> {
  await using stack = new AsyncDisposableStack();
  if (flags.lab !== undefined) process.env['WEFT_LAB'] = flags.lab;
  else {
    await prepare();
    const size = ['--hosts', '3', '--coordinators', '1', '--bare', flags.smoke ? '0' : '3'];
    stack.use(await ownLab(`bench${process.pid}`, size));
  }
  const machine = await describeMachine();
  const weft = await weftFabric();
  const swarm = flags.smoke ? null : await swarmFabric();
  const fabrics = swarm === null ? [weft] : [weft, swarm];
  const runs = Number(flags.runs ?? (flags.smoke ? 5 : 30));

  const attach = await attachRuns(weft, swarm, runs);
  showAttach(attach);
  const handover = await moveRuns(fabrics, flags.smoke ? 3 : 20);
  showMoves(handover);
  const firstUse = await crowdRuns(fabrics, 1, flags.smoke ? 1 : 5);
  showCrowd('first use of a network, on three hosts at once', firstUse);
  const burst = await crowdRuns(fabrics, flags.smoke ? 3 : 10, flags.smoke ? 1 : 3);
  showCrowd('burst: containers on three hosts at once', burst);

  const result = {
    date: new Date().toISOString(),
    unit: 'ms',
    machine,
    aims: aims(attach, handover),
    attach,
    handover,
    firstUse,
    burst,
  };
  say(`\naims: ${JSON.stringify(result.aims)}`);
  if (flags.smoke) return;
  mkdirSync(new URL('.', RESULTS), { recursive: true });
  writeFileSync(RESULTS, `${JSON.stringify(result, null, 2)}\n`);
}

function aims(attach: AttachFigures, handover: Readonly<Record<string, MoveFigures>>) {
  const median = (name: string): number => attach.rows[name]?.median ?? Number.NaN;
  const over = (base: number): number => Math.round(median('weft') - base);
  const { outage, dockerRun } = handover['weft'] ?? {};
  return {
    attachOverBridge: { aim: AIM.attachOverBridge, is: over(median('bridge')) },
    attachOverUserBridge: { aim: AIM.attachOverBridge, is: over(median('bridge, user-defined')) },
    outageOverRun: { aim: AIM.outageOverRun, is: Math.round((outage?.median ?? 0) - (dockerRun?.median ?? 0)) },
  };
}

function showAttach({ runs, rows, breakdown }: AttachFigures): void {
  say(`\ndocker run --rm, ${runs} runs of each in turns, ms`);
  const lines = Object.entries(rows).map(([name, r]) => [name, r.median, r.p90, r.min, `${r.toBridge.toFixed(2)} ×`]);
  say(table(['network', 'median', 'p90', 'min', 'to bridge'], lines));
  const calls = Object.entries(breakdown.pluginCalls).map(([method, ms]) => [`  ${method}`, ms]);
  const parts = [
    ['container without network', breakdown.container],
    ['Docker’s DNS in the container', breakdown.dockerDns],
    ['plugin calls', breakdown.plugin],
    ...calls,
    ['dockerd: interface in and out, rest', breakdown.dockerd],
  ];
  say(`\nwhere the time of weft goes, ms\n${table(['part', 'ms'], parts)}`);
}

function showMoves(all: Readonly<Record<string, MoveFigures>>): void {
  const [one] = Object.values(all);
  say(`\nhandover of an address, ${one?.moves} moves in turns, median / p90, ms`);
  const lines = Object.entries(all).map(([name, m]) => [
    name,
    ...[m.outage, m.gap, m.dockerRm, m.dockerRun, m.afterRun].map((s) => `${s.median} / ${s.p90}`),
  ]);
  say(table(['', 'outage', 'rm returned → answer', 'docker rm -f', 'docker run', 'run returned → answer'], lines));
}

function showCrowd(what: string, all: Readonly<Record<string, CrowdFigures>>): void {
  const [one] = Object.values(all);
  say(`\n${what}: ${one?.containers} containers, ${one?.rounds} rounds in turns, median / max, ms`);
  const lines = Object.entries(all).map(([name, c]) => [
    name,
    ...[c.total, c.started, c.pairs].map((s) => `${s.median} / ${s.max}`),
    `${c.firstPacket} of ${c.of}`,
  ]);
  say(table(['', 'all pairs reach', 'all started', 'then until all reach', 'first packets answered'], lines));
  const full = Object.values(all).reduce((sum, c) => sum + c.neighbourTableFull, 0);
  if (full > 0)
    say(
      `the machine’s table of neighbours was full ${full} times: it cost packets (net.ipv4.neigh.default.gc_thresh3)`,
    );
}

function say(text: string): void {
  process.stdout.write(`${text}\n`);
}
