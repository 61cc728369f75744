/**
 * Rates: held both ways between hosts, TCP and UDP, changed while traffic flows, by label and by network, healed when somebody changes
 * them by hand; priorities as marks on the underlay. Exact figures are `npm run bench:rates`; here gates are generous.
 */
import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import { capture } from '../harness/capture.ts';
import { agentMetrics, driftEvents, metricOf, settled } from '../harness/drift.ts';
import {
  addressOf,
  auditClean,
  clean,
  docker,
  onOk,
  pings,
  sleeper,
  until,
  weft,
  weftJson,
  weftOk,
} from '../harness/lab.ts';
import { achieved, listen, type Protocol, type Way } from '../harness/rates.ts';

const HOSTS = ['h1', 'h2'] as const;
const NET = 'rates';
const SECONDS = 4;
/** Of the set rate: payload is 96 % of packets, and the machine has other things to do. */
const [LEAST, MOST] = [0.8, 1.06];

interface Shown {
  readonly id: string;
  readonly express: boolean;
  readonly rate: {
    readonly rate: string;
    readonly bits: number;
    readonly burst: number | null;
    readonly by: string;
  } | null;
  readonly priority: string | null;
}
const shown = (name: string): Promise<Shown> => weftJson<Shown>('endpoint', 'inspect', name);
const set = (name: string, ...flags: string[]): Promise<string> => weftOk('endpoint', 'set', name, ...flags);

const vtepOf = async (host: string): Promise<string> =>
  (await weftJson<{ vteps: { address: string }[] }>('host', 'inspect', host)).vteps[0]?.address ?? '';

let server = '';

const got = (protocol: Protocol, way: Way, bits: number): Promise<number> =>
  achieved({ host: 'h2', container: 'rate-2' }, server, {
    protocol,
    way,
    seconds: SECONDS,
    offered: bits * 2,
    whole: true,
  });

async function queues(host: string, id: string): Promise<string[]> {
  const lines = (await onOk(host, 'tc', 'qdisc', 'show')).split('\n');
  return lines.filter((line) => line.includes(id.slice(0, 12)) && line.includes(' tbf '));
}

beforeAll(async () => {
  await weftOk('network', 'create', NET);
  await weftOk('wait');
  await Promise.all([sleeper('h1', 'rate-1', NET), sleeper('h2', 'rate-2', NET)]);
  server = await addressOf('h1', 'rate-1', NET);
  await listen({ host: 'h1', container: 'rate-1' });
  await until('both are known', async () => (await shown('rate-1')).express && (await shown('rate-2')).express);
  await weftOk('wait');
});
afterAll(async () => {
  await clean(HOSTS);
  await weftOk('wait');
  await auditClean();
});

describe('a rate that is set on an endpoint', () => {
  it.each([
    ['1mbit', 1e6],
    ['50mbit', 50e6],
  ])('%s holds for what it sends and for what it receives, TCP and UDP', async (text, bits) => {
    await set('rate-2', '--rate', text);
    expect((await shown('rate-2')).rate).toEqual({ rate: text, bits, burst: null, by: 'endpoint' });
    for (const protocol of ['tcp', 'udp'] as const)
      for (const way of ['sent', 'received'] as const) {
        const ratio = (await got(protocol, way, bits)) / bits;
        expect(ratio, `${protocol} ${way}`).toBeGreaterThan(LEAST);
        expect(ratio, `${protocol} ${way}`).toBeLessThan(MOST);
      }
  });

  it('changes while the container runs, which notices nothing else, and still takes the express path', async () => {
    const before = await docker('h2', 'inspect', '-f', '{{.State.StartedAt}} {{.RestartCount}}', 'rate-2');
    await set('rate-2', '--rate', '20mbit');
    expect(await got('tcp', 'sent', 20e6)).toBeLessThan(20e6 * MOST);
    await set('rate-2', '--rate', 'none');
    const free = await got('tcp', 'sent', 0);
    expect(free).toBeGreaterThan(100e6);
    const { id, express, rate } = await shown('rate-2');
    expect({ express, rate }).toEqual({ express: true, rate: null });
    expect(await queues('h2', id)).toEqual([]);
    expect(await onOk('h2', 'ip', '-br', 'link')).not.toMatch(/wf[gh]/);
    expect(await docker('h2', 'inspect', '-f', '{{.State.StartedAt}} {{.RestartCount}}', 'rate-2')).toBe(before);
    await auditClean();
  });

  it.each([
    ['--rate', '200'],
    ['--rate', '1kbit'],
    ['--rate', '1mbit', '--burst', '1b'],
    ['--burst', '64kb'],
    ['--priority', 'urgent'],
  ])('%s %s is refused with what to do, and nothing is changed', async (...flags) => {
    const before = await shown('rate-2');
    const r = await weft('endpoint', 'set', 'rate-2', ...flags.filter((flag) => flag !== undefined));
    expect(r).toMatchObject({ code: 1, stderr: expect.stringContaining('hint: ') });
    expect(await shown('rate-2')).toEqual(before);
  });
});

