import { describe, expect, test } from 'vitest';
import { parsePolicies, policyYaml } from '../../../cli/policy-yaml.ts';
import { policyJson } from '../../../cli/shapes.ts';
import type { Policy, PolicyPeer, PolicyRule } from '../../../gen/weft/v1/types.ts';
import { parsePort } from '../../../lib/policy-port.ts';

const ALL = `
# What may reach the databases.
name: db
network: data
tier: platform
order: 7
select: {app: db}
ingress:
  - action: allow
    from:
      - labels: {app: web, "1": "2"}
      - labels: {app: api}
        network: front
      - network: back
    ports: [9042/tcp, 8000-8100/tcp, 53/udp, tcp, icmp, icmp/8, icmp/3/4]
  - action: drop
egress:
  - action: reject
    to:
      - cidr: 10.0.0.0/8
        except: [10.1.0.0/16]
      - cidr: ::/0
      - service: shop
      - name: db.example.org
staged: true
labels: {team: a}
`;

const peers = (...who: PolicyPeer['who'][]): PolicyPeer[] => who.map((one) => ({ who: one }));
const endpoints = (networkId: string, labels: Record<string, string>): PolicyPeer['who'] => ({
  $case: 'endpoints',
  value: { networkId, labels },
});
const rule = (action: string, more: Partial<PolicyRule> = {}): PolicyRule => ({
  action,
  peers: [],
  ports: [],
  ...more,
});
const parse = (text: string) => parsePolicies(text, 'p.yaml');
const one = (text: string): Policy => parse(text)[0]!.policy!;

test('all that a policy may say', () => {
  const specs = parse(ALL);
  expect(specs).toHaveLength(1);
  expect(specs[0]).toMatchObject({
    network: 'data',
    policy: {
      id: '',
      networkId: '',
      name: 'db',
      tier: 'platform',
      order: 7,
      selector: { app: 'db' },
      ingress: [
        rule('allow', {
          peers: peers(
            endpoints('', { app: 'web', '1': '2' }),
            endpoints('front', { app: 'api' }),
            endpoints('back', {}),
          ),
          ports: ['9042/tcp', '8000-8100/tcp', '53/udp', 'tcp', 'icmp', 'icmp/8', 'icmp/3/4'].map((p) => parsePort(p)!),
        }),
        rule('drop'),
      ],
      egress: [
        rule('reject', {
          peers: peers(
            { $case: 'addresses', value: { cidr: '10.0.0.0/8', except: ['10.1.0.0/16'] } },
            { $case: 'addresses', value: { cidr: '::/0', except: [] } },
            { $case: 'service', value: 'shop' },
            { $case: 'name', value: 'db.example.org' },
          ),
        }),
      ],
      staged: true,
      labels: { team: 'a' },
    },
  });
});

test('documents, lists, several networks, and defaults', () => {
  const least = 'name: a\nnetwork: n\ningress: [{action: drop}]\n';
  expect(one(least)).toMatchObject({ tier: 'application', order: 100, selector: {}, egress: [], staged: false });
  expect(one(`${least}order: 0\n`).order).toBe(0);
  const names = (text: string): string[] => parse(text).map((s) => `${s.network}/${s.policy?.name}`);
  expect(names(`---\n${least}---\n---\nname: b\nnetworks: [n, m]\negress: [{action: allow}]\n...\n`)).toEqual([
    'n/a',
    'n/b',
    'm/b',
  ]);
  const list = `policies:\n  - {name: a, network: n, ingress: [{action: drop}]}\n  - {name: b, networks: [m]}\n`;
  expect(names(`${list}---\n${least}`)).toEqual(['n/a', 'm/b', 'n/a']);
  // Written once, meant several times.
  const shared = `policies:
  - {name: a, network: n, ingress: &web [{action: allow, from: [{labels: {app: web}}]}]}
  - {name: b, network: n, ingress: *web}
`;
  expect(parse(shared)[1]?.policy?.ingress).toEqual(parse(shared)[0]?.policy?.ingress);
});

