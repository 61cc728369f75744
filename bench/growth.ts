/**
 * `npm run bench:growth`: what growth costs. Throughput, round trips and packets of one pair of containers, with 10, 1,000 and 10,000
 * endpoints in their network and with 1 and 200 networks on their hosts, each beside bare veth in the same minute; flows and map entries
 * for an endpoint and for a block; memory of ovs-vswitchd. On a lab of its own. Writes bench/results/growth.json. About ten minutes.
 *
 *   -- [--rounds N] [--seconds N] [--endpoints 10,1000,10000] [--networks 1,200]
 */
import { mkdirSync, writeFileSync } from 'node:fs';
import { parseArgs } from 'node:util';
import { installPackages } from '../cli/lab/packages.ts';
import { auditClean, weftJson } from '../test/harness/lab.ts';
import { labStatus } from '../test/harness/lab-direct.ts';
import { type Ends, measure } from './datapath/measure.ts';
import { rawPath } from './datapath/plain.ts';
import { median, rounded } from './datapath/report.ts';
import { NOTE } from './datapath/shape.ts';
import { underlayOf } from './datapath/underlay.ts';
import { hostFacts, pathOf, weftPath } from './datapath/weft.ts';
import { remove, stay } from './docker.ts';
import { table } from './figures.ts';
import { type HeldMemory, heldOn, memoryOn } from './growth/counts.ts';
import { MadeUp } from './growth/made-up.ts';
import { useNetworks } from './growth/networks.ts';
import { describeMachine, ownLab, prepare } from './machine.ts';

const RESULTS = new URL('./results/', import.meta.url);
const HOSTS = ['h1', 'h2'] as const;
/** Room for ten thousand. */
const SUBNET = '10.78.0.0/16';
const ELSEWHERE = 'h3';
/** Enough that no host's blocks are most of a level's. */
const MADE_UP_HOSTS = 10;

const { values: flags } = parseArgs({
  options: {
    rounds: { type: 'string', default: '3' },
    seconds: { type: 'string', default: '2' },
    endpoints: { type: 'string', default: '10,1000,10000' },
    networks: { type: 'string', default: '1,200' },
  },
});
const numbers = (text: string): number[] => text.split(',').map(Number);

interface Level extends HeldMemory {
  readonly endpoints: number;
  readonly networks: number;
  readonly tcp1_gbps: number;
  readonly rr_p50_us: number;
  readonly udp64_kpps: number;
  /** Divided by those of bare veth in the same rounds: above 1 is better, for latency too. */
  readonly toRaw: { readonly tcp1: number; readonly rr_p50: number; readonly udp64: number };
  readonly idle_cpus: number;
}

async function main(): Promise<void> {
  await installPackages(say, [{ name: 'sockperf', files: ['sockperf'] }]);
  await prepare();
  const lab = `gr${process.pid}`;
  await using _lab = await ownLab(lab, ['--hosts', '3', '--coordinators', '1']);
  const machine = await describeMachine();
  const raw = (await rawPath(underlayOf(lab))).ends;
  const [facts] = await hostFacts();
  const path = pathOf(facts ?? { datapath: null, express: false });
  const { ends } = await weftPath(path, HOSTS, ['--subnet', SUBNET]);
  const network = `bench-${path}`;
  const levels: Level[] = [];
  const level = async (endpoints: number, networks: number): Promise<void> => {
    levels.push(await levelOf(raw, ends, endpoints, networks));
    say(line(levels.at(-1)));
  };

  const one = await oneMore(network);
  let block = { flows: Number.NaN, mapEntries: Number.NaN };
  {
    const { id } = await weftJson<{ id: string }>('network', 'inspect', network);
    await using crowd = await MadeUp.connect(id, MADE_UP_HOSTS);
    for (const total of numbers(flags.endpoints)) {
      // Two are real.
      await crowd.growTo(total - 2);
      await level(total, 1);
    }
    block = await blockMore(crowd);
  }
  for (const count of numbers(flags.networks)) {
    await using _used = await useNetworks(count - 1, HOSTS);
    await level(2, count);
  }
  await auditClean();

  say(`\n${table(HEAD, levels.map(cells))}`);
  say(`\none endpoint more on ${HOSTS[0]}: ${JSON.stringify(one)}`);
  say(`one block more elsewhere, with 60 endpoints: ${JSON.stringify(block)}\n\n${NOTE}`);
  const [rounds, seconds] = [Number(flags.rounds), Number(flags.seconds)];
  const date = new Date().toISOString();
  const result = {
    date,
    note: NOTE,
    machine,
    path,
    rounds,
    seconds,
    levels,
    oneEndpointMore: one,
    oneBlockMore: block,
  };
  mkdirSync(RESULTS, { recursive: true });
  writeFileSync(new URL('growth.json', RESULTS), `${JSON.stringify(result, null, 2)}\n`);
}

