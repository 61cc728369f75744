import { afterAll, beforeAll, beforeEach, expect, test } from 'vitest';
import { ListEndpointsResponse } from '../../../gen/weft/v1/control.ts';
import { WeftError } from '../../../lib/errors.ts';
import { FakeControl, runCli } from './fake-control.ts';
import { BLUE, endpoint, hostStatus } from './fixtures.ts';

let fake: FakeControl;
beforeAll(async () => {
  fake = await FakeControl.start();
});
afterAll(() => fake[Symbol.asyncDispose]());
beforeEach(() => {
  fake.answers.clear();
  fake.calls.length = 0;
  fake.events = [];
});

const H1 = hostStatus('h1', 'connected');
const HOSTS = [hostStatus('h10', 'down'), hostStatus('h2', 'lagging'), H1];

test('host ls and inspect', async () => {
  fake.answers.set('listHosts', () => ({ hosts: HOSTS, revision: undefined }));
  const list = (await fake.run('host', 'ls', '--json')).json() as { name: string }[];
  expect(list.map((h) => h.name)).toEqual(['h1', 'h2', 'h10']);
  expect(list).toMatchObject([
    { state: 'connected', appliedRevision: '42', datapath: 'netdev', versions: { weft: '0.1.0' }, reason: null },
    { state: 'lagging', reason: 'port veth1: no such device' },
    { state: 'down', appliedRevision: null, coordinator: null },
  ]);
  const one = (await fake.run('host', 'inspect', 'h1', '--json')).json();
  expect(one).toEqual(list[0]);
  expect((await fake.run('host', 'inspect', H1.host?.id ?? '', '--json')).json()).toEqual(one);
  expect(await fake.run('host', 'inspect', 'h3')).toMatchObject({ code: 1, err: expect.stringContaining('“h3”') });
  expect((await fake.run('host', 'ls')).out).toMatch(/^NAME +STATE +VTEP +DATAPATH +APPLIED +HOST ID\nh1 +connected /);
});

test('host drain and rm', async () => {
  fake.answers.set('updateHost', () => H1);
  fake.answers.set('deleteHost', () => {
    throw new WeftError('FAILED_PRECONDITION', 'h1 is connected.', { hint: 'stop its agent' });
  });
  expect(await fake.run('host', 'drain', 'h1')).toMatchObject({ code: 0, out: 'h1\n' });
  expect(fake.calls).toMatchObject([
    { method: 'updateHost', request: { host: 'h1', draining: true } },
    { method: 'waitApplied', request: { revision: undefined } },
  ]);
  expect(await fake.run('host', 'rm', 'h1')).toMatchObject({ code: 1, out: '' });
});

test('port', async () => {
  const published = [
    { protocol: 'tcp', port: 80, hostIp: '::', hostPort: 8080 },
    { protocol: 'udp', port: 53, hostIp: '192.0.2.1', hostPort: 5353 },
    { protocol: 'tcp', port: 80, hostIp: '0.0.0.0', hostPort: 8080 },
  ];
  const endpoints = [
    { ...endpoint('a', 'h1id', 'web', '10.128.0.7'), ports: published },
    endpoint('c', 'h2id', 'db', '10.128.0.8'),
    endpoint('d', 'h1id', 'db', '10.128.0.9'),
    endpoint('e', 'h1id', null, '10.128.0.10'),
  ];
  fake.answers.set('listEndpoints', () =>
    ListEndpointsResponse.fromPartial({ endpoints, hostNames: { h1id: 'h1', h2id: 'h2' } }),
  );
  const text = '53/udp -> 192.0.2.1:5353 on h1\n80/tcp -> 0.0.0.0:8080 on h1\n80/tcp -> [::]:8080 on h1\n';
  for (const name of ['web', 'h1/web', 'ca'.repeat(6)])
    expect(await fake.run('port', name)).toMatchObject({ code: 0, out: text });
  expect((await fake.run('port', 'web', '80')).out).toBe('0.0.0.0:8080\n[::]:8080\n');
  expect((await fake.run('port', 'web', '53/udp', '--json')).json()).toEqual([
    { container: 'web', host: 'h1', network: BLUE.id, protocol: 'udp', port: 53, hostIp: '192.0.2.1', hostPort: 5353 },
  ]);
  const missing = await fake.run('port', 'web', '53');
  expect(missing).toMatchObject({ code: 1, err: expect.stringContaining('not published') });
  expect(missing.err).toContain('weft port web 53/udp');
  expect((await fake.run('port', 'h1/web', '54')).err).toContain('weft port h1/web lists those that are');
  expect(await fake.run('port', 'db')).toMatchObject({
    code: 1,
    err: expect.stringMatching(/h1\/db and h2\/db|h2\/db and h1\/db/),
  });
  expect(await fake.run('port', 'h2/db')).toMatchObject({ code: 0, out: '' });
  fake.answers.set('listHosts', () => ({ hosts: HOSTS, revision: undefined }));
  expect(await fake.run('port', 'nobody')).toMatchObject({ code: 1 });
  expect((await fake.run('port', 'h1/nobody')).err).toContain('No network of the mesh has a container "h1/nobody"');
  expect(await fake.run('port', 'h9/web')).toMatchObject({
    code: 1,
    err: expect.stringContaining('There is no host h9.'),
  });
  for (const port of ['0', '65536', 'http', '80/icmp', '']) expect((await fake.run('port', 'web', port)).code).toBe(2);
});

