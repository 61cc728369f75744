/**
 * weft trace on real hosts: every way that a packet can take, and where it ends; and that nothing is changed by it. What docs/trace.md shows
 * is what is shown here.
 */
import { readFileSync } from 'node:fs';
import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import { settled } from '../harness/drift.ts';
import { bpf, ofctl } from '../harness/drift-cases.ts';
import { addressOf, on, onOk, pings, until, WEFT, weft, weftJson, weftOk } from '../harness/lab.ts';
import { engines, HOSTS, setUp, shown, type Traced, tearDown, trace } from '../harness/trace-lab.ts';

beforeAll(() => setUp(1));
afterAll(tearDown);

describe('a packet is delivered', () => {
  it.each<[string, string[], string, string[]]>([
    ['here, on the express path', ['web-1', 'web-2', '80/tcp'], 'h1', ['h1 openvswitch', 'h1 express']],
    ['in IPv6', ['web-1', 'h1/web-2', 'icmp', '--ipv6'], 'h1', ['h1 openvswitch', 'h1 express']],
    [
      'on another host',
      ['web-1', 'web-3', 'tcp/80'],
      'h2',
      ['h1 openvswitch', 'h1 express', 'h1 tunnel', 'h2 express'],
    ],
    [
      'where a policy allows it',
      ['app-1', 'db-1', 'tcp/9042'],
      'h2',
      ['h1 openvswitch', 'h1 express', 'h1 tunnel', 'h2 express', 'h2 openvswitch'],
    ],
    ['to a service', ['web-3', 'shop', '80/tcp'], 'h1', ['h2 openvswitch', 'h2 express', 'h2 tunnel', 'h1 express']],
    [
      'by a published port',
      ['web-3', '192.0.2.1', '8087/tcp'],
      'h1',
      ['h2 openvswitch', 'h2 express', 'h2 kernel', 'h2 nft', 'h1 nft', 'h1 kernel', 'h1 openvswitch', 'h1 express'],
    ],
    ['from outside', ['198.51.100.7', 'h1', '8087/tcp'], 'h1', ['h1 nft', 'h1 kernel', 'h1 openvswitch', 'h1 express']],
    [
      'to a service, by any host’s port',
      ['198.51.100.7', 'h3', '8207/tcp'],
      'h1',
      ['h3 nft', 'h3 kernel', 'h3 express', 'h3 tunnel', 'h1 express'],
    ],
  ])('%s', async (_what, args, host, by) => {
    const t = await trace(...args);
    expect(t, JSON.stringify(t.hops, null, 1)).toMatchObject({ verdict: 'delivered', host, code: 0 });
    expect(engines(t)).toEqual(by);
  });

  it('as real packets are', async () => {
    const ip = await addressOf('h2', 'web-3', 'web');
    expect(await pings('h1', 'web-1', ip)).toBe(true);
    expect(await trace('web-1', ip, 'icmp')).toMatchObject({ verdict: 'delivered', reason: 'web-3 on h2 gets it' });
    expect(await pings('h1', 'vault-1', '10.3.0.18')).toBe(false);
  });

  it('to itself it does not leave the container', async () =>
    expect(await trace('web-1', '10.1.0.2', '80/tcp')).toMatchObject({ verdict: 'delivered', host: 'h1', code: 0 }));

  it('the gateway, the resolver and hosts answer, and the world is left to', async () => {
    expect(await trace('web-1', '10.1.0.1', 'icmp')).toMatchObject({ verdict: 'answered', code: 0 });
    const resolver = await trace('in-1', '169.254.100.53', '53/udp');
    expect(resolver).toMatchObject({ verdict: 'answered', reason: 'the resolver of h1 answers' });
    expect(await trace('web-1', 'h3', '22/tcp')).toMatchObject({ verdict: 'answered', host: 'h3' });
    const out = await trace('web-1', '198.51.100.7', '443/tcp');
    expect(out).toMatchObject({ verdict: 'left', host: 'h1', code: 0 });
    expect(out.hops.at(-1)).toMatchObject({ engine: 'nft', stage: 'postrouting' });
  });
});

