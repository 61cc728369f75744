/**
 * `npm run bench:services`: what services cost and keep. A thousand of them with ten backends: time until they are everywhere, flows, map
 * entries, memory and CPU; how evenly connections are spread; throughput and round trips by a virtual address beside the direct way;
 * and for how long new connections go to a backend that was killed. On a lab of its own, three hosts. Writes
 * bench/results/services.json and services.md. Less than ten minutes.
 *
 *   -- [--services N] [--backends N] [--connections N] [--check MS] [--rounds N] [--seconds N] [--kills N] (any: nothing is written)
 *
 * --check: each backend of each of the many services is asked so often; without it they have no health check. --seconds are those of a
 * measurement of throughput or round trips, --rounds the turns of both ways, --kills the rounds of each kind.
 */
import { mkdirSync, writeFileSync } from 'node:fs';
import { parseArgs } from 'node:util';
import { installPackages } from '../cli/lab/packages.ts';
import { auditClean, weftOk } from '../test/harness/lab.ts';
import { labStatus } from '../test/harness/lab-direct.ts';
import { ROUND_TRIP_PORT, TCP_PORT } from './datapath/measure.ts';
import { hostFacts } from './datapath/weft.ts';
import { type BenchHost, stay, whereIs } from './docker.ts';
import { describeMachine, ownLab, prepare } from './machine.ts';
import { Api } from './services/api.ts';
import { type Held, hold } from './services/hold.ts';
import { type Killed, killed } from './services/killed.ts';
import { type Ways, ways } from './services/path.ts';
import { Process } from './services/process.ts';
import { AIMS, type Outcome, reportText } from './services/report.ts';
import { type Spread, spreadByCalls, spreadByProgram } from './services/spread.ts';

const RESULTS = new URL('./results/', import.meta.url);
const HOSTS = ['h1', 'h2', 'h3'] as const;
const NETWORK = 'bench-services';
/** Room for two thousand virtual addresses. */
const SUBNET = '10.79.0.0/16';
const [PORT, TARGET] = [80, 8080];
/** Of the service whose backend is killed: what a service has by itself. */
const CHECK = { type: 'tcp', intervalMs: 1_000, timeoutMs: 500, rise: 1, fall: 2 };
const REAL_CONNECTIONS = 2_000;
const IDLE_S = 20;

const { values: flags } = parseArgs({
  options: {
    services: { type: 'string' },
    backends: { type: 'string' },
    connections: { type: 'string' },
    check: { type: 'string' },
    rounds: { type: 'string' },
    seconds: { type: 'string' },
    kills: { type: 'string' },
  },
});
const count = number('services', 1_000, 1, 2_000 - 3);
const backends = number('backends', 10, 2, 32);
const connections = number('connections', 100_000, 1, 1_000_000);
const checkMs = number('check', 0, 0, 3_600_000);
const turns = { rounds: number('rounds', 5, 1, 100), seconds: number('seconds', 3, 1, 60) };
const kills = number('kills', 10, 1, 100);

interface Container {
  readonly host: BenchHost;
  readonly id: string;
  readonly name: string;
  readonly ip: string;
  /** File of its network namespace. */
  readonly netns: string;
}

await main();

async function main(): Promise<void> {
  await installPackages(say, [{ name: 'sockperf', files: ['sockperf'] }]);
  await prepare();
  await using _lab = await ownLab(`sv${process.pid}`, ['--hosts', String(HOSTS.length), '--coordinators', '1']);
  const machine = await describeMachine();
  const without = (await hostFacts()).filter((h) => !h.express).map((h) => h.name);
  if (without.length > 0) throw new Error(`no services where there is no express path: ${without.join(', ')}`);
  await weftOk('network', 'create', NETWORK, '--subnet', SUBNET);
  await weftOk('wait');
  using api = await Api.connect();

  const client = await container('h1', 'client');
  const outcome: Outcome = {
    ways: await beside(api, client),
    killed: await kill(api, client),
    ...(await crowd(api, client)),
    check: CHECK,
    heldCheckMs: checkMs,
  };
  await auditClean();
  const text = reportText(outcome);
  say(`\n${text}`);
  if (Object.keys(flags).length > 0) return;
  const date = new Date().toISOString();
  mkdirSync(RESULTS, { recursive: true });
  writeFileSync(
    new URL('services.json', RESULTS),
    `${JSON.stringify({ date, machine, aims: AIMS, ...outcome }, null, 2)}\n`,
  );
  const where = `${date.slice(0, 10)}, ${machine.cpus} CPUs, kernel ${machine.kernel}, load ${machine.loadBefore} before`;
  writeFileSync(new URL('services.md', RESULTS), `# What services cost\n\n${where}\n\n\`\`\`\n${text}\n\`\`\`\n`);
}

