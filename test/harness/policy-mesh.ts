/** Random meshes with policies: as the reference evaluator sees them, and as each host's bridge does. */
import fc from 'fast-check';
import type { LocalEndpoint, LocalNetwork } from '../../agent/contract.ts';
import type { BridgeModel } from '../../agent/flows/model.ts';
import { networkModels } from '../../agent/plan/bridge.ts';
import { Peer } from '../../gen/weft/v1/session.ts';
import { Endpoint, Policy, Service } from '../../gen/weft/v1/types.ts';
import { defaultMac } from '../../lib/mac.ts';
import type { NetworkView, View } from '../../lib/model.ts';
import type { RefEndpoint, RefMesh, RefPacket } from '../reference/policy.ts';
import { networkOf } from './fake-network.ts';

export const HOSTS = ['h1', 'h2'] as const;
export const VTEPS = { h1: '192.0.2.1', h2: '192.0.2.2' } as const;
/** OpenFlow port to the tunnels; endpoints have those after it. */
export const TUNNEL_PORT = 1;

export interface MeshEndpoint extends RefEndpoint {
  readonly id: string;
  readonly mac: string;
  readonly ofport: number;
}

export interface Mesh extends RefMesh {
  readonly endpoints: readonly MeshEndpoint[];
}

const IDS = ['n1', 'n2'];
const subnetsOf = (id: string): string[] => {
  const n = IDS.indexOf(id) + 1;
  return [`10.${n}.0.0/24`, `fd00:${n}::/64`];
};

const labels = fc.dictionary(fc.constantFrom('app', 'tier'), fc.constantFrom('a', 'b'), {
  maxKeys: 2,
  noNullPrototype: true,
});
const action = fc.constantFrom('allow', 'allow', 'drop', 'reject');
const port = fc.oneof(
  fc.record({
    protocol: fc.constantFrom('tcp', 'udp', 'sctp'),
    first: fc.constantFrom(0, 1, 79, 80, 1000, 1023),
    width: fc.constantFrom(0, 1, 23, 1024, 64_000),
  }),
  fc.record({
    protocol: fc.constant('icmp'),
    icmpType: fc.constantFrom(undefined, 8, 128, 3),
    icmpCode: fc.constantFrom(undefined, 0),
  }),
);
const peer = fc.oneof(
  {
    weight: 4,
    arbitrary: fc.record({ $case: fc.constant('endpoints'), networkId: fc.constantFrom('', '', 'n1', 'n2'), labels }),
  },
  {
    weight: 2,
    arbitrary: fc.record({
      $case: fc.constant('addresses'),
      cidr: fc.constantFrom('0.0.0.0/0', '::/0', '10.1.0.0/29', '10.0.0.0/8', 'fd00:1::/125', '10.1.0.3/32'),
      except: fc.subarray(['10.1.0.2/31', '10.1.0.4/32', 'fd00:1::2/127', '10.0.0.0/9'], { maxLength: 2 }),
    }),
  },
  { weight: 1, arbitrary: fc.record({ $case: fc.constant('service'), name: fc.constantFrom('s1', 's2', 'none') }) },
);
const rule = fc.record({
  action,
  peers: fc.array(peer, { maxLength: 2 }),
  ports: fc.array(port, { maxLength: 2 }),
});
const policy = fc.record({
  networkId: fc.constantFrom(...IDS),
  tier: fc.constantFrom('platform', 'application', 'application', 'baseline'),
  order: fc.constantFrom(0, 100, 100, 499),
  selector: labels,
  ingress: fc.array(rule, { maxLength: 3 }),
  egress: fc.array(rule, { maxLength: 3 }),
});
const endpoint = fc.record({
  network: fc.constantFrom(...IDS),
  host: fc.constantFrom(...HOSTS),
  labels: fc.option(labels, { freq: 8 }),
  families: fc.constantFrom<readonly number[]>([4, 6], [4, 6], [4], [6]),
});

export const mesh: fc.Arbitrary<Mesh> = fc
  .record({
    shut: fc.tuple(fc.boolean(), fc.boolean()),
    endpoints: fc.array(endpoint, { minLength: 4, maxLength: 7 }),
    policies: fc.array(policy, { minLength: 0, maxLength: 5 }),
    services: fc.tuple(labels, labels),
  })
  .map(({ shut, endpoints, policies, services }) => ({
    networks: new Map(IDS.map((id, i) => [id, { shut: shut[i] === true, subnets: subnetsOf(id) }])),
    endpoints: endpoints.map(({ network, host, labels: known, families }, i) => {
      const n = IDS.indexOf(network) + 1;
      // Each host has a block of each network; an IPv6 address alone, too, comes from one.
      const last = (host === 'h1' ? 0 : 16) + i + 2;
      const ip = families.includes(4) ? `10.${n}.0.${last}` : '';
      const ip6 = families.includes(6) ? `fd00:${n}::${last.toString(16)}` : '';
      const ips = [ip, ip6].filter((text) => text !== '');
      const { mac } = defaultMac(ip, ip6, 64);
      return { id: String(i).repeat(64), network, host, ips, labels: known, mac, ofport: i + 2 };
    }),
    policies: policies.map((p, i) => Policy.fromPartial({ ...p, name: `p${i}`, ...rulesOf(p) })),
    services: new Map(
      [
        ['n1/s1', services[0]],
        ['n1/s2', services[1]],
      ].filter(([, of]) => Object.keys(of as object).length > 0) as [string, Record<string, string>][],
    ),
  }));

