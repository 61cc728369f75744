/**
 * `npm run bench:daemons`: what the daemons take. Memory of an agent with 200 endpoints and of a coordinator with 1,000 networks, and the
 * time from the start of each to its first answer; on a lab of its own. Writes bench/results/daemons.json. About a minute.
 */
import { mkdirSync, writeFileSync } from 'node:fs';
import { parseArgs } from 'node:util';
import { labStatus } from '../test/harness/lab-direct.ts';
import { summarize, table } from './figures.ts';
import { describeMachine, ownLab, prepare } from './machine.ts';
import { fillCoordinator, holdEndpoints, rssOf } from './memory.ts';
import { agentStarts, coordinatorStarts } from './starts.ts';

const RESULTS = new URL('./results/daemons.json', import.meta.url);
/** What it should be: MiB, ms. */
const AIM = { agent: 120, coordinator: 150, ready: 1000 };

const { values: flags } = parseArgs({
  options: {
    endpoints: { type: 'string', default: '200' },
    networks: { type: 'string', default: '1000' },
    starts: { type: 'string', default: '5' },
  },
});
await main();

async function main(): Promise<void> {
  await prepare();
  const name = `benchd${process.pid}`;
  await using _lab = await ownLab(name, ['--hosts', '1', '--coordinators', '1']);
  const machine = await describeMachine();
  const starts = Number(flags.starts);

  const agentReady = await agentStarts(name, starts);
  const idle = await rssOf((await labStatus()).hosts[0]?.pids['agent']);
  const agent = {
    endpoints: Number(flags.endpoints),
    idleMiB: idle,
    ...(await holdEndpoints(Number(flags.endpoints))),
  };

  const coordinatorReady = await coordinatorStarts(name, starts);
  const before = await rssOf((await labStatus()).coordinators[0]?.pid);
  const coordinator = {
    networks: Number(flags.networks),
    idleMiB: before,
    ...(await fillCoordinator(Number(flags.networks))),
  };

  const ready = {
    agentPlugin: summarize(agentReady.map((s) => s.plugin)),
    agentInSync: summarize(agentReady.map((s) => s.inSync)),
    coordinator: summarize(coordinatorReady),
  };
  const rows = [
    [`agent with ${agent.endpoints} endpoints, MiB (${idle} without)`, agent.rssMiB, `< ${AIM.agent}`],
    [
      `coordinator with ${coordinator.networks} networks, MiB (${before} without)`,
      coordinator.rssMiB,
      `< ${AIM.coordinator}`,
    ],
    ['agent: start to first answer to Docker, ms', ready.agentPlugin.median, `< ${AIM.ready}`],
    ['agent: start to in sync, ms', ready.agentInSync.median, `< ${AIM.ready}`],
    ['coordinator: start to ready, ms', ready.coordinator.median, `< ${AIM.ready}`],
  ];
  process.stdout.write(`\n${table(['', 'is', 'aim'], rows)}\n`);
  const result = { date: new Date().toISOString(), machine, aims: AIM, agent, coordinator, ready };
  mkdirSync(new URL('.', RESULTS), { recursive: true });
  writeFileSync(RESULTS, `${JSON.stringify(result, null, 2)}\n`);
}
