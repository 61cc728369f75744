/** What was measured, kept in bench/results/workloads.json: of each figure the runs on Weft and on the bridge, taken in turn. */
import { mkdirSync, readFileSync, writeFileSync } from 'node:fs';
import { cpus, loadavg, release } from 'node:os';
import { hundredth, tenth } from '../../bench/figures.ts';
import { COMPARED, type Site } from './sites.ts';

export const RESULTS = new URL('../../bench/results/workloads.json', import.meta.url);

/** Seconds of each run; milliseconds where the figure's name says so. */
type Runs = Readonly<Record<Site['name'], number[]>>;

export interface Figure extends Runs {
  /** Median on Weft by median on the bridge; null when one of them has no run. */
  readonly ratio: number | null;
}

export class Times {
  readonly #workload: string;
  readonly #runs = new Map<string, Runs>();
  readonly #load = tenth(loadavg()[0] ?? 0);

  constructor(workload: string) {
    this.#workload = workload;
  }

  add(site: Site, figure: string, value: number): void {
    const runs = this.#runs.get(figure) ?? { weft: [], bridge: [] };
    this.#runs.set(figure, runs);
    runs[site.name].push(Math.round(value * 1000) / 1000);
  }

  /** Takes the place of this workload's figures in the file; those of the others stay. */
  write(): void {
    if (!COMPARED) return;
    const figures = Object.fromEntries([...this.#runs].map(([name, runs]) => [name, figure(runs)]));
    const machine = { cpus: cpus().length, kernel: release(), loadBefore: this.#load };
    const all = { ...readResults(), [this.#workload]: { date: new Date().toISOString(), machine, figures } };
    mkdirSync(new URL('.', RESULTS), { recursive: true });
    writeFileSync(RESULTS, `${JSON.stringify(all, null, 2)}\n`);
  }
}

export function readResults(): Record<string, { readonly figures: Readonly<Record<string, Figure>> }> {
  try {
    return JSON.parse(readFileSync(RESULTS, 'utf8')) as ReturnType<typeof readResults>;
  } catch {
    return {};
  }
}

function figure(runs: Runs): Figure {
  const [weft, bridge] = [median(runs.weft), median(runs.bridge)];
  return { ...runs, ratio: weft === null || bridge === null ? null : hundredth(weft / bridge) };
}

function median(values: readonly number[]): number | null {
  const sorted = values.toSorted((a, b) => a - b);
  const [low, high] = [sorted[Math.floor((sorted.length - 1) / 2)], sorted[Math.floor(sorted.length / 2)]];
  return low === undefined || high === undefined ? null : (low + high) / 2;
}
