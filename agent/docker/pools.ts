/**
 * Pools as Docker knows them (pure): one for each address family, asked for one after the other. A network without IPv4 has a pool
 * all the same, for dockerd asks for one always (until Docker 28's --ipv4=false): 0.0.0.0/0, from which every container "gets"
 * 0.0.0.0/32, which Linux does not even put on the interface (inet_insert_ifa).
 */
import { familyOfText, ofFamily } from '../../lib/addr.ts';
import { WeftError } from '../../lib/errors.ts';
import type { Network } from '../../lib/model.ts';
import type { Journal, LocalNetwork } from '../contract.ts';
import { ADDRESS_SPACE, type CreateNetworkRequest, GLOBAL_ADDRESS_SPACE, type IpamData } from './wire.ts';

export const NO_IPV4 = { pool: '0.0.0.0/0', poolId: 'weft/none/0.0.0.0/0', address: '0.0.0.0/32' } as const;

/** What Docker shows of an address, without prefix length; empty where there is none. */
export const shownAddress = (text: string): string => {
  const ip = text.split('/')[0] ?? '';
  return ip === '0.0.0.0' ? '' : ip;
};

/**
 * The network of a pool. Its id is that of the reservation, which may have joined another one since: then the subnet tells.
 */
export function rowOfPool(
  networks: Journal['networks'],
  pool: { readonly networkId: string; readonly cidr: string },
): LocalNetwork | undefined {
  const row = networks.get(pool.networkId);
  if (row?.network.subnets.includes(pool.cidr) === true) return row;
  return networks.values().find((other) => other.network.subnets.includes(pool.cidr)) ?? row;
}

export interface NetworkPools {
  readonly four: IpamData | null;
  readonly six: IpamData | null;
}

/** The pools of a network that Docker creates: one or two. @throws INVALID_ARGUMENT, UNIMPLEMENTED */
export function poolsOf(request: CreateNetworkRequest): NetworkPools {
  const [data4, ...more4] = request.IPv4Data ?? [];
  const [data6, ...more6] = request.IPv6Data ?? [];
  for (const data of [data4, data6])
    if (data !== undefined && data.AddressSpace !== ADDRESS_SPACE && data.AddressSpace !== GLOBAL_ADDRESS_SPACE)
      throw notOurs();
  if (data4 === undefined && data6 === undefined) throw notOurs();
  if (more4.length + more6.length > 0)
    throw new WeftError('UNIMPLEMENTED', 'a Weft network has one subnet of each family', {
      hint: 'give one IPv4 and one IPv6 --subnet at most',
    });
  const four = data4 === undefined || data4.Pool === NO_IPV4.pool ? null : data4;
  if (four === null && data6 === undefined)
    throw new WeftError('INVALID_ARGUMENT', `the subnet ${NO_IPV4.pool} stands for "no IPv4"`, {
      hint: 'give an IPv6 --subnet and --ipv6 too',
    });
  return { four, six: data6 ?? null };
}

const notOurs = (): WeftError =>
  new WeftError('INVALID_ARGUMENT', 'a Weft network takes its addresses from the mesh, not from this host alone', {
    hint: 'use --ipam-driver weft',
  });

/** Docker's names for addresses that no endpoint may have, of both pools. */
export const auxOf = ({ four, six }: NetworkPools): Record<string, string> =>
  Object.fromEntries(
    [four, six].flatMap((data) =>
      Object.entries(data?.AuxAddresses ?? {}).map(([name, cidr]) => [name, cidr.split('/')[0] ?? cidr]),
    ),
  );

/** The reservation of the IPv4 pool together with that of the IPv6 one. */
export const joined = (four: Network, six: Network): Network => ({
  ...four,
  subnets: [...four.subnets, ...six.subnets],
  gateways: [...four.gateways, ...six.gateways],
  ipRange: four.ipRange || six.ipRange,
  ipv6: true,
});

/** Empty where the network has none of that family. */
export const subnetText = (network: Pick<Network, 'subnets'>, family: 4 | 6): string =>
  ofFamily(network.subnets, family)[0] ?? '';
export const gatewayText = (network: Pick<Network, 'gateways'>, family: 4 | 6): string =>
  ofFamily(network.gateways, family)[0] ?? '';
export const ipRangeText = (network: Pick<Network, 'ipRange'>, family: 4 | 6): string =>
  network.ipRange !== '' && familyOfText(network.ipRange) === family ? network.ipRange : '';