it('what others do to a queue by hand is drift, and healed; the agent comes back to it without doing anything', async () => {
  await set('rate-2', '--rate', '20mbit', '--burst', '64kb');
  const { id } = await shown('rate-2');
  const before = await queues('h2', id);
  expect(before).toHaveLength(2);
  const [wft, wfg] = [`wft${id.slice(0, 12)}`, `wfg${id.slice(0, 12)}`];
  const since = Date.now();
  await onOk('h2', 'tc', 'qdisc', 'del', 'dev', wfg, 'root');
  await onOk(
    'h2',
    'tc',
    'qdisc',
    'change',
    'dev',
    wft,
    'root',
    'handle',
    '57ef:',
    ...'tbf rate 1gbit burst 1mb limit 1mb'.split(' '),
  );
  await until('both are as they were', async () => String((await queues('h2', id)).sort()) === String(before.sort()));
  await until('it has been told', async () => {
    const events = (await driftEvents(since)).filter((e) => e.kind === 'queue' && e.healedAt !== null);
    return [wft, wfg].every((link) => events.some((e) => e.object === link));
  });
  await weftOk('lab', 'stop', 'h2', 'agent');
  await weftOk('lab', 'start', 'h2', 'agent');
  await settled(HOSTS);
  expect(metricOf(await agentMetrics('h2'), 'weft_steps_total')).toBe(0);
  expect((await queues('h2', id)).sort()).toEqual(before.sort());
  await auditClean();
  await set('rate-2', '--rate', 'default');
});

describe('who says it', () => {
  it('a label at docker run; the network for all others; the endpoint before both', async () => {
    await sleeper('h2', 'rate-3', NET, '--label', 'weft.rate=30mbit', '--label', 'weft.priority=low');
    await until('the label counts', async () => (await shown('rate-3')).rate?.by === 'container');
    expect(await shown('rate-3')).toMatchObject({ rate: { rate: '30mbit' }, priority: 'low' });
    const { id } = await shown('rate-3');
    await until('it is held', async () => (await queues('h2', id)).length === 2);
    await weftOk('network', 'set', NET, '--rate', '40mbit');
    await weftOk('wait');
    expect(await weftJson('network', 'inspect', NET)).toMatchObject({ rate: { rate: '40mbit' } });
    expect((await shown('rate-3')).rate).toMatchObject({ rate: '30mbit', by: 'container' });
    expect((await shown('rate-2')).rate).toMatchObject({ rate: '40mbit', by: 'network' });
    expect(await queues('h1', (await shown('rate-1')).id)).toHaveLength(2);
    await set('rate-3', '--rate', '10mbit');
    expect((await shown('rate-3')).rate).toMatchObject({ rate: '10mbit', by: 'endpoint' });
    await set('rate-3', '--rate', 'none');
    expect(await queues('h2', id)).toEqual([]);
    await set('rate-3', '--rate', 'default');
    expect((await shown('rate-3')).rate).toMatchObject({ rate: '30mbit', by: 'container' });
    await weftOk('network', 'set', NET, '--rate', 'none');
    await weftOk('wait');
    expect(await queues('h1', (await shown('rate-1')).id)).toEqual([]);
    await docker('h2', 'rm', '-f', 'rate-3');
  });

  it('a label that says nothing is a conflict that names the container', async () => {
    await sleeper('h2', 'rate-4', NET, '--label', 'weft.rate=fast');
    await until('it is told', async () => {
      const { conflicts } = await weftJson<{ conflicts: { message: string }[] }>('status');
      return conflicts.some((c) => /rate-4: weft\.rate .*"fast"/.test(c.message));
    });
    await docker('h2', 'rm', '-f', 'rate-4');
  });
});

it('a priority is the class of what it sends, inside and on the underlay', async () => {
  await set('rate-2', '--priority', 'high');
  // Behind the outer UDP header's 8 bytes are 8 of VXLAN and 14 of Ethernet; TOS is IP's second byte.
  const high = (byte: string): string => `${byte} & 0xfc = ${34 << 2}`;
  const marked = capture('h1', 'eth0', `udp dst port 4789 and ${high('ip[1]')} and ${high('udp[31]')}`);
  const plain = capture(
    'h1',
    'eth0',
    `dst host ${await vtepOf('h1')} and udp dst port 4789 and not (${high('ip[1]')})`,
  );
  await Promise.all([marked.ready, plain.ready]);
  expect(await pings('h2', 'rate-2', server, 5)).toBe(true);
  await until('they are seen', () => Promise.resolve(marked.seen() >= 5));
  await marked.stop();
  expect(await plain.stop()).toBe(0);
  await set('rate-2', '--priority', 'default');
});
