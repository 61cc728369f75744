/** The command line against the real mesh: shapes of JSON, exit statuses, errors, waiting, draining, hosts that go. */
import { spawn } from 'node:child_process';
import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import { CreateNetworkRequest } from '../../gen/weft/v1/control.ts';
import { docker, endpoints, type Failure, fails, HOSTS, runs, start } from '../harness/docker-view.ts';
import { auditClean, clean, run, until, weft, weftJson, weftOk } from '../harness/lab.ts';
import { controlClients, labStatus } from '../harness/lab-direct.ts';

const WEFT = new URL('../../bin/weft', import.meta.url).pathname;
const DECIMAL = /^[1-9]\d*$/;
const ID = /^[0-9a-f]{16}$/;
const TIME = /^\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d(\.\d+)?Z$/;
const text = (pattern: RegExp): unknown => expect.stringMatching(pattern);

beforeAll(async () => {
  await weftOk('network', 'create', 'cli-a', '--subnet', '10.91.0.0/24', '--label', 'team=x');
  await start('h1', 'cli-one', 'cli-a', '--label', 'tier=front', '--ip', '10.91.0.10');
  await endpoints('cli-a', 'h1/cli-one');
});
afterAll(async () => {
  await clean(HOSTS);
  await auditClean();
});

describe('JSON', () => {
  const NETWORK = {
    name: 'cli-a',
    id: text(ID),
    vni: expect.any(Number),
    subnets: ['10.91.0.0/24'],
    ipRange: null,
    gateways: ['10.91.0.1'],
    encap: 'vxlan',
    mtu: 1450,
    internal: false,
    encrypted: false,
    uplink: null,
    vlanTag: null,
    allowTrust: false,
    publishBy: 'weft',
    egressIps: [],
    space: 'default',
    dnsOrder: 'rotate',
    rate: null,
    policyDefault: 'allow',
    labels: { team: 'x' },
    revision: text(DECIMAL),
  };

  it('of networks: ls an array, inspect an object, by name, id, or the beginning of an id', async () => {
    expect(await weftJson('network', 'ls')).toEqual([NETWORK]);
    const one = await weftJson<{ id: string }>('network', 'inspect', 'cli-a');
    expect(one).toEqual(NETWORK);
    for (const name of [one.id, one.id.slice(0, 8)]) expect(await weftJson('network', 'inspect', name)).toEqual(one);
    // Flags before the noun too.
    expect(JSON.parse((await weft('--json', 'network', 'ls')).stdout)).toEqual([NETWORK]);
  });

  it('of endpoints', async () => {
    const id = await docker('h1', 'inspect', '-f', '{{.Id}}', 'cli-one');
    const [one, ...more] = await weftJson<{ id: string }[]>('endpoint', 'ls');
    expect(more).toEqual([]);
    expect(one).toEqual({
      id: text(/^[0-9a-f]{64}$/),
      network: 'cli-a',
      host: 'h1',
      container: { id, name: 'cli-one' },
      ips: ['10.91.0.10'],
      mac: '02:58:0a:5b:00:0a',
      ofport: expect.any(Number),
      state: 'known',
      name: 'cli-one',
      kind: 'container',
      allowed: [],
      trusted: false,
      express: expect.any(Boolean),
      draining: false,
      rate: null,
      priority: null,
      ports: [],
      identity: { tier: 'front' },
    });
    for (const name of ['cli-one', 'h1/cli-one', '10.91.0.10', one?.id ?? '', id])
      expect(await weftJson('endpoint', 'inspect', name)).toEqual(one);
    expect(await weftJson('endpoint', 'ls', '--host', 'h2')).toEqual([]);
    expect(await weftJson('endpoint', 'ls', '--host', 'h1', '--network', 'cli-a')).toEqual([one]);
  });

  it('of hosts and status', async () => {
    // A host reports a moment after it has connected what Docker and Open vSwitch say of themselves.
    const hosts = await until('the versions of all', async () => {
      const seen = await weftJson<{ id: string; name: string; versions: Record<string, string> }[]>('host', 'ls');
      return seen.every(({ versions }) => versions['docker'] && versions['ovs']) && seen;
    });
    expect(hosts.map((host) => host.name)).toEqual(['h1', 'h2', 'h3']);
    const lab = JSON.parse(await weftOk('lab', 'status', '--json')) as {
      hosts: { name: string; underlay: { ip: string } }[];
    };
    for (const host of hosts) {
      expect(host).toMatchObject({
        id: text(ID),
        state: 'connected',
        vteps: [{ address: lab.hosts.find((h) => h.name === host.name)?.underlay.ip, encaps: ['vxlan'] }],
        datapath: text(/^(system|netdev)$/),
        appliedRevision: text(DECIMAL),
        versions: { weft: text(/./), docker: text(/^\d+\./), ovs: text(/^\d+\./), kernel: text(/./) },
      });
      expect(await weftJson('host', 'inspect', host.name)).toMatchObject({ id: host.id });
    }
    const status = await weftJson<Record<string, unknown>>('status');
    expect(Object.keys(status)).toEqual(['revision', 'coordinators', 'hosts', 'conflicts']);
    expect(status).toMatchObject({ revision: text(DECIMAL), conflicts: [] });
    expect(status['hosts']).toHaveLength(3);
    expect(status['coordinators']).toMatchObject([
      { name: 'coord1', address: text(/:7470$/), state: 'up', revision: text(DECIMAL) },
      { name: 'coord2', address: text(/:7470$/), state: 'up', revision: text(DECIMAL) },
    ]);
    for (const host of status['hosts'] as object[]) expect(Object.keys(host)).toEqual(Object.keys(hosts[0] ?? {}));
  });

  it('of wait, audit and events', async () => {
    expect(await weftJson('wait')).toEqual({ revision: text(DECIMAL), applied: true, laggards: [] });
    expect(await weftJson('wait', '--network', 'cli-a')).toMatchObject({ applied: true });
    expect(await weftJson('audit')).toEqual({
      clean: true,
      hosts: ['h1', 'h2', 'h3'].map((host) => ({ host, drift: [], error: null })),
    });
    expect(await weftJson('audit', '--host', 'h2', '--no-heal')).toMatchObject({ hosts: [{ host: 'h2' }] });
    const events = (await weftOk('events', '--json'))
      .trim()
      .split('\n')
      .map((line) => JSON.parse(line) as Record<string, unknown>);
    const created = events.findLast((e) => e['object'] === 'cli-a' && e['action'] === 'create');
    expect(created).toEqual({
      type: 'network',
      time: text(TIME),
      host: null,
      action: 'create',
      kind: null,
      object: 'cli-a',
      detectedAt: null,
      healedAt: null,
      message: null,
      revision: text(DECIMAL),
    });
  });

  it('of events that are followed: a creation is seen when it happens', async () => {
    const child = spawn(WEFT, ['events', '--follow', '--json'], { stdio: ['ignore', 'pipe', 'inherit'] });
    let seen = '';
    const ended = new Promise<number | null>((resolve) => child.on('close', resolve));
    child.stdout.setEncoding('utf8').on('data', (part: string) => {
      seen += part;
    });
    try {
      // What is remembered comes first: then it follows.
      await until('the stream has begun', async () => seen.includes('cli-a'));
      await weftOk('network', 'create', 'cli-followed');
      await until('its creation', async () =>
        seen.split('\n').some((line) => line.includes('"cli-followed"') && line.includes('"action":"create"')),
      );
      await weftOk('network', 'rm', 'cli-followed');
      await until('its removal', async () =>
        seen.split('\n').some((line) => line.includes('"cli-followed"') && line.includes('"action":"remove"')),
      );
    } finally {
      child.kill('SIGINT');
    }
    await ended;
  });
});

