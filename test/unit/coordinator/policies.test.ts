import { describe, expect, test } from 'vitest';
import { checkPolicy, MAX_POLICIES, refuseTooMany, refuseTwice } from '../../../coordinator/alloc/policies.ts';
import { MAX_EXCEPT, MAX_PEERS, MAX_PORTS, MAX_RULES } from '../../../coordinator/alloc/policy-rules.ts';
import { Events } from '../../../coordinator/events.ts';
import { batches } from '../../../coordinator/store/policies.ts';
import { Policy, type PolicyPeer, type PolicyRule, Service } from '../../../gen/weft/v1/types.ts';
import { dnsName } from '../../../lib/dns-name.ts';
import { WeftError } from '../../../lib/errors.ts';
import type { Network } from '../../../lib/model.ts';
import { MAX_LEVEL } from '../../../lib/policy-order.ts';
import { parsePort } from '../../../lib/policy-port.ts';
import { FakeState } from '../../harness/fake-state.ts';
import { aNetworkRecord } from './samples.ts';

const DATA = aNetworkRecord('n1', { name: 'data' });
const OTHER = aNetworkRecord('n2', { name: 'other' });
const SOURCES = {
  services: new Map([['n1', new Map([['shop', Service.fromPartial({ name: 'shop', selector: { app: 'shop' } })]])]]),
  networkOf: (text: string): Network => {
    for (const network of [DATA, OTHER]) if (network.name === text) return network;
    throw new WeftError('NOT_FOUND', `There is no network ${text}.`, { hint: 'list them' });
  },
};

const range = (cidr: string, ...except: string[]): PolicyPeer => ({
  who: { $case: 'addresses', value: { cidr, except } },
});
const labelled = (labels: Record<string, string>, networkId = ''): PolicyPeer => ({
  who: { $case: 'endpoints', value: { networkId, labels } },
});
const service = (value: string): PolicyPeer => ({ who: { $case: 'service', value } });
const named = (value: string): PolicyPeer => ({ who: { $case: 'name', value } });
const rule = (action: string, more: Partial<PolicyRule> = {}): PolicyRule => ({
  action,
  peers: [],
  ports: [],
  ...more,
});
const asked = (fields: Partial<Policy>): Policy =>
  Policy.fromPartial({ name: 'web', order: 100, ingress: [rule('allow')], ...fields });
const check = (fields: Partial<Policy>, network = DATA) => checkPolicy(SOURCES, network, asked(fields));

