/** weft apply, diff and export against a coordinator whose answers the test sets: what is called, what is printed, exit statuses. */
import { mkdtempSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterAll, beforeAll, beforeEach, expect, test } from 'vitest';
import type { Actual } from '../../../../cli/apply/model.ts';
import { WeftError } from '../../../../lib/errors.ts';
import { FakeControl } from '../fake-control.ts';
import { MESH, NOTHING } from './mesh.ts';

let fake: FakeControl;
let dir: string;
beforeAll(async () => {
  fake = await FakeControl.start();
  dir = mkdtempSync(join(tmpdir(), 'weft-apply-'));
});
afterAll(async () => {
  rmSync(dir, { recursive: true, force: true });
  await fake[Symbol.asyncDispose]();
});
beforeEach(() => {
  fake.answers.clear();
  fake.calls.length = 0;
  has(NOTHING);
  fake.answers.set('waitApplied', () => ({ revision: undefined, applied: true, laggards: [] }));
});

function has(mesh: Actual): void {
  const networkNames = Object.fromEntries(mesh.networks.map(({ id, name }) => [id, name]));
  const more = { networkNames, hostNames: mesh.hostNames, revision: undefined };
  const { networks, routers, policies, endpoints, settings, peers } = mesh;
  const answers: Readonly<Record<string, object>> = {
    listNetworks: { networks, revision: undefined },
    listReservations: {
      reservations: mesh.reservations.map((reservation) => ({ reservation, holder: undefined })),
      ...more,
    },
    listRouters: { routers, ...more },
    listServices: { services: mesh.services.map((service) => ({ service, backends: [] })), ...more },
    listPolicies: { policies, ...more },
    listEndpoints: { endpoints, settings, drainingIds: [], rates: {}, priorities: {}, ...more },
    listPeers: { peers, networkNames },
  };
  for (const [method, answer] of Object.entries(answers)) fake.answers.set(method, () => answer);
}

const revision = (number: bigint) => ({ epoch: 1n, number });
/** What changes something, or waits. */
const calls = (): string[] => fake.calls.map(({ method }) => method).filter((method) => !method.startsWith('list'));

const FILE = `
networks: [{name: a, rate: 1gbit}]
services:
  - {name: one, network: a, selector: {a: b}, port: 80}
  - {name: two, network: a, selector: {a: b}, port: 81}
policies:
  - {name: p, network: a, ingress: [{action: drop}]}
  - {name: q, network: a, ingress: [{action: drop}]}
`;
const makeAll = (): void => {
  fake.answers.set('createNetwork', () => MESH.networks[0]);
  fake.answers.set('updateNetwork', () => ({ ...MESH.networks[0], revision: 20n }));
  fake.answers.set('createService', () => ({ status: undefined, revision: revision(21n) }));
  fake.answers.set('applyPolicies', () => ({ policies: [], outcomes: [], revision: revision(22n) }));
};

test('apply does what is to be done in order, policies together, waits for the last revision and tells each', async () => {
  makeAll();
  const result = await fake.pipe(FILE, 'apply', '-f', '-');
  expect(result).toMatchObject({
    code: 0,
    err: '',
    out: 'network a created\nservice a/one created\nservice a/two created\npolicy a/p created\npolicy a/q created\n',
  });
  expect(calls()).toEqual([
    'createNetwork',
    'updateNetwork',
    'createService',
    'createService',
    'applyPolicies',
    'waitApplied',
  ]);
  const of = (method: string) => fake.calls.find((one) => one.method === method)?.request;
  expect(of('applyPolicies')).toMatchObject({ policies: [{ policy: { name: 'p' } }, { policy: { name: 'q' } }] });
  expect(of('waitApplied')).toMatchObject({ revision: revision(22n) });
});

test('nothing to do: nothing is called, and nobody is waited for', async () => {
  has(MESH);
  const text = (await fake.run('export')).out;
  fake.calls.length = 0;
  const file = join(dir, 'mesh.yaml');
  writeFileSync(file, text);
  const result = await fake.run('apply', '-f', file, '--prune', '--json');
  expect(result.code).toBe(0);
  expect(result.json()).toContainEqual({ kind: 'policy', network: 'web', name: 'shop', outcome: 'unchanged' });
  expect(calls()).toEqual([]);
  const diff = await fake.run('diff', '-f', file);
  expect(diff).toMatchObject({ code: 0, out: 'Nothing to do: the mesh is as the files say.\n' });
  expect((await fake.run('diff', '-f', file, '--json')).json()).toEqual({ clean: true, changes: [] });
});

