/** Random meshes as each host's bridge sees them. */
import type { LocalEndpoint, LocalNetwork } from '../../agent/contract.ts';
import type { BridgeModel } from '../../agent/flows/model.ts';
import { networkModels } from '../../agent/plan/bridge.ts';
import { Peer } from '../../gen/weft/v1/session.ts';
import { Endpoint, Router, Service } from '../../gen/weft/v1/types.ts';
import type { Network, NetworkView, View } from '../../lib/model.ts';
import { networkOf } from './fake-network.ts';
import { HOSTS, IDS, type Mesh } from './policy-mesh.ts';

export const VTEPS = { h1: '192.0.2.1', h2: '192.0.2.2' } as const;
/** OpenFlow port to the tunnels; endpoints have those after it. */
export const TUNNEL_PORT = 1;

const by = <T>(items: readonly T[], key: (item: T) => string): Map<string, T> =>
  new Map(items.map((item) => [key(item), item]));

function viewOf(m: Mesh): View {
  const interests = [...m.networks.keys()].map((id): NetworkView => {
    const n = IDS.indexOf(id) + 1;
    const given = m.blocks?.filter((b) => b.network === id);
    const blocks = HOSTS.flatMap(
      (hostId, i) =>
        given?.filter((b) => b.host === hostId).map(({ cidr }) => ({ networkId: id, cidr, hostId, revision: 1n })) ??
        [`10.${n}.0.${16 * i}/28`, `fd00:${n}::${(16 * i).toString(16)}/124`.replace('::0/', '::/')].map((cidr) => ({
          networkId: id,
          cidr,
          hostId,
          revision: 1n,
        })),
    );
    const endpoints = m.endpoints
      .filter((e) => e.network === id)
      .map(({ labels: known, host: hostId, ips, mac, given: givenMac = false, id: endpointId }) =>
        Endpoint.fromPartial({
          id: endpointId,
          networkId: id,
          hostId,
          ips: [...ips],
          mac,
          givenMac,
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
  return {
    revision: { epoch: 1n, number: 1n },
    networks: by(
      [...m.networks.keys()].map((id) => networkIn(m, id)),
      (n) => n.id,
    ),
    routers: by(
      m.routers.map(({ networks, routes }, i) =>
        Router.fromPartial({
          name: `r${i}`,
          networkIds: [...networks],
          routes: routes.map(({ cidr, via }) => ({ cidr, via: [...via] })),
        }),
      ),
      (r) => r.name,
    ),
    interests: by(interests, (n) => n.networkId),
  };
}

function networkIn(m: Mesh, id: string): Network {
  const { shut, subnets } = m.networks.get(id)!;
  const n = IDS.indexOf(id) + 1;
  return networkOf({
    id,
    name: id,
    vni: 4095 + n,
    subnets: [...subnets],
    gateways: [`10.${n}.0.1`, `fd00:${n}::1`],
    internal: true,
    policyDefault: shut ? 'drop' : '',
  });
}

/** What the bridge of one host has to know. */
export const bridgeOf = (m: Mesh, hostId: (typeof HOSTS)[number]): BridgeModel => compiler(m, hostId)();

/** What one host holds, and was told. */
export function holdingsOf(m: Mesh, hostId: (typeof HOSTS)[number]) {
  const networks = new Map(
    [...m.networks.keys()].map((id, i): [string, LocalNetwork] => [
      id,
      { networkId: id, dockerNetworkId: null, name: id, index: i + 1, network: networkIn(m, id) },
    ]),
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
      givenMac: e.given === true,
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

/** View and journal of one host. @returns the agent's way from these to what its bridge has to know */
export function compiler(m: Mesh, hostId: (typeof HOSTS)[number]): () => BridgeModel {
  const { networks, locals, numbers, view } = holdingsOf(m, hostId);
  return () => ({
    tunnels: { kind: 'kernel', port: TUNNEL_PORT },
    networks: networkModels(view, { hostId, ipv6: false }, networks, locals, numbers),
    maxMeters: 0,
  });
}
