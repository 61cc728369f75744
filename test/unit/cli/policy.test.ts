import { mkdtempSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterAll, beforeAll, beforeEach, describe, expect, test } from 'vitest';
import { explain, explainText, type Known, packetOf } from '../../../cli/policy-explain.ts';
import { endpointJson } from '../../../cli/shapes.ts';
import { ListEndpointsResponse } from '../../../gen/weft/v1/control.ts';
import { Network, Policy, type PolicyRule, Router, Service } from '../../../gen/weft/v1/types.ts';
import { WeftError } from '../../../lib/errors.ts';
import { parsePort } from '../../../lib/policy-port.ts';
import { FakeControl } from './fake-control.ts';
import { BLUE, endpoint } from './fixtures.ts';

let fake: FakeControl;
let dir: string;
beforeAll(async () => {
  fake = await FakeControl.start();
  dir = mkdtempSync(join(tmpdir(), 'weft-policy-'));
});
afterAll(async () => {
  rmSync(dir, { recursive: true, force: true });
  await fake[Symbol.asyncDispose]();
});
beforeEach(() => {
  fake.answers.clear();
  fake.answers.set('waitApplied', () => ({ revision: undefined, applied: true, laggards: [] }));
  fake.calls.length = 0;
});

const rule = (action: string, more: Partial<PolicyRule> = {}): PolicyRule => ({
  action,
  peers: [],
  ports: [],
  ...more,
});
const DB = Policy.fromPartial({
  id: '0123456789abcdef',
  networkId: BLUE.id,
  name: 'db',
  tier: 'application',
  order: 100,
  selector: { app: 'db' },
  ingress: [
    rule('allow', {
      peers: [
        { who: { $case: 'endpoints', value: { networkId: '', labels: { app: 'web' } } } },
        { who: { $case: 'endpoints', value: { networkId: 'other', labels: {} } } },
        { who: { $case: 'addresses', value: { cidr: '10.0.0.0/8', except: ['10.1.0.0/16'] } } },
      ],
      ports: [parsePort('9042/tcp')!, parsePort('icmp/8')!],
    }),
    rule('drop'),
  ],
  egress: [rule('drop', { peers: [{ who: { $case: 'service', value: 'shop' } }] })],
  labels: { team: 'a' },
  createdAt: '2025-01-01T00:00:00Z',
  revision: 12n,
});
const nobody = { labels: null, network: null, cidr: null, except: [], service: null, name: null };
const DB_JSON = {
  name: 'db',
  id: '0123456789abcdef',
  network: 'blue',
  tier: 'application',
  order: 100,
  select: { app: 'db' },
  ingress: [
    {
      action: 'allow',
      peers: [
        { ...nobody, labels: { app: 'web' }, network: 'blue' },
        { ...nobody, labels: {}, network: 'green' },
        { ...nobody, cidr: '10.0.0.0/8', except: ['10.1.0.0/16'] },
      ],
      ports: ['9042/tcp', 'icmp/8'],
    },
    { action: 'drop', peers: [], ports: [] },
  ],
  egress: [{ action: 'drop', peers: [{ ...nobody, service: 'shop' }], ports: [] }],
  staged: false,
  labels: { team: 'a' },
  createdAt: '2025-01-01T00:00:00Z',
  revision: '12',
};
const DB_YAML = `name: db
network: blue
tier: application
order: 100
select:
  app: db
ingress:
  - action: allow
    from:
      - labels:
          app: web
      - network: green
        labels: {}
      - cidr: 10.0.0.0/8
        except:
          - 10.1.0.0/16
    ports:
      - 9042/tcp
      - icmp/8
  - action: drop
egress:
  - action: drop
    to:
      - service: shop
labels:
  team: a
`;
const list = (...policies: Policy[]) =>
  fake.answers.set('listPolicies', () => ({
    policies,
    networkNames: { [BLUE.id]: 'blue', other: 'green' },
    revision: undefined,
  }));

test('apply sends what the file says, waits, and tells what became of each', async () => {
  const file = join(dir, 'policies.yaml');
  writeFileSync(file, `${DB_YAML}---\nname: all\nnetworks: [blue, green]\ningress: [{action: drop}]\n`);
  fake.answers.set('applyPolicies', () => ({
    policies: [DB, { ...DB, revision: 13n }, DB],
    outcomes: ['unchanged', 'created', 'updated'],
    revision: { epoch: 1n, number: 13n },
  }));
  const result = await fake.run('policy', 'apply', '-f', file);
  expect(result).toEqual({
    code: 0,
    out: 'blue/db unchanged\nblue/all created\ngreen/all updated\n',
    err: '',
    json: expect.anything(),
  });
  const { name, tier, order, selector, egress, staged, labels } = DB;
  const said = { name, tier, order, selector, egress, staged, labels };
  const ingress = structuredClone(DB.ingress);
  const other = ingress[0]?.peers[1]?.who;
  if (other?.$case === 'endpoints') other.value.networkId = 'green';
  expect(fake.calls).toMatchObject([
    {
      method: 'applyPolicies',
      request: {
        project: '',
        policies: [
          { network: 'blue', policy: { ...said, ingress } },
          { network: 'blue', policy: { name: 'all', order: 100 } },
          { network: 'green', policy: { name: 'all' } },
        ],
      },
    },
    { method: 'waitApplied', request: { revision: { number: 13n } } },
  ]);
  const piped = await fake.pipe(DB_YAML, 'policy', 'apply', '--file', '-', '--json');
  expect(piped.json()).toEqual([{ network: 'blue', name: 'db', outcome: 'unchanged', revision: '12' }]);
});