describe('refusals', () => {
  it('say what is there not yet: exit 1, UNIMPLEMENTED', async () => {
    await fails(1, 'UNIMPLEMENTED', 'network', 'create', 'cli-no', '--encrypt');
    await fails(1, 'INVALID_ARGUMENT', 'network', 'create', 'cli-no', '--subnet', 'ff02::/64');
    await fails(
      1,
      'UNIMPLEMENTED',
      'network',
      'create',
      'cli-no',
      '--subnet',
      '10.92.0.0/24',
      '--subnet',
      '10.93.0.0/24',
    );
    for (const change of [
      ['--mtu', '1400'],
      ['--label', 'a=b'],
      ['--internal'],
      ['--subnet', '10.92.0.0/24'],
      ['--vni', '9'],
    ])
      await fails(1, 'UNIMPLEMENTED', 'network', 'set', 'cli-a', ...change);
  });

  it('tell usage (exit 2) from what cannot be (exit 1)', async () => {
    const usage = (...args: string[]): Promise<Failure> => fails(2, 'INVALID_ARGUMENT', ...args);
    await usage('network', 'create');
    await usage('network', 'create', 'a', 'b');
    await usage('network', 'create', 'a', '--nope');
    await usage('network', 'create', 'a', '--vni', 'many');
    await usage('endpoint', 'set', 'cli-one', '--ip', '10.91.0.11');
    await usage('network', 'frobnicate');
    await usage('frobnicate');
    await usage('wait', '--revision', 'new');
    await usage('completion', 'tcsh');
    await usage('lab', 'kill', 'h9');
    await usage('lab', 'kill', 'h1', 'disk');
    await fails(1, 'NOT_FOUND', 'network', 'inspect', 'cli-none');
    await fails(1, 'NOT_FOUND', 'network', 'rm', 'cli-none');
    await fails(1, 'NOT_FOUND', 'host', 'inspect', 'h9');
    await fails(1, 'NOT_FOUND', 'host', 'drain', 'h9');
    await fails(1, 'NOT_FOUND', 'host', 'rm', 'h9');
    await fails(1, 'NOT_FOUND', 'endpoint', 'inspect', 'cli-none');
    await fails(1, 'NOT_FOUND', 'endpoint', 'ls', '--network', 'cli-none');
    await fails(1, 'NOT_FOUND', 'audit', '--host', 'h9');
    await fails(1, 'NOT_FOUND', 'wait', '--network', 'cli-none');
    await fails(1, 'ALREADY_EXISTS', 'network', 'create', 'cli-a');
    const used = await fails(1, 'FAILED_PRECONDITION', 'network', 'rm', 'cli-a');
    expect(used.message).toMatch(/cli-one on h1/);
    const plain = await weft('network', 'rm', 'cli-a');
    expect(plain).toMatchObject({ code: 1, stdout: '', stderr: text(/^weft: .*cli-one on h1.*\nhint: ./) });
  });

  it('of hostile values leave nothing behind', async () => {
    const no = (...args: string[]): Promise<Failure> => fails(1, 'INVALID_ARGUMENT', 'network', 'create', ...args);
    for (const name of ['', '-', 'a/b', 'ü', 'a\nb', '\u001b[31m', 'a'.repeat(130_000)]) await no('--', name);
    for (const subnet of ['', '10.0.0.0/33', '010.1.1.0/24', '10.1/16', '10.92.0.5/24'])
      await no('cli-no', '--subnet', subnet);
    await no('cli-no', '--subnet', '10.92.0.0/24', '--gateway', '10.93.0.1');
    await no('cli-no', '--gateway', '10.92.0.1');
    for (const space of ['S', 'a/b', 'a'.repeat(64)]) await no('cli-no', '--space', space);
    for (const vni of ['-1', '0', '16777216', '9'.repeat(40)]) await no('cli-no', '--vni', vni);
    for (const mtu of ['-1', '0', '67', '65536', '9'.repeat(40)]) await no('cli-no', '--mtu', mtu);
    await no('cli-no', '--label', `k=${'a'.repeat(100_000)}`);
    await fails(2, 'INVALID_ARGUMENT', 'network', 'create', 'cli-no', '--label', '=v');
    await fails(1, 'FAILED_PRECONDITION', 'network', 'create', 'cli-no', '--subnet', '10.91.0.128/25');
    await refusesDirectly();
    expect((await weftJson<{ name: string }[]>('network', 'ls')).map((n) => n.name)).toEqual(['cli-a']);
    for (const host of HOSTS)
      expect(await docker(host, 'network', 'ls', '--filter', 'driver=weft', '--format', '{{.Name}}')).toBe('cli-a');
    await auditClean();
  });

  it('take labels as docker does: a name alone, the last of two, any text', async () => {
    const labels = ['--label', 'alone', '--label', 'twice=1', '--label', 'twice=2', '--label', 'text=ü=\n"'];
    const want = { alone: '', twice: '2', text: 'ü=\n"' };
    expect(await weftJson('network', 'create', 'cli-labels', ...labels)).toMatchObject({ labels: want });
    expect(JSON.parse(await docker('h2', 'network', 'inspect', '-f', '{{json .Labels}}', 'cli-labels'))).toEqual(want);
    expect((await weft('network', 'inspect', 'cli-labels')).stdout).not.toMatch(/text=ü=\n/);
    await weftOk('network', 'rm', 'cli-labels');
  });
});

