/** Many containers at the same moment: a network's first use on three hosts, and a burst; until every one reaches every other. */
import { readFile } from 'node:fs/promises';
import { fileURLToPath } from 'node:url';
import { run } from '../test/harness/lab.ts';
import { type BenchHost, remove, stay, whereIs } from './docker.ts';
import type { Fabric } from './fabrics.ts';
import { type Summary, summarize } from './figures.ts';

const PAIRS = fileURLToPath(new URL('./pairs.pl', import.meta.url));

export interface CrowdFigures {
  readonly rounds: number;
  readonly containers: number;
  /** From the first docker run to the moment when all pairs have answered. */
  readonly total: Summary;
  /** Until the last docker run has returned. */
  readonly started: Summary;
  /** From then until all pairs have answered. */
  readonly pairs: Summary;
  /** Pairs, of all rounds, whose very first packet was answered; and how many pairs there were. */
  readonly firstPacket: number;
  readonly of: number;
  /** Packets that the machine's kernel dropped meanwhile, of anybody: all its namespaces share one table of neighbours. */
  readonly neighbourTableFull: number;
}

/**
 * Fabrics take turns, a round each, each round on a network that nobody has used before.
 * @param each containers on each of three hosts
 */
export async function crowdRuns(
  fabrics: readonly Fabric[],
  each: number,
  rounds: number,
): Promise<Record<string, CrowdFigures>> {
  const seen = new Map<Fabric, Round[]>(fabrics.map((fabric) => [fabric, []]));
  for (let i = 0; i < rounds; i++)
    for (const fabric of fabrics) seen.get(fabric)?.push(await round(fabric, `bench-crowd-${each}-${i}`, each));
  return Object.fromEntries([...seen].map(([fabric, all]) => [fabric.name, figures(all, each)]));
}

interface Round {
  readonly started: number;
  readonly pairs: number;
  readonly total: number;
  readonly firstPacket: number;
  readonly full: number;
}

async function round(fabric: Fabric, network: string, each: number): Promise<Round> {
  await fabric.create(network, '10.72.0.0/20');
  const made: [BenchHost, string][] = [];
  try {
    const began = performance.now();
    await Promise.all(
      fabric.hosts.flatMap((host) =>
        Array.from({ length: each }, async () => made.push([host, await stay(host, network)])),
      ),
    );
    const started = performance.now() - began;
    const ends = await Promise.all(made.map(([host, id]) => whereIs(host, id, network)));
    const asked = performance.now() - began;
    const fullBefore = await neighbourTableFull();
    const r = await run('perl', [PAIRS, ...ends.map(({ pid, ip }) => `${pid}=${ip}`)]);
    if (r.code !== 0) {
      const full = (await neighbourTableFull()) - fullBefore;
      const why =
        full === 0 ? '' : ` (the machine’s neighbour table was full ${full} times: net.ipv4.neigh.default.gc_thresh3)`;
      throw new Error(`${fabric.name}: not all pairs reach${why}: ${r.stdout}${r.stderr}`);
    }
    const [pairs = Number.NaN, firstPacket = Number.NaN] = r.stdout.trim().split(' ').map(Number);
    // Without the time that perl takes to start, and docker inspect: a container is not later for being looked at.
    return { started, pairs, total: asked + pairs, firstPacket, full: (await neighbourTableFull()) - fullBefore };
  } finally {
    await Promise.all(
      fabric.hosts.map((host) =>
        remove(
          host,
          made.filter(([h]) => h === host).map(([, id]) => id),
        ),
      ),
    );
    await fabric.remove(network);
  }
}

function figures(rounds: readonly Round[], each: number): CrowdFigures {
  const containers = 3 * each;
  return {
    rounds: rounds.length,
    containers,
    total: summarize(rounds.map((r) => r.total)),
    started: summarize(rounds.map((r) => r.started)),
    pairs: summarize(rounds.map((r) => r.pairs)),
    firstPacket: rounds.reduce((sum, r) => sum + r.firstPacket, 0),
    of: rounds.length * containers * (containers - 1),
    neighbourTableFull: rounds.reduce((sum, r) => sum + r.full, 0),
  };
}

/** `table_fulls` of arp_cache, over all processors (hexadecimal, the last column of a line each); net.ipv4.neigh.default.gc_thresh3. */
async function neighbourTableFull(): Promise<number> {
  const text = await readFile('/proc/net/stat/arp_cache', 'utf8').catch(() => '');
  const [, ...lines] = text.trim().split('\n');
  return lines.reduce((sum, line) => sum + Number.parseInt(line.trim().split(/\s+/).at(-1) ?? '0', 16), 0);
}
