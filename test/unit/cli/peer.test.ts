import { afterAll, beforeAll, beforeEach, expect, test } from 'vitest';
import { advise } from '../../../cli/doctor.ts';
import { pathJson } from '../../../cli/shapes.ts';
import { ExternalPeer } from '../../../gen/weft/v1/types.ts';
import { WeftError } from '../../../lib/errors.ts';
import { FakeControl } from './fake-control.ts';
import { BLUE, endpoint } from './fixtures.ts';

let fake: FakeControl;
beforeAll(async () => {
  fake = await FakeControl.start();
});
afterAll(() => fake[Symbol.asyncDispose]());
beforeEach(() => {
  fake.answers.clear();
  fake.answers.set('waitApplied', () => ({ revision: undefined, applied: true, laggards: [] }));
  fake.calls.length = 0;
});

const ROUTER = ExternalPeer.fromPartial({
  id: '0123456789abcdef',
  name: 'router',
  networkId: BLUE.id,
  vtep: '192.0.2.9',
  encap: 'vxlan',
  key: 77,
  macs: [{ mac: '02:00:00:00:00:01', ip: '10.128.15.9' }, { mac: '02:00:00:00:00:02' }],
  createdAt: '2025-01-01T00:00:00Z',
  revision: 12n,
});
const ROUTER_JSON = {
  name: 'router',
  id: '0123456789abcdef',
  network: 'blue',
  vtep: '192.0.2.9',
  encap: 'vxlan',
  key: 77,
  udpPort: null,
  macs: [
    { mac: '02:00:00:00:00:01', ip: '10.128.15.9' },
    { mac: '02:00:00:00:00:02', ip: null },
  ],
  learn: false,
  createdAt: '2025-01-01T00:00:00Z',
  revision: '12',
};

test('peer add: a number is the tunnel’s key, a file the client’s', async () => {
  fake.answers.set('addPeer', () => ({ peer: ROUTER, revision: { epoch: 1n, number: 12n } }));
  const argv = ['peer', 'add', 'router', '--network', 'blue', '--vtep', '192.0.2.9', '--encap', 'vxlan', '--key', '77'];
  argv.push('--mac', '02:00:00:00:00:01=10.128.15.9', '--mac', '02:00:00:00:00:02', '--port', '8472');
  expect(await fake.run(...argv)).toMatchObject({ code: 0, out: '0123456789abcdef\n', err: '' });
  expect(fake.calls[0]).toMatchObject({
    method: 'addPeer',
    request: {
      network: 'blue',
      peer: {
        name: 'router',
        vtep: '192.0.2.9',
        encap: 'vxlan',
        key: 77,
        udpPort: 8472,
        learn: false,
        macs: [
          { mac: '02:00:00:00:00:01', ip: '10.128.15.9' },
          { mac: '02:00:00:00:00:02', ip: '' },
        ],
      },
    },
  });
  const file = await fake.run(...argv.slice(0, 7), '--learn', '--key', fake.tls.key, '--json');
  expect(file.json()).toEqual(ROUTER_JSON);
  expect(fake.calls.findLast((call) => call.method === 'addPeer')?.request).toMatchObject({
    peer: { key: 0, encap: '', learn: true, macs: [] },
  });
});

test.each([
  [['--vtep', '192.0.2.9'], 2],
  [['--network', 'blue'], 2],
  [['--network', 'blue', '--vtep', '192.0.2.9', '--key', '0'], 1],
  [['--network', 'blue', '--vtep', '192.0.2.9', '--key', '1', '--key', '2'], 2],
  [['--network', 'blue', '--vtep', '192.0.2.9', '--port', '70000'], 1],
  [['--network', 'blue', '--vtep', '192.0.2.9', '--mac', 'a=b=c'], 2],
  [['--network', '', '--vtep', '192.0.2.9'], 1],
])('peer add %j is refused', async (flags, code) => {
  expect(await fake.run('peer', 'add', 'router', ...flags)).toMatchObject({ code, out: '' });
  expect(fake.calls).toEqual([]);
});

