/** The mesh as files have it, on real hosts: made, made again without a change, edited, exported, pruned; and what is refused. */
import { mkdtempSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import {
  auditClean,
  clean,
  docker,
  pings,
  type Result,
  run,
  sleeper,
  until,
  WEFT,
  weft,
  weftJson,
  weftOk,
} from '../harness/lab.ts';

const HOSTS = ['h1', 'h2', 'h3'] as const;
const CONTAINERS = [
  ['h1', 'db-1'],
  ['h2', 'caller'],
  ['h3', 'later'],
] as const;
const dir = mkdtempSync(join(tmpdir(), 'weft-apply-'));

const pipe = (text: string, ...args: string[]): Promise<Result> => run(WEFT, [...args, '-f', '-'], { input: text });

async function apply(text: string, ...args: string[]): Promise<string[]> {
  const r = await pipe(text, 'apply', ...args);
  if (r.code !== 0) throw new Error(`apply: exit ${r.code}\n${r.stdout}${r.stderr}`);
  return r.stdout.trim().split('\n');
}

interface Change {
  readonly action: string;
  readonly kind: string;
  readonly network: string | null;
  readonly name: string;
}

/** Actions and names of what a file would do; checks that the exit status says the same. */
async function differences(text: string, ...args: string[]): Promise<string[]> {
  const r = await pipe(text, 'diff', '--json', ...args);
  expect(r.stderr).toBe('');
  const { clean: none, changes } = JSON.parse(r.stdout) as { clean: boolean; changes: Change[] };
  expect([none, r.code]).toEqual(changes.length === 0 ? [true, 0] : [false, 1]);
  return changes.map((c) => `${c.action} ${c.kind} ${c.network === null ? '' : `${c.network}/`}${c.name}`);
}

const FILE = `
networks:
  - name: ap-web
    subnet: 10.81.0.0/24
    label: {team: a}
    rate: 500mbit
  - name: ap-data
    ipv6: true
    policy-default: drop
reservations:
  - name: db-1
    network: ap-web
    ip: 10.81.0.50
services:
  - name: shop
    network: ap-web
    port: [80:8080, 53/udp]
    selector: {app: shop}
policies:
  - name: quiet
    networks: [ap-web, ap-data]
    tier: baseline
    ingress:
      - action: allow
        from: [{network: ap-web}, {cidr: 10.81.0.0/24}]
        ports: [9042/tcp, icmp]
      - action: drop
  - name: callers
    network: ap-data
    egress: [{action: allow, to: [{labels: {app: db, zone: a}}]}]
`;
const ALL = [
  'network ap-web',
  'network ap-data',
  'reservation ap-web/db-1',
  'service ap-web/shop',
  'policy ap-web/quiet',
  'policy ap-data/quiet',
  'policy ap-data/callers',
];

/** Takes everything away, and makes it again from a file: without containers, then with their settings. */
async function remake(text: string): Promise<void> {
  for (const [host, name] of CONTAINERS) await docker(host, 'rm', '-f', name);
  await until('no endpoint is left', async () => (await weftJson<unknown[]>('endpoint', 'ls')).length === 0);
  await apply('networks: []\nrouters: []\n', '--prune');
  expect(await weftOk('export')).toMatch(/^# /);
  // A VNI that has just been freed rests, for minutes.
  expect((await pipe(text, 'apply')).stderr).toMatch(/network ap-\w+: the VNI \d+ was freed .* and rests/);
  const other = text.replaceAll(/ {4}vni: \d+\n/g, '');
  expect((await pipe(other, 'apply')).stderr).toMatch(/There is no endpoint ap-web\/h1\/db-1/);
  expect((await differences(other)).sort()).toEqual([
    'missing endpoint ap-web/h1/db-1',
    'missing endpoint ap-web/h3/later',
  ]);
  await sleeper('h1', 'db-1', 'ap-web', '--ip', '10.81.0.50');
  await sleeper('h2', 'caller', 'ap-web');
  await sleeper('h3', 'later', 'ap-web');
  await until('all are known', async () => {
    const names = (await weftJson<{ name: string | null }[]>('endpoint', 'ls')).map(({ name }) => name);
    return CONTAINERS.every(([, name]) => names.includes(name));
  });
  await apply(other);
  expect(await differences(other, '--prune')).toEqual([]);
}

beforeAll(async () => {
  await clean(HOSTS);
});

afterAll(async () => {
  rmSync(dir, { recursive: true, force: true });
  await clean(HOSTS);
  await weftOk('wait');
  await auditClean();
});

describe('a file', () => {
  it('is shown, made, and then is what there is', async () => {
    expect(await differences(FILE)).toEqual(ALL.map((one) => `create ${one}`));
    const shown = await pipe(FILE, 'apply', '--dry-run');
    expect(shown).toMatchObject({ code: 1, stderr: '' });
    expect(shown.stdout).toContain('+ network ap-web\n    + subnet: 10.81.0.0/24\n');
    expect(shown.stdout).toMatch(/\n7 to make\n$/);
    expect(await weftJson('network', 'ls')).toEqual([]);

    expect(await apply(FILE)).toEqual(ALL.map((one) => `${one} created`));
    expect(await apply(FILE)).toEqual(expect.arrayContaining(ALL.map((one) => `${one} unchanged`)));
    expect(await differences(FILE)).toEqual([]);
    expect(await differences(FILE, '--prune')).toEqual([]);
    expect(await weftJson('network', 'inspect', 'ap-web')).toMatchObject({
      subnets: ['10.81.0.0/24'],
      labels: { team: 'a' },
      rate: { rate: '500mbit' },
    });
    // Every host has it when apply ends.
    await sleeper('h1', 'db-1', 'ap-web', '--ip', '10.81.0.50');
    await sleeper('h2', 'caller', 'ap-web');
    expect(await pings('h2', 'caller', '10.81.0.50', 3)).toBe(true);
  });

  it('that is edited changes what is edited, and nothing else', async () => {
    const before = await weftJson<{ name: string; id: string; ips: string[] }[]>('service', 'ls');
    const edited = FILE.replace('500mbit', '600mbit')
      .replace('53/udp', '443/tcp')
      .replace('9042/tcp', '9043/tcp')
      .replace('10.81.0.50', '10.81.0.51');
    const changed = [
      'replace reservation ap-web/db-1',
      'replace service ap-web/shop',
      'update policy ap-web/quiet',
      'update policy ap-data/quiet',
      'update network ap-web',
    ];
    expect(await differences(edited)).toEqual(changed);
    expect((await apply(edited)).sort()).toEqual(
      [
        ...changed.map((one) => one.replace(/^(\w+) (.*)$/, (_all, verb: string, what: string) => `${what} ${verb}d`)),
        'network ap-data unchanged',
        'policy ap-data/callers unchanged',
      ].sort(),
    );
    expect(await differences(edited)).toEqual([]);
    const after = await weftJson<{ name: string; id: string; ips: string[] }[]>('service', 'ls');
    expect(after[0]?.ips).toEqual(before[0]?.ips);
    await apply(FILE);
  });

  it('sets endpoints; one that does not run is told, and waits', async () => {
    const endpoints = `
endpoints:
  - {name: h1/db-1, rate: 200mbit, priority: high, allow-address: 10.81.0.60}
  - {name: later, network: ap-web, drain: true}
`;
    const r = await pipe(endpoints, 'apply');
    expect(r).toMatchObject({
      code: 1,
      stdout: 'endpoint ap-web/h1/db-1 updated\nendpoint ap-web/later missing\n',
    });
    expect(r.stderr).toMatch(/There is no endpoint ap-web\/later: its settings are not applied/);
    expect(await weftJson('endpoint', 'inspect', 'h1/db-1')).toMatchObject({
      rate: { rate: '200mbit', by: 'endpoint' },
      priority: 'high',
      allowed: [{ ip: '10.81.0.60', mac: null }],
      draining: false,
    });
    await sleeper('h3', 'later', 'ap-web');
    await until(
      'the endpoint is known',
      async () => (await weftJson<{ name: string }[]>('endpoint', 'ls', '--host', 'h3'))[0]?.name,
    );
    expect((await apply(endpoints)).sort()).toEqual([
      'endpoint ap-web/h1/db-1 unchanged',
      'endpoint ap-web/h3/later updated',
    ]);
    expect(await differences(endpoints)).toEqual([]);
    // What it does not say is not set any more.
    await apply('endpoints: [{name: h1/db-1, network: ap-web}]');
    expect(await weftJson('endpoint', 'inspect', 'h1/db-1')).toMatchObject({
      rate: { by: 'network' },
      priority: null,
      allowed: [],
    });
    await apply(endpoints);
  });

  it('routers lead between its networks', async () => {
    const routers = `
routers:
  - {name: core, network: [ap-web, ap-data], route: 172.31.0.0/16 via 10.81.0.50}
`;
    expect(await apply(routers)).toEqual(['router core created']);
    expect(await differences(routers)).toEqual([]);
    expect(await apply(routers.replace('172.31', '172.30'))).toEqual(['router core updated']);
    expect(await weftJson('router', 'inspect', 'core')).toMatchObject({ routes: [{ cidr: '172.30.0.0/16' }] });
    await apply(routers);
  });
});

describe('export', () => {
  it('is what there is; and all of it can be removed and made again', async () => {
    const text = await weftOk('export');
    expect(await differences(text)).toEqual([]);
    expect(await differences(text, '--prune')).toEqual([]);
    expect(await differences(await weftOk('export', '--json'), '--prune')).toEqual([]);
    expect(await differences(await weftOk('export', '--network', 'ap-web'))).toEqual([]);
    const ids = await weftJson<{ name: string; subnets: string[] }[]>('network', 'ls');

    // Networks in use go with nobody.
    const refused = await pipe('networks: []\nrouters: []\n', 'apply', '--prune');
    expect(refused.code).toBe(1);
    expect(refused.stderr).toMatch(/--prune would remove network ap-web, and it has endpoints: .*db-1 on h1/);
    expect(await differences(text)).toEqual([]);
    await remake(text);
    expect(await weftJson('network', 'ls')).toMatchObject(ids.map(({ name, subnets }) => ({ name, subnets })));
    expect(await weftJson('endpoint', 'inspect', 'h1/db-1')).toMatchObject({ rate: { rate: '200mbit' } });
  });
});

describe('prune', () => {
  it('removes what the file does not have, of what it speaks of', async () => {
    // Kinds that it does not speak of stay, and so do other networks.
    const few = `
services: [{name: api, network: ap-web, port: 90, selector: {app: api}}]
policies: []
`;
    const removed = ['remove service ap-web/shop'];
    expect(await differences(few, '--prune')).toEqual([
      'create service ap-web/api',
      'remove policy ap-web/quiet',
      ...removed,
    ]);
    expect(await differences(few)).toEqual(['create service ap-web/api']);
    await apply(few, '--prune');
    expect(
      (await weftJson<{ name: string; network: string }[]>('policy', 'ls')).map((p) => `${p.network}/${p.name}`),
    ).toEqual(['ap-data/callers', 'ap-data/quiet']);
    expect(await differences(few, '--prune')).toEqual([]);
    // An address goes from one thing to another.
    const [shop] = await weftJson<{ ips: string[] }[]>('service', 'ls');
    const moved = `
services: []
reservations:
  - {name: db-1, network: ap-web, ip: 10.81.0.50}
  - {name: api, network: ap-web, ip: ${shop?.ips[0]}}
`;
    expect(await differences(moved, '--prune')).toEqual(['remove service ap-web/api', 'create reservation ap-web/api']);
    await apply(moved, '--prune');
    // Networks go last, with what is in them.
    const one = FILE.replace(/ {2}- name: ap-data[\s\S]*?(?=reservations)/, '').replace(
      '[ap-web, ap-data]',
      '[ap-web]',
    );
    const text = `${one.replace(/ {2}- name: callers[\s\S]*$/, '')}routers: []\n`;
    expect(await differences(text, '--prune')).toEqual([
      'create service ap-web/shop',
      'create policy ap-web/quiet',
      'remove router core',
      'remove reservation ap-web/api',
      'remove network ap-data',
    ]);
    await apply(text, '--prune');
    expect((await weftJson<{ name: string }[]>('network', 'ls')).map(({ name }) => name)).toEqual(['ap-web']);
  });
});

describe('nothing is done', () => {
  const untouched = async (text: string, ...messages: RegExp[]): Promise<void> => {
    const before = await weftOk('export');
    const r = await pipe(text, 'apply', '--prune');
    expect(r.code).toBe(1);
    expect(r.stdout).toBe('');
    for (const message of messages) expect(r.stderr).toMatch(message);
    expect(await weftOk('export')).toBe(before);
  };

  it('where something cannot be changed, or is wrong: all of it is told', async () => {
    await untouched(
      `networks:
  - {name: ap-new}
  - name: ap-web
    subnet: 10.82.0.0/24
    encap: geneve
  - {name: ap-bad, vni: many}
services:
  - {name: s, network: ap-none, port: 80, selector: {a: b}}
`,
      /standard input, line 4: network ap-web: subnet cannot be changed while the network is there: it is 10\.81\.0\.0\/24/,
      /line 5: network ap-web: encap cannot be changed/,
      /line 3: network ap-web: label cannot be changed/,
      /line 6: network ap-bad: vni takes a whole number/,
      /line 8: service s: there is no network ap-none/,
    );
  });

  it('by hostile files', async () => {
    await untouched('networks: []\nnetworks: [{name: x}]\n', /the key networks is there twice/);
    await untouched('a: &a [x,x]\n'.repeat(3), /there twice/);
    await untouched(`networks: ${'['.repeat(3000)}`, /not YAML/);
    await untouched('networks: []\n'.repeat(400_000), /more than 4 MiB/);
    const file = join(dir, 'big.yaml');
    writeFileSync(file, 'x'.repeat(5 * 2 ** 20));
    const r = await weft('apply', '-f', file);
    expect(r).toMatchObject({ code: 1, stdout: '' });
    expect(r.stderr).toMatch(/big\.yaml: it has more than 4 MiB/);
    expect((await weft('diff', '-f', join(dir, 'none.yaml'))).stderr).toMatch(/none\.yaml cannot be read/);
    expect((await weft('apply')).code).toBe(2);
    expect((await weft('apply', '-f', '-', '-f', '-')).code).toBe(2);
  });
});

describe('a failure in the middle', () => {
  it('says what is done; what is left is done by the next', async () => {
    // Only its host knows that the address is a container's.
    const text = `
services:
  - {name: one, network: ap-web, port: 1001, selector: {a: b}}
  - {name: two, network: ap-web, port: 1002, selector: {a: b}, ip: 10.81.0.50}
  - {name: three, network: ap-web, port: 1003, selector: {a: b}}
`;
    const free = text.replace('10.81.0.50', '10.81.0.99');
    const taken = await weftJson<{ ips: string[] }>('endpoint', 'inspect', 'h2/caller');
    const r = await pipe(text.replace('10.81.0.50', taken.ips[0] ?? ''), 'apply');
    expect(r).toMatchObject({
      code: 1,
      stdout: 'service ap-web/one created\nservice ap-web/two failed\nservice ap-web/three not done\n',
    });
    expect(r.stderr).toMatch(/service ap-web\/two: the address .* is in use by container caller on host h2/);
    expect(r.stderr).toMatch(/1 of 3 changes are done/);
    expect((await apply(free)).sort()).toEqual([
      'service ap-web/one unchanged',
      'service ap-web/three created',
      'service ap-web/two created',
    ]);
    // A replacement that fails leaves what was there.
    const again = await pipe(free.replace('10.81.0.99', taken.ips[0] ?? ''), 'apply');
    expect(again.stderr).toMatch(/It is as it was\./);
    expect(await differences(free)).toEqual([]);
  });

  it('two at once: one of them makes each thing, and both files hold in the end', async () => {
    const text = (name: string): string =>
      `services:\n${[1, 2, 3].map((i) => `  - {name: ${name}-${i}, network: ap-web, port: 80, selector: {a: b}}\n`).join('')}`;
    const shared = `${text('both')}policies: [{name: both, network: ap-web, ingress: [{action: allow}]}]\n`;
    const results = await Promise.all([pipe(shared, 'apply'), pipe(shared, 'apply'), pipe(text('mine'), 'apply')]);
    expect(results[2].code).toBe(0);
    for (const { code, stderr } of results)
      if (code !== 0) expect(stderr).toMatch(/service named "both-\d" |weft apply goes on/);
    await apply(shared);
    expect(await differences(shared)).toEqual([]);
    expect(await differences(text('mine'))).toEqual([]);
  });
});
