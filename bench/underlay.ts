/**
 * `npm run bench:underlay`: priority classes on a shaped underlay. Two hosts; the port of the "switch" that leads to the receiving one
 * carries 200 Mbit/s and has one queue for all, as it is without Weft's doing. Measured are the shares of classes that all want
 * everything, and the latency of high priority while low takes all that it can: without `underlay.shape`, and with it. On a lab of its
 * own. Writes bench/results/underlay.json, underlay.md and underlay.svg.
 *
 *   -- [--seconds N] [--rounds N] (any: nothing is written)
 */
import { mkdirSync, writeFileSync } from 'node:fs';
import { setTimeout as pause } from 'node:timers/promises';
import { parseArgs } from 'node:util';
import { labPaths } from '../cli/lab/paths.ts';
import { formatBits, parseBits } from '../lib/rate.ts';
import { configure, settled } from '../test/harness/drift.ts';
import { addressOf, auditClean, docker, onOk, run, sleeper, until, weftJson, weftOk } from '../test/harness/lab.ts';
import { labStatus } from '../test/harness/lab-direct.ts';
import { listen } from '../test/harness/rates.ts';
import { describeMachine, ownLab, prepare } from './machine.ts';
import { chart } from './underlay/chart.ts';
import {
  type ClassName,
  expected,
  type Latency,
  type Load,
  latencyOf,
  type Shares,
  sharesOf,
  textOf,
} from './underlay/figures.ts';

const RESULTS = new URL('./results/', import.meta.url);
const NETWORK = 'bench-underlay';
const [FROM, TO] = ['h2', 'h1'];
/** Of the port of the switch, and what may wait there. */
const PORT = '200mbit';
const PORT_QUEUE_MS = 50;
const SHAPE = '190mbit';
/** Full frames inside the tunnel, of what they are outside: 50 bytes more. */
const INSIDE = parseBits('shape', SHAPE) * (1464 / 1514);
const CLASSES: readonly ClassName[] = ['high', 'normal', 'low'];
/** Connections, so many that some always wait though each keeps but a few frames in the queue; and what UDP offers. */
const STREAMS = 16;
const FLOOD = '400M';
const PINGS_PER_S = 100;
/** Until TCP has found its rate. */
const WARM_MS = 3_000;

const { values: flags } = parseArgs({ options: { seconds: { type: 'string' }, rounds: { type: 'string' } } });
const seconds = Number(flags.seconds ?? 8);
const rounds = Number(flags.rounds ?? 3);
if (!(seconds >= 2 && rounds >= 1)) throw new Error('--seconds takes a number from 2, --rounds one from 1');

const LOADS: readonly Load[] = [
  { high: 'tcp', low: 'tcp' },
  { normal: 'tcp', low: 'tcp' },
  { high: 'tcp', normal: 'tcp' },
  { high: 'tcp', normal: 'tcp', low: 'tcp' },
  { high: 'tcp', low: 'udp' },
];

interface End {
  readonly address: string;
  /** Of the container's first process. */
  readonly from: number;
  readonly to: number;
}
const ends = new Map<ClassName, End>();
const endOf = (name: ClassName): End => ends.get(name) ?? { address: '', from: 0, to: 0 };

await main();

async function main(): Promise<void> {
  await prepare();
  const lab = `ul${process.pid}`;
  await using _lab = await ownLab(lab, ['--hosts', '2', '--coordinators', '1']);
  const machine = await describeMachine();
  await narrow(lab);
  await start();
  const latency: Latency[] = [];
  const shares: Shares[] = [];
  for (let round = 1; round <= rounds; round++) {
    latency.push(latencyOf('idle', round, await pings()));
    for (const shaped of [false, true]) {
      await shape(shaped);
      const when = shaped ? 'shaped' : 'unshaped';
      latency.push(latencyOf(when, round, await under({ low: 'tcp' }, pings)));
      for (const load of LOADS)
        shares.push(
          sharesOf(
            load,
            shaped ? INSIDE : null,
            round,
            await under(load, () => received(Object.keys(load) as ClassName[])),
          ),
        );
      say(textOf(latency, shares));
    }
    await shape(false);
  }
  await auditClean();
  report(latency, shares, machine);
}

/** The bridge between the hosts is the switch: its end of the receiver's cable is the port. */
async function narrow(lab: string): Promise<void> {
  const netns = labPaths(lab).underlayNetns;
  const limit = Math.round((parseBits('port', PORT) / 8) * (PORT_QUEUE_MS / 1000));
  const tbf = ['tbf', 'rate', PORT, 'burst', '32kb', 'limit', String(limit)];
  const r = await run('tc', ['-n', netns, 'qdisc', 'replace', 'dev', TO ?? '', 'root', ...tbf]);
  if (r.code !== 0) throw new Error(`tc: ${r.stderr}`);
}

async function start(): Promise<void> {
  await weftOk('network', 'create', NETWORK);
  await weftOk('wait');
  const pidOf = async (host: string, name: string): Promise<number> =>
    Number(await docker(host, 'inspect', '-f', '{{.State.Pid}}', name));
  for (const name of CLASSES) {
    await sleeper(TO ?? '', `${name}-to`, NETWORK);
    await sleeper(FROM ?? '', `${name}-from`, NETWORK, '--label', `weft.priority=${name}`);
    await listen({ host: TO ?? '', container: `${name}-to` });
    const address = await addressOf(TO ?? '', `${name}-to`, NETWORK);
    const [from, to] = [await pidOf(FROM ?? '', `${name}-from`), await pidOf(TO ?? '', `${name}-to`)];
    ends.set(name, { address, from, to });
  }
  await until('all are known', async () =>
    (await weftJson<{ state: string }[]>('endpoint', 'ls')).every((e) => e.state === 'known'),
  );
  await weftOk('wait');
}

