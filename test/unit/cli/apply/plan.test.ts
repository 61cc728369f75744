/** From files and the mesh to steps, and to refusals. */
import { expect, test } from 'vitest';
import type { Actual } from '../../../../cli/apply/model.ts';
import { planText } from '../../../../cli/apply/show.ts';
import { Endpoint } from '../../../../gen/weft/v1/types.ts';
import { MESH, messages, NOTHING, network, planned, summary } from './mesh.ts';

const WEB = `
networks:
  - name: web
    subnet: 10.1.0.0/16
    label: {team: a}
    policy-default: drop
    egress-ip: 192.0.2.7
    rate: 500mbit
    burst: 64kb
`;
const only = (name: string): Actual => ({ ...NOTHING, networks: MESH.networks.filter((n) => n.name === name) });

test('what the mesh chose by itself is as it should be', () => {
  const found = planned(WEB, MESH);
  expect(messages(found.problems)).toEqual([]);
  expect(found.changes).toEqual([]);
  const pooled = { ...NOTHING, networks: [network('p', '10.128.0.0/20')] };
  expect(planned('networks: [{name: p}]', pooled).changes).toEqual([]);
});

test('of which families a network is', () => {
  const six = { ...NOTHING, networks: [network('v6', 'fd00:7::/64', { ipv6: true, gateways: ['fd00:7::1'] })] };
  expect(planned('networks: [{name: v6, subnet: "fd00:0007::/64"}]', six)).toMatchObject({ changes: [], problems: [] });
  expect(messages(planned('networks: [{name: v6, subnet: "fd00:7::/64", ipv6: true}]', six).problems)).toEqual([
    'm.yaml, line 1: network v6: subnet cannot be changed while the network is there: it has none, and the file says from the pool.',
  ]);
  const both = {
    ...NOTHING,
    networks: [network('d', '10.9.0.0/16', { subnets: ['10.9.0.0/16', 'fd00:9::/64'], ipv6: true })],
  };
  for (const said of ['ipv6: true', 'subnet: [10.9.0.0/16, "fd00:9::/64"]', 'subnet: 10.9.0.0/16, ipv6: true'])
    expect(planned(`networks: [{name: d, ${said}}]`, both)).toMatchObject({ changes: [], problems: [] });
});

test('what of a network can be changed is, together, after everything else', () => {
  const text = WEB.replace('drop', 'allow').replace('500mbit', '1gbit').replace('    egress-ip: 192.0.2.7\n', '');
  const found = planned(`${text}services: [{name: s, network: web, selector: {a: b}, port: 80}]`, MESH);
  expect(messages(found.problems)).toEqual([]);
  expect(summary(found)).toEqual(['create service web/s', 'update network web']);
  expect(found.changes[1]?.calls).toMatchObject([
    {
      method: 'updateNetwork',
      request: {
        network: 'id-web',
        fields: ['egressIps', 'rate', 'policyDefault'],
        values: { egressIps: [], rate: { bits: 1_000_000_000n, burst: 65_536n }, policyDefault: 'allow' },
      },
    },
  ]);
  expect(planText(found)).toBe(`+ service web/s
    + selector: a=b
    + port: 80/tcp
~ network web
    - policy-default: drop
    + policy-default: allow
    - egress-ip: 192.0.2.7
    - rate: 500mbit
    + rate: 1gbit
1 to make, 1 to change
`);
});

test.each([
  ['subnet: 10.3.0.0/16', /subnet cannot be changed .* it is 10\.1\.0\.0\/16, and the file says 10\.3\.0\.0\/16/],
  ['ip-range: 10.1.4.0/24', /ip-range cannot be changed .* it has none, and the file says 10\.1\.4\.0\/24/],
  ['gateway: 10.1.0.7', /gateway cannot be changed .* it is 10\.1\.0\.1/],
  ['ipv6: true', /ipv6 cannot be changed .* it has none, and the file says from the pool/],
  ['encap: gre', /encap cannot be changed .* it is vxlan/],
  ['vni: 7', /vni cannot be changed .* it is 4119/],
  ['mtu: 1300', /mtu cannot be changed .* it is 1450/],
  ['internal: true', /internal cannot be changed/],
  ['allow-trust: true', /allow-trust cannot be changed/],
  ['publish-by: docker', /publish-by cannot be changed .* it is weft/],
  ['dns-order: nearest', /dns-order cannot be changed .* it is rotate/],
  ['space: other', /space cannot be changed .* it is default/],
  ['label: {team: b}', /label cannot be changed .* it is team=a, and the file says team=b/],
])('what cannot is refused, with its line, and nothing is planned around it: %s', (line, message) => {
  const [key = ''] = line.split(':');
  const text = `${WEB.split('\n')
    .filter((one) => one !== '' && !one.trim().startsWith(`${key}:`))
    .join('\n')}\n    ${line}\n`;
  const found = planned(text, MESH);
  const [first = ''] = messages(found.problems);
  expect(first).toMatch(message);
  expect(first).toMatch(/^m\.yaml, line \d+: network web: /);
  expect(found.problems).toMatchObject([{ code: 'UNIMPLEMENTED', hint: expect.stringMatching(/another network/) }]);
});

