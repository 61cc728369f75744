import { afterAll, beforeAll, beforeEach, describe, expect, test } from 'vitest';
import { serviceOf } from '../../../cli/service-flags.ts';
import { ListEndpointsResponse } from '../../../gen/weft/v1/control.ts';
import { Service } from '../../../gen/weft/v1/types.ts';
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

const health = { type: 'http', port: 8080, path: '/up', intervalMs: 1000, timeoutMs: 500, rise: 1, fall: 2 };
const SHOP = Service.fromPartial({
  id: '0123456789abcdef',
  networkId: BLUE.id,
  name: 'shop',
  ips: ['10.128.15.254', 'fd00::7'],
  ports: [
    { name: 'web', protocol: 'tcp', port: 80, targetPort: 8080, hostPort: 8000 },
    { name: '', protocol: 'udp', port: 53, targetPort: 53, hostPort: 0 },
  ],
  selector: { app: 'shop' },
  health,
  affinityS: 60,
  localFirst: true,
  publish: 'all',
  labels: { tier: 'front' },
  createdAt: '2025-01-01T00:00:00Z',
  revision: 12n,
});
const BEHIND = [
  { endpoint: endpoint('a', 'h1id', 'shop-1', '10.128.0.7'), state: 'healthy' },
  { endpoint: endpoint('b', 'h2id', 'shop-2', '10.128.0.40'), state: 'draining' },
];
const SHOP_JSON = {
  name: 'shop',
  id: '0123456789abcdef',
  network: 'blue',
  ips: ['10.128.15.254', 'fd00::7'],
  headless: false,
  ports: [
    { name: 'web', protocol: 'tcp', port: 80, targetPort: 8080, hostPort: 8000 },
    { name: null, protocol: 'udp', port: 53, targetPort: 53, hostPort: null },
  ],
  selector: { app: 'shop' },
  health,
  affinitySeconds: 60,
  localFirst: true,
  publish: 'all',
  labels: { tier: 'front' },
  backends: [
    { endpoint: 'a'.repeat(64), container: 'shop-1', host: 'h1', ips: ['10.128.0.7'], state: 'healthy' },
    { endpoint: 'b'.repeat(64), container: 'shop-2', host: 'h2', ips: ['10.128.0.40'], state: 'draining' },
  ],
  createdAt: '2025-01-01T00:00:00Z',
  revision: '12',
};
const list = (...services: object[]) =>
  fake.answers.set('listServices', () => ({
    services,
    networkNames: { [BLUE.id]: 'blue', other: 'green' },
    hostNames: { h1id: 'h1', h2id: 'h2' },
    revision: undefined,
  }));

test('service create', async () => {
  list({ service: SHOP, backends: BEHIND });
  fake.answers.set('createService', () => ({
    status: { service: SHOP, backends: BEHIND },
    revision: { epoch: 1n, number: 12n },
  }));
  const argv = ['service', 'create', 'shop', '--network', 'blue', '--selector', 'app=shop', '--label', 'tier=front'];
  argv.push('--port', 'web=80:8080', '--port', '53/udp', '--ip', '10.128.15.254', '--ip', 'fd00::7');
  argv.push('--health', 'http:8080/up', '--affinity', '60', '--local-first', '--publish', '8000:80');
  expect(await fake.run(...argv)).toMatchObject({ code: 0, out: 'shop\n', err: '' });
  expect(fake.calls[0]).toMatchObject({
    method: 'createService',
    request: {
      project: '',
      network: 'blue',
      service: {
        name: 'shop',
        ips: ['10.128.15.254', 'fd00::7'],
        ports: SHOP.ports,
        selector: { app: 'shop' },
        headless: false,
        health: { type: 'http', port: 8080, path: '/up', intervalMs: 0, timeoutMs: 0, rise: 0, fall: 0 },
        affinityS: 60,
        localFirst: true,
        publish: 'all',
        labels: { tier: 'front' },
      },
    },
  });
  expect((await fake.run(...argv, '--json')).json()).toEqual(SHOP_JSON);
});

test('a selector that nobody matches is warned of', async () => {
  list({ service: SHOP, backends: [] });
  const status = { service: SHOP, backends: [] };
  fake.answers.set('createService', () => ({ status, revision: { epoch: 1n, number: 12n } }));
  const argv = ['service', 'create', 'shop', '--network', 'blue', '--selector', 'app=shop', '--port', '80'];
  expect(await fake.run(...argv)).toMatchObject({
    code: 0,
    out: 'shop\n',
    err: expect.stringContaining('weft: No endpoint matches the selector yet.'),
  });
  const { err } = await fake.run(...argv, '--json');
  expect(JSON.parse(err)).toMatchObject({ warning: { message: 'No endpoint matches the selector yet.' } });
});

