/** Short forms of what services are made of. */
import type { LocalEndpoint, LocalNetwork } from '../../../../agent/contract.ts';
import type { ServiceSources } from '../../../../agent/services/members.ts';
import { Endpoint, EndpointSettings, HealthCheck, Service } from '../../../../gen/weft/v1/types.ts';
import { defaultMac } from '../../../../lib/mac.ts';
import type { NetworkView, View } from '../../../../lib/model.ts';
import { networkOf } from '../../../harness/fake-network.ts';

export const N = 'n1';
export const OWN = 'h1';

export const row: LocalNetwork = {
  networkId: N,
  dockerNetworkId: null,
  name: 'web',
  index: 1,
  network: networkOf({ id: N, name: 'web', subnets: ['10.1.0.0/24', 'fd00::/64'] }),
};

export const service = (id: string, more: Partial<Service> = {}): Service =>
  Service.fromPartial({
    id,
    networkId: N,
    name: id,
    ips: ['10.1.0.200'],
    ports: [{ name: '', protocol: 'tcp', port: 80, targetPort: 8080 }],
    selector: { role: 'web' },
    ...more,
  });

export const tcpCheck = (more: Partial<HealthCheck> = {}): HealthCheck =>
  HealthCheck.fromPartial({ type: 'tcp', intervalMs: 500, timeoutMs: 200, rise: 2, fall: 2, ...more });

const macOf = (ip: string): string => (ip.includes(':') ? defaultMac('', ip, 64) : defaultMac(ip, '', 0)).mac;

export const mine = (id: string, ip: string, more: Partial<LocalEndpoint> = {}): LocalEndpoint =>
  ({
    id,
    networkId: N,
    ip,
    ip6: '',
    mac: macOf(ip),
    container: { id: `c-${id}`, name: id },
    labels: { role: 'web' },
    aliases: [],
    transit: '169.254.70.1',
    ...more,
  }) as LocalEndpoint;

export const theirs = (id: string, ip: string, more: Partial<Endpoint> = {}): Endpoint =>
  Endpoint.fromPartial({
    id,
    networkId: N,
    hostId: 'h2',
    ips: [ip],
    mac: macOf(ip),
    state: 'known',
    labels: { role: 'web' },
    ...more,
  });

export const draining = (endpointId: string): EndpointSettings =>
  EndpointSettings.fromPartial({ endpointId, networkId: N, draining: true });

const by = <T>(items: readonly T[], key: (item: T) => string): Map<string, T> =>
  new Map(items.map((item) => [key(item), item]));

export interface World {
  readonly services: readonly Service[];
  readonly theirs?: readonly Endpoint[];
  readonly settings?: readonly EndpointSettings[];
  /** The catalogue says that hosts lead ports into the network. */
  readonly published?: boolean;
}

export function viewOf(world: World): View {
  const interest: NetworkView = {
    networkId: N,
    blocks: new Map(),
    endpoints: by(world.theirs ?? [], (e) => e.id),
    peers: new Map(),
    addresses: new Map(),
    externals: new Map(),
    memberships: new Map(),
    settings: by(world.settings ?? [], (s) => s.endpointId),
    reservations: new Map(),
    services: by(world.services, (s) => s.name),
    policies: new Map(),
  };
  const networks = world.published === true ? new Map([[N, { ...row.network, published: true }]]) : new Map();
  return { revision: { epoch: 1n, number: 1n }, networks, routers: new Map(), interests: new Map([[N, interest]]) };
}

export const sourcesOf = (
  view: View,
  endpoints: readonly LocalEndpoint[],
  unhealthy: ServiceSources['unhealthy'] = () => NONE,
  unreached: ReadonlySet<string> = NOBODY,
): ServiceSources => ({
  hostId: OWN,
  view,
  endpoints,
  networks: new Map([[N, row]]),
  leads: () => true,
  unhealthy,
  unreached,
});

const NONE: readonly string[] = [];
const NOBODY: ReadonlySet<string> = new Set<string>();