test('endpoint ls and inspect', async () => {
  const endpoints = [
    endpoint('b', 'gone', null, '10.128.0.9'),
    endpoint('a', 'h1id', 'web', '10.128.0.7'),
    endpoint('c', 'h2id', 'web', '10.128.0.8'),
  ];
  fake.answers.set('listEndpoints', () => ({
    endpoints,
    networkNames: { [BLUE.id]: 'blue' },
    hostNames: { h1id: 'h1', h2id: 'h2' },
    revision: undefined,
    drainingIds: ['b'.repeat(64)],
    rates: { ['a'.repeat(64)]: { rate: { bits: 200_000_000n, burst: 0n }, by: 'container' } },
    priorities: { ['a'.repeat(64)]: 'high' },
    settings: {},
  }));
  const list = (await fake.run('endpoint', 'ls', '--network', 'blue', '--host', 'h1', '--json')).json() as unknown[];
  expect(fake.calls.at(-1)?.request).toEqual({ project: '', network: 'blue', host: 'h1' });
  expect(list[1]).toEqual({
    id: 'a'.repeat(64),
    network: 'blue',
    host: 'h1',
    name: 'web',
    container: { id: 'ca'.repeat(32), name: 'web' },
    ips: ['10.128.0.7'],
    mac: '02:58:0a:80:00:07',
    ports: [],
    ofport: 3,
    state: 'known',
    kind: null,
    allowed: [],
    trusted: false,
    express: false,
    draining: false,
    rate: { rate: '200mbit', bits: 200_000_000, burst: null, by: 'container' },
    priority: 'high',
    identity: { app: 'x' },
  });
  expect(list[0]).toMatchObject({
    host: 'gone',
    draining: true,
    rate: null,
    priority: null,
    name: null,
    container: null,
    identity: null,
    state: 'pending',
  });
  for (const name of ['a'.repeat(64), 'aaaa', 'h1/web', '10.128.0.7', 'caca'])
    expect((await fake.run('endpoint', 'inspect', name, '--json')).json()).toEqual(list[1]);
  expect(await fake.run('endpoint', 'inspect', 'web')).toMatchObject({
    code: 1,
    err: expect.stringMatching(/h1\/web on blue.*h2\/web on blue/),
  });
  expect((await fake.run('endpoint', 'inspect', 'nothing')).code).toBe(1);
  expect(await fake.run('endpoint', 'set', 'web', '--ip', '1.2.3.4')).toMatchObject({ code: 2, out: '' });
});

test('wait: the newest revision, a given one, laggards', async () => {
  const done = { revision: { epoch: 2n, number: 50n }, applied: true, laggards: [] };
  fake.answers.set('waitApplied', () => done);
  fake.answers.set('getStatus', () => ({
    revision: { epoch: 2n, number: 60n },
    coordinators: [],
    hosts: [],
    conflicts: [],
  }));
  const waited = await fake.run('wait', '--json');
  expect(waited.code).toBe(0);
  expect(waited.json()).toEqual({ revision: '50', applied: true, laggards: [] });
  expect(fake.calls).toMatchObject([{ method: 'waitApplied', request: { revision: undefined, timeoutMs: 30_000 } }]);
  await fake.run('wait', '--revision', '7', '--network', 'blue', '--timeout', '1.5');
  expect(fake.calls.at(-1)?.request).toMatchObject({
    revision: { epoch: 2n, number: 7n },
    network: 'blue',
    timeoutMs: 1500,
  });
  await fake.run('wait', '--revision', '1:7');
  expect(fake.calls.at(-1)?.request).toMatchObject({ revision: { epoch: 1n, number: 7n } });

  const laggards = [{ host: 'h2', appliedRevision: undefined, reason: 'flow refused' }];
  fake.answers.set('waitApplied', () => ({ ...done, applied: false, laggards }));
  const late = await fake.run('wait', '--json');
  expect(late.code).toBe(1);
  expect(late.json()).toEqual({
    revision: '50',
    applied: false,
    laggards: [{ host: 'h2', appliedRevision: null, reason: 'flow refused' }],
  });
  expect(await fake.run('wait')).toMatchObject({
    code: 1,
    out: expect.stringContaining('h2 is at none: flow refused'),
  });
});

