/**
 * `npm run bench:dns`: what the agent's resolver takes. Its sockets, handler, metrics and index (1,000 containers) in this process, the load
 * from another one, over loopback: 5,000 queries a second, and as many as it answers; first of containers, then of 120 services as
 * well, while five times a second a container comes or goes. Writes bench/results/dns.json. 20 seconds.
 */
import { fork } from 'node:child_process';
import { once } from 'node:events';
import { mkdirSync, writeFileSync } from 'node:fs';
import { cpus, loadavg, release } from 'node:os';
import { fileURLToPath } from 'node:url';
import { makeHandler } from '../agent/dns/handle.ts';
import { dnsMetrics } from '../agent/dns/metrics.ts';
import { DnsServer } from '../agent/dns/server.ts';
import { systemClock } from '../lib/clock.ts';
import { silentLog } from '../lib/log.ts';
import { Registry } from '../lib/metrics.ts';
import type { LoadResult } from './dns-load.ts';
import { CONTAINERS, HEADLESS, Names, VIRTUAL } from './dns-names.ts';
import { hundredth, table, tenth } from './figures.ts';

const RESULTS = new URL('./results/dns.json', import.meta.url);
const AIM = { rate: 5000, p99Ms: 1 };
/** Between two changes, ms. */
const CHANGE_MS = 200;
const SECONDS = 4;

const clock = systemClock();
await main();

async function main(): Promise<void> {
  const loadBefore = tenth(loadavg()[0] ?? 0);
  const handling: number[] = [];
  const metrics = dnsMetrics(new Registry());
  const counters = {
    ...metrics,
    query: (...of: Parameters<typeof metrics.query>) => {
      metrics.query(...of);
      handling.push(of[2]);
    },
  };
  const names = new Names();
  await using server = new DnsServer({
    address: '127.0.0.1',
    port: 0,
    clock,
    log: silentLog(),
    counters,
    handler: makeHandler({
      index: () => names.index(),
      asker: () => ({ networks: ['web'] }),
      forward: () => Promise.resolve(null),
      order: { random: Math.random },
      counters,
      clock,
    }),
  });
  server.start();
  const { udp } = await server.up();

  const measure = async (rate: number, services: number): Promise<Row> => {
    handling.length = 0;
    const seen = await load(udp, rate, services);
    return { ...figures(seen), agent: quantiles(handling) };
  };
  const containers = { steady: await measure(AIM.rate, 0), most: await measure(0, 0) };
  names.addServices();
  const timer = setInterval(() => names.change(), CHANGE_MS);
  const services = { steady: await measure(AIM.rate, VIRTUAL), most: await measure(0, VIRTUAL) };
  clearInterval(timer);
  const machine = { cpus: cpus().length, kernel: release(), node: process.version, loadBefore };
  const held = { containers: CONTAINERS, services: VIRTUAL + HEADLESS, changesPerSecond: 1000 / CHANGE_MS };
  const result = { date: new Date().toISOString(), machine, aims: AIM, held, containers, services };
  process.stdout.write(`\n${rows({ containers, services })}\n`);
  mkdirSync(new URL('.', RESULTS), { recursive: true });
  writeFileSync(RESULTS, `${JSON.stringify(result, null, 2)}\n`);
}

/**
 * @param rate queries a second; 0: as many as are answered
 * @param services of each kind at least, that are asked for too
 */
async function load(port: number, rate: number, services: number): Promise<LoadResult> {
  const args = [String(port), String(rate), String(SECONDS), String(CONTAINERS), String(services)];
  const child = fork(fileURLToPath(new URL('./dns-load.ts', import.meta.url)), args);
  const [result] = (await once(child, 'message')) as [LoadResult];
  return result;
}

interface Quantiles {
  readonly p50Ms: number;
  readonly p99Ms: number;
}

/** By nearest rank, ms in thousandths. */
function quantiles(values: readonly number[]): Quantiles {
  const sorted = values.toSorted((a, b) => a - b);
  const at = (q: number): number =>
    Math.round(1000 * (sorted[Math.max(0, Math.ceil(q * sorted.length) - 1)] ?? 0)) / 1000;
  return { p50Ms: at(0.5), p99Ms: at(0.99) };
}

interface Row extends Quantiles {
  readonly perSecond: number;
  readonly sent: number;
  readonly answered: number;
  readonly wrong: number;
  readonly agent: Quantiles;
}

function figures(r: LoadResult): Omit<Row, 'agent'> {
  return {
    perSecond: Math.round(r.latencies.length / r.seconds),
    sent: r.sent,
    answered: r.latencies.length,
    wrong: r.wrong,
    ...quantiles(r.latencies),
  };
}

function rows(result: Record<'containers' | 'services', { steady: Row; most: Row }>): string {
  const row = (name: string, r: Row): (string | number)[] => [
    name,
    r.perSecond,
    r.sent - r.answered + r.wrong,
    hundredth(r.p50Ms),
    hundredth(r.p99Ms),
    r.agent.p50Ms,
    r.agent.p99Ms,
  ];
  return table(
    ['load', 'queries/s', 'lost or wrong', 'p50 ms', 'p99 ms', 'p50 in agent', `p99 in agent (aim: < ${AIM.p99Ms})`],
    [
      row(`${AIM.rate}/s`, result.containers.steady),
      row(`${AIM.rate}/s, services, changes`, result.services.steady),
      row('64 at once', result.containers.most),
      row('64 at once, services, changes', result.services.most),
    ],
  );
}