test('diff, and apply --dry-run, show and do nothing; exit status 1', async () => {
  for (const args of [['diff'], ['apply', '--dry-run']]) {
    const result = await fake.pipe(FILE, ...args, '-f', '-');
    expect(result.code).toBe(1);
    expect(result.out).toMatch(/^\+ network a\n {4}\+ rate: 1gbit\n[\s\S]*\n5 to make\n$/);
    expect(calls()).toEqual([]);
  }
  expect((await fake.pipe('networks: [{name: a}]', 'diff', '-f', '-', '--json')).json()).toEqual({
    clean: false,
    changes: [{ kind: 'network', network: null, name: 'a', action: 'create', differences: [] }],
  });
});

test('a failure in the middle: what is done is told, and waited for; what follows is not tried', async () => {
  makeAll();
  let made = 0;
  fake.answers.set('createService', () => {
    if (++made === 2) throw new WeftError('ALREADY_EXISTS', 'the address is taken', { hint: 'choose another' });
    return { status: undefined, revision: revision(21n) };
  });
  const result = await fake.pipe(FILE, 'apply', '-f', '-');
  expect(result).toMatchObject({
    code: 1,
    out: 'network a created\nservice a/one created\nservice a/two failed\npolicy a/p not done\npolicy a/q not done\n',
    err: 'weft: service a/two: the address is taken.\nhint: choose another\nweft: Stopped there: 2 of 5 changes are done.\nhint: weft diff shows what is left, and weft apply goes on with it\n',
  });
  expect(calls()).toEqual(['createNetwork', 'updateNetwork', 'createService', 'createService', 'waitApplied']);
  made = 1;
  const json = await fake.pipe(FILE, 'apply', '-f', '-', '--json');
  expect(json.json()).toContainEqual({ kind: 'service', network: 'a', name: 'one', outcome: 'failed' });
  expect(JSON.parse(json.err.split('\n')[0]!)).toMatchObject({ error: { code: 'ALREADY_EXISTS' } });
});

test('a network that is made and not set says so', async () => {
  makeAll();
  fake.answers.set('updateNetwork', () => {
    throw new WeftError('FAILED_PRECONDITION', 'no way out');
  });
  const { code, err } = await fake.pipe(FILE, 'apply', '-f', '-');
  expect(code).toBe(1);
  expect(err).toMatch(/network a: no way out\. It is made, and not as it should be\./);
});

test('what cannot be made anew is put back', async () => {
  has(MESH);
  const refuse = (): never => {
    throw new WeftError('ALREADY_EXISTS', 'the port is taken');
  };
  const text = 'services: [{name: shop, network: web, selector: {app: shop}, port: 81}]';
  fake.answers.set('removeService', () => ({ revision: revision(30n) }));
  fake.answers.set('createService', ({ service }: { service: { publish: string } }) =>
    service.publish === 'all' ? { status: undefined, revision: revision(31n) } : refuse(),
  );
  const kept = await fake.pipe(text, 'apply', '-f', '-');
  expect(kept.err).toMatch(/service web\/shop: the port is taken\. It is as it was\./);
  expect(fake.calls.filter(({ method }) => method === 'createService')).toHaveLength(2);
  fake.answers.set('createService', refuse);
  const lost = await fake.pipe(text, 'apply', '-f', '-');
  expect(lost.err).toMatch(/What was there is gone, and could not be put back \(the port is taken\)/);
});

test('what is gone already counts as removed', async () => {
  has(MESH);
  fake.answers.set('removePolicy', () => {
    throw new WeftError('NOT_FOUND', 'there is none');
  });
  const text = 'policies: []\nservices: [{name: x, network: web, selector: {a: b}, port: 1}]';
  fake.answers.set('createService', () => ({ status: undefined, revision: revision(31n) }));
  fake.answers.set('removeService', () => ({ revision: revision(32n) }));
  const result = await fake.pipe(text, 'apply', '-f', '-', '--prune');
  expect(result).toMatchObject({
    code: 0,
    out: 'service web/x created\npolicy web/shop removed\nservice web/shop removed\n',
  });
});

