/** What files may say: every refusal has file, line and key, all of them are told, and hostile files cost nothing. */
import { expect, test } from 'vitest';
import { KEYS } from '../../../../cli/apply/keys.ts';
import { readSources } from '../../../../cli/apply/source.ts';
import { readWishes } from '../../../../cli/apply/wish.ts';
import { buildProgram } from '../../../../cli/program.ts';
import { messages, planned } from './mesh.ts';

const problems = (text: string): string[] => messages(planned(text).problems);

test.each([
  ['networks', 'network', ['create', 'set']],
  ['reservations', 'reservation', ['create']],
  ['routers', 'router', ['create']],
  ['services', 'service', ['create']],
  ['endpoints', 'endpoint', ['set']],
] as const)('keys of %s are the flags of weft %s', async (section, noun, commands) => {
  const io = { env: {}, home: '', out: () => {}, err: () => {}, stdin: async () => '', setExit: () => {} };
  const signal = () => new AbortController().signal;
  const program = await buildProgram(noun, { ...io, signal }, () => {});
  const made = program.commands.find((one) => one.name() === noun)!;
  const flags = commands.flatMap((name) =>
    made.commands.find((one) => one.name() === name)!.options.map(({ long }) => long?.replace('--', '') ?? ''),
  );
  for (const key of Object.keys(KEYS[section])) expect(flags).toContain(key);
  // And what makes a thing can all be said in a file.
  const creates = made.commands.find((one) => one.name() === 'create')?.options ?? [];
  const connection = ['json', 'coordinator', 'ca', 'cert', 'key'];
  for (const { long } of creates) {
    const key = long?.replace('--', '') ?? '';
    if (!connection.includes(key)) expect(Object.keys(KEYS[section])).toContain(key);
  }
});

test('several documents and files are one; keys that begin with x- are for anchors', () => {
  const files = [
    {
      file: 'a.yaml',
      text: 'x-team: &team {team: a}\nnetworks:\n  - {name: a, label: *team}\n---\n---\nnetworks: [{name: b}]\n',
    },
    { file: 'b.yaml', text: '{"services": [], "networks": [{"name": "c"}]}' },
  ];
  const { desired, problems: none } = readWishes(readSources(files));
  expect(none).toEqual([]);
  expect(desired.networks.map(({ name, request }) => [name, request.labels])).toEqual([
    ['a', { team: 'a' }],
    ['b', {}],
    ['c', {}],
  ]);
  expect([...desired.sections].sort()).toEqual(['networks', 'services']);
  expect(desired.networks.map(({ where }) => where())).toEqual(['a.yaml, line 3', 'a.yaml, line 6', 'b.yaml, line 1']);
});

test('all that is wrong is told, each with its line', () => {
  const text = `networks:
  - name: web
    subnet: 10.1.0.1/16
    subnets: 10.1.0.0/16
    mtu: [1400]
    internal: yes
  - name: 7
  - subnet: 10.2.0.0/16
  - name: ok
    encap: vxlann
  - just text
services:
  - name: shop
    network: nowhere
    port: 80x
    selector: {app: 1.10}
    health-interval: soon
  - name: api
    network: ok
    port: 70000
    selector: {app: api}
  - name: Upper
    network: ok
    port: 80
    selector: {app: api}
policies:
  - name: p
    network: ok
    ingres: []
    order: first
things: []
routers:
`;
  expect(problems(text)).toEqual([
    'm.yaml, line 11: a network must be a map with name and so on.',
    'm.yaml, line 31: unknown key things.',
    'm.yaml, line 32: routers must be a list, and is empty.',
    'm.yaml, line 4: network web: unknown key subnets.',
    'm.yaml, line 5: network web: mtu must be text or a number, and is [1400].',
    'm.yaml, line 6: network web: internal must be true or false, and is "yes".',
    'm.yaml, line 7: network: name must be text, and is 7.',
    'm.yaml, line 8: network: name is missing.',
    'm.yaml, line 10: network ok: encap: "vxlann" is not an encapsulation.',
    'm.yaml, line 16: service shop: selector must be a map of labels and values, which are text (quote what looks like a number), and is {"app":1.1}.',
    'm.yaml, line 20: service api: port 70000 is out of range.',
    'm.yaml, line 22: service Upper: "Upper" cannot be the name of a service.',
    'm.yaml, line 30: policy p: order must be a whole number, and is "first".',
    'm.yaml, line 29: policy p: unknown key ingres.',
  ]);
});