describe('a packet goes no further', () => {
  it.each<[string, string[], string, string, string]>([
    [
      'rejected by a rule at its destination',
      ['app-1', 'db-1', '9043/tcp'],
      'rejected',
      'h2',
      'policy db, ingress rule 2 of network data',
    ],
    [
      'the same on one host',
      ['other-2', 'db-1', '9042/tcp'],
      'rejected',
      'h2',
      'policy db, ingress rule 2 of network data',
    ],
    [
      'by a rule at its source',
      ['app-1', 'db-1', '25/tcp'],
      'dropped',
      'h1',
      'policy no-mail, egress rule 1 of network data',
    ],
    [
      'by the default of its network',
      ['vault-1', 'vault-2', '80/tcp'],
      'dropped',
      'h1',
      'no rule is about it: the default of network vault',
    ],
    [
      'an address that is not its own',
      ['web-1', 'web-3', '80/tcp', '--from-ip', '10.1.0.9'],
      'dropped',
      'h1',
      'port security: 10.1.0.9 is not an address of web-1',
    ],
    [
      'a MAC that is not its own',
      ['web-1', 'web-3', '80/tcp', '--from-mac', '02:58:0a:01:00:09'],
      'dropped',
      'h1',
      'port security: 02:58:0a:01:00:09 is not the MAC of web-1',
    ],
    ['to an address of no block', ['web-1', '10.1.0.77', '80/tcp'], 'dropped', 'h1', 'no host holds 10.1.0.77'],
    [
      'to another port of a service',
      ['web-3', 'shop', '81/tcp'],
      'dropped',
      'h2',
      'service shop (10.1.0.200) has nothing at 81/tcp',
    ],
    [
      'out of an internal network',
      ['in-1', '198.51.100.7', '80/tcp'],
      'dropped',
      'h1',
      'network inside does not lead to',
    ],
    ['too long', ['web-1', 'web-3', '80/tcp', '--length', '9000'], 'dropped', 'h1', '9000 bytes are more than the MTU'],
    [
      'at the end of its time',
      ['web-1', '198.51.100.7', '80/tcp', '--ttl', '1'],
      'dropped',
      'h1',
      'its time to live ends at h1',
    ],
  ])('%s', async (_what, args, verdict, host, reason) => {
    const t = await trace(...args);
    expect(t, JSON.stringify(t.hops, null, 1)).toMatchObject({ verdict, host, code: 1 });
    expect(t.reason).toContain(reason);
  });

  it('between networks without a router', async () => {
    const t = await trace('web-1', 'db-1', '9042/tcp');
    expect(t).toMatchObject({ verdict: 'dropped', code: 1 });
    expect(t.reason).toContain('share no network, and no router leads from one to the other');
  });

  it('to a free address of another host’s block', async () => {
    const t = await trace('web-1', '10.1.0.30', '80/tcp');
    expect(t).toMatchObject({ verdict: 'dropped', host: 'h2', code: 1 });
    expect(t.reason).toMatch(/^no host holds 10\.1\.0\.30: /);
  });

  it('as policies explain it', async () => {
    const { paths } = await weftJson<{ paths: { ingress: { policy: string; rule: number } }[] }>(
      'policy',
      'explain',
      'app-1',
      'db-1',
      '9043/tcp',
    );
    const { policy, rule } = paths[0]!.ingress;
    expect((await trace('app-1', 'db-1', '9043/tcp')).reason).toBe(
      `policy ${policy}, ingress rule ${rule} of network data`,
    );
  });

  it('where a host is away', async () => {
    await weftOk('lab', 'stop', 'h3', 'agent');
    try {
      await until('h3 is gone', async () => (await trace('web-1', 'web-4', '80/tcp')).verdict === 'unknown');
      expect(await trace('web-1', 'web-4', '80/tcp')).toMatchObject({ reason: 'host h3 is not connected', code: 1 });
    } finally {
      await weftOk('lab', 'start', 'h3', 'agent');
      await settled(HOSTS);
    }
  });
});

it.each<[string, string[], number, string]>([
  ['nobody of that name', ['nobody', 'web-1', '80/tcp'], 1, 'There is no endpoint “nobody”'],
  ['a destination that is not there', ['web-1', 'nobody', '80/tcp'], 1, 'There is no endpoint “nobody”'],
  ['a port out of range', ['web-1', 'web-3', '70000/tcp'], 2, 'A port is meant by'],
  ['ports, and not one', ['web-1', 'web-3', '80-90/tcp'], 2, 'A connection goes to one port'],
  ['a group', ['web-1', '224.0.0.5', '80/udp'], 1, 'not an address of one destination'],
  ['a network that is not there', ['web-1', 'web-3', '80/tcp', '--network', 'no'], 1, 'There is no network no'],
  ['a network that it is not in', ['web-1', 'web-3', '80/tcp', '--network', 'data'], 1, 'is not in network data'],
  ['neither end in the mesh', ['203.0.113.1', '203.0.113.2', '80/tcp'], 1, 'is no endpoint'],
  ['an address that is none', ['web-1', 'web-3', '80/tcp', '--from-ip', '10.1.0.300'], 1, 'is not an IPv4 address'],
])('refuses %s', async (_what, args, code, message) => {
  const r = await weft('trace', ...args);
  expect(r).toMatchObject({ code, stdout: '' });
  expect(r.stderr).toContain(message);
});

it('changes nothing', async () => {
  const all = async (): Promise<string[]> => {
    const ctl = '/run/openvswitch/ovs-vswitchd.ctl';
    return [
      await ofctl('dump-flows', 'br-weft', '--no-stats'),
      await onOk('h1', 'ovs-appctl', '-t', ctl, 'dpctl/dump-conntrack'),
      JSON.stringify(await bpf('dump connections')),
      JSON.stringify(await bpf('dump faces')),
      JSON.stringify(await bpf('dump learned')),
      await onOk('h1', 'nft', 'list', 'table', 'inet', 'weft'),
    ];
  };
  const before = await all();
  for (const to of ['web-3', 'shop', '198.51.100.7']) await trace('web-1', to, '80/tcp');
  await trace('app-1', 'db-1', '9042/tcp');
  expect(await all()).toEqual(before);
});

it('without a coordinator the host’s agent follows its own part', async () => {
  const here = await on('h1', WEFT, 'trace', 'web-1', 'web-2', '80/tcp', '--socket', '/run/weft/agent.sock', '--json');
  expect(JSON.parse(here.stdout)).toMatchObject({ verdict: 'delivered', reason: 'web-2 on h1 gets it' });
  const there = await on(
    'h1',
    WEFT,
    'trace',
    'web-1',
    '10.1.0.18',
    '80/tcp',
    '--socket',
    '/run/weft/agent.sock',
    '--json',
  );
  expect(there.code).toBe(1);
  expect((JSON.parse(there.stdout) as Traced).reason).toContain('this host alone cannot say');
});

it('what docs/trace.md shows', async () => {
  const page = readFileSync(new URL('../../docs/trace.md', import.meta.url), 'utf8');
  const blocks = [...page.matchAll(/```console\n\$ weft trace (.*)\n([^`]*)```/g)];
  expect(blocks.length).toBeGreaterThan(3);
  for (const [, args = '', text] of blocks) expect(await shown(...args.split(' ')), `weft trace ${args}`).toBe(text);
});