test('problems: all of them, as text and as JSON, whether there is a coordinator or not', async () => {
  const text =
    'networks: [{name: a, mtu: x}, {name: b, encap: y}]\nservices: [{name: s, network: c, selector: {a: b}, port: 1}]';
  const result = await fake.pipe(text, 'apply', '-f', '-');
  expect(result).toMatchObject({ code: 1, out: '' });
  expect(result.err.match(/^weft: standard input, line \d: .*$/gm)).toEqual([
    'weft: standard input, line 1: network a: mtu takes a whole number, not "x".',
    'weft: standard input, line 1: network b: encap: "y" is not an encapsulation.',
    'weft: standard input, line 2: service s: there is no network c.',
  ]);
  const json = await fake.pipe(text, 'diff', '-f', '-', '--json');
  expect(
    json.err
      .trim()
      .split('\n')
      .map((line) => (JSON.parse(line) as { error: { code: string } }).error.code),
  ).toEqual(['INVALID_ARGUMENT', 'INVALID_ARGUMENT', 'NOT_FOUND']);
  expect(calls()).toEqual([]);
  fake.answers.set('listNetworks', () => {
    throw new WeftError('UNAVAILABLE', 'etcd is away');
  });
  expect((await fake.pipe(text, 'diff', '-f', '-')).err.match(/^weft: .*$/gm)).toHaveLength(2);
  expect((await fake.pipe('networks: [{name: a}]', 'diff', '-f', '-')).err).toMatch(/etcd is away/);
});

test('what of a file cannot be read is not taken for what it does not have', async () => {
  has({ ...MESH, endpoints: [], routers: [] });
  const { err } = await fake.pipe(
    'networks: [{name: web, mtu: x}, {name: six, mtu: x}, {name: lan, mtu: x}]',
    'diff',
    '-f',
    '-',
    '--prune',
  );
  expect(err.match(/^weft: .*$/gm)).toHaveLength(3);
  expect(err).not.toMatch(/prune/);
});

test('files: several, none, one that is not there, empty ones', async () => {
  const file = join(dir, 'a.yaml');
  writeFileSync(file, 'networks: [{name: a}]\n');
  const both = await fake.pipe('networks: [{name: b}]', 'diff', '-f', file, '-f', '-');
  expect(both.out).toMatch(/\+ network a\n\+ network b\n2 to make/);
  expect((await fake.run('apply')).code).toBe(2);
  expect((await fake.pipe('', 'apply', '-f', '-', '-f', '-')).code).toBe(2);
  expect((await fake.run('apply', '-f', join(dir, 'none'))).err).toMatch(/none cannot be read: /);
  expect((await fake.pipe('---\n', 'apply', '-f', '-')).err).toMatch(/There is nothing in the files/);
  expect(fake.calls.filter(({ method }) => method !== 'listNetworks' && !method.startsWith('list'))).toEqual([]);
});

test('export: of networks that are there; what it cannot say is a warning', async () => {
  has(MESH);
  const web = await fake.run('export', '--network', 'web');
  expect(web.code).toBe(0);
  expect(web.err).toMatch(/Router core is left out: it is also in six/);
  expect(web.out).toMatch(/^networks:\n {2}- name: web\n/);
  expect((await fake.run('export', '--json')).json()).toMatchObject({
    networks: [{ name: 'lan' }, { name: 'six' }, { name: 'web' }],
  });
  expect(await fake.run('export', '--network', 'nowhere')).toMatchObject({
    code: 1,
    err: expect.stringMatching(/no network "nowhere"/),
  });
});

test('completion: sections of the command line, files, networks', async () => {
  has(MESH);
  writeFileSync(join(dir, 'a.yaml'), '');
  writeFileSync(join(dir, 'b.txt'), '');
  expect((await fake.run('__complete', '--', 'apply', '--pr')).out).toBe('--prune\n');
  expect((await fake.run('__complete', '--', 'diff', '-f', `${dir}/`)).out).toContain(`${dir}/a.yaml\n`);
  expect((await fake.run('__complete', '--', 'apply', '-f', `${dir}/b`)).out).toBe('');
  expect((await fake.run('__complete', '--', 'export', '--network', 'w')).out).toBe('web\n');
});

test('help has examples', async () => {
  for (const command of ['apply', 'diff', 'export'])
    expect((await fake.run(command, '--help')).out).toMatch(/Examples:\n {2}weft /);
});
