import fc from 'fast-check';
import { describe, expect, test } from 'vitest';
import { Policy, type PolicyPeer, type PolicyRule } from '../../../gen/weft/v1/types.ts';
import { ACTIONS, TIERS } from '../../../lib/policy-order.ts';
import { parsePort } from '../../../lib/policy-port.ts';
import {
  type End,
  type Judgement,
  judge,
  type Packet,
  type PolicyWorld,
  verdictOf,
} from '../../../lib/policy-verdict.ts';

const N = 'n1';
const labelled = (labels: Record<string, string>, networkId = ''): PolicyPeer => ({
  who: { $case: 'endpoints', value: { networkId, labels } },
});
const range = (cidr: string, ...except: string[]): PolicyPeer => ({
  who: { $case: 'addresses', value: { cidr, except } },
});
const behind = (value: string): PolicyPeer => ({ who: { $case: 'service', value } });
const rule = (action: string, peers: PolicyPeer[] = [], ports: string[] = []): PolicyRule => ({
  action,
  peers,
  ports: ports.map((text) => parsePort(text)!),
});
const policy = (name: string, fields: Partial<Policy>): Policy =>
  Policy.fromPartial({ networkId: N, name, tier: 'application', order: 100, ...fields });
const world = (policies: Policy[], policyDefault = ''): PolicyWorld => ({
  policies,
  services: [{ name: 'shop', selector: { app: 'shop' } }],
  network: { id: N, subnets: ['10.0.0.0/24', 'fd00::/64'], policyDefault },
  networks: new Map([['n2', { subnets: ['10.2.0.0/24'] }]]),
});
const end = (ip: string, labels: Record<string, string> | null = {}, networkId = N): End => ({
  ip,
  endpoint: { networkId, labels },
});
const outside = (ip: string): End => ({ ip, endpoint: null });
const tcp = (port: number): Packet => ({ protocol: 'tcp', port, icmpType: 0, icmpCode: 0 });
const icmp = (icmpType: number, icmpCode = 0): Packet => ({ protocol: 'icmp', port: 0, icmpType, icmpCode });

const WEB = end('10.0.0.2', { app: 'web' });
const DB = end('10.0.0.3', { app: 'db' });
const said = (policies: Policy[], other: End, packet = tcp(80), self = DB): string => {
  const { action, by, policy: p, rule: n } = judge(world(policies), 'ingress', self, other, packet);
  return by === 'rule' ? `${action} ${p?.name} ${n}` : `${action} ${by}`;
};
const about = (...ingress: PolicyRule[]): Policy[] => [policy('p', { ingress })];

