/** What a mesh is exported as is what it is: applied to it nothing is to do, and applied to an empty one it is made again. */
import { expect, test } from 'vitest';
import { exported, exportYaml } from '../../../../cli/apply/export.ts';
import { MESH, messages, NOTHING, network, planned, summary } from './mesh.ts';

const yaml = (only: string[] | null = null): string =>
  exportYaml(exported(MESH, only === null ? null : new Set(only)).document);

test('as text', () => {
  expect(yaml()).toBe(`networks:
  - name: lan
    subnet: 192.168.7.0/24
    encap: vlan
    mtu: 1450
    uplink: eth1
    tag: 100
  - name: six
    subnet:
      - 10.2.0.0/16
      - fd00:2::/64
    ip-range: 10.2.4.0/24
    gateway:
      - 10.2.0.9
      - fd00:2::1
    encap: geneve
    vni: 4115
    mtu: 1450
    internal: true
    allow-trust: true
    dns-order: nearest
  - name: web
    subnet: 10.1.0.0/16
    vni: 4119
    mtu: 1450
    policy-default: drop
    label:
      team: a
    egress-ip: 192.0.2.7
    rate: 500mbit
    burst: 65536b
reservations:
  - name: db-1
    network: web
    ip: 10.1.0.10
    mac: 02:00:00:00:00:01
    label:
      a: b
routers:
  - name: core
    network:
      - web
      - six
    route: 172.16.0.0/12 via 10.1.0.4,10.1.0.5
services:
  - name: db
    network: six
    selector:
      app: db
    port: 5432/tcp
    headless: true
    health: none
  - name: shop
    network: web
    selector:
      app: shop
    port:
      - http=80:8080/tcp
      - dns=53/udp
    ip: 10.1.255.254
    health: http:8080/healthz
    health-interval: 300ms
    health-timeout: 200ms
    health-rise: 2
    affinity: 60
    local-first: true
    publish: 8000:80/tcp
    label:
      tier: front
policies:
  - name: shop
    network: web
    tier: platform
    order: 7
    select:
      app: shop
    ingress:
      - action: allow
        from:
          - labels:
              app: a
              zone: z
          - network: six
            labels: {}
          - cidr: 10.0.0.0/8
            except:
              - 10.1.0.0/16
        ports:
          - 80/tcp
      - action: drop
    egress:
      - action: allow
        to:
          - service: shop
endpoints:
  - name: h1/db-1
    network: web
    allow-address: 10.1.0.100
    drain: true
    rate: 200mbit
    priority: high
`);
});

test('it is what is there, also when all else is to go', () => {
  for (const text of [yaml(), JSON.stringify(exported(MESH, null).document)]) {
    const { changes, unchanged, problems } = planned(text, MESH, true);
    expect(messages(problems)).toEqual([]);
    expect(changes).toEqual([]);
    expect(unchanged).toHaveLength(9);
  }
});

test('from it an empty mesh is made anew, in order; what does not run waits', () => {
  const found = planned(yaml());
  expect(messages(found.problems)).toEqual([]);
  expect(summary(found)).toEqual([
    'create network lan',
    'create network six',
    'create network web',
    'create reservation web/db-1',
    'create router core',
    'create service six/db',
    'create service web/shop',
    'create policy web/shop',
    'missing endpoint web/h1/db-1',
  ]);
  const web = found.changes.find(({ name }) => name === 'web');
  expect(web?.calls).toMatchObject([
    { method: 'createNetwork', request: { name: 'web', subnets: ['10.1.0.0/16'], vni: 4119, policyDefault: 'drop' } },
    {
      method: 'updateNetwork',
      request: {
        network: 'web',
        fields: ['egressIps', 'rate'],
        values: { egressIps: ['192.0.2.7'], rate: { bits: 500_000_000n } },
      },
    },
  ]);
});

test('of some networks: what is in them, and routers that are in no other', () => {
  const { document, warnings } = exported(MESH, new Set(['web']));
  expect(
    Object.entries(document).map(([section, list]) => `${section} ${list.map((one) => one['name']).join()}`),
  ).toEqual(['networks web', 'reservations db-1', 'services shop', 'policies shop', 'endpoints h1/db-1']);
  expect(warnings).toEqual(['Router core is left out: it is also in six.']);
  expect(exported(MESH, new Set(['web', 'six'])).document.routers).toHaveLength(1);
});

test('what no file can say is told', () => {
  const docker = network('d', '10.9.0.0/16', {
    options: { 'weft.encap': 'gre', remark: 'x' },
    auxAddresses: { printer: '10.9.0.7' },
  });
  const peers = [{ name: 'router', networkId: 'id-d' }] as unknown as (typeof NOTHING)['peers'];
  expect(exported({ ...NOTHING, networks: [docker], peers }, null).warnings).toEqual([
    'Of network d the file does not have: external peer router, auxiliary address printer, driver option remark.',
  ]);
});

test('nothing', () => {
  expect(exportYaml(exported(NOTHING, null).document)).toMatch(/^# /);
});