test('what the file leaves out and the network has is refused too: the file would make another one', () => {
  expect(messages(planned('networks: [{name: six}]', MESH).problems)).toEqual([
    'm.yaml, line 1: network six: ipv6 cannot be changed while the network is there: it is fd00:2::/64, and the file does not say so.',
    'm.yaml, line 1: network six: ip-range cannot be changed while the network is there: it is 10.2.4.0/24, and the file does not say so.',
    'm.yaml, line 1: network six: encap cannot be changed while the network is there: it is geneve, and the file says vxlan.',
    'm.yaml, line 1: network six: internal cannot be changed while the network is there: it is true, and the file does not say so.',
    'm.yaml, line 1: network six: allow-trust cannot be changed while the network is there: it is true, and the file does not say so.',
    'm.yaml, line 1: network six: dns-order cannot be changed while the network is there: it is nearest, and the file says rotate.',
  ]);
});

test('against what the mesh has', () => {
  const refused = (text: string, message: RegExp): void =>
    expect(messages(planned(text, MESH).problems).join('\n')).toMatch(message);
  refused(
    'networks: [{name: new, subnet: 10.1.128.0/24}]',
    /10\.1\.128\.0\/24 overlaps 10\.1\.0\.0\/16 of network web/,
  );
  refused('networks: [{name: new, vni: 4119}]', /the VNI 4119 is that of network web/);
  refused('networks: [{name: Web}]', /differs by case alone from network web/);
  refused('networks: [{name: new, encap: vlan, uplink: eth1, tag: 100}]', /eth1\.100 is that of network lan/);
  refused('reservations: [{name: n, network: web, ip: 10.1.0.10}]', /10\.1\.0\.10 is the address of reservation db-1/);
  refused(
    'services: [{name: n, network: web, selector: {a: b}, port: 1, ip: 10.1.255.254}]',
    /address of service shop/,
  );
  refused(
    'services: [{name: n, network: six, selector: {a: b}, port: 1, publish: "8000:1"}]',
    /8000\/tcp of the hosts leads to service web\/shop/,
  );
  refused('services: [{name: n, network: lan, selector: {a: b}, port: 1}]', /network lan is a vlan/);
  refused(
    'routers: [{name: core, network: [web, six], route: 172.16.0.0/12 via 10.1.0.4, label: {a: b}}]',
    /label cannot be changed while the router is there/,
  );
  // Another space has addresses of its own.
  expect(messages(planned('networks: [{name: new, subnet: 10.1.128.0/24, space: s}]', MESH).problems)).toEqual([]);
});

test('a service and a reservation are made anew, and keep what nobody gave', () => {
  const found = planned(
    `services: [{name: shop, network: web, selector: {app: shop}, port: 80:8080}]
reservations: [{name: db-1, network: web, ip: 10.1.0.10}]`,
    MESH,
  );
  expect(summary(found)).toEqual(['replace reservation web/db-1', 'replace service web/shop']);
  const [reservation, service] = found.changes;
  expect(reservation?.calls).toMatchObject([
    { method: 'removeReservation', request: { network: 'web', name: 'db-1' } },
    { method: 'createReservation', request: { network: 'web', reservation: { mac: '02:00:00:00:00:01', labels: {} } } },
  ]);
  expect(service?.calls).toMatchObject([
    { method: 'removeService', request: { network: 'web', name: 'shop' } },
    { method: 'createService', request: { network: 'web', service: { ips: ['10.1.255.254'], publish: '' } } },
  ]);
  expect(service?.undo).toMatchObject({
    method: 'createService',
    request: { service: { publish: 'all', affinityS: 60 } },
  });
  expect(planText(found)).toContain('~ service web/shop (made anew: it cannot be changed)\n');
});

