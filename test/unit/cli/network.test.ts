import { afterAll, beforeAll, beforeEach, expect, test } from 'vitest';
import { WeftError } from '../../../lib/errors.ts';
import { FakeControl } from './fake-control.ts';
import { BLUE } from './fixtures.ts';

const BLUE_JSON = {
  name: 'blue',
  id: '00112233445566aa',
  vni: 4711,
  subnets: ['10.128.0.0/20'],
  ipRange: null,
  gateways: ['10.128.0.1'],
  encap: 'vxlan',
  mtu: 1450,
  internal: false,
  encrypted: false,
  uplink: null,
  vlanTag: null,
  allowTrust: false,
  publishBy: 'weft',
  rate: null,
  egressIps: [],
  space: 'default',
  dnsOrder: 'rotate',
  policyDefault: 'allow',
  labels: { team: 'a' },
  revision: '9007199254740993',
};

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

test('create sends what was given, prints the id or the record', async () => {
  fake.answers.set('createNetwork', () => BLUE);
  const argv = ['network', 'create', 'blue', '--subnet', '10.0.0.0/16', '--subnet', '10.1.0.0/16', '--vni', '7'];
  argv.push('--mtu', '1400', '--internal', '--label', 'a=b=c', '--label', 'd', '--ip-range', '10.0.4.0/24');
  expect(await fake.run(...argv)).toMatchObject({ code: 0, out: '00112233445566aa\n', err: '' });
  expect(fake.calls[0]).toEqual({
    method: 'createNetwork',
    request: {
      project: '',
      name: 'blue',
      subnets: ['10.0.0.0/16', '10.1.0.0/16'],
      ipRange: '10.0.4.0/24',
      gateways: [],
      ipv6: false,
      encap: '',
      vni: 7,
      mtu: 1400,
      internal: true,
      encrypted: false,
      space: '',
      labels: { a: 'b=c', d: '' },
      options: {},
      uplink: '',
      vlanTag: 0,
      allowTrust: false,
      publishBy: '',
      dnsOrder: '',
      policyDefault: '',
    },
  });
  const vlan = ['--encap', 'vlan', '--uplink', 'eth1', '--tag', '100', '--allow-trust', '--dns-order', 'nearest'];
  await fake.run('network', 'create', 'red', ...vlan);
  const asked = fake.calls.findLast((call) => call.method === 'createNetwork')?.request;
  const sent = { encap: 'vlan', uplink: 'eth1', vlanTag: 100, allowTrust: true, vni: 0, dnsOrder: 'nearest' };
  expect(asked).toMatchObject(sent);
  expect(await fake.run('network', 'create', 'red', '--tag', '4095')).toMatchObject({ code: 1 });
  const result = await fake.run('network', 'create', 'blue', '--json');
  expect(result.json()).toEqual(BLUE_JSON);
});

test('flags of capabilities that are not there are sent, and the refusal is shown with exit 1', async () => {
  fake.answers.set('createNetwork', () => {
    throw new WeftError('UNIMPLEMENTED', 'Geneve is not there yet.', { hint: 'use vxlan' });
  });
  for (const flags of [['--ipv6'], ['--encrypt'], ['--space', 's'], ['--encap', 'geneve']]) {
    const result = await fake.run('network', 'create', 'x', ...flags);
    expect(result).toMatchObject({ code: 1, out: '', err: 'weft: Geneve is not there yet.\nhint: use vxlan\n' });
  }
  expect(fake.calls.map((call) => call.request)).toMatchObject([
    { ipv6: true },
    { encrypted: true },
    { space: 's' },
    { encap: 'geneve' },
  ]);
  const { err, code } = await fake.run('network', 'create', 'x', '--ipv6', '--json');
  expect(code).toBe(1);
  expect(JSON.parse(err)).toEqual({
    error: { code: 'UNIMPLEMENTED', message: 'Geneve is not there yet.', hint: 'use vxlan' },
  });
});