async function shape(on: boolean): Promise<void> {
  const vtep = (await labStatus()).hosts.find((h) => h.name === FROM)?.underlay.ip ?? '';
  await configure(FROM ?? '', { underlay: { vtep, ...(on ? { shape: SHAPE } : {}) } });
  await settled([FROM ?? '', TO ?? '']);
  await until('it is so', async () => {
    const shown = await onOk(FROM ?? '', 'tc', 'qdisc', 'show', 'dev', 'eth0');
    return shown.includes('htb 57ef:') === on;
  });
}

/** What is measured while classes want everything. */
async function under<T>(load: Load, measure: () => Promise<T>): Promise<T> {
  const end = Math.ceil(WARM_MS / 1000) + seconds + 2;
  const running = Object.entries(load).map(([name, protocol]) => {
    const how = protocol === 'udp' ? ['-u', '-b', FLOOD, '-l', '1200'] : ['-P', String(STREAMS)];
    const { address, from } = endOf(name as ClassName);
    const iperf = ['iperf3', '-c', address, '-p', '5201', '-t', String(end), ...how];
    return run('nsenter', ['-t', String(from), '-n', ...iperf], { timeoutMs: (end + 30) * 1000 });
  });
  await pause(WARM_MS);
  const measured = await measure();
  for (const r of await Promise.all(running)) if (r.code !== 0) throw new Error(`iperf3: ${r.stdout}${r.stderr}`);
  return measured;
}

/** Bits per second that arrive at each class's receiver: frames inside the tunnel. */
async function received(names: readonly ClassName[]): Promise<Partial<Record<ClassName, number>>> {
  const look = (name: ClassName) => counted(endOf(name).to);
  const before = await Promise.all(names.map(look));
  await pause(seconds * 1000);
  const after = await Promise.all(names.map(look));
  const rate = (i: number): number => {
    const [a, b] = [before[i], after[i]];
    return a === undefined || b === undefined ? 0 : (8 * (b.bytes - a.bytes)) / ((b.at - a.at) / 1000);
  };
  return Object.fromEntries(names.map((name, i) => [name, rate(i)]));
}

async function counted(pid: number): Promise<{ bytes: number; at: number }> {
  const r = await run('nsenter', ['-t', String(pid), '-n', 'cat', '/proc/self/net/dev']);
  const bytes = Number(/eth0:\s*(\d+)/.exec(r.stdout)?.[1] ?? Number.NaN);
  if (!(bytes >= 0)) throw new Error(`no counters of eth0: ${r.stdout}${r.stderr}`);
  return { bytes, at: performance.now() };
}

/** Milliseconds of round trips of high priority; null: it did not come back. */
async function pings(): Promise<(number | null)[]> {
  const { address, from } = endOf('high');
  const count = seconds * PINGS_PER_S;
  const ping = ['ping', '-n', '-i', String(1 / PINGS_PER_S), '-c', String(count), '-W', '2', address];
  const r = await run('nsenter', ['-t', String(from), '-n', ...ping], { timeoutMs: (seconds + 60) * 1000 });
  const times = [...r.stdout.matchAll(/time=([\d.]+) ms/g)].map((m) => Number(m[1]));
  if (times.length === 0) throw new Error(`ping: ${r.stdout}${r.stderr}`);
  return [...times, ...Array.from({ length: Math.max(0, count - times.length) }, () => null)];
}

function report(
  latency: readonly Latency[],
  shares: readonly Shares[],
  machine: Awaited<ReturnType<typeof describeMachine>>,
): void {
  const text = textOf(latency, shares);
  say(`\n${text}`);
  if (Object.keys(flags).length > 0) return;
  const date = new Date().toISOString();
  const made =
    `npm run bench:underlay: two hosts, a port of ${PORT} between them with one queue of ${PORT_QUEUE_MS} ms; ` +
    `shaped: underlay.shape ${formatBits(BigInt(parseBits('shape', SHAPE)))} on the sender. Each class that is named wants all: ${STREAMS} connections of TCP, ` +
    `or ${FLOOD}bit/s of UDP. Shares: frames that arrived in ${seconds} s. Latency: ${seconds * PINGS_PER_S} pings of high priority, ${PINGS_PER_S} a second, while low wants all.`;
  const where = `${date.slice(0, 10)}, ${machine.cpus} CPUs, kernel ${machine.kernel}, load ${machine.loadBefore} before`;
  mkdirSync(RESULTS, { recursive: true });
  const rows = latency.map(({ when, round, sent, lost, p50, p99, max }) => ({
    when,
    round,
    sent,
    lost,
    p50,
    p99,
    max,
  }));
  writeFileSync(
    new URL('underlay.json', RESULTS),
    `${JSON.stringify({ date, made, machine, seconds, rounds, expected: LOADS.map(expected), latency: rows, shares }, null, 2)}\n`,
  );
  writeFileSync(
    new URL('underlay.md', RESULTS),
    `# Priority classes on the underlay\n\n${where}\n\n${made}\n\n![](underlay.svg)\n\n\`\`\`\n${text}\n\`\`\`\n`,
  );
  writeFileSync(new URL('underlay.svg', RESULTS), chart(latency, shares, where));
}

function say(text: string): void {
  process.stdout.write(`${text}\n`);
}