describe('flags', () => {
  const of = (flags: object) => serviceOf('s', { selector: ['app=x'], ...flags });

  test('ports, and their protocols', () => {
    const ports = of({ port: ['80', '81:8081', 'dns=53:5353/udp', '443/tcp'] }).ports;
    expect(ports.map((p) => `${p.name} ${p.port} ${p.targetPort} ${p.protocol}`)).toEqual([
      ' 80 80 tcp',
      ' 81 8081 tcp',
      'dns 53 5353 udp',
      ' 443 443 tcp',
    ]);
  });

  test('published ports', () => {
    const both = { port: ['53/tcp', '53/udp', '80'] };
    const hostPorts = (flags: object) => of({ ...both, ...flags }).ports.map((p) => p.hostPort);
    expect(hostPorts({ publish: ['80'] })).toEqual([0, 0, 80]);
    expect(hostPorts({ publish: ['8080:80', '5353:53/udp'] })).toEqual([0, 5353, 8080]);
    expect(of({ ...both, publish: ['80'] }).publish).toBe('all');
    expect(of({ ...both, publishLocal: ['80'] }).publish).toBe('local');
    expect(of(both).publish).toBe('');
  });

  test.each<[object, object | undefined]>([
    [{ port: ['80'] }, { type: 'tcp', port: 0, path: '', intervalMs: 0 }],
    [{ port: ['53/udp'] }, undefined],
    [{ headless: true }, undefined],
    [{ port: ['80'], health: 'none' }, undefined],
    [
      { port: ['80'], health: 'tcp:81' },
      { type: 'tcp', port: 81 },
    ],
    [
      { port: ['80'], health: 'http:/up?x=1' },
      { type: 'http', port: 0, path: '/up?x=1' },
    ],
    [
      { port: ['80'], health: 'http:81/up' },
      { type: 'http', port: 81, path: '/up' },
    ],
    [
      { port: ['80'], health: 'http:81' },
      { type: 'http', port: 81, path: '/' },
    ],
    [
      { port: ['80'], healthInterval: '2m', healthTimeout: '250ms', healthRise: '3', healthFall: '4' },
      { type: 'tcp', intervalMs: 120_000, timeoutMs: 250, rise: 3, fall: 4 },
    ],
  ])('%j: the health check is %j', (flags, health) => {
    if (health === undefined) expect(of(flags).health).toBe(undefined);
    else expect(of(flags).health).toMatchObject(health);
  });

  test.each<[string[], number]>([
    [['--selector', 'app=x'], 2],
    [['--network', 'blue'], 2],
    [['--network', '', '--selector', 'a=b'], 1],
    [['--network', 'blue', '--selector', '=b'], 2],
    [['--port', '80-90'], 2],
    [['--port', '80:'], 2],
    [['--port', '0'], 1],
    [['--port', '80:65536'], 1],
    [['--port', '80', '--publish', 'x'], 2],
    [['--port', '80', '--publish', '8080:81'], 1],
    [['--port', '80', '--publish', '0:80'], 1],
    [['--port', '80', '--publish', '80', '--publish', '81:80'], 2],
    [['--port', '80', '--publish', '80', '--publish-local', '80'], 2],
    [['--port', '53', '--port', '53/udp', '--publish', '53'], 2],
    [['--port', '80', '--health', 'ping'], 2],
    [['--port', '80', '--health', 'tcp:x'], 2],
    [['--port', '80', '--health', 'tcp:0'], 1],
    [['--port', '80', '--health', 'tcp:80/x'], 2],
    [['--port', '80', '--health', 'none', '--health-rise', '2'], 2],
    [['--port', '53/udp', '--health-interval', '1s'], 2],
    [['--port', '80', '--health-interval', '1x'], 2],
    [['--port', '80', '--health-interval', '0'], 1],
    [['--port', '80', '--health-fall', '11'], 1],
    [['--port', '80', '--affinity', '0'], 1],
    [['--port', '80', '--ip', ''], 1],
    [['--port', '80', '--selector', 'app=y'], 1],
  ])('%j is refused', async (flags, code) => {
    const whole = flags.includes('--network') || flags[0] === '--selector';
    const argv = whole ? flags : ['--network', 'blue', '--selector', 'app=x', ...flags];
    expect(await fake.run('service', 'create', 'shop', ...argv)).toMatchObject({ code, out: '' });
    expect(fake.calls).toEqual([]);
  });

  test.each([{ publish: ['80'] }, { publishLocal: ['8080:80'] }])('a headless service and %j', (flags) => {
    const why = 'A headless service cannot be published.';
    expect(() => of({ headless: true, ...flags })).toThrow(
      expect.objectContaining({ code: 'INVALID_ARGUMENT', message: why }),
    );
    expect(() => of({ headless: true, port: ['80'], ...flags })).toThrow(why);
  });

  test('a label that a selector has twice is said; of a label of its own the last value counts, as in docker', () => {
    expect(() => of({ selector: ['a=b', 'a=c'] })).toThrow('--selector: the label a is given twice.');
    expect(of({ port: ['80'], label: ['a', 'b=c', 'a=d'] }).labels).toEqual({ a: 'd', b: 'c' });
    expect(of({ selector: ['a=b', 'a=b'] }).selector).toEqual({ a: 'b' });
  });
});

