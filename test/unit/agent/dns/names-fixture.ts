/** Views and journals for the tests of names. */
import type { LocalEndpoint, LocalNetwork } from '../../../../agent/contract.ts';
import { indexNames, type NameIndex, NO_NAMES } from '../../../../agent/dns/names.ts';
import { Endpoint, Network } from '../../../../gen/weft/v1/types.ts';
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
});

export const view = (networks: readonly Network[], endpoints: readonly Endpoint[]): View => ({
  revision: { epoch: 1n, number: 1n },
  networks: new Map(networks.map((n) => [n.id, n])),
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

export const indexOf = (
  networks: readonly Network[],
  own: readonly LocalEndpoint[],
  others: readonly Endpoint[],
  before = NO_NAMES,
  rows: ReadonlyMap<string, LocalNetwork> = new Map(),
): NameIndex => indexNames({ hostId: OWN, view: view(networks, others), endpoints: own, networks: rows }, before);