/** Throughput and round trips, from the first host to the second. */
async function beside(api: Api, client: Container): Promise<Ways> {
  const server = await container('h2', 'path');
  const ports = [TCP_PORT, ROUND_TRIP_PORT].map((port) => [port, port] as const);
  const made = await api.create({ network: NETWORK, name: 'path', selector: { role: 'path' }, ports });
  await api.served(NETWORK, 'path', 1);
  const measured = await ways({ client: client.netns, server: server.netns, address: server.ip }, made.ip, turns);
  done('direct and by virtual address');
  return measured;
}

/** Three backends, of which the one on the second host is killed again and again. */
async function kill(api: Api, client: Container): Promise<Killed> {
  const [first, victim, third] = [
    await container('h1', 'killed'),
    await container('h2', 'killed'),
    await container('h3', 'killed'),
  ];
  const wanted = { network: NETWORK, name: 'killed', selector: { role: 'killed' }, ports: [[PORT, TARGET] as const] };
  const made = await api.create({ ...wanted, health: CHECK });
  await api.applied();
  const to = { ip: made.ip, port: PORT };
  const round = { from: client.netns, to, network: NETWORK, target: TARGET, victim, others: [first, third] };
  const measured = await killed({ ...round, rounds: kills });
  done('killed backends');
  return measured;
}

/** Ten backends on all hosts: connections to one service, then a thousand services in front of them. */
async function crowd(api: Api, client: Container): Promise<{ spread: Record<'program' | 'real', Spread>; held: Held }> {
  const places = Array.from({ length: backends }, (_, i) => HOSTS[i % HOSTS.length]!);
  const behind = await Promise.all(places.map((host) => container(host, 'many')));
  await using servers = new AsyncDisposableStack();
  await Promise.all(behind.map(async (b) => servers.use(await Process.serving(b.netns, TARGET, b.name))));
  const wanted = { network: NETWORK, selector: { role: 'many' }, ports: [[PORT, TARGET] as const] };
  const made = await api.create({ ...wanted, name: 'spread' });
  await api.served(NETWORK, 'spread', backends);
  const program = await spreadByProgram(connections, backends);
  done('spread by the program');
  const real = await spreadByCalls(client.netns, { ip: made.ip, port: PORT }, REAL_CONNECTIONS, backends);
  done('spread of real connections');
  const held = await hold({
    api,
    hosts: HOSTS,
    network: NETWORK,
    count,
    wanted: checkMs === 0 ? wanted : { ...wanted, health: { ...CHECK, intervalMs: checkMs } },
    idleSeconds: IDLE_S,
    victim: behind[1]!,
  });
  done(`${count} services`);
  return { spread: { program, real }, held };
}

/** A container with that label. */
async function container(name: (typeof HOSTS)[number], role: string): Promise<Container> {
  const socket = (await labStatus()).hosts.find((h) => h.name === name)?.dockerSocket;
  if (socket === undefined) throw new Error(`the lab has no host ${name}`);
  const host: BenchHost = { name, socket };
  const id = await stay(host, NETWORK, '--label', `role=${role}`);
  const { pid, ip } = await whereIs(host, id, NETWORK);
  return { host, id, name: `${role}-${id.slice(0, 12)}`, ip, netns: `/proc/${pid}/ns/net` };
}

/** @throws when a flag is not a whole number in its range */
function number(name: keyof typeof flags, usual: number, least: number, most: number): number {
  const text = flags[name];
  if (text === undefined) return usual;
  const n = Number(text);
  if (!Number.isInteger(n) || n < least || n > most)
    throw new Error(`--${name} takes a whole number from ${least} to ${most}, not “${text}”`);
  return n;
}

function done(what: string): void {
  say(`${what}: measured after ${Math.round(performance.now() / 1000)} s`);
}

function say(text: string): void {
  process.stdout.write(`${text}\n`);
}