test('routers that go, or lead to less, make room for those that come', () => {
  const renamed = 'routers: [{name: hub, network: [web, six], route: 172.16.0.0/12 via 10.1.0.4}]';
  expect(summary(planned(renamed, MESH, true))).toEqual(['remove router core', 'create router hub']);
  const moved = `
routers:
  - {name: a, network: [web], route: 172.16.0.0/12 via 10.1.0.4}
  - {name: core, network: [web, six]}
`;
  expect(summary(planned(moved, MESH))).toEqual(['update router core', 'create router a']);
});

test('a router is changed by what differs', () => {
  const text = `
networks: [{name: third}]
routers:
  - name: core
    network: [web, third]
    route: [172.16.0.0/12 via 10.1.0.5, 10.99.0.0/16 via 10.1.0.4]
`;
  const found = planned(text, MESH);
  expect(messages(found.problems)).toEqual([]);
  expect(found.changes[1]).toMatchObject({
    action: 'update',
    calls: [
      {
        method: 'updateRouter',
        request: {
          name: 'core',
          addNetworks: ['third'],
          removeNetworks: ['six'],
          addRoutes: [
            { cidr: '172.16.0.0/12', via: ['10.1.0.5'] },
            { cidr: '10.99.0.0/16', via: ['10.1.0.4'] },
          ],
          removeRoutes: [],
        },
      },
    ],
  });
});

test('policies: order of labels, form of addresses and of one network or several mean nothing', () => {
  const text = `
policies:
  - name: shop
    networks: [web]
    tier: platform
    order: 7
    select: {app: shop}
    ingress:
      - action: allow
        from:
          - labels: {zone: z, app: a}
          - network: six
          - {cidr: 10.0.0.0/8, except: [10.1.0.0/16]}
        ports: [80/tcp]
      - action: drop
    egress: [{action: allow, to: [{service: shop}]}]
`;
  expect(planned(text, MESH)).toMatchObject({ changes: [], problems: [] });
  const found = planned(text.replace('order: 7', 'order: 8').replace('- action: drop', '- action: reject'), MESH);
  expect(planText(found)).toBe(`~ policy web/shop
    - order: 7
    + order: 8
    - ingress rule 2: drop
    + ingress rule 2: reject
1 to change
`);
});

test('DNS names are compared as they are kept', () => {
  const text = (name: string): string =>
    `policies: [{name: p, network: web, egress: [{action: allow, to: [{name: "${name}"}]}]}]`;
  const [call] = planned(text('API.example.org.'), MESH).changes.flatMap(({ calls }) => calls);
  const policy = call?.method === 'applyPolicies' ? call.request.policies[0]?.policy : undefined;
  const mesh = { ...MESH, policies: [{ ...policy!, networkId: 'id-web' }] };
  expect(planned(text('api.example.org'), mesh).changes).toEqual([]);
});

test('endpoints: what is set is as the entry says, all of it', () => {
  const change = (text: string) => planned(`endpoints: [${text}]`, MESH).changes[0];
  expect(
    change('{name: h1/db-1, rate: 200mbit, priority: high, drain: true, allow-address: 10.1.0.100}'),
  ).toBeUndefined();
  expect(change('{name: db-1}')).toMatchObject({
    name: 'h1/db-1',
    calls: [
      {
        method: 'updateEndpoint',
        request: {
          endpoint: 'd'.repeat(64),
          disallow: [{ ip: '10.1.0.100', mac: '' }],
          draining: false,
          unsetRate: true,
          unsetPriority: true,
        },
      },
    ],
  });
  const more = change(
    '{name: 10.1.0.10, rate: 1gbit, priority: high, drain: true, allow-address: [10.1.0.100, ",02:00:00:00:00:09"]}',
  );
  expect(more?.calls[0]?.request).toEqual({
    project: '',
    endpoint: 'd'.repeat(64),
    network: '',
    allow: [{ ip: '', mac: '02:00:00:00:00:09' }],
    disallow: [],
    rate: { bits: 1_000_000_000n, burst: 0n },
  });
  expect(change('{name: h2/db-1}')).toMatchObject({ action: 'missing', calls: [] });
});