describe('connection', () => {
  /** Without the lab's context: only what the variables say. */
  const bare = (env: Record<string, string>, ...args: string[]) =>
    run(WEFT, args, { env: { HOME: '/nonexistent', ...env } });

  it('is told by variables, by flags before them, by nothing else', async () => {
    const { coordinators, tls } = await labStatus();
    const [one, two] = coordinators.map((c) => c.address);
    const certs = { WEFT_CA: tls.ca, WEFT_CERT: tls.cert, WEFT_KEY: tls.key };
    const nothing = await bare({}, 'network', 'ls', '--json');
    expect(nothing.code).toBe(1);
    expect(JSON.parse(nothing.stderr)).toMatchObject({
      error: { code: 'FAILED_PRECONDITION', hint: text(/WEFT_COORDINATOR/) },
    });
    expect((await bare({ WEFT_COORDINATOR: one ?? '' }, 'network', 'ls')).code).toBe(1);
    expect((await bare({ WEFT_COORDINATOR: one ?? '', ...certs }, 'network', 'ls')).code).toBe(0);
    // Several, of which one is dead or a stranger.
    const dead = '127.0.0.1:1';
    expect((await bare({ WEFT_COORDINATOR: `${dead},${two}`, ...certs }, 'network', 'ls')).code).toBe(0);
    const all = await bare({ WEFT_COORDINATOR: `${dead},127.0.0.1:2`, ...certs }, 'network', 'ls', '--json');
    expect(all.code).toBe(1);
    expect(JSON.parse(all.stderr)).toMatchObject({
      error: { code: 'UNAVAILABLE', message: text(/127\.0\.0\.1:1.*127\.0\.0\.1:2/) },
    });
    const flags = ['--coordinator', one ?? '', '--ca', tls.ca, '--cert', tls.cert, '--key', tls.key];
    expect((await bare({ WEFT_COORDINATOR: dead }, 'network', 'ls', ...flags)).code).toBe(0);
    expect((await bare({}, ...flags, 'network', 'ls')).code).toBe(0);
    const wrong = await bare({ WEFT_COORDINATOR: one ?? '', ...certs, WEFT_KEY: tls.ca }, 'network', 'ls', '--json');
    expect(wrong).toMatchObject({ code: 1, stderr: text(/^\{"error":/) });
  });

  it('moves on to the other coordinator when one is stopped', async () => {
    await weftOk('lab', 'stop', 'coord1');
    try {
      await until('every host is connected to the other', async () => {
        const { hosts } = await weftJson<{ hosts: { state: string }[] }>('status');
        return hosts.every((host) => host.state === 'connected');
      });
      await weftOk('network', 'create', 'cli-other');
      await docker('h3', ...runs('cli-other'));
      await weftOk('network', 'rm', 'cli-other');
      expect((await weft('wait')).code).toBe(0);
    } finally {
      await weftOk('lab', 'start', 'coord1');
    }
    await until('both are up', async () => {
      const { coordinators } = await weftJson<{ coordinators: { state: string }[] }>('status');
      return coordinators.length === 2 && coordinators.every((c) => c.state === 'up');
    });
  });

  it('completes words in bash, names of the mesh too', async () => {
    const script = `source <(weft completion bash); complete -p weft >&2 || exit 9
      words() { COMP_WORDS=("$@"); COMP_CWORD=$(($# - 1)); _weft; echo "\${COMPREPLY[*]}"; }
      words weft net; words weft network r; words weft network inspect cli; words weft host drain ""; words weft network create --int`;
    const path = `${new URL('../../bin', import.meta.url).pathname}:${process.env['PATH']}`;
    const r = await run('bash', ['--norc', '-c', script], { env: { PATH: path } });
    expect(r.stdout.trim().split('\n')).toEqual(['network', 'rm', 'cli-a', 'h1 h2 h3', '--internal']);
  });
});

/** What a client can send that the command line cannot, or not as quickly. */
async function refusesDirectly(): Promise<void> {
  const [client, ...others] = await controlClients();
  const said = (request: object): Promise<string> =>
    new Promise((resolve) => {
      const whole = CreateNetworkRequest.fromPartial({ name: 'cli-no', ...request });
      client?.createNetwork(whole, (error) => resolve(error === null ? 'made' : `${error.code} ${error.details}`));
    });
  const no = async (request: object, sentence: RegExp): Promise<void> => {
    const answer = await said(request);
    expect({ ...request, answer: answer.slice(0, 2000) }).toEqual({ ...request, answer: text(sentence) });
    expect(answer).toMatch(/^3 .*\nhint: ./s);
  };
  const much = 'a'.repeat(1_000_000);
  const subnets = ['10.92.0.0/24'];
  try {
    for (const name of [' ', 'a b', '../a', '网络', '💥', '__proto__', 'a'.repeat(64), much])
      await no({ name }, /is not a network name/);
    for (const name of ['bridge', 'host', 'none', 'default']) await no({ name }, /of Docker's own/);
    const malformed = [
      '',
      ' ',
      'x',
      '10.0.0.0',
      '10.0.0.0/-1',
      '10.0.0.0/8/8',
      '10.0.0.256/24',
      '10.0.0.0/08',
      '٠.0.0.0/8',
    ];
    for (const subnet of malformed.concat(much)) await no({ subnets: [subnet] }, /is not an IPv4 prefix/);
    for (const subnet of ['0.0.0.0/0', '127.0.0.0/8', '169.254.0.0/16', '224.0.0.0/24', '240.0.0.0/8'])
      await no({ subnets: [subnet] }, /has .* addresses|has addresses/);
    for (const subnet of ['10.92.0.0/31', '10.92.0.0/32']) await no({ subnets: [subnet] }, /has no room/);
    for (const gateway of ['10.92.0.0', '10.92.0.255'])
      await no({ subnets, gateways: [gateway] }, /the gateway .* is the/);
    for (const gateway of ['10.92.0', 'x', much]) await no({ subnets, gateways: [gateway] }, /is not an IPv4 address/);
    for (const ipRange of ['10.93.0.0/25', '10.92.0.0/23']) await no({ subnets, ipRange }, /is not inside the subnet/);
    for (const ipRange of ['10.92.0.1/25', 'x', much])
      await no({ subnets, ipRange }, /host bits set|is not an IPv4 prefix/);
    await no({ ipRange: '10.92.0.0/25' }, /needs its subnet/);
    for (const encap of ['pigeon', much]) await no({ encap }, /is not an encapsulation/);
    await no({ vni: 2 ** 32 - 1 }, /is not a VNI/);
    await no({ mtu: 2 ** 32 - 1 }, /is not possible/);
    for (const field of ['labels', 'options']) {
      await no({ [field]: { k: much } }, /have 1000001 characters/);
      await no({ [field]: { '': 'v' } }, /has no name/);
      await no({ [field]: { k: '\0' } }, /zero byte/);
    }
    expect(await said({ options: { 'weft.speed': '9' } })).toMatch(/^12 option "weft\.speed" is not available/);
  } finally {
    for (const one of [client, ...others]) one?.close();
  }
}