describe('which rule decides', () => {
  test('none: the default of the network', () => {
    expect(said([], WEB)).toBe('allow default');
    const dropped: Judgement = { action: 'drop', by: 'default', policy: null, rule: null, staged: null, named: null };
    expect(judge(world([], 'drop'), 'egress', WEB, DB, tcp(80))).toEqual(dropped);
    // Of another network, staged, for others, or of the other direction: not about it.
    const ingress = [rule('drop')];
    for (const fields of [{ networkId: 'n2' }, { staged: true }, { selector: { app: 'web' } }])
      expect(said([policy('p', { ingress, ...fields })], WEB)).toBe('allow default');
    expect(said([policy('p', { egress: ingress })], WEB)).toBe('allow default');
  });

  test('what staged policies would decide otherwise, as if all were in force', () => {
    const rules = [
      policy('real', { ingress: [rule('drop', [labelled({ app: 'web' })])], order: 50 }),
      policy('first', { ingress: [rule('allow', [], ['tcp'])], order: 10, staged: true }),
      policy('last', { ingress: [rule('allow', [], ['udp']), rule('reject')], order: 400, staged: true }),
    ];
    const would = (other: End, packet: Packet): unknown => {
      const { action, staged } = judge(world(rules), 'ingress', DB, other, packet);
      return [action, staged === null ? null : `${staged.action} ${staged.policy?.name} ${staged.rule}`];
    };
    expect(would(WEB, tcp(80))).toEqual(['drop', 'allow first 1']);
    // What is in force comes first, and would.
    expect(would(WEB, icmp(8))).toEqual(['drop', null]);
    expect(would(outside('192.0.2.7'), icmp(8))).toEqual(['allow', 'reject last 2']);
    expect(would(outside('192.0.2.7'), tcp(80))).toEqual(['allow', null]);
  });

  test('the first of a list', () => {
    const rules = about(rule('allow', [labelled({ app: 'web' })]), rule('drop'));
    expect(said(rules, WEB)).toBe('allow p 1');
    expect(said(rules, outside('192.0.2.7'))).toBe('drop p 2');
  });

  test('by tier, then order, then level, then drop before reject before allow', () => {
    const one = (name: string, action: string, more: Partial<Policy> = {}) =>
      policy(name, { ingress: [rule(action)], ...more });
    const tiers = TIERS.map((tier, i) => one(`t${i}`, 'allow', { tier, order: 499 - i }));
    expect(said(tiers.toReversed(), WEB)).toBe('allow t0 1');
    expect(said([one('a', 'drop', { order: 2 }), one('b', 'allow', { order: 1 })], WEB)).toBe('allow b 1');
    const second = policy('c', { ingress: [rule('reject', [range('192.0.2.0/24')]), rule('drop')] });
    expect(said([second, one('d', 'allow')], WEB)).toBe('allow d 1');
    expect(said([one('e', 'allow'), one('f', 'reject'), one('g', 'drop')], WEB)).toBe('drop g 1');
    expect(said([one('e', 'allow'), one('f', 'reject')], WEB)).toBe('reject f 1');
    expect(said([one('z', 'drop'), one('y', 'drop')], WEB)).toBe('drop y 1');
  });

  test('labels, all of them; without any, the whole of the network', () => {
    expect(said(about(rule('drop', [labelled({ app: 'web' })])), WEB)).toBe('drop p 1');
    expect(said(about(rule('drop', [labelled({ app: 'web', tier: 'x' })])), WEB)).toBe('allow default');
    expect(said(about(rule('drop', [labelled({ app: 'web' })])), outside('10.0.0.2'))).toBe('allow default');
    expect(said(about(rule('drop', [labelled({})])), outside('10.0.0.77'))).toBe('drop p 1');
    expect(said(about(rule('drop', [labelled({})])), outside('10.2.0.7'))).toBe('allow default');
    expect(said(about(rule('drop', [labelled({}, 'n2')])), outside('10.2.0.7'))).toBe('drop p 1');
    expect(said(about(rule('drop', [labelled({}, 'gone')])), WEB)).toBe('allow default');
    expect(said(about(rule('drop', [labelled({ app: 'web' }, 'n2')])), WEB)).toBe('allow default');
    expect(said(about(rule('drop', [labelled({ app: 'web' }, 'n2')])), end('10.2.0.7', { app: 'web' }, 'n2'))).toBe(
      'drop p 1',
    );
  });

  test('addresses, services, and whoever of several', () => {
    const rules = about(rule('drop', [range('10.0.0.0/24', '10.0.0.2/32'), range('fd00::/64')]));
    expect(said(rules, WEB)).toBe('allow default');
    expect(said(rules, end('10.0.0.9'))).toBe('drop p 1');
    expect(said(rules, outside('fd00::9'))).toBe('drop p 1');
    const egress = [policy('p', { egress: [rule('reject', [behind('gone'), behind('shop')])] })];
    const shop = end('10.0.0.5', { app: 'shop', v: '2' });
    expect(judge(world(egress), 'egress', WEB, shop, tcp(80))).toMatchObject({ action: 'reject', rule: 1 });
    expect(judge(world(egress), 'egress', WEB, DB, tcp(80))).toMatchObject({ action: 'allow', by: 'default' });
    const name: PolicyPeer = { who: { $case: 'name', value: 'db.example.org' } };
    expect(said(about(rule('drop', [name])), WEB)).toBe('allow default');
  });

  test('ports', () => {
    const ports = about(rule('drop', [], ['80/tcp', '8000-8100/tcp', 'udp', 'icmp/8', 'icmp/3/4']));
    const dropped = (packet: Packet): boolean => said(ports, WEB, packet) === 'drop p 1';
    expect([80, 81, 7999, 8000, 8100, 8101].map((port) => dropped(tcp(port)))).toEqual([
      true,
      false,
      false,
      true,
      true,
      false,
    ]);
    expect([dropped({ ...tcp(7), protocol: 'udp' }), dropped({ ...tcp(80), protocol: 'sctp' })]).toEqual([true, false]);
    expect([icmp(8), icmp(8, 1), icmp(0), icmp(3, 4), icmp(3, 1)].map(dropped)).toEqual([
      true,
      true,
      false,
      true,
      false,
    ]);
    expect(said(about(rule('drop', [], ['icmp'])), WEB, icmp(13))).toBe('drop p 1');
  });

  test('labels that are not known yet: nothing, where rules ask for labels', () => {
    const pending = end('10.0.0.4', null);
    expect(said(about(rule('allow')), WEB, tcp(80), pending)).toBe('allow p 1');
    expect(said(about(rule('allow', [range('10.0.0.0/8')])), WEB, tcp(80), pending)).toBe('allow p 1');
    for (const p of [
      policy('p', { selector: { app: 'x' }, egress: [rule('drop')] }),
      ...about(rule('allow', [labelled({ app: 'web' })])),
      policy('p', { egress: [rule('allow', [behind('shop')])] }),
    ])
      expect(said([p], WEB, tcp(80), pending)).toBe('drop pending');
    // Nobody is it, as long as that lasts.
    expect(said(about(rule('drop', [labelled({ app: 'x' })])), pending)).toBe('allow default');
  });
});

