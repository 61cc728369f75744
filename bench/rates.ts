/**
 * `npm run bench:rates`: how well rates are held. A container's rate is set while it runs, from 1 Mbit/s to half of what the path carries,
 * and what arrives is measured: TCP and UDP, what it sends and what it receives, between two hosts. On a lab of its own. Writes
 * bench/results/rates.json and rates.md.
 *
 *   -- [--seconds N] [--rounds N] [--rates 1mbit,50mbit] (any: nothing is written)
 */
import { mkdirSync, writeFileSync } from 'node:fs';
import { parseArgs } from 'node:util';
import { formatBits, parseBits } from '../lib/rate.ts';
import { addressOf, auditClean, sleeper, until, weftJson, weftOk } from '../test/harness/lab.ts';
import { achieved, listen, type Place, type Protocol, type Way } from '../test/harness/rates.ts';
import { table } from './figures.ts';
import { describeMachine, ownLab, prepare } from './machine.ts';

const RESULTS = new URL('./results/', import.meta.url);
const NETWORK = 'bench-rates';
const FROM: Place = { host: 'h2', container: 'paced' };
const TO: Place = { host: 'h1', container: 'other' };
/** Of the set rate. */
const AIM = 0.05;
/** What UDP offers, times the rate: enough to show that no more arrives. */
const OFFERED = 1.3;
const RATES = ['1mbit', '5mbit', '20mbit', '100mbit', '500mbit', '1gbit', '2gbit'];
/** Without a rate UDP finds its own end. */
const PLENTY = 100e9;

interface Row {
  readonly rate: string;
  readonly protocol: Protocol;
  readonly way: Way;
  /** Payload that arrived, of the set rate; a round each. */
  readonly ratios: readonly number[];
  /** The furthest from 1. */
  readonly worst: number;
}

const { values: flags } = parseArgs({
  options: { seconds: { type: 'string' }, rounds: { type: 'string' }, rates: { type: 'string' } },
});
const seconds = Number(flags.seconds ?? 10);
const rounds = Number(flags.rounds ?? 2);
if (!(seconds >= 2 && rounds >= 1)) throw new Error('--seconds takes a number from 2, --rounds one from 1');
const rates = (flags.rates?.split(',') ?? RATES).map((text) => parseBits('--rates', text));

await main();

async function main(): Promise<void> {
  await prepare();
  await using _lab = await ownLab(`rt${process.pid}`, ['--hosts', '2', '--coordinators', '1']);
  const machine = await describeMachine();
  await weftOk('network', 'create', NETWORK);
  await weftOk('wait');
  await Promise.all([FROM, TO].map(({ host, container }) => sleeper(host, container, NETWORK)));
  const address = await addressOf(TO.host, TO.container, NETWORK);
  await listen(TO);
  await until('both are known', async () =>
    (await weftJson<{ state: string }[]>('endpoint', 'ls')).every((e) => e.state === 'known'),
  );
  await weftOk('wait');

  const capacity: Record<string, number> = {};
  const each = (['tcp', 'udp'] as const).flatMap((protocol) =>
    (['sent', 'received'] as const).map((way) => ({ protocol, way })),
  );
  for (const one of each)
    capacity[`${one.protocol} ${one.way}`] = await achieved(FROM, address, { ...one, seconds: 5, offered: PLENTY });
  const rows: Row[] = [];
  for (const bits of rates) {
    await weftOk('endpoint', 'set', FROM.container, '--rate', formatBits(BigInt(bits)));
    for (const one of each) {
      // Half of what the path carries: with more it is the machine that is measured.
      if (bits * 2 > (capacity[`${one.protocol} ${one.way}`] ?? 0)) continue;
      const ratios: number[] = [];
      for (let round = 0; round < rounds; round++)
        ratios.push(thousandth((await achieved(FROM, address, { ...one, seconds, offered: bits * OFFERED })) / bits));
      const worst = ratios.reduce((a, b) => (Math.abs(b - 1) > Math.abs(a - 1) ? b : a));
      rows.push({ rate: formatBits(BigInt(bits)), ...one, ratios, worst });
      say(`${rows.at(-1)?.rate} ${one.protocol} ${one.way}: ${ratios.join(', ')}`);
    }
  }
  await auditClean();
  report(rows, capacity, machine);
}

function report(
  rows: readonly Row[],
  capacity: Readonly<Record<string, number>>,
  machine: object & { cpus: number; kernel: string; loadBefore: number },
): void {
  const held = rows.filter((r) => Math.abs(r.worst - 1) <= AIM).length;
  const shown = rows.map((r) => [r.rate, r.protocol, r.way, ...r.ratios]);
  const text = [
    table(['rate', '', '', ...Array.from({ length: rounds }, (_, i) => `round ${i + 1}`)], shown),
    '',
    `within ${100 * AIM} % in every round: ${held} of ${rows.length}`,
    `the path without a rate, Mbit/s: ${Object.entries(capacity)
      .map(([what, bits]) => `${what} ${Math.round(bits / 1e6)}`)
      .join(', ')}`,
  ].join('\n');
  say(`\n${text}`);
  if (Object.keys(flags).length > 0) return;
  const date = new Date().toISOString();
  const made = `npm run bench:rates: payload that arrived (iperf3, ${seconds} s after the first), of the set rate; UDP offers ${OFFERED} times the rate; datagrams of 1200 bytes`;
  mkdirSync(RESULTS, { recursive: true });
  writeFileSync(
    new URL('rates.json', RESULTS),
    `${JSON.stringify({ date, made, machine, seconds, rounds, aim: AIM, capacity, held, of: rows.length, rows }, null, 2)}\n`,
  );
  const where = `${date.slice(0, 10)}, ${machine.cpus} CPUs, kernel ${machine.kernel}, load ${machine.loadBefore} before`;
  writeFileSync(
    new URL('rates.md', RESULTS),
    `# How rates are held\n\n${where}\n\n${made}\n\n\`\`\`\n${text}\n\`\`\`\n`,
  );
}

function thousandth(value: number): number {
  return Math.round(value * 1000) / 1000;
}

function say(text: string): void {
  process.stdout.write(`${text}\n`);
}