interface Drawn {
  readonly action: string;
  readonly peers: unknown[];
  readonly ports: unknown[];
}

function rulesOf(p: { ingress: unknown[]; egress: unknown[] }): {
  ingress: Policy['ingress'];
  egress: Policy['egress'];
} {
  const of = (rules: unknown[]): Policy['ingress'] =>
    (rules as Drawn[]).map((r) => ({
      action: r.action,
      peers: (r.peers as { $case: string; name?: string; networkId?: string; labels?: Record<string, string> }[]).map(
        (who) =>
          ({
            who: who.$case === 'service' ? { $case: 'service', value: who.name } : { $case: who.$case, value: who },
          }) as Policy['ingress'][number]['peers'][number],
      ),
      ports: (
        r.ports as { protocol: string; first?: number; width?: number; icmpType?: number; icmpCode?: number }[]
      ).map(({ protocol, first = 0, width = 0, icmpType, icmpCode }) => ({
        protocol,
        first,
        last: Math.min(65_535, first === 0 ? 0 : first + width),
        icmpType,
        icmpCode,
      })),
    }));
  return { ingress: of(p.ingress), egress: of(p.egress) };
}

export const packet: fc.Arbitrary<RefPacket> = fc.record({
  protocol: fc.constantFrom('tcp', 'tcp', 'udp', 'sctp', 'icmp'),
  port: fc.constantFrom(1, 78, 79, 80, 81, 103, 1000, 1023, 1024, 65_535),
  type: fc.constantFrom(8, 128, 3, 1),
  code: fc.constantFrom(0, 1),
});

const by = <T>(items: readonly T[], key: (item: T) => string): Map<string, T> =>
  new Map(items.map((item) => [key(item), item]));

function viewOf(m: Mesh): View {
  const interests = [...m.networks.keys()].map((id): NetworkView => {
    const n = IDS.indexOf(id) + 1;
    const blocks = HOSTS.flatMap((hostId, i) =>
      [`10.${n}.0.${16 * i}/28`, `fd00:${n}::${(16 * i).toString(16)}/124`.replace('::0/', '::/')].map((cidr) => ({
        networkId: id,
        cidr,
        hostId,
        revision: 1n,
      })),
    );
    const endpoints = m.endpoints
      .filter((e) => e.network === id)
      .map(({ labels: known, host: hostId, ips, mac, id: endpointId }) =>
        Endpoint.fromPartial({
          id: endpointId,
          networkId: id,
          hostId,
          ips: [...ips],
          mac,
          state: known === null ? 'pending' : 'known',
          labels: known ?? {},
        }),
      );
    const services = [...m.services]
      .filter(([key]) => key.startsWith(`${id}/`))
      .map(([key, selector]) => Service.fromPartial({ id: key, networkId: id, name: key.slice(3), selector }));
    const peers = HOSTS.map((hostId) =>
      Peer.fromPartial({ hostId, name: hostId, vteps: [{ address: VTEPS[hostId], encaps: ['vxlan'] }] }),
    );
    return {
      networkId: id,
      blocks: by(blocks, (b) => b.cidr),
      endpoints: by(endpoints, (e) => e.id),
      peers: by(peers, (p) => p.hostId),
      addresses: new Map(),
      externals: new Map(),
      memberships: new Map(),
      settings: new Map(),
      reservations: new Map(),
      services: by(services, (s) => s.name),
      policies: by(
        m.policies.filter((p) => p.networkId === id),
        (p) => p.name,
      ),
    };
  });
  return { revision: { epoch: 1n, number: 1n }, networks: new Map(), interests: by(interests, (n) => n.networkId) };
}

/** What one host holds, and was told. */
export function holdingsOf(m: Mesh, hostId: (typeof HOSTS)[number]) {
  const networks = new Map(
    [...m.networks].map(([id, { shut, subnets }], i): [string, LocalNetwork] => {
      const network = networkOf({
        id,
        name: id,
        vni: 4096 + i,
        subnets: [...subnets],
        internal: true,
        policyDefault: shut ? 'drop' : '',
      });
      return [id, { networkId: id, dockerNetworkId: null, name: id, index: i + 1, network }];
    }),
  );
  const own = m.endpoints.filter((e) => e.host === hostId);
  const ports = new Map(own.map((e) => [e.id, e.ofport]));
  const locals = own.map((e): LocalEndpoint => {
    const [ip = ''] = e.ips.filter((text) => !text.includes(':'));
    const [ip6 = ''] = e.ips.filter((text) => text.includes(':'));
    return {
      id: e.id,
      networkId: e.network,
      dockerNetworkId: null,
      ip,
      prefix: 24,
      ip6,
      prefix6: 64,
      mac: e.mac,
      givenMac: false,
      mtu: 1450,
      createdAt: '',
      sandbox: null,
      container: e.labels === null ? null : { id: e.id, name: e.id.slice(0, 4) },
      labels: e.labels ?? {},
      aliases: [],
      interfaceName: null,
    };
  });
  const numbers = { endpoint: (id: string) => ports.get(id) ?? null, uplink: () => null };
  return { networks, locals, numbers, view: viewOf(m) };
}

/** What the bridge of one host has to know. */
export function bridgeOf(m: Mesh, hostId: (typeof HOSTS)[number]): BridgeModel {
  const { networks, locals, numbers, view } = holdingsOf(m, hostId);
  const models = networkModels(view, { hostId, ipv6: false }, networks, locals, numbers);
  return { tunnels: { kind: 'kernel', port: TUNNEL_PORT }, networks: models, maxMeters: 0 };
}
