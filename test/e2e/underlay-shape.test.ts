/**
 * The underlay shaped by priority classes: only where the configuration says so, with what was there before put back; frames in their
 * classes, shares under congestion (exact figures are `npm run bench:underlay`), drift by hand, the agent's restart, what is others'.
 */
import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import { conflicts } from '../harness/docker-view.ts';
import { audit, configure, driftEvents, settled } from '../harness/drift.ts';
import { addressOf, auditClean, clean, onOk, sleeper, until, weftJson, weftOk } from '../harness/lab.ts';
import { labStatus } from '../harness/lab-direct.ts';
import { achieved, listen } from '../harness/rates.ts';

const HOSTS = ['h1', 'h2'] as const;
const NET = 'shaped';
const BITS = 20e6;
let vtep = '';
const servers: Record<string, string> = {};

const tc = (...args: string[]): Promise<string> => onOk('h2', 'tc', ...args);
const root = async (host = 'h2'): Promise<string> =>
  (await onOk(host, 'tc', 'qdisc', 'show', 'dev', 'eth0')).split('\n').find((line) => line.includes(' root ')) ?? '';
/** Bytes that each class has sent. */
async function sent(): Promise<Record<string, number>> {
  const text = await tc('-s', 'class', 'show', 'dev', 'eth0');
  const all = [...text.matchAll(/class htb 57ef:(\d0) .*\n Sent (\d+) bytes/g)];
  return Object.fromEntries(all.map((m) => [m[1] ?? '', Number(m[2])]));
}
const shape = async (rate: string | null): Promise<void> => {
  await configure('h2', { underlay: { vtep, ...(rate === null ? {} : { shape: rate }) } });
  await settled(HOSTS);
};
const send = (name: string, seconds: number): Promise<number> =>
  achieved({ host: 'h2', container: `${name}-from` }, servers[name] ?? '', {
    protocol: 'tcp',
    way: 'sent',
    seconds,
    offered: 0,
  });

beforeAll(async () => {
  vtep = (await labStatus()).hosts.find((h) => h.name === 'h2')?.underlay.ip ?? '';
  await weftOk('network', 'create', NET);
  await weftOk('wait');
  await Promise.all(
    ['high', 'low'].flatMap((name) => [
      sleeper('h1', `${name}-to`, NET),
      sleeper('h2', `${name}-from`, NET, '--label', `weft.priority=${name}`),
    ]),
  );
  for (const name of ['high', 'low']) {
    servers[name] = await addressOf('h1', `${name}-to`, NET);
    await listen({ host: 'h1', container: `${name}-to` });
  }
  await until('all are known', async () =>
    (await weftJson<{ state: string }[]>('endpoint', 'ls')).every((e) => e.state === 'known'),
  );
  await weftOk('wait');
});
afterAll(async () => {
  await shape(null);
  await clean(HOSTS);
  await weftOk('wait');
  await auditClean();
});

it('nothing of the underlay is touched without it', async () => {
  for (const host of HOSTS) expect(await root(host)).toMatch(/^qdisc noqueue 0: /);
});

describe('a host that shapes its underlay', () => {
  beforeAll(async () => {
    await tc('qdisc', 'replace', 'dev', 'eth0', 'root', 'handle', '9:', 'pfifo', 'limit', '777');
    await shape('20mbit');
    await until('it is shaped', async () => (await root()).includes('htb 57ef:'));
  });

  it('sends no more than the rate, each frame in the class of its outer header; other hosts are as they were', async () => {
    expect(await root('h1')).toMatch(/^qdisc noqueue 0: /);
    for (const [name, id] of [
      ['high', '10'],
      ['low', '30'],
    ] as const) {
      const before = (await sent())[id] ?? 0;
      const bits = await send(name, 3);
      expect(bits).toBeLessThan(BITS);
      expect(bits).toBeGreaterThan(BITS * 0.7);
      expect(((await sent())[id] ?? 0) - before).toBeGreaterThan((BITS / 8) * 3 * 0.7);
    }
    await auditClean();
  });

  it('gives each class its share when both want all', async () => {
    const [high, low] = await Promise.all([send('high', 8), send('low', 8)]);
    const share = low / (high + low);
    // A tenth is low's, however much others want; the machine has other things to do.
    expect(share).toBeGreaterThan(0.06);
    expect(share).toBeLessThan(0.2);
  });

  it('tells of what was changed by hand, and mends it', async () => {
    const since = Date.now();
    await tc('class', 'change', 'dev', 'eth0', 'parent', '57ef:1', 'classid', '57ef:30', 'htb', 'rate', '1kbit');
    await tc('filter', 'del', 'dev', 'eth0', 'parent', '57ef:');
    const seen = async (...objects: string[]): Promise<boolean> => {
      const healed = (await driftEvents(since)).filter((e) => e.kind === 'queue' && e.healedAt !== null);
      return objects.every((object) => healed.some((e) => e.object === object));
    };
    await until('it is told', () => seen('eth0 57ef:30', 'eth0 filters'));
    await tc('qdisc', 'del', 'dev', 'eth0', 'root');
    await until('it is told', () => seen('eth0'));
    expect(await root()).toContain('htb 57ef:');
    expect((await tc('filter', 'show', 'dev', 'eth0')).match(/flowid/g)).toHaveLength(10);
    await auditClean();
  });

  it('goes on as it is while the agent is away, and when it comes back', async () => {
    await send('low', 1);
    await weftOk('lab', 'kill', 'h2', 'agent');
    const before = await sent();
    expect(await root()).toContain('htb 57ef:');
    await weftOk('lab', 'start', 'h2', 'agent');
    await settled(HOSTS);
    await auditClean();
    const after = await sent();
    expect(before['30']).toBeGreaterThan(0);
    for (const id of ['10', '20', '30']) expect(after[id]).toBeGreaterThanOrEqual(before[id] ?? 0);
  });

  it('takes another rate without a new queue', async () => {
    const before = await sent();
    await shape('30mbit');
    await until('it has it', async () => (await tc('class', 'show', 'dev', 'eth0')).includes('ceil 30Mbit'));
    expect((await sent())['30']).toBeGreaterThanOrEqual(before['30'] ?? 0);
    await auditClean();
  });

  it('leaves a tree of somebody else alone, and says so', async () => {
    await tc('qdisc', 'replace', 'dev', 'eth0', 'root', 'handle', '1:', 'htb', 'default', '0');
    const named = async (): Promise<boolean> =>
      (await conflicts()).some((c) => c.host === 'h2' && c.message.startsWith('eth0 is not shaped: its queue, htb 1:'));
    await until('it is named', named);
    expect((await audit('--no-heal')).code).toBe(0);
    expect(await root()).toContain('htb 1:');
    await tc('qdisc', 'del', 'dev', 'eth0', 'root');
    await until('it is shaped again', async () => (await root()).includes('htb 57ef:'));
    await until('nothing is said any more', async () => (await conflicts()).length === 0);
    await auditClean();
  });

  it('has again what it had before, when the setting goes', async () => {
    await shape(null);
    await until('it is there', async () => /^qdisc pfifo 9: .* limit 777p/.test(await root()));
    expect(await send('low', 1)).toBeGreaterThan(30e6);
    await auditClean();
    await tc('qdisc', 'del', 'dev', 'eth0', 'root');
    expect(await root()).toMatch(/^qdisc noqueue 0: /);
  });
});