describe('what is refused says where', () => {
  const base = 'name: web\nnetwork: data\n';
  test.each<[string, string]>([
    ['', 'p.yaml: there is no policy in it.'],
    ['# nothing\n', 'p.yaml: there is no policy in it.'],
    ['policies: []\n', 'p.yaml: there is no policy in it.'],
    ['policies: 7\n', 'p.yaml, line 1: policies must be a list of policies.'],
    ['x: 1\npolicies: []\n', 'p.yaml, line 1: unknown key x beside policies.'],
    ['- a\n', 'p.yaml, line 1: it must be a map with name, network and rules.'],
    ['hello\n', 'p.yaml, line 1: it must be a map with name, network and rules.'],
    ['name: [\n', 'p.yaml: not YAML: '],
    ['name: a\nname: b\n', 'p.yaml: not YAML: Map keys must be unique at line 2'],
    ['network: data\n', 'p.yaml, line 1: name is missing.'],
    ['name: web\n', 'p.yaml, line 1: policy web: it must be a map with either network or networks.'],
    [`${base}networks: [a]\n`, 'it must be a map with either network or networks.'],
    [`${base}prio: 7\n`, 'p.yaml, line 3: policy web: unknown key prio.'],
    [
      `policies:\n  - name: a\n    network: n\n  - name: b\n    netwrk: n\n`,
      'p.yaml, line 5: policy b: unknown key netwrk.',
    ],
    [`name: a\nnetwork: n\n---\n${base}x: 1\n`, 'p.yaml, line 6: policy web: unknown key x.'],
    [`${base}order: high\n`, 'p.yaml, line 3: policy web: order must be a whole number, and is "high".'],
    [`${base}order: 1.5\n`, 'order must be a whole number, and is 1.5.'],
    [`${base}order: -1\n`, 'order must be a whole number, and is -1.'],
    [
      `${base}select:\n  version: 1.10\n`,
      'p.yaml, line 4: policy web: select.version must be text (quote what looks like a number), and is 1.1.',
    ],
    [`${base}select: [a]\n`, 'select must be a map of labels and values'],
    [
      `${base}ingress:\n  - from: []\n    action: drop\n`,
      'line 4: policy web: ingress[0].from must be a list with something in it (leave it out for whoever)',
    ],
    [
      `${base}ingress:\n  - {action: drop, ports: []}\n`,
      'ingress[0].ports must be a list with something in it (leave it out for every port)',
    ],
    [`${base}ingress:\n  - {action: drop, to: [{cidr: 10.0.0.0/8}]}\n`, 'unknown key ingress[0].to.'],
    [`${base}egress:\n  - {action: drop, from: [{cidr: 10.0.0.0/8}]}\n`, 'unknown key egress[0].from.'],
    [`${base}egress:\n  - to: [{cidr: 10.0.0.0/8}]\n`, 'line 4: policy web: egress[0].action is missing.'],
    [
      `${base}ingress:\n  - action: drop\n    ports:\n      - 80/tcp\n      - 443\n`,
      'line 7: policy web: ingress[0].ports[1] must be a port like 9042/tcp',
    ],
    [`${base}ingress: [{action: drop, ports: [0/tcp]}]\n`, 'ingress[0].ports[0] must be a port like'],
    [
      `${base}ingress: [{action: drop, from: [{}]}]\n`,
      'ingress[0].from[0] must be one of {labels, network}, {cidr, except}, {service} and {name}',
    ],
    [`${base}ingress: [{action: drop, from: [{cidr: 10.0.0.0/8, labels: {}}]}]\n`, 'must be one of {labels, network}'],
    [
      `${base}ingress: [{action: drop, from: [{labels: {}, except: [10.0.0.0/8]}]}]\n`,
      'must be one of {labels, network}',
    ],
    [`${base}ingress: [{action: drop, from: [{cidr: ""}]}]\n`, 'ingress[0].from[0].cidr must be a CIDR, and not empty'],
    [`${base}ingress: [{action: drop, from: [{host: a}]}]\n`, 'unknown key ingress[0].from[0].host.'],
  ])('%j', (text, message) => {
    expect(() => parse(text)).toThrow(
      expect.objectContaining({ code: 'INVALID_ARGUMENT', message: expect.stringContaining(message) }),
    );
  });

  test('a list that grows out of itself is refused', () => {
    const lines = ['a: &a [x, x, x, x, x, x, x, x, x, x]'];
    for (const [name, of] of Object.entries({ b: 'a', c: 'b', d: 'c', e: 'd', f: 'e' }))
      lines.push(`${name}: &${name} [${Array(10).fill(`*${of}`).join(', ')}]`);
    expect(() => parse(lines.join('\n'))).toThrow(expect.objectContaining({ code: 'INVALID_ARGUMENT' }));
  });
});

test('what is shown can be applied, and means the same', () => {
  const names = { n1: 'data', front: 'front', back: 'back' };
  const policy: Policy = { ...one(ALL), id: 'x', networkId: 'n1', createdAt: 'y', revision: 7n };
  const shown = policyYaml(policyJson(policy, names));
  expect(parse(shown)).toEqual(parse(ALL));
  const least = { ...policy, tier: 'application', order: 100, selector: {}, labels: {}, staged: false, egress: [] };
  const plain = policyYaml(policyJson({ ...least, ingress: [rule('drop')] }, names));
  expect(plain).toBe('name: db\nnetwork: data\ntier: application\norder: 100\ningress:\n  - action: drop\n');
  const odd = { app: '1.10', yes: 'true', '': '' };
  const quoted = policyYaml(policyJson({ ...least, ingress: [], selector: { app: odd.app, b: odd.yes } }, names));
  expect(one(quoted).selector).toEqual({ app: '1.10', b: 'true' });
});
