/**
 * Names while containers come and go on three hosts, and the names go from host to host: what is resolved in a container of each host,
 * over the whole time, is right. 15 seconds; WEFT_CHURN_SECONDS for longer (`npm run test:names`: a minute).
 */
import { afterAll, beforeAll, expect, it } from 'vitest';
import { DnsAsker, type Form } from '../harness/dns-asker.ts';
import { type DockerEvent, DockerEvents } from '../harness/docker-events.ts';
import { auditClean, clean, docker, IMAGE, sleeper, until, weftOk } from '../harness/lab.ts';
import { figure, labStatus } from '../harness/lab-direct.ts';
import { faultText, judge, type Life } from '../harness/name-history.ts';
import { dockerCall, dockerGet, type Inspected } from '../harness/prober.ts';

const HOSTS = ['h1', 'h2', 'h3'];
const NETWORK = 'ch-net';
const SECONDS = Number(process.env['WEFT_CHURN_SECONDS'] ?? 15);
/** That much later than it happened may a start, or an end, be unknown. */
const BOUND_MS = 1000;
/** Each starts and stops one container after the other: two names, on a host by chance each time. */
const WORKERS = 6;
const NAMES = Array.from({ length: 2 * WORKERS }, (_, i) => `ch-${i}`);
const PERIOD_MS = 100;
const LIFE_MS = { min: 300, max: 3500 };

/** mulberry32: the same choices for the same seed. */
function chance(seed: number): () => number {
  let state = seed;
  return () => {
    state = (state + 0x6d2b79f5) | 0;
    let t = Math.imul(state ^ (state >>> 15), 1 | state);
    t = (t + Math.imul(t ^ (t >>> 7), 61 | t)) ^ t;
    return ((t ^ (t >>> 14)) >>> 0) / 2 ** 32;
  };
}

beforeAll(async () => {
  await weftOk('network', 'create', NETWORK);
  await weftOk('wait');
  await Promise.all(HOSTS.map((host) => sleeper(host, `ch-asks-${host}`, NETWORK)));
  const create = ['create', '--network', NETWORK];
  for (const host of HOSTS)
    for (const name of NAMES) await docker(host, ...create, '--name', name, IMAGE, 'sleep', '100000');
});

afterAll(async () => {
  await clean(HOSTS);
  await auditClean();
});

interface Place {
  readonly host: string;
  readonly socket: string;
  readonly events: DockerEvents;
}

/** One container from its start to its end, by what its Docker says. @param lives gets it */
async function live({ host, socket, events }: Place, name: string, ms: number, lives: Life[]): Promise<void> {
  const asked = Date.now();
  await dockerCall(socket, 'POST', `/containers/${name}/start`);
  const known = Date.now();
  const { Id, NetworkSettings: now } = await dockerGet<Inspected>(socket, `/containers/${name}/json`);
  await new Promise((resolve) => setTimeout(resolve, ms));
  await dockerCall(socket, 'POST', `/containers/${name}/kill`);
  const said = (action: string): Promise<DockerEvent> =>
    events.find((e) => e.container === Id && e.action === action && e.at > asked, `${action} of ${name} on ${host}`);
  const [died, left] = await Promise.all([said('die'), said('disconnect')]);
  // As long as Docker cleans up, it refuses to start it again.
  await dockerCall(socket, 'POST', `/containers/${name}/wait`);
  lives.push({ name, host, ip: now.Networks[NETWORK]?.IPAddress ?? '', asked, known, ended: died.at, left: left.at });
}

it('resolves no name of who has gone for more than a second, nor misses who is there', async () => {
  const { hosts } = await labStatus();
  const forms: Form[] = NAMES.map((name) => ({ name, asked: `${name}.${NETWORK}.weft` }));
  await using stack = new AsyncDisposableStack();
  const askers: DnsAsker[] = [];
  for (const host of HOSTS) askers.push(stack.use(await DnsAsker.open(host, `ch-asks-${host}`, forms, PERIOD_MS)));
  await until('all ask', async () => askers.every((asker) => asker.asks.length > forms.length));

  const places: Place[] = [];
  for (const { name: host, dockerSocket: socket } of hosts) {
    const filters = { type: ['container', 'network'], event: ['die', 'disconnect'] };
    places.push({ host, socket, events: stack.use(await DockerEvents.open(socket, filters)) });
  }
  const lives: Life[] = [];
  const begun = Date.now();
  await Promise.all(
    Array.from({ length: WORKERS }, async (_, worker) => {
      const random = chance(worker + 1);
      for (let turn = 0; Date.now() - begun < 1000 * SECONDS; turn++) {
        const place = places[Math.floor(random() * places.length)]!;
        const ms = LIFE_MS.min + random() * (LIFE_MS.max - LIFE_MS.min);
        const name = NAMES[2 * worker + (turn % 2)]!;
        await live(place, name, ms, lives);
      }
    }),
  );
  const took = (Date.now() - begun) / 1000;
  const last = Math.max(...lives.map((l) => l.ended));
  await until('the last end has been asked for long enough', async () =>
    askers.every((asker) => asker.latest > last + 2 * BOUND_MS),
  );

  expect(askers.map((asker) => asker.errors)).toEqual(['', '', '']);
  const verdict = judge(
    lives,
    askers.flatMap((asker) => asker.asks),
    BOUND_MS,
  );
  const slowest = (times: readonly number[]): number => Math.max(0, ...times);
  figure('name churn', {
    lives: lives.length,
    perSecond: (2 * lives.length) / took,
    questions: askers.reduce((sum, asker) => sum + asker.asks.length, 0),
    judged: verdict.judged,
    foundWithinMs: slowest(verdict.foundMs),
    goneWithinMs: slowest(verdict.goneMs),
    leftWithinMs: slowest(lives.map((l) => l.left - l.ended)),
  });
  expect(verdict.faults.map(faultText)).toEqual([]);
  expect(new Set(lives.map((l) => l.host)).size).toBe(HOSTS.length);
  expect(verdict.judged).toBeGreaterThan(SECONDS * 20);
});