test('service ls, inspect, rm', async () => {
  const headless = Service.fromPartial({ ...SHOP, name: 'db', headless: true, ips: [], ports: [], publish: '' });
  const plain = { ...headless, health: undefined, affinityS: 0, localFirst: false, labels: {} };
  list(
    { service: SHOP, backends: BEHIND },
    { service: plain, backends: [] },
    { service: { ...plain, networkId: 'other' }, backends: [] },
  );
  expect((await fake.run('service', 'ls', '--network', 'blue', '--json')).json()).toMatchObject([
    { name: 'db', ips: [], headless: true, health: null, affinitySeconds: null, publish: null, backends: [] },
    SHOP_JSON,
    { name: 'db', network: 'green' },
  ]);
  expect(fake.calls[0]?.request).toEqual({ project: '', network: 'blue' });
  expect((await fake.run('service', 'ls')).out.split('\n').slice(0, 3)).toEqual([
    'NAME   NETWORK   IP                      PORTS                HEALTHY   PUBLISHED',
    'db     blue      headless                -                    0/0       -',
    'shop   blue      10.128.15.254,fd00::7   80:8080/tcp,53/udp   1/2       all 8000:80/tcp',
  ]);
  expect((await fake.run('service', 'inspect', 'shop', '--json')).json()).toEqual(SHOP_JSON);
  expect((await fake.run('service', 'inspect', 'shop')).out).toContain('container=shop-2 host=h2');
  expect((await fake.run('service', 'inspect', 'db')).err).toContain('is in several networks: blue, green');
  expect(await fake.run('service', 'inspect', 'x')).toMatchObject({ code: 1, err: expect.stringContaining('“x”') });
  fake.answers.set('removeService', ({ name }: { name: string }) => {
    if (name === 'gone') throw new WeftError('NOT_FOUND', 'There is no service gone.');
    return { revision: { epoch: 1n, number: 13n } };
  });
  const removed = await fake.run('service', 'rm', 'gone', 'shop', '--network', 'blue');
  expect(removed).toMatchObject({ code: 1, out: 'shop\n', err: expect.stringContaining('no service gone') });
  expect(await fake.run('service', 'rm', 'shop')).toMatchObject({ code: 2 });
});

test('names of services are completed, and checks', async () => {
  list({ service: SHOP, backends: [] });
  expect((await fake.run('__complete', '--', 'service', 'inspect', '')).out).toBe('shop\n');
  expect((await fake.run('__complete', '--', 'service', '')).out).toBe('create\ninspect\nls\nrm\n');
  expect((await fake.run('__complete', '--', 'service', 'create', 'x', '--health', 'h')).out).toBe('http:/\n');
});

test('endpoint set --drain and --undrain', async () => {
  const web = endpoint('a', 'h1id', 'web', '10.128.0.7');
  let drainingIds: string[] = [];
  fake.answers.set('listEndpoints', () =>
    ListEndpointsResponse.fromPartial({ endpoints: [web], hostNames: { h1id: 'h1' }, drainingIds }),
  );
  fake.answers.set('updateEndpoint', ({ draining }: { draining?: boolean }) => {
    drainingIds = draining === true ? [web.id] : [];
    return { endpoint: web, revision: { epoch: 1n, number: 13n } };
  });
  expect((await fake.run('endpoint', 'set', 'web', '--drain', '--json')).json()).toMatchObject({ draining: true });
  expect(fake.calls[0]?.request).toMatchObject({ endpoint: 'web', allow: [], disallow: [], draining: true });
  expect((await fake.run('endpoint', 'set', 'web', '--undrain', '--json')).json()).toMatchObject({ draining: false });
  fake.calls.length = 0;
  expect(await fake.run('endpoint', 'set', 'web', '--drain', '--undrain')).toMatchObject({ code: 2 });
  expect(await fake.run('endpoint', 'set', 'web')).toMatchObject({ code: 2 });
  expect(fake.calls).toEqual([]);
});
