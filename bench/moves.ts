/** A container with a given --ip is removed on one host and started on another, while a third host's container never stops pinging it. */
import { IMAGE } from '../test/harness/lab.ts';
import { watch } from '../test/harness/prober.ts';
import { type BenchHost, dockerOn, stay, timed } from './docker.ts';
import type { Fabric } from './fabrics.ts';
import { type Summary, summarize } from './figures.ts';

export interface MoveFigures {
  readonly moves: number;
  /** From the last answer of the old container to the first of the new one: docker rm's rest and docker run are in it. */
  readonly outage: Summary;
  /** From the end of docker rm to the first answer. */
  readonly gap: Summary;
  readonly dockerRm: Summary;
  readonly dockerRun: Summary;
  /** From the return of docker run to the first answer; below zero: it answered before. */
  readonly afterRun: Summary;
}

const NETWORK = 'bench-moves';
const IP = '10.71.0.40';
const NAME = 'bench-mover';

/** Fabrics take turns, a move each. */
export async function moveRuns(fabrics: readonly Fabric[], moves: number): Promise<Record<string, MoveFigures>> {
  const movers = await Promise.all(fabrics.map((fabric) => Mover.start(fabric)));
  try {
    for (let i = 0; i < moves; i++) for (const mover of movers) await mover.move();
  } finally {
    for (const mover of movers) await mover.close();
  }
  return Object.fromEntries(movers.map((mover) => [mover.fabric.name, mover.figures()]));
}

class Mover {
  readonly fabric: Fabric;
  readonly #watch: ReturnType<typeof watch>;
  #from: BenchHost;
  #to: BenchHost;
  readonly #samples = {
    outage: [] as number[],
    gap: [] as number[],
    dockerRm: [] as number[],
    dockerRun: [] as number[],
    afterRun: [] as number[],
  };

  constructor(fabric: Fabric) {
    this.fabric = fabric;
    const [a, b, c] = fabric.hosts;
    this.#from = a;
    this.#to = b;
    this.#watch = watch(c.name, NETWORK, IP, 'bench-watcher');
  }

  static async start(fabric: Fabric): Promise<Mover> {
    await fabric.create(NETWORK, '10.71.0.0/24');
    await stay(fabric.hosts[0], NETWORK, '--name', NAME, '--ip', IP);
    const mover = new Mover(fabric);
    await mover.#watch.answered(0);
    return mover;
  }

  async move(): Promise<void> {
    const s = this.#samples;
    s.dockerRm.push(await timed(this.#from, 'rm', '-f', NAME));
    const removed = Date.now();
    const options = ['--name', NAME, '--network', NETWORK, '--ip', IP];
    s.dockerRun.push(await timed(this.#to, 'run', '-d', ...options, IMAGE, 'sleep', '100000'));
    const returned = Date.now();
    const first = await this.#watch.answered(removed);
    s.outage.push(first - this.#watch.before(removed));
    s.gap.push(first - removed);
    s.afterRun.push(first - returned);
    [this.#from, this.#to] = [this.#to, this.#from];
  }

  figures(): MoveFigures {
    const { outage, gap, dockerRm, dockerRun, afterRun } = this.#samples;
    return {
      moves: outage.length,
      outage: summarize(outage),
      gap: summarize(gap),
      dockerRm: summarize(dockerRm),
      dockerRun: summarize(dockerRun),
      afterRun: summarize(afterRun),
    };
  }

  async close(): Promise<void> {
    await this.#watch.stop();
    await dockerOn(this.#from, 'rm', '-f', NAME);
    await this.fabric.remove(NETWORK);
  }
}
