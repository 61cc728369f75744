/** Views and journals for the tests of names. */
import type { LocalEndpoint, LocalNetwork } from '../../../../agent/contract.ts';
import { indexNames, type NameIndex, NO_NAMES, type Unhealthy } from '../../../../agent/dns/names.ts';
import { Endpoint, EndpointSettings, Network, Service } from '../../../../gen/weft/v1/types.ts';
import type { NetworkView, View } from '../../../../lib/model.ts';

export const OWN = 'aaaaaaaaaaaaaaaa';
export const OTHER = 'bbbbbbbbbbbbbbbb';

export interface Has {
  readonly network: string;
  readonly name: string;
  readonly ips: readonly string[];
  readonly aliases?: readonly string[];
  /** By default made of the name. */
  readonly container?: string;
  readonly revision?: number;
}

export const containerId = (name: string): string => Buffer.from(name).toString('hex').padEnd(64, '0').slice(0, 64);

export const local = (has: Has, more: Partial<LocalEndpoint> = {}): LocalEndpoint => ({
  id: containerId(`${has.network}/${has.name}`),
  networkId: has.network,
  dockerNetworkId: 'd',
  ip: has.ips.find((ip) => !ip.includes(':')) ?? '',
  prefix: 20,
  ip6: has.ips.find((ip) => ip.includes(':')) ?? '',
  prefix6: 64,
  mac: '02:58:00:00:00:00',
  givenMac: false,
  mtu: 1450,
  createdAt: '',
  sandbox: '/var/run/docker/netns/1',
  container: { id: has.container ?? containerId(has.name), name: has.name },
  labels: {},
  aliases: [has.name, ...(has.aliases ?? [])],
  interfaceName: 'eth0',
  ...more,
});

export const remote = (has: Has, more: Partial<Endpoint> = {}): Endpoint => ({
  ...Endpoint.fromPartial({
    id: containerId(`${has.network}/${has.name}/r`),
    networkId: has.network,
    hostId: OTHER,
    ips: [...has.ips],
    container: { id: has.container ?? containerId(`${has.name}/r`), name: has.name },
    state: 'known',
    aliases: [has.name, ...(has.aliases ?? [])],
    revision: BigInt(has.revision ?? 1),
    kind: 'container',
  }),
  ...more,
});

export const network = (id: string, more: Partial<Network> = {}): Network => ({
  ...Network.fromPartial({ id, name: id, project: 'default', subnets: ['10.128.0.0/20', 'fd00:1::/64'] }),
  ...more,
});

/** A headless one unless it has addresses. Its id is made of its name. */
export const service = (networkId: string, name: string, more: Partial<Service> = {}): Service => ({
  ...Service.fromPartial({
    id: `id-${name}`,
    networkId,
    name,
    selector: { app: name },
    headless: (more.ips ?? []).length === 0,
    ports: [{ name: '', protocol: 'tcp', port: 80, targetPort: 8080 }],
  }),
  ...more,
});

export const draining = (networkId: string, endpointId: string): EndpointSettings => ({
  ...EndpointSettings.fromPartial({ networkId, endpointId, draining: true }),
});

export const interest = (networkId: string, endpoints: readonly Endpoint[]): NetworkView => ({
  networkId,
  blocks: new Map(),
  endpoints: new Map(endpoints.map((e) => [e.id, e])),
  peers: new Map(),
  addresses: new Map(),
  externals: new Map(),
  memberships: new Map(),
  settings: new Map(),
  reservations: new Map(),
  services: new Map(),
  policies: new Map(),
});

export const view = (networks: readonly Network[], endpoints: readonly Endpoint[]): View => ({
  revision: { epoch: 1n, number: 1n },
  networks: new Map(networks.map((n) => [n.id, n])),
  routers: new Map(),
  interests: new Map(
    networks.map((n) => [
      n.id,
      interest(
        n.id,
        endpoints.filter((e) => e.networkId === n.id),
      ),
    ]),
  ),
});

/** With services of networks, and what their names depend on. */
export function indexWith(o: {
  readonly networks: readonly Network[];
  readonly own?: readonly LocalEndpoint[];
  readonly others?: readonly Endpoint[];
  readonly services: readonly Service[];
  readonly settings?: readonly EndpointSettings[];
  readonly unhealthy?: Unhealthy;
  readonly before?: NameIndex;
}): NameIndex {
  const { networks, own = [], others = [], services, settings = [], unhealthy, before = NO_NAMES } = o;
  const seen = view(networks, others);
  const interests = [...seen.interests].map(([id, n]): [string, NetworkView] => [
    id,
    {
      ...n,
      services: new Map(services.filter((s) => s.networkId === id).map((s) => [s.name, s])),
      settings: new Map(settings.filter((s) => s.networkId === id).map((s) => [s.endpointId, s])),
    },
  ]);
  const sources = {
    hostId: OWN,
    view: { ...seen, interests: new Map(interests) },
    endpoints: own,
    networks: new Map(),
  };
  return indexNames(unhealthy === undefined ? sources : { ...sources, unhealthy }, before);
}

export const indexOf = (
  networks: readonly Network[],
  own: readonly LocalEndpoint[],
  others: readonly Endpoint[],
  before = NO_NAMES,
  rows: ReadonlyMap<string, LocalNetwork> = new Map(),
): NameIndex => indexNames({ hostId: OWN, view: view(networks, others), endpoints: own, networks: rows }, before);