/** Raw and Weft in turns. */
async function levelOf(raw: Ends, weft: Ends, endpoints: number, networks: number): Promise<Level> {
  const held = await memoryOn(HOSTS[0]);
  const [bare, mine] = [[], []] as Awaited<ReturnType<typeof measure>>[][] as [Measures, Measures];
  for (let round = 0; round < Number(flags.rounds); round++) {
    bare.push(await measure(raw, Number(flags.seconds)));
    mine.push(await measure(weft, Number(flags.seconds)));
  }
  const of = (all: Measures, key: keyof Measures[number]): number => median(all.map((m) => m[key]));
  const ratio = (key: keyof Measures[number]): number => rounded(of(mine, key) / of(bare, key));
  return {
    endpoints,
    networks,
    tcp1_gbps: rounded(of(mine, 'tcp1_gbps')),
    rr_p50_us: rounded(of(mine, 'rr_p50_us')),
    udp64_kpps: rounded(of(mine, 'udp64_kpps')),
    toRaw: { tcp1: ratio('tcp1_gbps'), rr_p50: rounded(1 / ratio('rr_p50_us')), udp64: ratio('udp64_kpps') },
    idle_cpus: rounded(of([...bare, ...mine], 'idle_cpus')),
    ...held,
  };
}
type Measures = Awaited<ReturnType<typeof measure>>[];

interface Change {
  readonly flows: number;
  readonly mapEntries: number;
}

const minus = (after: Change | undefined, before: Change | undefined): Change => ({
  flows: (after?.flows ?? Number.NaN) - (before?.flows ?? Number.NaN),
  mapEntries: (after?.mapEntries ?? Number.NaN) - (before?.mapEntries ?? Number.NaN),
});

/** A container more on the first host: what changes on each host. */
async function oneMore(network: string): Promise<Readonly<Record<string, Change>>> {
  const all = [...HOSTS, ELSEWHERE];
  const socket = (await labStatus()).hosts.find((h) => h.name === HOSTS[0])?.dockerSocket ?? '';
  const before = await heldOn(...all);
  const id = await stay({ name: HOSTS[0], socket }, network);
  const after = await heldOn(...all);
  await remove({ name: HOSTS[0], socket }, [id]);
  return Object.fromEntries(all.map((host, i) => [host, minus(after[i], before[i])]));
}

/** A block more of another host, with endpoints in it: what changes on the first host. */
async function blockMore(crowd: MadeUp): Promise<Change> {
  const [before] = await heldOn(HOSTS[0]);
  await crowd.addBlock(60);
  const [after] = await heldOn(HOSTS[0]);
  return minus(after, before);
}

const HEAD = [
  'endpoints',
  'networks',
  'TCP Gb/s',
  'to raw',
  'p50 µs',
  'to raw',
  'UDP kpps',
  'to raw',
  'flows',
  'map entries',
  'vswitchd MiB',
];
const cells = (l: Level): (string | number)[] => [
  l.endpoints,
  l.networks,
  l.tcp1_gbps,
  l.toRaw.tcp1,
  l.rr_p50_us,
  l.toRaw.rr_p50,
  l.udp64_kpps,
  l.toRaw.udp64,
  l.flows,
  l.mapEntries,
  l.vswitchdMiB,
];
const line = (l: Level | undefined): string =>
  l === undefined ? '' : HEAD.map((name, i) => `${name} ${cells(l)[i]}`).join(', ');

function say(text: string): void {
  process.stdout.write(`${text}\n`);
}

await main();