describe('what can be a policy', () => {
  test('is made canonical, with what has a default', () => {
    const fields = {
      id: 'x',
      selector: { b: '2', a: '1' },
      labels: { z: '', y: '' },
      ingress: [
        rule('drop', {
          peers: [range('10.0.0.0/8', '10.1.0.0/16'), labelled({}, 'data'), labelled({ b: '1', a: '' }, 'other')],
        }),
        rule('reject', { ports: [parsePort('8000-8100/tcp')!, { ...parsePort('53/udp')!, last: 0 }] }),
      ],
      egress: [
        rule('allow', { peers: [service('shop')], ports: ['icmp', 'icmp/3/4', 'sctp'].map((p) => parsePort(p)!) }),
      ],
    };
    const made = check(fields);
    expect(made).toEqual({
      networkId: 'n1',
      name: 'web',
      tier: 'application',
      order: 100,
      selector: { a: '1', b: '2' },
      labels: { y: '', z: '' },
      staged: false,
      ingress: [
        rule('drop', {
          peers: [range('10.0.0.0/8', '10.1.0.0/16'), labelled({}), labelled({ a: '', b: '1' }, 'n2')],
        }),
        rule('reject', { ports: [parsePort('8000-8100/tcp')!, parsePort('53/udp')!] }),
      ],
      egress: fields.egress,
    });
    expect(Object.keys(made.selector)).toEqual(['a', 'b']);
    expect(check({ name: 'a_b-1', tier: 'platform', order: 0 })).toMatchObject({ tier: 'platform', order: 0 });
    expect(check({ tier: 'baseline', order: 499 })).toMatchObject({ tier: 'baseline', order: 499 });
    expect(check({ egress: [rule('allow', { peers: [named('*.Example.ORG.')] })] })).toMatchObject({
      egress: [{ peers: [named('*.example.org')] }],
    });
    const six = aNetworkRecord('n1', { subnets: ['fd00::/64'] });
    const peers = [range('fd00:0:0::/32', '2001:DB8::/32')];
    expect(() => check({ ingress: [rule('drop', { peers })] }, six)).toThrow(/no part of fd00::\/32/);
    const mixed = [range('::/0', '10.0.0.0/8')];
    expect(() => check({ ingress: [rule('drop', { peers: mixed })] }, six)).toThrow(/10.0.0.0\/8 is no part of ::\/0/);
    expect(check({ ingress: [rule('drop', { peers: [range('FD00:0:0::/32')] })] }, six)).toMatchObject({
      ingress: [{ peers: [range('fd00::/32')] }],
    });
  });

  const many = <T>(count: number, one: (i: number) => T): T[] => Array.from({ length: count }, (_, i) => one(i));
  const inRule = (more: Partial<PolicyRule>) => ({ ingress: [rule('allow'), rule('allow', more)] });
  const outRule = (more: Partial<PolicyRule>) => ({ egress: [rule('allow', more)] });
  const port = (text: string, more = {}) => inRule({ ports: [{ ...parsePort(text)!, ...more }] });
  test.each<[Partial<Policy>, RegExp, string?]>([
    [{ name: '' }, /^"" cannot be the name of a policy/],
    [{ name: 'Web' }, /cannot be the name/],
    [{ name: 'a.b' }, /cannot be the name/],
    [{ name: 'a'.repeat(64) }, /cannot be the name/],
    [{ tier: 'top' }, /^Policy web: "top" is no tier\.$/],
    [{ order: 500 }, /^Policy web: the order 500 is out of range/],
    [{ ingress: [] }, /^Policy web: it has no rule/],
    [{ selector: { '': 'x' } }, /^Policy web: a label has no name/],
    [{ selector: Object.fromEntries(many(65, (i) => [`l${i}`, ''])) }, /more than 64 labels/],
    [{ ingress: many(MAX_RULES + 1, () => rule('drop')) }, /^Policy web: it has 65 ingress rules, and 64/],
    [{ egress: many(MAX_RULES + 1, () => rule('drop')) }, /it has 65 egress rules/],
    [{ egress: [rule('allow'), rule('deny')] }, /^Policy web, egress rule 2: "deny" is no action/],
    [
      { ingress: many(MAX_LEVEL + 2, (i) => rule(i % 2 === 0 ? 'allow' : 'drop')) },
      /^Policy web, ingress rule 14: the action changes for the 13th time/,
    ],
    [
      inRule({ peers: many(MAX_PEERS + 1, (i) => range(`10.0.0.${i}/32`)) }),
      /^Policy web, ingress rule 2: it names 65 peers/,
    ],
    [inRule({ ports: many(MAX_PORTS + 1, (i) => parsePort(`${i + 1}/tcp`)!) }), /it names 33 ports/],
    [inRule({ ports: [parsePort('80/tcp')!, parsePort('80/tcp')!] }), /ingress rule 2: 80\/tcp is given twice/],
    [inRule({ peers: [{ who: undefined }] }), /a peer says nobody/],
    [inRule({ peers: [range('10.0.0.1/8')] }), /^Policy web, ingress rule 2: "10.0.0.1\/8" has host bits/],
    [inRule({ peers: [range('10.0.0.1')] }), /ingress rule 2: "10.0.0.1" is not an IPv4 prefix/],
    [inRule({ peers: [range('fd00::/8')] }), /network data has no IPv6/],
    [inRule({ peers: [range('10.0.0.0/8', '11.0.0.0/16')] }), /11.0.0.0\/16 is no part of 10.0.0.0\/8/],
    [inRule({ peers: [range('10.0.0.0/8', '10.0.0.0/8')] }), /10.0.0.0\/8 is no part of/],
    [inRule({ peers: [range('10.0.0.0/8', 'x')] }), /ingress rule 2: "x" is not an/],
    [
      inRule({ peers: [range('10.0.0.0/8', ...many(MAX_EXCEPT + 1, (i) => `10.${i}.0.0/16`))] }),
      /65 ranges are excepted/,
    ],
    [inRule({ peers: [labelled({}, 'gone')] }), /^Policy web, ingress rule 2: There is no network gone/, 'NOT_FOUND'],
    [inRule({ peers: [labelled({ '': '' })] }), /ingress rule 2: a label has no name/],
    [inRule({ peers: [service('shop')] }), /a service can only be where something is sent to/],
    [outRule({ peers: [service('x')] }), /^Policy web, egress rule 1: network data has no service x/, 'NOT_FOUND'],
    [inRule({ peers: [named('db.example.org')] }), /a DNS name can only be/],
    [outRule({ peers: [named('a..b')] }), /"a\.\.b" is no DNS name/],
    [port('tcp', { protocol: 'gre' }), /"gre" is no protocol/],
    [port('tcp', { first: 65_536 }), /65536 is no port/],
    [port('tcp', { first: 90, last: 80 }), /the ports 90-80 end before they begin/],
    [port('tcp', { last: 80 }), /0 is no port/],
    [port('tcp', { icmpType: 8 }), /tcp has no types/],
    [port('icmp', { first: 8 }), /ICMP has no ports/],
    [port('icmp', { icmpCode: 0 }), /without its type/],
    [port('icmp', { icmpType: 256 }), /256 is no type of ICMP/],
    [port('icmp', { icmpType: 3, icmpCode: 256 }), /256 is no code of ICMP/],
    [
      { ingress: many(64, () => rule('allow', { peers: many(64, () => labelled({ app: 'x'.repeat(60) })) })) },
      /^Policy web: it is too large/,
      'RESOURCE_EXHAUSTED',
    ],
  ])('refused: %j', (fields, message, code = 'INVALID_ARGUMENT') => {
    let error: unknown;
    try {
      check(fields);
    } catch (thrown) {
      error = thrown;
    }
    expect(error).toMatchObject({ code, message: expect.stringMatching(message) });
    // Every refusal says what to do.
    expect((error as WeftError).hint).toBeTruthy();
  });

  test('as many changes of action as there are levels', () => {
    expect(check({ ingress: many(MAX_LEVEL + 1, (i) => rule(i % 2 === 0 ? 'allow' : 'drop')) }).ingress).toHaveLength(
      13,
    );
  });

  test('a vlan has none, nor has a network without a name', () => {
    const vlan = { ...DATA, encap: 'vlan' };
    const refused = expect.objectContaining({ code: 'FAILED_PRECONDITION' });
    expect(() => check({}, vlan)).toThrow(refused);
    expect(() => check({}, { ...DATA, state: 'reserved', name: '' })).toThrow(refused);
  });

  test('DNS names in lower case', () => {
    expect(dnsName('DB.example.ORG.')).toBe('db.example.org');
    expect(dnsName('*.example.org')).toBe('*.example.org');
    expect(dnsName('db')).toBe('db');
    for (const text of ['', '.', '*', 'a.*.b', '*.', 'a b', '-a.b', `${'a'.repeat(64)}.org`, `${'a.'.repeat(130)}org`])
      expect(dnsName(text), text).toBe(null);
  });
});