test.each([
  ['--timeout', 'x', 2],
  ['--timeout', '-1', 2],
  ['--timeout', '0', 1],
  ['--timeout', '999999999', 1],
  ['--revision', 'new', 2],
  ['--revision', '1:2:3', 2],
  ['--revision', '-5', 2],
  ['--revision', '99999999999999999999', 1],
  ['--network', '', 1],
])('wait %s %j is refused', async (flag, value, code) => {
  expect(await fake.run('wait', flag, value)).toMatchObject({ code, out: '' });
  expect(fake.calls).toEqual([]);
});

test('audit: clean, drift, a host that could not be audited', async () => {
  const drift = [
    { kind: 'flow', object: 'table=3,tun_id=0x5', change: 'missing', want: 'output:2', have: '' },
    { kind: 'port', object: 'evil0', change: 'extra', want: '', have: 'evil0' },
    { kind: 'link', object: 'wf1', change: 'differs', want: 'mtu 1450', have: 'mtu 1500' },
  ];
  const hosts = [
    { host: 'h2', drift: [], error: '' },
    { host: 'h1', drift, error: '' },
  ];
  fake.answers.set('audit', () => ({ hosts: [hosts[0]] }));
  const clean = await fake.run('audit', '--no-heal', '--host', 'h2', '--json');
  expect(clean.code).toBe(0);
  expect(clean.json()).toEqual({ clean: true, hosts: [{ host: 'h2', drift: [], error: null }] });
  expect(fake.calls.at(-1)?.request).toEqual({ host: 'h2', noHeal: true, localOnly: false });

  fake.answers.set('audit', () => ({ hosts }));
  const found = await fake.run('audit', '--json');
  expect(found.code).toBe(1);
  expect(fake.calls.at(-1)?.request).toMatchObject({ noHeal: false });
  expect(found.json()).toMatchObject({
    clean: false,
    hosts: [{ host: 'h1', drift: [{ want: 'output:2', have: null }, { want: null }, {}] }, { host: 'h2' }],
  });
  expect((await fake.run('audit')).out).toBe(
    [
      'h1: 3 differences',
      '  - flow table=3,tun_id=0x5 (missing)',
      '      - output:2',
      '  + port evil0 (extra)',
      '      + evil0',
      '  ~ link wf1 (differs)',
      '      - mtu 1450',
      '      + mtu 1500',
      'h2: clean\n',
    ].join('\n'),
  );
  fake.answers.set('audit', () => ({ hosts: [...hosts, { host: 'h3', drift: [], error: 'not connected' }] }));
  const failed = await fake.run('audit');
  expect(failed.code).toBe(3);
  expect(failed.out).toContain('h3: could not be audited: not connected\n');
});

test('status', async () => {
  fake.answers.set('getStatus', () => ({
    revision: { epoch: 1n, number: 42n },
    coordinators: [
      { id: 'x', name: 'c1', address: 'a:7470', version: '0.1.0', state: 'up', sessions: 3, revision: undefined },
    ],
    hosts: [H1],
    conflicts: [{ host: 'h1', network: 'blue', message: 'A network of that name is there already.' }],
  }));
  expect((await fake.run('status', '--json')).json()).toMatchObject({
    revision: '42',
    coordinators: [{ id: 'x', name: 'c1', address: 'a:7470', state: 'up', sessions: 3, revision: null }],
    hosts: [{ name: 'h1' }],
    conflicts: [{ host: 'h1', network: 'blue', message: 'A network of that name is there already.' }],
  });
  expect((await fake.run('status')).out).toContain('h1: blue: A network of that name is there already.');
});

test('events: what is remembered; --follow until interrupted', async () => {
  const event = { type: 'drift', time: '2025-01-01T00:00:00Z', host: 'h1', action: '', kind: 'flow', object: 'o' };
  const more = { detectedAt: 't1', healedAt: '', message: '', revision: undefined };
  fake.events = [{ ...event, ...more }];
  const remembered = await fake.run('events', '--json');
  expect(remembered.out.split('\n')).toHaveLength(2);
  expect(remembered.json()).toMatchObject({
    type: 'drift',
    kind: 'flow',
    detectedAt: 't1',
    healedAt: null,
    action: null,
  });
  const stop = new AbortController();
  const following = await runCli(['events', '-f'], {
    env: fake.env,
    signal: stop.signal,
    onOut: () => stop.abort(),
  });
  expect(following).toMatchObject({ code: 0, out: '2025-01-01T00:00:00Z  drift  h1  flow  o  not healed\n', err: '' });
});