test.each([
  ['networks: [{name: a, subnet: 10.0.0.1/8}]', /subnet: "?10\.0\.0\.1\/8"? has host bits/],
  ['networks: [{name: a, subnet: [10.1.0.0/16, 10.2.0.0/16]}]', /subnet: two of one family/],
  ['networks: [{name: a, subnet: []}]', /subnet is an empty list/],
  ['networks: [{name: a, subnet: }]', /subnet is empty/],
  ['networks: [{name: a, ip-range: 10.1.0.0/24}]', /ip-range 10\.1\.0\.0\/24 needs its subnet/],
  ['networks: [{name: a, subnet: 10.1.0.0/16, ip-range: 10.2.0.0/24}]', /ip-range 10\.2\.0\.0\/24 is not in/],
  ['networks: [{name: a, subnet: 10.1.0.0/16, gateway: 10.2.0.1}]', /gateway 10\.2\.0\.1 is not in/],
  ['networks: [{name: a, encap: vlan}]', /a vlan network needs uplink and tag/],
  ['networks: [{name: a, tag: 7}]', /tag is for vlan networks/],
  ['networks: [{name: a, encap: vlan, uplink: e, tag: 4095}]', /tag 4095 is out of range/],
  ['networks: [{name: a, vni: 16777216}]', /vni 16777216 is out of range/],
  ['networks: [{name: a, encrypt: true}]', /encryption is not there yet/],
  ['networks: [{name: a, internal: true, publish-by: docker}]', /no way out/],
  ['networks: [{name: a, publish-by: me}]', /publish-by: "me" is not known/],
  ['networks: [{name: a, rate: 200}]', /rate must be text/],
  ['networks: [{name: a, rate: 200mb}]', /rate takes a number with bit/],
  ['networks: [{name: a, rate: 1bit}]', /cannot be held/],
  ['networks: [{name: a, burst: 64kb}]', /burst needs rate/],
  ['networks: [{name: a, egress-ip: 1.2.3}]', /egress-ip: .*1\.2\.3/],
  ['networks: [{name: bridge}]', /a network of Docker's own/],
  ['networks: [{name: "a b"}]', /is not a network name/],
  ['networks: [{name: a, label: {"x=y": z}}]', /label must be a map/],
  ['networks: [{name: a}, {name: A}]', /it is there twice, the first time in m\.yaml, line 1/],
  [
    'networks: [{name: a, subnet: 10.1.0.0/16}, {name: b, subnet: 10.1.2.0/24}]',
    /10\.1\.2\.0\/24 overlaps 10\.1\.0\.0\/16 of network a/,
  ],
  ['networks: [{name: a, vni: 7}, {name: b, vni: 7}]', /the VNI 7 is that of network a/],
  ['networks: [{name: a}]\nreservations: [{name: r, network: a}]', /reservation r: it needs an address/],
  ['networks: [{name: a}]\nreservations: [{name: r, ip: 10.0.0.1}]', /network is missing/],
  ['networks: [{name: a}]\nreservations: [{name: r, network: a, ip: 10.0.0}]', /ip: .*10\.0\.0/],
  ['networks: [{name: a}]\nreservations: [{name: r, network: a, ip: 10.0.0.1, mac: x}]', /mac: "x" is not a MAC/],
  [
    'networks: [{name: a, subnet: 10.1.0.0/16}]\nreservations: [{name: r, network: a, ip: 10.2.0.7}]',
    /10\.2\.0\.7 is not in 10\.1\.0\.0\/16/,
  ],
  [
    'networks: [{name: a, subnet: 10.1.0.0/16}]\nreservations: [{name: r, network: a, ip: 10.1.255.255}]',
    /the network's own/,
  ],
  [
    'networks: [{name: a}]\nreservations: [{name: r, network: a, ip: 10.1.0.7}, {name: s, network: a, ip: 10.1.0.7}]',
    /10\.1\.0\.7 is the address of reservation r/,
  ],
  ['reservations: [{name: r, network: b, ip: 10.1.0.7}]', /line 1: reservation r: there is no network b/],
  ['networks: [{name: a}]\nrouters: [{name: r, network: a}]', /it leads nowhere/],
  ['networks: [{name: a}]\nrouters: [{name: r}]', /network is missing/],
  [
    'networks: [{name: a}, {name: b}]\nrouters: [{name: r, network: [a, b], route: 10.0.0.0/8}]',
    /route takes CIDR via IP/,
  ],
  ['networks: [{name: a}]\nrouters: [{name: r, network: [a, b]}]', /there is no network b/],
  [
    'networks: [{name: a}, {name: b, space: x}]\nrouters: [{name: r, network: [a, b]}]',
    /is in address space default, and network b in x/,
  ],
  ['networks: [{name: a}]\nservices: [{name: s, network: a, port: 80}]', /selector is missing/],
  ['networks: [{name: a}]\nservices: [{name: s, network: a, selector: {a: b}}]', /port is missing/],
  [
    'networks: [{name: a}]\nservices: [{name: s, network: a, selector: {a: b}, port: 80, publish: 81}]',
    /the service has no port 81/,
  ],
  ['networks: [{name: a}]\nservices: [{name: s, network: a, selector: {a: b}, port: 80/sctp}]', /is no protocol/],
  [
    'networks: [{name: a}]\nservices: [{name: s, network: a, selector: {a: b}, port: 53/udp, health: tcp}]',
    /the check has no port/,
  ],
  [
    'networks: [{name: a, encap: vlan, uplink: e, tag: 7}]\nservices: [{name: s, network: a, selector: {a: b}, port: 80}]',
    /network a is a vlan/,
  ],
  [
    'networks: [{name: a}]\nservices: [{name: s, network: a, selector: {a: b}, port: 80, publish: 80}, {name: t, network: a, selector: {a: b}, port: 80, publish: 80}]',
    /port 80\/tcp of the hosts leads to service a\/s/,
  ],
  ['networks: [{name: a}]\npolicies: [{name: p, network: a, ingress: [{action: deny}]}]', /"deny" is no action/],
  [
    'networks: [{name: a}]\npolicies: [{name: p, network: a, tier: top, ingress: [{action: drop}]}]',
    /"top" is no tier/,
  ],
  [
    'networks: [{name: a}]\npolicies: [{name: p, network: a, ingress: [{action: drop, from: [{cidr: 10.0.0.1/8}]}]}]',
    /host bits/,
  ],
  [
    'networks: [{name: a}]\npolicies: [{name: p, network: a, ingress: [{action: drop, from: [{network: b}]}]}]',
    /there is no network b/,
  ],
  [
    'networks: [{name: a}]\npolicies: [{name: p, network: a, egress: [{action: drop, to: [{service: s}]}]}]',
    /network a has no service s/,
  ],
  [
    'networks: [{name: a}]\npolicies: [{name: p, network: a, ingress: [{action: drop, from: [{name: x.org}]}]}]',
    /a name can only be where something is sent to/,
  ],
  [
    'networks: [{name: a}]\npolicies: [{name: p, network: a, egress: [{action: drop, to: [{name: "x..org"}]}]}]',
    /"x\.\.org" is no DNS name/,
  ],
  ['networks: [{name: a}]\npolicies: [{name: p, network: a}]', /it has no rule/],
  ['endpoints: [{name: h1/x, priority: urgent}]', /priority takes high, normal or low/],
  ['endpoints: [{name: h1/x, allow-address: "1.2.3.4,"}]', /allow-address takes IP/],
  ['name: db\nnetwork: a\ningress: []', /unknown key name/],
  ['- 1', /it must be a map with networks/],
  ['text', /it must be a map with networks/],
])('%s', (text, message) => {
  const found = problems(text);
  expect(
    found.some((one) => message.test(one)),
    found.join('\n'),
  ).toBe(true);
  for (const one of found) expect(one).toMatch(/^m\.yaml, line \d+: /);
});

test('hostile files end soon, and say why', { timeout: 120_000 }, () => {
  const refused = (text: string, message: RegExp): void => {
    const began = performance.now();
    const { entries, problems: found } = readSources([{ file: 'm.yaml', text }]);
    expect(entries).toEqual([]);
    expect(found.length).toBeLessThan(110);
    expect(found[0]?.message).toMatch(message);
    expect(performance.now() - began).toBeLessThan(60_000);
  };
  const letters = 'bcdefghi'.split('');
  const bomb = letters.map((c, i) => `x-${c}: &${c} [${Array(9).fill(`*${'abcdefgh'[i]}`).join(',')}]`).join('\n');
  refused(`x-a: &a [x,x,x,x,x,x,x,x,x]\n${bomb}\nnetworks: *i\n`, /aliases stand for too much/);
  refused('networks: &a [*a]\n', /\*a is inside what it means/);
  refused('networks: []\nnetworks: []\n', /line 2: the key networks is there twice/);
  refused('x-a: {b: 1, b: 2}\n', /line 1: the key b is there twice/);
  refused('x-a: {1: 2}\n', /the key 1 must be text/);
  refused('x-a: &k b\n*k : 1\n', /no alias/);
  refused('networks: !!js/function "x"\n', /not YAML: Unresolved tag/);
  refused('networks: [', /not YAML/);
  refused('['.repeat(100_000), /not YAML/);
  refused(`networks: ${'['.repeat(5000)}${']'.repeat(5000)}`, /nested too deeply/);
  refused(`[${','.repeat(100_000)}]`, /not YAML/);
  refused(Array.from({ length: 20_000 }, (_one, i) => `k${i}: 1`).join('\n'), /unknown key k0/);
  refused('networks: []\n'.repeat(500_000), /more than 4 MiB/);
});
