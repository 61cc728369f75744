/**
 * `npm run bench:dns`: what the agent's resolver takes. Its sockets, handler and index (1,000 containers) in this process, the load from
 * another one, over loopback: first 5,000 queries a second, then as many as it answers. Writes bench/results/dns.json. 10 seconds.
 */
import { fork } from 'node:child_process';
import { once } from 'node:events';
import { mkdirSync, writeFileSync } from 'node:fs';
import { cpus, loadavg, release } from 'node:os';
import { fileURLToPath } from 'node:url';
import { makeHandler } from '../agent/dns/handle.ts';
import { DnsServer } from '../agent/dns/server.ts';
import { systemClock } from '../lib/clock.ts';
import { silentLog } from '../lib/log.ts';
import { indexOf, local, network, remote } from '../test/unit/agent/dns/names-fixture.ts';
import type { LoadResult } from './dns-load.ts';
import { hundredth, table, tenth } from './figures.ts';

const RESULTS = new URL('./results/dns.json', import.meta.url);
const AIM = { rate: 5000, p99Ms: 1 };
const CONTAINERS = 1000;
const SECONDS = 4;

const clock = systemClock();
await main();

async function main(): Promise<void> {
  const loadBefore = tenth(loadavg()[0] ?? 0);
  const handling: number[] = [];
  const counters = { query: (_: string, __: string, ms: number) => void handling.push(ms), dropped: () => undefined };
  const index = indexOf([network('web')], ...containers());
  await using server = new DnsServer({
    address: '127.0.0.1',
    port: 0,
    clock,
    log: silentLog(),
    counters,
    handler: makeHandler({
      index: () => index,
      asker: () => ({ networks: ['web'] }),
      forward: () => Promise.resolve(null),
      order: { random: Math.random },
      counters,
      clock,
    }),
  });
  server.start();
  const { udp } = await server.up();

  const measure = async (rate: number): Promise<object> => {
    handling.length = 0;
    const seen = await load(udp, rate);
    return { ...figures(seen), agent: quantiles(handling) };
  };
  const steady = await measure(AIM.rate);
  const most = await measure(0);
  const machine = { cpus: cpus().length, kernel: release(), node: process.version, loadBefore };
  const result = { date: new Date().toISOString(), machine, aims: AIM, containers: CONTAINERS, steady, most };
  process.stdout.write(`\n${rows(result)}\n`);
  mkdirSync(new URL('.', RESULTS), { recursive: true });
  writeFileSync(RESULTS, `${JSON.stringify(result, null, 2)}\n`);
}

function containers(): [ReturnType<typeof local>[], ReturnType<typeof remote>[]] {
  const at = (i: number): string[] => [`10.128.${1 + (i >> 8)}.${i & 255}`, `fd00:1::${(256 + i).toString(16)}`];
  const all = Array.from({ length: CONTAINERS }, (_, i) => ({ network: 'web', name: `c${i}`, ips: at(i) }));
  const aliased = all.map((c, i) => ({ ...c, aliases: [`group${i % 100}`], container: String(i).padStart(64, '0') }));
  return [
    aliased.filter((_, i) => i % 10 === 0).map((c) => local(c)),
    aliased.filter((_, i) => i % 10 !== 0).map((c) => remote(c)),
  ];
}

/** @param rate queries a second; 0: as many as are answered */
async function load(port: number, rate: number): Promise<LoadResult> {
  const args = [String(port), String(rate), String(SECONDS), String(CONTAINERS)];
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

function figures(r: LoadResult): object {
  return {
    perSecond: Math.round(r.latencies.length / r.seconds),
    sent: r.sent,
    answered: r.latencies.length,
    wrong: r.wrong,
    ...quantiles(r.latencies),
  };
}

function rows(result: { steady: object; most: object }): string {
  type Row = Quantiles & { perSecond: number; sent: number; answered: number; wrong: number; agent: Quantiles };
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
    ['load', 'queries/s', 'lost or wrong', 'p50 ms', 'p99 ms', 'p50 in agent', 'p99 in agent'],
    [row(`${AIM.rate}/s (aim: p99 < ${AIM.p99Ms} ms)`, result.steady as Row), row('64 at once', result.most as Row)],
  );
}
