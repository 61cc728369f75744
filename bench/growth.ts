/**
 * `npm run bench:growth`: what growth costs. Throughput, round trips and packets of pairs of containers, with 10, 1,000 and 10,000
 * endpoints in their network and with 1 and 200 networks on their hosts, each beside bare veth in the same minute; flows and map entries
 * for an endpoint and for a block; memory of ovs-vswitchd. On a lab of its own, by the path that its hosts take, and where that is the
 * express path also through Open vSwitch. Writes bench/results/growth.json and growth.md. About half an hour, most of it for making and removing the networks.
 *
 *   -- [--rounds N] [--seconds N] [--endpoints 10,1000,10000] [--networks 1,200] (any of the last two: nothing is written)
 */
import { mkdirSync, writeFileSync } from 'node:fs';
import { parseArgs } from 'node:util';
import { installPackages } from '../cli/lab/packages.ts';
import { auditClean, weftJson, weftOk } from '../test/harness/lab.ts';
import { labStatus } from '../test/harness/lab-direct.ts';
import { rawPath } from './datapath/plain.ts';
import { NOTE } from './datapath/shape.ts';
import { underlayOf } from './datapath/underlay.ts';
import { hostFacts, pairOn, pathOf, setExpress } from './datapath/weft.ts';
import { remove, stay } from './docker.ts';
import { table } from './figures.ts';
import { heldOn } from './growth/counts.ts';
import { cellsOf, HEAD, type Level, levelOf, type Pair } from './growth/levels.ts';
import { MadeUp } from './growth/made-up.ts';
import { useNetworks } from './growth/networks.ts';
import { describeMachine, ownLab, prepare } from './machine.ts';

const RESULTS = new URL('./results/', import.meta.url);
const FIRST = ['h1', 'h2'] as const;
const ELSEWHERE = 'h3';
/** Where the first two take the express path, these do not. */
const SECOND = ['h4', 'h5'] as const;
/** Enough that no host's blocks are most of a level's. */
const MADE_UP_HOSTS = 10;
const NETWORK = 'bench-growth';
/** Room for ten thousand. */
const SUBNET = '10.78.0.0/16';

const { values: flags } = parseArgs({
  options: {
    rounds: { type: 'string', default: '3' },
    seconds: { type: 'string', default: '2' },
    endpoints: { type: 'string' },
    networks: { type: 'string' },
  },
});
const numbers = (text: string): number[] => text.split(',').map(Number);

await main();

async function main(): Promise<void> {
  await installPackages(say, [{ name: 'sockperf', files: ['sockperf'] }]);
  await prepare();
  const lab = `gr${process.pid}`;
  await using _lab = await ownLab(lab, ['--hosts', '5', '--coordinators', '1']);
  const machine = await describeMachine();
  const raw = (await rawPath(underlayOf(lab))).ends;
  await weftOk('network', 'create', NETWORK, '--subnet', SUBNET);
  await weftOk('wait');
  const pairs = await pairsOn(NETWORK);
  const real = 2 * pairs.length;
  const turns = { rounds: Number(flags.rounds), seconds: Number(flags.seconds) };
  const levels: Level[] = [];
  const level = async (endpoints: number, networks: number): Promise<void> => {
    const now = await levelOf(raw, pairs, { endpoints, networks }, turns);
    levels.push(now);
    say(table(HEAD, cellsOf([now])));
  };

  const one = await oneMore();
  const block = await crowds(level, real);
  for (const count of numbers(flags.networks ?? '1,200')) {
    await using _used = await useNetworks(
      count - 1,
      pairs.flatMap((p) => (p.host === FIRST[0] ? FIRST : SECOND)),
    );
    await level(real, count);
  }
  // The hosts' Docker is still removing what was removed.
  await weftOk('wait', '--timeout', '300');
  await auditClean();

  const text = [
    table(HEAD, cellsOf(levels)),
    'to raw: times as good as bare veth in the same rounds, for latency too',
    `one endpoint more on ${FIRST[0]}:\n${table(
      ['host', 'flows', 'map entries'],
      Object.entries(one).map(([host, c]) => [host, c.flows, c.mapEntries]),
    )}`,
    `one block more of another host, with 60 endpoints in it: ${block.flows} flows, ${block.mapEntries} map entries`,
    NOTE,
  ].join('\n\n');
  say(`\n${text}`);
  if (flags.endpoints !== undefined || flags.networks !== undefined) return;
  const date = new Date().toISOString();
  const result = { date, note: NOTE, machine, ...turns, levels, oneEndpointMore: one, oneBlockMore: block };
  mkdirSync(RESULTS, { recursive: true });
  writeFileSync(new URL('growth.json', RESULTS), `${JSON.stringify(result, null, 2)}\n`);
  const where = `${date.slice(0, 10)}, ${machine.cpus} CPUs, kernel ${machine.kernel}`;
  writeFileSync(new URL('growth.md', RESULTS), `# What growth costs\n\n${where}\n\n\`\`\`\n${text}\n\`\`\`\n`);
}

/** A pair for each path that these hosts can take. */
async function pairsOn(network: string): Promise<Pair[]> {
  const [facts] = await hostFacts();
  const path = pathOf(facts ?? { datapath: null, express: false });
  const pairs: Pair[] = [{ ...(await pairOn(network, path, FIRST)), host: FIRST[0] }];
  if (path !== 'weft-express') return pairs;
  await setExpress(SECOND, false);
  return [...pairs, { ...(await pairOn(network, 'weft-netdev', SECOND)), host: SECOND[0] }];
}

/** The levels of endpoints. @returns what one block more changes on the first host */
async function crowds(level: (endpoints: number, networks: number) => Promise<void>, real: number): Promise<Change> {
  const { id } = await weftJson<{ id: string }>('network', 'inspect', NETWORK);
  await using crowd = await MadeUp.connect(id, MADE_UP_HOSTS);
  for (const total of numbers(flags.endpoints ?? '10,1000,10000')) {
    await crowd.growTo(total - real);
    await level(total, 1);
  }
  const [before] = await heldOn(FIRST[0]);
  await crowd.addBlock(60);
  const [after] = await heldOn(FIRST[0]);
  return minus(after, before);
}

interface Change {
  readonly flows: number;
  readonly mapEntries: number;
}

function minus(after: Change | undefined, before: Change | undefined): Change {
  const less = (key: keyof Change): number => (after?.[key] ?? Number.NaN) - (before?.[key] ?? Number.NaN);
  return { flows: less('flows'), mapEntries: less('mapEntries') };
}

/** A container more on the first host: what changes on each host. */
async function oneMore(): Promise<Readonly<Record<string, Change>>> {
  const all = [...FIRST, ELSEWHERE];
  const socket = (await labStatus()).hosts.find((h) => h.name === FIRST[0])?.dockerSocket ?? '';
  const before = await heldOn(...all);
  const id = await stay({ name: FIRST[0], socket }, NETWORK);
  const after = await heldOn(...all);
  await remove({ name: FIRST[0], socket }, [id]);
  return Object.fromEntries(all.map((host, i) => [host, minus(after[i], before[i])]));
}

function say(text: string): void {
  process.stdout.write(`${text}\n`);
}