test('peer ls, inspect, rm', async () => {
  fake.answers.set('listPeers', () => ({ peers: [ROUTER], networkNames: { [BLUE.id]: 'blue' } }));
  expect((await fake.run('peer', 'ls', '--network', 'blue', '--json')).json()).toEqual([ROUTER_JSON]);
  expect(fake.calls[0]?.request).toEqual({ project: '', network: 'blue' });
  expect((await fake.run('peer', 'ls')).out).toMatch(
    /^NAME +NETWORK +VTEP +ENCAP +KEY +MACS +LEARN +PEER ID\nrouter +blue/,
  );
  for (const name of ['router', ROUTER.id])
    expect((await fake.run('peer', 'inspect', name, '--json')).json()).toEqual(ROUTER_JSON);
  expect(await fake.run('peer', 'inspect', 'x')).toMatchObject({ code: 1, err: expect.stringContaining('“x”') });
  fake.answers.set('removePeer', ({ peer }: { peer: string }) => {
    if (peer === 'gone') throw new WeftError('NOT_FOUND', 'There is no peer gone.');
    return { revision: { epoch: 1n, number: 13n } };
  });
  const removed = await fake.run('peer', 'rm', 'gone', 'router', '--network', 'blue');
  expect(removed).toMatchObject({ code: 1, out: 'router\n', err: expect.stringContaining('no peer gone') });
  expect(await fake.run('peer', 'rm', 'router')).toMatchObject({ code: 2 });
});

test('endpoint set', async () => {
  const web = { ...endpoint('a', 'h1id', 'web', '10.128.0.7'), allowed: [{ ip: '10.128.0.99', mac: '' }] };
  fake.answers.set('updateEndpoint', () => ({ endpoint: web, revision: { epoch: 1n, number: 13n } }));
  const names = {
    networkNames: { [BLUE.id]: 'blue' },
    hostNames: { h1id: 'h1' },
    revision: undefined,
    drainingIds: [],
    rates: {},
    priorities: {},
    settings: {},
  };
  fake.answers.set('listEndpoints', () => ({ endpoints: [web], ...names }));
  const argv = ['endpoint', 'set', 'web', '--network', 'blue', '--allow-address', '10.128.0.99'];
  argv.push('--allow-address', '10.128.0.98,00:00:5e:00:01:05', '--disallow-address', ',02:00:00:00:00:09');
  expect((await fake.run(...argv, '--json')).json()).toMatchObject({
    network: 'blue',
    host: 'h1',
    allowed: [{ ip: '10.128.0.99', mac: null }],
  });
  expect(fake.calls[0]?.request).toEqual({
    project: '',
    endpoint: 'web',
    network: 'blue',
    allow: [
      { ip: '10.128.0.99', mac: '' },
      { ip: '10.128.0.98', mac: '00:00:5e:00:01:05' },
    ],
    disallow: [{ ip: '', mac: '02:00:00:00:00:09' }],
    unsetRate: false,
    unsetPriority: false,
  });
  expect(await fake.run('endpoint', 'set', 'web')).toMatchObject({ code: 2 });
  for (const bad of ['a,b,c', '10.128.0.99,', ','])
    expect(await fake.run('endpoint', 'set', 'web', '--allow-address', bad)).toMatchObject({ code: 2 });
  const updates = () => fake.calls.filter((c) => c.method === 'updateEndpoint');
  const before = updates().length;
  for (const [flags, request] of [
    [['--rate', '1.5mbit', '--burst', '16kb'], { rate: { bits: 1_500_000n, burst: 16_384n }, unsetRate: false }],
    [['--rate', 'none', '--priority', 'low'], { rate: { bits: 0n, burst: 0n }, priority: 'low' }],
    [['--rate', 'default', '--priority', 'default'], { unsetRate: true, unsetPriority: true }],
  ] as const) {
    expect(await fake.run('endpoint', 'set', 'web', ...flags)).toMatchObject({ code: 0 });
    expect(updates().at(-1)?.request).toMatchObject(request);
  }
  for (const bad of [
    ['--rate', 'fast'],
    ['--rate', '1mbit', '--burst', '1b'],
    ['--rate', 'default', '--burst', '64kb'],
    ['--priority', 'urgent'],
  ])
    expect(await fake.run('endpoint', 'set', 'web', ...bad)).toMatchObject({ code: 1, out: '' });
  expect(updates().length).toBe(before + 3);
});

