/** A mesh with one of everything, and what tests of apply do with files. */
import type { Actual } from '../../../../cli/apply/model.ts';
import { plan } from '../../../../cli/apply/plan.ts';
import { readSources } from '../../../../cli/apply/source.ts';
import { readWishes } from '../../../../cli/apply/wish.ts';
import {
  Endpoint,
  EndpointSettings,
  HealthCheck,
  Network,
  Policy,
  type PolicyPeer,
  Reservation,
  Router,
  Service,
} from '../../../../gen/weft/v1/types.ts';
import type { WeftError } from '../../../../lib/errors.ts';

export const NOTHING: Actual = {
  networks: [],
  reservations: [],
  routers: [],
  services: [],
  policies: [],
  endpoints: [],
  peers: [],
  settings: {},
  hostNames: { hosth1: 'h1' },
};

export const network = (name: string, subnet: string, more: Partial<Network> = {}): Network =>
  Network.fromPartial({
    id: `id-${name}`,
    project: 'default',
    name,
    space: 'default',
    vni: 4000 + name.charCodeAt(0),
    subnets: [subnet],
    gateways: [subnet.replace(/0\/\d+$/, '1')],
    encap: 'vxlan',
    mtu: 1450,
    state: 'bound',
    createdAt: '2025-01-01T00:00:00Z',
    revision: 5n,
    ...more,
  });

const CALLERS: PolicyPeer[] = [
  { who: { $case: 'endpoints', value: { networkId: '', labels: { app: 'a', zone: 'z' } } } },
  { who: { $case: 'endpoints', value: { networkId: 'id-six', labels: {} } } },
  { who: { $case: 'addresses', value: { cidr: '10.0.0.0/8', except: ['10.1.0.0/16'] } } },
];

const DB_ID = 'd'.repeat(64);

export const MESH: Actual = {
  ...NOTHING,
  networks: [
    network('web', '10.1.0.0/16', {
      labels: { team: 'a' },
      rate: { bits: 500_000_000n, burst: 65_536n },
      egressIps: ['192.0.2.7'],
      policyDefault: 'drop',
    }),
    network('six', '10.2.0.0/16', {
      subnets: ['10.2.0.0/16', 'fd00:2::/64'],
      gateways: ['10.2.0.9', 'fd00:2::1'],
      ipv6: true,
      ipRange: '10.2.4.0/24',
      internal: true,
      encap: 'geneve',
      dnsOrder: 'nearest',
      allowTrust: true,
    }),
    network('lan', '192.168.7.0/24', { encap: 'vlan', uplink: 'eth1', vlanTag: 100, vni: 0, gateways: [] }),
  ],
  reservations: [
    Reservation.fromPartial({
      id: '1',
      networkId: 'id-web',
      name: 'db-1',
      ips: ['10.1.0.10'],
      mac: '02:00:00:00:00:01',
      labels: { a: 'b' },
      revision: 6n,
    }),
  ],
  routers: [
    Router.fromPartial({
      id: '2',
      name: 'core',
      networkIds: ['id-web', 'id-six'],
      routes: [{ cidr: '172.16.0.0/12', via: ['10.1.0.4', '10.1.0.5'] }],
      revision: 7n,
    }),
  ],
  services: [
    Service.fromPartial({
      id: '3',
      networkId: 'id-web',
      name: 'shop',
      ips: ['10.1.255.254'],
      ports: [
        { name: 'http', protocol: 'tcp', port: 80, targetPort: 8080, hostPort: 8000 },
        { name: 'dns', protocol: 'udp', port: 53, targetPort: 53, hostPort: 0 },
      ],
      selector: { app: 'shop' },
      health: HealthCheck.fromPartial({
        type: 'http',
        port: 8080,
        path: '/healthz',
        intervalMs: 300,
        timeoutMs: 200,
        rise: 2,
        fall: 2,
      }),
      affinityS: 60,
      localFirst: true,
      publish: 'all',
      labels: { tier: 'front' },
      revision: 8n,
    }),
    Service.fromPartial({
      id: '4',
      networkId: 'id-six',
      name: 'db',
      ports: [{ name: '', protocol: 'tcp', port: 5432, targetPort: 5432, hostPort: 0 }],
      selector: { app: 'db' },
      headless: true,
      revision: 8n,
    }),
  ],
  policies: [
    Policy.fromPartial({
      id: '5',
      networkId: 'id-web',
      name: 'shop',
      tier: 'platform',
      order: 7,
      selector: { app: 'shop' },
      ingress: [
        {
          action: 'allow',
          peers: CALLERS,
          ports: [{ protocol: 'tcp', first: 80, last: 80 }],
        },
        { action: 'drop', peers: [], ports: [] },
      ],
      egress: [{ action: 'allow', peers: [{ who: { $case: 'service', value: 'shop' } }], ports: [] }],
      revision: 9n,
    }),
  ],
  endpoints: [
    Endpoint.fromPartial({
      id: DB_ID,
      networkId: 'id-web',
      hostId: 'hosth1',
      ips: ['10.1.0.10'],
      container: { id: 'c'.repeat(64), name: 'db-1' },
      state: 'known',
    }),
    Endpoint.fromPartial({
      id: 'e'.repeat(64),
      networkId: 'id-six',
      hostId: 'hosth1',
      ips: ['10.2.0.10'],
      container: { id: 'f'.repeat(64), name: 'app' },
      state: 'known',
    }),
  ],
  settings: {
    [DB_ID]: EndpointSettings.fromPartial({
      endpointId: DB_ID,
      networkId: 'id-web',
      allowed: [{ ip: '10.1.0.100', mac: '' }],
      draining: true,
      rate: { bits: 200_000_000n, burst: 0n },
      priority: 'high',
      revision: 10n,
    }),
  },
};

/** What would be done by a file. */
export function planned(text: string, actual: Actual = NOTHING, prune = false) {
  const { desired, problems } = readWishes(readSources([{ file: 'm.yaml', text }]));
  const found = plan(desired, actual, { prune });
  return { ...found, problems: [...problems, ...found.problems] };
}

export const messages = (problems: readonly WeftError[]): string[] => problems.map(({ message }) => message);

/** Actions and names, a line each. */
export const summary = ({ changes }: Pick<ReturnType<typeof planned>, 'changes'>): string[] =>
  changes.map(({ action, kind, network, name }) => `${action} ${kind} ${network === null ? '' : `${network}/`}${name}`);