test('neighbour discovery and the resolver are never judged', () => {
  const shut = world([], 'drop');
  const six = end('fd00::2', null);
  expect(judge(shut, 'egress', six, end('fd00::3'), icmp(135))).toMatchObject({ action: 'allow', by: 'exempt' });
  expect(judge(shut, 'egress', six, end('fd00::3'), icmp(128))).toMatchObject({ action: 'drop', by: 'default' });
  expect(judge(shut, 'egress', WEB, DB, icmp(135))).toMatchObject({ action: 'drop', by: 'default' });
  const resolver = outside('169.254.100.53');
  for (const protocol of ['udp', 'tcp'])
    expect(judge(shut, 'egress', WEB, resolver, { ...tcp(53), protocol })).toMatchObject({ by: 'exempt' });
  expect(judge(shut, 'egress', WEB, resolver, tcp(80))).toMatchObject({ by: 'default' });
  const pending = world([policy('p', { selector: { app: 'x' }, egress: [rule('allow')] })]);
  expect(judge(pending, 'egress', end('10.0.0.4', null), resolver, tcp(53))).toMatchObject({ by: 'pending' });
});

test('both directions must allow', () => {
  const j = (action: 'allow' | 'drop' | 'reject'): Judgement => ({
    action,
    by: 'default',
    policy: null,
    rule: null,
    staged: null,
    named: null,
  });
  expect(verdictOf(j('allow'), j('allow'))).toBe('allow');
  expect(verdictOf(j('reject'), j('drop'))).toBe('reject');
  expect(verdictOf(j('allow'), j('drop'))).toBe('drop');
  expect([verdictOf(null, j('reject')), verdictOf(j('drop'), null), verdictOf(null, null)]).toEqual([
    'reject',
    'drop',
    'allow',
  ]);
});

test('the order in which policies are listed says nothing', () => {
  const ruleOf = fc.record({
    action: fc.constantFrom<string[]>(...ACTIONS),
    peers: fc.constantFrom<PolicyPeer[][]>([], [labelled({ app: 'web' })], [range('192.0.2.0/24')]),
    ports: fc.constantFrom<PolicyRule['ports'][]>([], [parsePort('80/tcp')!], [parsePort('udp')!]),
  });
  const some = fc.uniqueArray(
    fc.record({
      name: fc.string({ minLength: 1, maxLength: 3 }),
      tier: fc.constantFrom(...TIERS),
      order: fc.integer({ min: 0, max: 2 }),
      ingress: fc.array(ruleOf, { maxLength: 4 }),
    }),
    { selector: (p) => p.name, maxLength: 6 },
  );
  fc.assert(
    fc.property(some, fc.integer(), (fields, seed) => {
      const policies = fields.map(({ name, ...more }) => policy(name, more));
      const other = policies.toSorted(
        (a, b) => ((a.name.charCodeAt(0) * seed) % 7) - ((b.name.charCodeAt(0) * seed) % 7),
      );
      const judgement = judge(world(policies), 'ingress', DB, WEB, tcp(80));
      expect(judge(world(other), 'ingress', DB, WEB, tcp(80))).toEqual(judgement);
      // A rule that decides is about it, and so is none before it in its own list.
      if (judgement.policy === null) return;
      const list = judgement.policy.ingress;
      const first = list.findIndex(
        ({ peers, ports }) =>
          peers.every(({ who }) => who?.$case === 'endpoints') && ports.every(({ protocol }) => protocol === 'tcp'),
      );
      expect(judgement.action).toBe(list[first]?.action);
    }),
  );
});