test.each([
  [['network', 'create'], 2],
  [['network', 'create', 'a', 'b'], 2],
  [['network', 'create', 'a', '--nope'], 2],
  [['network', 'create', 'a', '--vni'], 2],
  [['network', 'create', 'a', '--vni', 'abc'], 2],
  [['network', 'create', 'a', '--vni', ''], 2],
  [['network', 'create', 'a', '--vni', '1.5'], 2],
  [['network', 'create', 'a', '--vni', '0x10'], 2],
  [['network', 'create', 'a', '--vni', '١٢'], 2],
  [['network', 'create', 'a', '--label', '=x'], 2],
  [['network', 'create', 'a', '--vni', '0'], 1],
  [['network', 'create', 'a', '--vni', '-1'], 1],
  [['network', 'create', 'a', '--vni=-1'], 1],
  [['network', 'create', 'a', '--vni', '16777216'], 1],
  [['network', 'create', 'a', '--vni', '9'.repeat(400)], 1],
  [['network', 'create', 'a', '--mtu', '0'], 1],
  [['network', 'create', 'a', '--mtu', '99999999999999999999'], 1],
  [['network', 'create', ''], 1],
  [['network', 'create', '   '], 1],
  [['network', 'create', 'a', '--subnet', ''], 1],
  [['network', 'create', 'a', '--encap', ''], 1],
  [['network', 'inspect', ''], 1],
  [['network', 'rm', ''], 1],
  [['network', 'connect', 'a', ''], 1],
  [['network', 'connect', 'a', 'h1/'], 1],
  [['network', 'connect', 'a', '/x'], 1],
  [['network', 'connect', 'a', 'h1/x/y'], 1],
  [['network', 'connect', 'a', 'x', '--host', ''], 1],
  [['network', 'set', 'a'], 2],
  [['network', 'set', 'a', '--mtu', 'x'], 2],
  [['network', 'frobnicate'], 2],
  [['network'], 2],
  [['frobnicate'], 2],
  [[], 2],
])('refused before anything is asked for: %j', async (argv, code) => {
  const result = await fake.run(...argv, '--json');
  expect(result).toMatchObject({ code, out: '' });
  expect(JSON.parse(result.err)).toEqual({
    error: { code: 'INVALID_ARGUMENT', message: expect.stringMatching(/./), hint: expect.anything() },
  });
  expect(fake.calls).toEqual([]);
  const plain = await fake.run(...argv);
  expect(plain).toMatchObject({ code, out: '', err: expect.stringMatching(/^(weft: |Usage: )/) });
});

test('create and rm wait for every connected host; who is late is a warning', async () => {
  fake.answers.set('createNetwork', () => BLUE);
  fake.answers.set('deleteNetwork', () => ({ revision: { epoch: 3n, number: 70n } }));
  await fake.run('network', 'create', 'blue');
  expect(fake.calls.at(-1)).toMatchObject({
    method: 'waitApplied',
    request: { revision: { epoch: 0n, number: BLUE.revision }, network: '' },
  });
  await fake.run('network', 'rm', 'a', 'b');
  expect(fake.calls.map((call) => call.method)).toEqual([
    'createNetwork',
    'waitApplied',
    'deleteNetwork',
    'deleteNetwork',
    'waitApplied',
  ]);
  expect(fake.calls.at(-1)?.request).toMatchObject({ revision: { epoch: 3n, number: 70n } });

  const laggards = [{ host: 'h2', appliedRevision: undefined, reason: 'flow refused' }];
  fake.answers.set('waitApplied', () => ({ revision: undefined, applied: false, laggards }));
  expect(await fake.run('network', 'create', 'blue')).toMatchObject({
    code: 0,
    out: `${BLUE.id}\n`,
    err: expect.stringContaining('h2 (flow refused)'),
  });
  const late = await fake.run('network', 'rm', 'a', '--json');
  expect(late).toMatchObject({ code: 0 });
  expect(JSON.parse(late.err)).toMatchObject({ warning: { message: expect.stringContaining('h2') } });
  fake.answers.delete('waitApplied');
  expect(await fake.run('network', 'rm', 'a')).toMatchObject({ code: 0, err: expect.stringContaining('not known') });
});

test('names that only the coordinator can judge are sent as they are', async () => {
  fake.answers.set('createNetwork', (request: { name: string }) => {
    throw new WeftError('INVALID_ARGUMENT', `“${request.name}” cannot be a name.`);
  });
  for (const name of ['ü', '../x', 'a'.repeat(5000), '\u001b[31mred', '💥', "'; --"]) {
    const result = await fake.run('network', 'create', '--', name);
    expect(result.code).toBe(1);
    expect(result.err).toMatch(/^weft: “/);
    expect(result.err.trimEnd()).not.toMatch(/\p{Cc}(?!hint)/u);
    expect(fake.calls.at(-1)?.request).toMatchObject({ name });
  }
});