const path = (from: string, to: string, largest: number, underlayMtu: number, problem = '') => ({
  from,
  to,
  fromVtep: '192.0.2.1',
  toVtep: '192.0.2.2',
  largest,
  underlayMtu,
  problem,
  probedBy: 'vxlan',
  probedWhy: '',
});

test('doctor mtu: 0 when all is well, 1 with what to set', async () => {
  fake.answers.set('probeMtu', () => ({
    paths: [path('h2', 'h1', 1500, 1500), path('h1', 'h2', 1500, 1500)],
    errors: {},
  }));
  const well = await fake.run('doctor', 'mtu', '--network', 'blue', '--json');
  expect(well.code).toBe(0);
  expect(well.json()).toMatchObject({ ok: true, paths: [{ from: 'h1' }, { from: 'h2' }], errors: [], advice: [] });
  expect(fake.calls[0]?.request).toEqual({ project: '', network: 'blue', localOnly: false });

  const problem = 'underlay h1→h3 carries 1400, h1 announces 1500';
  fake.answers.set('probeMtu', () => ({
    paths: [path('h1', 'h3', 1400, 1500, problem), path('h1', 'h4', 0, 1500, 'underlay h1→h4: unreachable')],
    errors: { h2: 'Host h2 did not answer.' },
  }));
  const ill = await fake.run('doctor', 'mtu');
  expect(ill.code).toBe(1);
  expect(ill.out).toContain(problem);
  expect(ill.out).toContain('set underlay.mtu: 1400 in agent.yaml of h1, or');
  expect(ill.out).toContain('have MTU 1350');
  expect(ill.out).toContain('h1→h4');
  expect(ill.out).toContain('h2: could not be asked: Host h2 did not answer.');
});

test('advice: one line for each size, with the overhead of the path’s family', () => {
  const by = { probedBy: 'vxlan', probedWhy: null };
  const six = { from: 'a', to: 'b', fromVtep: 'fd00::1', toVtep: 'fd00::2', problem: 'x', ...by };
  const lines = advise([
    { ...six, largest: 1400, underlayMtu: 1500 },
    { ...six, from: 'b', to: 'a', largest: 1400, underlayMtu: 1500 },
    { ...six, from: 'c', largest: 1500, underlayMtu: 1500, problem: null },
  ]);
  expect(lines).toEqual([expect.stringMatching(/1400 in agent.yaml of a and b,.* MTU 1330,/)]);
  const narrow = (from: string, to: string, largest: number) => pathJson(path(from, to, largest, 1500, 'x'));
  // The host that all of them have in common; of both ways the smaller.
  expect(advise([narrow('a', 'c', 1404), narrow('c', 'a', 1400), narrow('b', 'c', 1400)])).toEqual([
    expect.stringMatching(/^set underlay.mtu: 1400 in agent.yaml of c, /),
  ]);
  // One way only: whose packets are too long.
  expect(advise([narrow('a', 'c', 1400), narrow('c', 'a', 1500)])).toEqual([
    expect.stringMatching(/^set underlay.mtu: 1400 in agent.yaml of a, /),
  ]);
  // Nothing: what to look for depends on what was sent.
  const dead = narrow('a', 'c', 0);
  expect(advise([dead])).toEqual([expect.stringMatching(/^no VXLAN frame gets through a→c .*firewalls/)]);
  expect(advise([{ ...dead, probedBy: 'icmp' }])).toEqual([expect.stringMatching(/^nothing gets through a→c .*ICMP/)]);
});