test('no policy twice, and not too many in a network', () => {
  const wanted = ['a', 'b'].map((name) => check({ name }));
  const nameOf = () => 'data';
  refuseTwice(wanted, nameOf);
  refuseTwice([...wanted, { ...wanted[0]!, networkId: 'n2' }], nameOf);
  expect(() => refuseTwice([...wanted, wanted[0]!], nameOf)).toThrow(/^Policy a of network data is given twice/);
  const state = new FakeState();
  state.commit({ network: 'n1', after: DATA });
  for (let i = 0; i < MAX_POLICIES - 1; i++)
    state.commit({ policy: `p${i}`, of: 'n1', after: asked({ name: `p${i}`, networkId: 'n1' }) });
  refuseTooMany(state, [{ networkId: 'n1', name: 'new' }]);
  // What is there already adds nothing.
  refuseTooMany(state, [check({ name: 'p0' }), check({ name: 'new' }), { networkId: 'n2', name: 'other' }]);
  expect(() => refuseTooMany(state, [check({ name: 'new' }), check({ name: 'last' })])).toThrow(
    expect.objectContaining({
      code: 'RESOURCE_EXHAUSTED',
      message: expect.stringContaining('Policy last: network data'),
    }),
  );
});

test('transactions are as large as etcd takes them', () => {
  const record = (i: number, networkId = 'n1', size = 0): Policy =>
    asked({ name: `p${i}`, networkId, labels: { x: 'x'.repeat(size) } });
  const sizes = (records: Policy[]): number[] => batches(records).map((batch) => batch.length);
  const many = <T>(count: number, one: (i: number) => T): T[] => Array.from({ length: count }, (_, i) => one(i));
  expect(sizes([])).toEqual([]);
  expect(sizes(many(130, (i) => record(i)))).toEqual([64, 64, 2]);
  // Each network is two compares and an operation more.
  expect(sizes(many(70, (i) => record(0, `n${i}`)))).toEqual([33, 33, 4]);
  expect(sizes(many(9, (i) => record(i, 'n1', 255 * 1024)))).toEqual([4, 4, 1]);
  expect(batches(many(130, (i) => record(i))).flat()).toEqual(many(130, (i) => record(i)));
});

test('events tell of policies, also of those that go with their network', () => {
  const state = new FakeState();
  const events = new Events(state, () => new Date(0));
  state.subscribe((set) => events.apply(set));
  const policy = asked({ networkId: 'n1' });
  state.commit({ network: 'n1', after: DATA });
  state.commit({ policy: 'web', of: 'n1', after: policy });
  state.commit({ policy: 'web', of: 'n1', after: { ...policy, order: 7 } });
  state.commit({ network: 'n1', after: null }, { policy: 'web', of: 'n1', after: null });
  const signal = new AbortController().signal;
  const told = (async () => {
    const found: string[] = [];
    for await (const e of events.read({ localOnly: false, follow: false, signal }))
      if (e.type === 'policy') found.push(`${e.action} ${e.object} ${e.message}`);
    return found;
  })();
  return expect(told).resolves.toEqual(['create web on data', 'update web on data', 'remove web on data']);
});