test('ls', async () => {
  const networks = [
    { ...BLUE, name: 'green\u001b[2J', vni: 5, id: 'ff' },
    BLUE,
    { ...BLUE, name: '', state: 'reserved' },
  ];
  fake.answers.set('listNetworks', () => ({ networks, revision: undefined }));
  expect((await fake.run('network', 'ls')).out).toBe(
    [
      'NAME        VNI    SUBNET          ENCAP   MTU    NETWORK ID',
      'blue        4711   10.128.0.0/20   vxlan   1450   00112233445566aa',
      'green [2J   5      10.128.0.0/20   vxlan   1450   ff\n',
    ].join('\n'),
  );
  const json = (await fake.run('--json', 'network', 'list')).json() as unknown[];
  expect(json).toEqual([BLUE_JSON, { ...BLUE_JSON, name: 'green\u001b[2J', vni: 5, id: 'ff' }]);
  expect((await fake.run('network', 'ls', '-q')).out).toBe('00112233445566aa\nff\n');
  fake.answers.set('listNetworks', () => ({ networks: [], revision: undefined }));
  expect((await fake.run('network', 'ls', '--json')).json()).toEqual([]);
});

test('inspect: one object for one name, an array for several, an error for none', async () => {
  fake.answers.set('getNetwork', ({ network }: { network: string }) => {
    if (network === 'gone') throw new WeftError('NOT_FOUND', 'There is no network “gone”.');
    return { ...BLUE, name: network };
  });
  expect((await fake.run('network', 'inspect', 'blue', '--json')).json()).toEqual(BLUE_JSON);
  expect((await fake.run('network', 'inspect', 'blue', 'b', '--json')).json()).toEqual([
    BLUE_JSON,
    { ...BLUE_JSON, name: 'b' },
  ]);
  expect((await fake.run('network', 'inspect', 'blue')).out).toContain(
    'Subnets:          10.128.0.0/20\nSpace:            default\nIp range:         -\n',
  );
  const failed = await fake.run('network', 'inspect', 'gone', '--json');
  expect(failed.code).toBe(1);
  expect(JSON.parse(failed.err)).toEqual({
    error: { code: 'NOT_FOUND', message: 'There is no network “gone”.', hint: null },
  });
});

test('rm tries each, and says which could not be', async () => {
  fake.answers.set('deleteNetwork', ({ network }: { network: string }) => {
    if (network === 'busy') throw new WeftError('FAILED_PRECONDITION', 'busy has endpoints: web on h1.');
    return { revision: { epoch: 1n, number: 9n } };
  });
  expect(await fake.run('network', 'rm', 'a', 'busy', 'b')).toMatchObject({
    code: 1,
    out: 'a\nb\n',
    err: 'weft: busy has endpoints: web on h1.\n',
  });
  expect((await fake.run('network', 'rm', 'a', '--json')).json()).toEqual({ removed: ['a'] });
});

/** What was asked last; then it is waited for. */
const updated = (): unknown => {
  expect(fake.calls.at(-1)).toMatchObject({ method: 'waitApplied', request: { revision: { number: BLUE.revision } } });
  return fake.calls.findLast((call) => call.method === 'updateNetwork')?.request;
};

test('set sends the fields that were given, labels merged', async () => {
  fake.answers.set('getNetwork', () => ({ ...BLUE, labels: { team: 'a', old: 'x' } }));
  fake.answers.set('updateNetwork', () => BLUE);
  const argv = ['network', 'set', 'blue', '--mtu', '1400', '--no-internal', '--label', 'new=1', '--label-rm', 'old'];
  expect(await fake.run(...argv)).toMatchObject({ code: 0, out: 'blue\n' });
  expect(updated()).toMatchObject({
    network: 'blue',
    fields: ['mtu', 'internal', 'labels'],
    values: { mtu: 1400, internal: false, labels: { team: 'a', new: '1' } },
  });
});

test('connect and disconnect', async () => {
  fake.answers.set('connectContainer', () => ({ host: 'h2', ip: '10.128.0.7', ip6: 'fd00::7' }));
  fake.answers.set('disconnectContainer', () => ({ host: 'h2' }));
  const connected = await fake.run(
    'network',
    'connect',
    'blue',
    'h2/web',
    '--ip',
    '10.128.0.7',
    '--ip6',
    'fd00::7',
    '--json',
  );
  expect(connected.json()).toEqual({ network: 'blue', container: 'web', host: 'h2', ip: '10.128.0.7', ip6: 'fd00::7' });
  expect(fake.calls.at(-1)?.request).toMatchObject({
    network: 'blue',
    container: 'h2/web',
    ip: '10.128.0.7',
    ip6: 'fd00::7',
    host: '',
  });
  expect(await fake.run('network', 'disconnect', '-f', 'blue', 'web', '--host', 'h2')).toMatchObject({
    code: 0,
    out: 'h2/web has left blue\n',
  });
  expect(fake.calls.at(-1)?.request).toMatchObject({ container: 'web', host: 'h2', force: true });
});

