import { mkdtemp, readFile, rm, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { encode, type RecordType } from 'dns-packet';
import { afterEach, beforeEach, expect, test } from 'vitest';
import { answeredBy } from '../../../../agent/dns/answered.ts';
import { connectedTo } from '../../../../agent/policies/connections.ts';
import { type Ended, MOST, NameTable } from '../../../../agent/policies/name-table.ts';
import { LearnedNames, type LearnedNamesOptions } from '../../../../agent/policies/names.ts';
import { Policy } from '../../../../gen/weft/v1/types.ts';
import { FakeClock } from '../../../../lib/clock.ts';
import { silentLog } from '../../../../lib/log.ts';
import type { View } from '../../../../lib/model.ts';
import { networkOf } from '../../../harness/fake-network.ts';

const MINUTE = 60_000;
let dir = '';
beforeEach(async () => {
  dir = await mkdtemp(join(tmpdir(), 'weft-names-'));
});
afterEach(() => rm(dir, { recursive: true }));

const policy = (name: string, ...names: string[]): Policy =>
  Policy.fromPartial({
    name,
    egress: [{ action: 'allow', peers: names.map((value) => ({ who: { $case: 'name' as const, value } })) }],
  });

interface World {
  readonly names: LearnedNames;
  readonly clock: FakeClock;
  /** How often everything has been installed. */
  installs: number;
  /** Resolves what `settled` waits for. */
  install: () => void;
  connected: (ended: readonly Ended[]) => Promise<readonly Ended[]>;
}

async function world(more: Partial<LearnedNamesOptions> = {}): Promise<World> {
  const clock = new FakeClock();
  const policies = new Map([['p', policy('p', 'example.org', '*.example.org', 'db.web.weft')]]);
  const interests = new Map([
    ['web', { policies }],
    ['db', { policies: new Map([['q', policy('q', 'www.example.org')]]) }],
  ]);
  const network = networkOf({ id: 'web', subnets: ['10.1.0.0/16', 'fd00:1::/64'] });
  const w = { clock, installs: 0, install: () => undefined, connected: async () => [] } as unknown as World;
  const names = new LearnedNames({
    file: join(dir, 'names.json'),
    view: () => ({ interests, networks: new Map([['web', network]]) }) as unknown as View,
    networks: () => [networkOf({ id: 'own', subnets: ['10.77.0.0/16'] })],
    hosts: () => new Set(['192.0.2.1', '2001:db8::1']),
    settled: () => {
      w.installs++;
      return new Promise<void>((resolve) => (w.install = resolve));
    },
    connected: (ended) => w.connected(ended),
    clock,
    log: silentLog(),
    ...more,
  });
  await names.load();
  return Object.assign(w, { names });
}
const a = (ip: string, ttl = 0) => ({ ip, ttl });
const asker = (...networks: string[]) => ({ networks });

test('what is answered is what the name means, in the networks of who asks where policies are about it', async () => {
  const { names } = await world();
  expect(names.learn(asker('web'), 'example.org', () => [a('198.51.100.7')], false)).not.toBeNull();
  void names.learn(asker('web', 'db'), 'www.example.org', () => [a('198.51.100.8'), a('2001:DB8:0::9')], false);
  void names.learn(asker('db'), 'a.b.example.org', () => [a('198.51.100.9')], false);
  void names.learn(asker('web'), 'a.b.example.org', () => [a('198.51.100.10')], false);
  expect(names.learn(asker('web'), 'badexample.org', () => [a('198.51.100.11')], false)).toBeNull();
  expect(names.learn(asker('web'), 'example.org.evil', () => [a('198.51.100.12')], false)).toBeNull();
  expect(names.learn(asker('gone'), 'example.org', () => [a('198.51.100.13')], false)).toBeNull();
  expect(names.addresses('web', 'example.org')).toEqual(['198.51.100.7']);
  // All names below it, and not itself.
  expect(names.addresses('web', '*.example.org')).toEqual(['198.51.100.10', '198.51.100.8', '2001:db8::9']);
  expect(names.addresses('db', 'www.example.org')).toEqual(['198.51.100.8', '2001:db8::9']);
  await names.close();
});

test('an outside name opens nothing of the mesh, nor of a host; a name of the mesh does', async () => {
  const { names } = await world();
  const bad = ['10.1.0.3', 'fd00:1::3', '10.77.0.1', '192.0.2.1', '2001:db8::1', '127.0.0.1', '169.254.64.7', '::1'];
  const worse = ['::ffff:10.1.0.3', '0.0.0.0', '255.255.255.255', '224.0.0.1', 'fe80::1', 'fd57:6566:7400::1', 'x'];
  for (const ip of [...bad, ...worse])
    expect(
      names.learn(asker('web'), 'rebind.example.org', () => [a(ip, 5)], false),
      ip,
    ).toBeNull();
  expect(names.addresses('web', '*.example.org')).toEqual([]);
  void names.learn(asker('web'), 'rebind.example.org', () => [a('10.1.0.3'), a('198.51.100.7')], false);
  expect(names.addresses('web', '*.example.org')).toEqual(['198.51.100.7']);
  void names.learn(asker('web'), 'db.web.weft', () => [a('10.1.0.3')], true);
  expect(names.addresses('web', 'db.web.weft')).toEqual(['10.1.0.3']);
  await names.close();
});

test('an answer waits for its flows, and so does the next one that is given before they are there', async () => {
  const w = await world();
  const told: string[] = [];
  const ask = (who: string): void => {
    const learning = w.names.learn(asker('web'), 'example.org', () => [a('198.51.100.7')], false);
    if (learning === null) told.push(who);
    else void learning.then(() => told.push(who));
  };
  ask('first');
  ask('second');
  await w.clock.advance(900);
  expect(told).toEqual([]);
  w.install();
  await w.clock.advance(0);
  expect(told).toEqual(['first', 'second']);
  ask('third');
  expect([told.length, w.installs]).toEqual([3, 1]);
  // And not for ever.
  const late = w.names.learn(asker('web'), 'example.org', () => [a('198.51.100.8')], false);
  let given = false;
  void late?.then(() => (given = true));
  await w.clock.advance(999);
  expect(given).toBe(false);
  await w.clock.advance(2);
  expect(given).toBe(true);
  await w.names.close();
});

test('it ends with its time, at least a minute and at most an hour; not while somebody is connected', async () => {
  const w = await world();
  const { names, clock } = w;
  void names.learn(
    asker('web'),
    'example.org',
    () => [a('198.51.100.1', 1), a('198.51.100.2', 1e9), a('198.51.100.3')],
    false,
  );
  const held = (): readonly string[] => names.addresses('web', 'example.org');
  await clock.advance(MINUTE - 1000);
  expect(held()).toHaveLength(3);
  w.connected = async (ended) => ended.filter(({ ip }) => ip === '198.51.100.3');
  await clock.advance(MINUTE);
  expect(held()).toEqual(['198.51.100.2', '198.51.100.3']);
  w.connected = () => Promise.reject(new Error('nobody knows'));
  await clock.advance(5 * MINUTE);
  expect(held()).toEqual(['198.51.100.2', '198.51.100.3']);
  w.connected = async () => [];
  await clock.advance(2 * MINUTE);
  expect(held()).toEqual(['198.51.100.2']);
  await clock.advance(60 * MINUTE);
  expect(held()).toEqual([]);
  expect(w.installs).toBeGreaterThan(2);
  await names.close();
});

test('a restart forgets nothing; a file of nobody’s is no harm', async () => {
  const first = await world();
  void first.names.learn(asker('web'), 'example.org', () => [a('198.51.100.7', 600)], false);
  await first.names.close();
  const second = await world();
  expect(second.names.addresses('web', 'example.org')).toEqual(['198.51.100.7']);
  await second.clock.advance(11 * MINUTE);
  expect(second.names.addresses('web', 'example.org')).toEqual([]);
  await second.names.close();
  for (const text of ['', '{', '[]', '{"web":{"example.org":{"1.2.3.4":null}}}']) {
    await writeFile(join(dir, 'names.json'), text);
    const third = await world();
    expect(third.names.addresses('web', 'example.org')).toEqual([]);
    await third.names.close();
  }
  expect(await readFile(join(dir, 'names.json'), 'utf8')).toBeTruthy();
});

test('nobody makes it grow without end', () => {
  const table = new NameTable();
  const many = (from: number, n: number) =>
    Array.from({ length: n }, (_, i) => a(`203.0.${(from + i) >> 8}.${(from + i) & 255}`));
  table.learn('web', 'example.org', many(0, 1000), 0);
  expect(table.size).toBe(MOST.answer);
  for (let i = 0; i < 1000; i++) table.learn('web', '*.evil', many(i * 10, 10), i);
  expect(table.addresses('web', '*.evil')).toHaveLength(MOST.name);
  expect(table.addresses('web', '*.evil')).toContain('203.0.39.15');
  expect(table.addresses('web', 'example.org')).toHaveLength(MOST.answer);
  for (let n = 0; n < 40; n++) for (let i = 0; i < 10; i++) table.learn(`n${n}`, 'x', many(i * 64, 64), 0);
  expect(table.size).toBe(MOST.host);
  // What is there is still renewed.
  expect(table.learn('web', 'example.org', many(0, 64), 1000)).toBe(false);
  expect(table.due(60_500).some(({ name }) => name === 'example.org')).toBe(false);
});

const reply = (
  answers: readonly (readonly [string, RecordType, string, number])[],
  question = 'WWW.Example.org',
): Buffer =>
  encode({
    type: 'response',
    id: 1,
    questions: [{ type: 'A', class: 'IN', name: question }],
    answers: answers.map(([name, type, data, ttl]) => ({ name, type, data, ttl }) as never),
  });

test('addresses of a reply are those of the question’s name, by its aliases', () => {
  expect(answeredBy(reply([['www.example.org', 'A', '198.51.100.7', 30]]))).toEqual([a('198.51.100.7', 30)]);
  const chain = [
    ['www.EXAMPLE.org', 'CNAME', 'cdn.example.net', 10],
    ['evil.example.com', 'A', '198.51.100.66', 300],
    ['Cdn.example.net', 'CNAME', 'edge.example.net', 300],
    ['edge.example.net', 'A', '198.51.100.8', 300],
    ['edge.example.net', 'AAAA', '2001:db8::8', 5],
  ] as const;
  expect(answeredBy(reply(chain))).toEqual([a('198.51.100.8', 10), a('2001:db8::8', 5)]);
  expect(answeredBy(reply([['other.example.org', 'A', '198.51.100.7', 30]]))).toEqual([]);
  const round = [
    ['www.example.org', 'CNAME', 'a.example.org', 1],
    ['a.example.org', 'CNAME', 'www.example.org', 1],
  ] as const;
  expect(answeredBy(reply(round))).toEqual([]);
  const whole = reply(chain);
  for (let length = 0; length < whole.length; length++)
    expect(() => answeredBy(whole.subarray(0, length))).not.toThrow();
});

test('connections by their zone and destination', () => {
  const dump = [
    'tcp,orig=(src=10.1.0.2,dst=198.51.100.7,sport=1,dport=443),reply=(src=198.51.100.7,dst=10.1.0.2,sport=443,dport=1),zone=3,protoinfo=(state=ESTABLISHED)',
    'udp,orig=(src=fd00::2,dst=2001:db8:0::8,sport=1,dport=53),reply=(src=2001:db8::8,dst=fd00::2,sport=53,dport=1),zone=3',
    'tcp,orig=(src=198.51.100.9,dst=10.1.0.2,sport=1,dport=443),reply=(src=10.1.0.2,dst=198.51.100.9,sport=443,dport=1),zone=3',
    'tcp,orig=(src=10.1.0.2,dst=198.51.100.10,sport=1,dport=443),reply=(),zone=4',
    'nonsense',
  ].join('\n');
  const of = (ip: string, networkId = 'web'): Ended => ({ networkId, name: 'x', ip });
  const all = ['198.51.100.7', '2001:db8::8', '198.51.100.9', '198.51.100.10'].map((ip) => of(ip));
  expect(connectedTo(dump, [...all, of('198.51.100.7', 'gone')], new Map([['web', 3]])).map(({ ip }) => ip)).toEqual([
    '198.51.100.7',
    '2001:db8::8',
  ]);
});