test('an endpoint that could be several, or is there twice, is refused', () => {
  const [db] = MESH.endpoints;
  const twin = Endpoint.fromPartial({ ...db, id: 'b'.repeat(64), networkId: 'id-six' });
  const mesh = { ...MESH, endpoints: [...MESH.endpoints, twin] };
  expect(messages(planned('endpoints: [{name: h1/db-1}]', mesh).problems)).toEqual([
    'm.yaml, line 1: endpoint h1/db-1: it means several: h1/db-1 on web, h1/db-1 on six.',
  ]);
  expect(messages(planned('endpoints: [{name: h1/db-1, network: six}]', mesh).problems)).toEqual([]);
  expect(messages(planned('endpoints: [{name: db-1}, {name: h1/db-1}]', MESH).problems)).toEqual([
    'm.yaml, line 1: endpoint h1/db-1: it is the one of m.yaml, line 1 (db-1).',
  ]);
});

test('prune takes what the file does not have, of the kinds and networks that it speaks of, last things first', () => {
  // No kind, no network: nothing goes.
  expect(summary(planned('services: []', MESH, true))).toEqual([]);
  const spoken = 'reservations: [{name: db-1, network: web, ip: 10.1.0.10, mac: "02:00:00:00:00:01", label: {a: b}}]\n';
  expect(summary(planned(`${spoken}services: []\npolicies: []`, MESH, true))).toEqual([
    'remove policy web/shop',
    'remove service web/shop',
  ]);
  expect(summary(planned(`${spoken}services: []\npolicies: []`, MESH))).toEqual([]);
  // A router that is also in a network that the file is silent about stays; the settings of endpoints go.
  expect(summary(planned(`${spoken}routers: []\nendpoints: []`, MESH, true))).toEqual(['remove endpoint web/h1/db-1']);
  expect(summary(planned(`networks: []\nrouters: []`, { ...MESH, endpoints: [] }, true))).toEqual([
    'remove router core',
    'remove network web',
    'remove network six',
    'remove network lan',
  ]);
});

test('what goes and holds what something else needs, goes first', () => {
  const text = `
services: []
reservations: [{name: vip, network: web, ip: 10.1.255.254}]
`;
  const found = planned(text, MESH, true);
  expect(messages(found.problems)).toEqual([]);
  expect(summary(found)).toEqual([
    'remove service web/shop',
    'create reservation web/vip',
    'remove reservation web/db-1',
  ]);
});

test('prune is refused where it would take what no file could bring back', () => {
  const peers = [{ name: 'router', networkId: 'id-lan' }] as unknown as Actual['peers'];
  const found = planned('networks: [{name: new}]', { ...MESH, peers }, true);
  expect(messages(found.problems)).toEqual([
    '--prune would remove network web, and it has endpoints: db-1 on h1.',
    '--prune would remove network web, and it is in router core.',
    '--prune would remove network six, and it has endpoints: app on h1.',
    '--prune would remove network six, and it is in router core.',
    '--prune would remove network lan, and with it external peers, of which files say nothing: router.',
  ]);
  const gone = planned(
    'networks: [{name: web, subnet: 10.1.0.0/16}]\nservices: [{name: s, network: lan, selector: {a: b}, port: 1}]',
    MESH,
    true,
  );
  expect(messages(gone.problems).join('\n')).toMatch(/network lan is not in the files, and goes with --prune/);
  const again = planned('networks: [{name: fresh, subnet: 192.168.7.0/24}]', only('lan'), true);
  expect(again.problems).toMatchObject([{ hint: expect.stringMatching(/--prune removes lan only afterwards/) }]);
});

test('a thousand networks are judged in a moment', () => {
  const text = Array.from(
    { length: 1000 },
    (_one, i) => `  - {name: n${i}, subnet: 10.${i >> 8}.${i & 255}.0/24}`,
  ).join('\n');
  const began = performance.now();
  const found = planned(`networks:\n${text}\n`, NOTHING);
  expect(found.problems).toEqual([]);
  expect(found.changes).toHaveLength(1000);
  expect(performance.now() - began).toBeLessThan(20_000);
});