test('apply with a file that cannot be: nothing is sent', async () => {
  const bad = await fake.pipe('name: db\nnetwrk: blue\n', 'policy', 'apply', '-f', '-');
  expect(bad).toMatchObject({
    code: 1,
    err: expect.stringMatching(/^weft: standard input, line 2: policy db: unknown key netwrk\./),
  });
  const gone = await fake.run('policy', 'apply', '-f', join(dir, 'gone'));
  expect(gone).toMatchObject({ code: 1, err: expect.stringContaining('cannot be read') });
  expect(await fake.run('policy', 'apply')).toMatchObject({ code: 2 });
  expect(fake.calls).toEqual([]);
});

test('ls, inspect and rm', async () => {
  list(DB, { ...DB, name: 'all', networkId: 'other', selector: {}, egress: [], staged: true });
  expect((await fake.run('policy', 'ls', '--network', 'blue', '--json')).json()).toMatchObject([
    DB_JSON,
    { name: 'all', network: 'green' },
  ]);
  expect(fake.calls[0]?.request).toEqual({ project: '', network: 'blue' });
  expect((await fake.run('policy', 'ls')).out).toBe(
    [
      'NAME   NETWORK   TIER          ORDER   SELECT   INGRESS   EGRESS   STATE\n',
      'db     blue      application   100     app=db   2         1        in force\n',
      'all    green     application   100     all      2         0        staged\n',
    ].join(''),
  );
  expect((await fake.run('policy', 'inspect', 'db', '--json')).json()).toEqual(DB_JSON);
  expect((await fake.run('policy', 'inspect', 'db')).out).toBe(DB_YAML);
  expect(await fake.run('policy', 'inspect', 'x')).toMatchObject({ code: 1, err: expect.stringContaining('“x”') });
  list({ ...DB, staged: true });
  expect((await fake.run('policy', 'inspect', 'db')).out).toMatch(/^# staged: decides nothing; .*\nname: db\n/);
  list(DB, { ...DB, networkId: 'other' });
  expect((await fake.run('policy', 'inspect', 'db')).err).toContain('is in several networks: blue, green');
  expect((await fake.run('__complete', '--', 'policy', 'inspect', '')).out).toBe('db\n');
  expect((await fake.run('__complete', '--', 'policy', '')).out).toBe('apply\nexplain\ninspect\nls\nrm\n');
  fake.calls.length = 0;
  fake.answers.set('removePolicy', ({ name }: { name: string }) => {
    if (name === 'gone') throw new WeftError('NOT_FOUND', 'Network blue has no policy gone.');
    return { revision: { epoch: 1n, number: 13n } };
  });
  const removed = await fake.run('policy', 'rm', 'gone', 'db', '--network', 'blue');
  expect(removed).toMatchObject({ code: 1, out: 'db\n', err: expect.stringContaining('no policy gone') });
  expect(fake.calls.at(-1)?.method).toBe('waitApplied');
  expect(await fake.run('policy', 'rm', 'db')).toMatchObject({ code: 2 });
});

describe('explain', () => {
  const GREEN = Network.fromPartial({ ...BLUE, id: 'other', name: 'green', subnets: ['10.9.0.0/24'] });
  const SHOP = Service.fromPartial({
    networkId: BLUE.id,
    name: 'shop',
    ips: ['10.128.15.254'],
    selector: { app: 'shop' },
  });
  const of = (id: string, host: string, name: string, ips: string[], app: string, networkId = BLUE.id) => ({
    ...endpoint(id, `${host}id`, name, ips[0]!),
    networkId,
    ips,
    labels: { app },
  });
  const endpoints = [
    of('a1', 'h1', 'web', ['10.128.0.2', 'fd00::2'], 'web'),
    of('b1', 'h2', 'db', ['10.128.0.3', 'fd00::3'], 'db'),
    of('c1', 'h2', 'far', ['10.9.0.2'], 'far', 'other'),
    of('d1', 'h1', 'both', ['10.128.0.4'], 'both'),
    of('e1', 'h1', 'both', ['10.9.0.4'], 'both', 'other'),
    of('f1', 'h2', 'web', ['10.128.0.5'], 'web'),
  ];
  const names = { networks: { [BLUE.id]: 'blue', other: 'green' }, hosts: { h1id: 'h1', h2id: 'h2' } };
  const known: Known = {
    endpoints: endpoints.map((e) => endpointJson(e, names)),
    networks: [{ ...BLUE, subnets: ['10.128.0.0/20', 'fd00::/64'] }, GREEN],
    policies: [DB],
    services: [SHOP],
    routers: [],
    network: '',
  };
  const asked = (source: string, destination: string, port = '9042/tcp') =>
    explain(known, { source, destination }, packetOf(port));

  test('each family, both directions, and the rule that decides', () => {
    const allow = {
      action: 'allow',
      by: 'rule',
      policy: 'db',
      rule: 1,
      tier: 'application',
      order: 100,
      staged: null,
      named: null,
    };
    const rest = {
      action: 'allow',
      by: 'default',
      policy: null,
      rule: null,
      tier: null,
      order: null,
      staged: null,
      named: null,
    };
    expect(asked('h1/web', 'db')).toEqual({
      source: 'h1/web',
      destination: 'h2/db',
      network: 'blue',
      destinationNetwork: 'blue',
      port: '9042/tcp',
      allowed: true,
      paths: [
        { source: '10.128.0.2', destination: '10.128.0.3', verdict: 'allow', egress: rest, ingress: allow },
        { source: 'fd00::2', destination: 'fd00::3', verdict: 'allow', egress: rest, ingress: allow },
      ],
    });
    expect(asked('h1/web', 'db', '80/tcp')).toMatchObject({
      allowed: false,
      paths: [{ verdict: 'drop', ingress: { policy: 'db', rule: 2 } }, { verdict: 'drop' }],
    });
    // An echo request is type 8 in IPv4, and 128 in IPv6.
    expect(asked('h1/web', 'db', 'icmp').paths.map((p) => p.verdict)).toEqual(['allow', 'drop']);
    expect(asked('h1/web', 'db', 'icmp/8').paths.map((p) => p.verdict)).toEqual(['allow', 'allow']);
  });

  test('by a router: each end is judged by its own network', () => {
    const routers = [Router.fromPartial({ name: 'r', networkIds: [BLUE.id, GREEN.id] })];
    const all = { ...known, routers, networks: known.networks.map((n) => ({ ...n })) };
    const led = explain(all, { source: 'far', destination: 'db' }, packetOf('80/tcp'));
    expect(led).toMatchObject({
      network: 'green',
      destinationNetwork: 'blue',
      allowed: false,
      paths: [{ source: '10.9.0.2', verdict: 'drop', egress: { by: 'default' }, ingress: { policy: 'db', rule: 2 } }],
    });
    expect(explainText(led).split('\n')).toEqual([
      'h2/far → h2/db, 80/tcp on green to blue (10.9.0.2 → 10.128.0.3): drop',
      expect.stringMatching(/^ {2}egress of h2\/far: .* the default of network green$/),
      '  ingress of h2/db: drop, policy db, ingress rule 2 (application, order 100)',
      '',
    ]);
    // --network is the source's.
    const both = { ...all, network: 'green' };
    expect(explain(both, { source: 'both', destination: 'db' }, packetOf('80/tcp'))).toMatchObject({
      network: 'green',
      destinationNetwork: 'blue',
    });
    // A network that both are in comes first.
    expect(explain(all, { source: 'both', destination: 'db' }, packetOf('80/tcp'))).toMatchObject({ network: 'blue' });
  });

  test('what a staged policy would do', async () => {
    const staged = { ...DB, name: 'soon', order: 10, staged: true };
    const all = { ...known, policies: [{ ...DB, ingress: [] }, staged] };
    const one = explain(all, { source: 'h1/web', destination: 'db' }, packetOf('80/tcp'));
    expect(one).toMatchObject({
      allowed: true,
      paths: [
        { verdict: 'allow', egress: { staged: null }, ingress: { by: 'default', staged: { action: 'drop', rule: 2 } } },
        { verdict: 'allow' },
      ],
    });
    expect(explainText(one).split('\n').slice(0, 4)).toEqual([
      'h1/web → h2/db, 80/tcp on blue (10.128.0.2 → 10.128.0.3): allow',
      '  egress of h1/web: allow, no rule is about it: the default of network blue',
      '  ingress of h2/db: allow, no rule is about it: the default of network blue',
      '    staged: would drop, policy soon, ingress rule 2 (application, order 10)',
    ]);
  });

  test('where a name may be meant', () => {
    const peers = [{ who: { $case: 'name' as const, value: '*.example.org' } }];
    const egress = [
      { action: 'allow', peers, ports: [parsePort('443/tcp')!] },
      { action: 'drop', peers: [], ports: [] },
    ];
    const all = { ...known, policies: [{ ...DB, name: 'out', selector: {}, ingress: [], egress }] };
    const to = (port: string): string[] =>
      explainText(explain(all, { source: 'h1/web', destination: '192.0.2.7' }, packetOf(port))).split('\n');
    expect(to('443/tcp').slice(0, 3)).toEqual([
      'h1/web → 192.0.2.7, 443/tcp on blue (10.128.0.2 → 192.0.2.7): drop',
      '  egress of h1/web: drop, policy out, egress rule 2 (application, order 100)',
      '    where the address stands for a name in it: allow, policy out, egress rule 1 (application, order 100)',
    ]);
    expect(to('80/tcp').join()).not.toContain('stands for');
  });

  test('addresses: of an endpoint, or of nobody', () => {
    expect(asked('10.128.0.5', 'db')).toMatchObject({ source: 'h2/web', paths: [{ source: '10.128.0.5' }] });
    expect(asked('10.7.0.1', 'db')).toMatchObject({ source: '10.7.0.1', paths: [{ egress: null, verdict: 'allow' }] });
    expect(asked('10.1.0.1', 'db')).toMatchObject({ paths: [{ egress: null, verdict: 'drop' }] });
    expect(asked('db', '192.0.2.7')).toMatchObject({ destination: '192.0.2.7', paths: [{ ingress: null }] });
    expect(asked('FD00:0::2', 'db').paths).toMatchObject([{ source: 'fd00::2' }]);
  });

  test.each<[string, string, string, RegExp]>([
    ['web', 'db', 'INVALID_ARGUMENT', /Several connections are meant: h1\/web to h2\/db on blue; h2\/web to h2\/db/],
    ['far', 'db', 'FAILED_PRECONDITION', /far \(green\) and db \(blue\) share no network/],
    ['gone', 'db', 'NOT_FOUND', /no endpoint “gone”/],
    ['192.0.2.7', '192.0.2.8', 'NOT_FOUND', /Neither 192.0.2.7 nor 192.0.2.8/],
    ['db', 'db', 'INVALID_ARGUMENT', /are the same endpoint/],
    ['h1/web', '10.128.15.254', 'INVALID_ARGUMENT', /is the address of service shop/],
    ['both', '2001:db8::1', 'INVALID_ARGUMENT', /Several connections are meant/],
    ['far', '2001:db8::1', 'FAILED_PRECONDITION', /h2\/far and 2001:db8::1 have no family in common/],
  ])('%s to %s: %s', (source, destination, code, message) => {
    const thrown = expect.objectContaining({ code, message: expect.stringMatching(message) });
    expect(() => asked(source, destination)).toThrow(thrown);
  });

  test('as a command', async () => {
    list(DB);
    fake.answers.set('listNetworks', () => ({ networks: known.networks, revision: undefined }));
    fake.answers.set('listRouters', () => ({ routers: [], networkNames: {}, revision: undefined }));
    fake.answers.set('listServices', () => ({
      services: [{ service: SHOP, backends: [] }],
      networkNames: {},
      hostNames: {},
    }));
    fake.answers.set('listEndpoints', () =>
      ListEndpointsResponse.fromPartial({ endpoints, networkNames: names.networks, hostNames: names.hosts }),
    );
    const { code, out } = await fake.run('policy', 'explain', 'h1/both', 'db', '80/tcp');
    expect([code, out]).toEqual([
      0,
      [
        'h1/both → h2/db, 80/tcp on blue (10.128.0.4 → 10.128.0.3): drop\n',
        '  egress of h1/both: allow, no rule is about it: the default of network blue\n',
        '  ingress of h2/db: drop, policy db, ingress rule 2 (application, order 100)\n',
      ].join(''),
    ]);
    const json = await fake.run('policy', 'explain', '192.0.2.7', 'db', '53/udp', '--network', 'blue', '--json');
    expect(json.json()).toMatchObject({ allowed: false, paths: [{ egress: null, ingress: { policy: 'db' } }] });
    expect(await fake.run('policy', 'explain', 'h1/both', '2001:db8::1', '80/tcp', '--network', 'none')).toMatchObject({
      code: 1,
      err: expect.stringContaining('There is no network none.'),
    });
    expect((await fake.run('policy', 'explain', '192.0.2.7', 'db', '53/udp')).out).toContain('nobody is judged');
    for (const port of ['80', 'tcp', '80-90/tcp', 'x'])
      expect(await fake.run('policy', 'explain', 'web', 'db', port)).toMatchObject({ code: 2 });
    expect((await fake.run('__complete', '--', 'policy', 'explain', 'd')).out).toBe('db\n');
  });
});