test('a flag with one value, given twice, is a mistake; lists are not', async () => {
  fake.answers.set('createNetwork', () => BLUE);
  const twice = async (...argv: string[]): Promise<void> => {
    const { code, out, err } = await fake.run(...argv);
    expect([code, out, err]).toEqual([2, '', expect.stringMatching(/^weft: --[a-z-]+ was given twice\./)]);
  };
  await twice('network', 'create', 'blue', '--vni', '7', '--vni', '7');
  await twice('network', 'create', 'blue', '--mtu=1400', '--mtu', '1400');
  await twice('--coordinator', 'a:1', 'network', 'ls', '--coordinator', 'b:1');
  await twice('lab', 'up', '--hosts', '2', '--hosts', '3');
  await twice('peer', 'add', 'x', '--network', 'blue', '--vtep', '192.0.2.9', '--key', 'a', '--key', 'b');
  expect(fake.calls).toEqual([]);
  expect((await fake.run('network', 'create', 'blue', '--label', 'a=1', '--label', 'b=2')).code).toBe(0);
});

test('set sends the rate of endpoints that have no other', async () => {
  const rate = { bits: 500_000_000n, burst: 65_536n };
  fake.answers.set('updateNetwork', () => ({ ...BLUE, rate }));
  const given = await fake.run('network', 'set', 'blue', '--rate', '500mbit', '--burst', '64kb', '--json');
  expect(given.json()).toEqual({ ...BLUE_JSON, rate: { rate: '500mbit', bits: 500_000_000, burst: 65_536 } });
  expect(updated()).toMatchObject({ network: 'blue', fields: ['rate'], values: { rate } });
  await fake.run('network', 'set', 'blue', '--rate', 'none');
  expect(updated()).toMatchObject({ values: { rate: { bits: 0n, burst: 0n } } });
  const asked = fake.calls.length;
  for (const bad of [
    ['--rate', '500'],
    ['--rate', '1kbit'],
    ['--burst', '64kb'],
  ])
    expect(await fake.run('network', 'set', 'blue', ...bad)).toMatchObject({ code: 1, out: '' });
  expect(fake.calls.length).toBe(asked);
});

test('set sends the egress addresses that were given; "none" takes them away', async () => {
  fake.answers.set('updateNetwork', () => ({ ...BLUE, egressIps: ['192.0.2.7'] }));
  const given = await fake.run(
    'network',
    'set',
    'blue',
    '--egress-ip',
    '192.0.2.7',
    '--egress-ip',
    '2001:db8::7',
    '--json',
  );
  expect(given.json()).toEqual({ ...BLUE_JSON, egressIps: ['192.0.2.7'] });
  const request = { project: '', network: 'blue', fields: ['egressIps'] };
  expect(updated()).toMatchObject({ ...request, values: { egressIps: ['192.0.2.7', '2001:db8::7'] } });
  await fake.run('network', 'set', 'blue', '--egress-ip', 'none');
  expect(updated()).toMatchObject({ ...request, values: { egressIps: [] } });
  expect(await fake.run('network', 'set', 'blue', '--egress-ip', 'none', '--egress-ip', '192.0.2.7')).toMatchObject({
    code: 2,
    err: expect.stringContaining('goes alone'),
  });
});

test('what no policy is about: given when the network is made, and changed', async () => {
  fake.answers.set('createNetwork', () => ({ ...BLUE, policyDefault: 'drop' }));
  fake.answers.set('updateNetwork', () => BLUE);
  const made = await fake.run('network', 'create', 'blue', '--policy-default', 'drop', '--json');
  expect(made.json()).toEqual({ ...BLUE_JSON, policyDefault: 'drop' });
  expect(fake.calls[0]?.request).toMatchObject({ policyDefault: 'drop' });
  const set = await fake.run('network', 'set', 'blue', '--policy-default', 'allow', '--json');
  expect(set.json()).toEqual(BLUE_JSON);
  expect(updated()).toMatchObject({ fields: ['policyDefault'], values: { policyDefault: 'allow' } });
  expect((await fake.run('__complete', '--', 'network', 'set', 'blue', '--policy-default', '')).out).toBe(
    'allow\ndrop\n',
  );
});
