/** Payloads of libnetwork's remote driver and IPAM protocol, as dockerd 20.10 and 26.1 send them (docker/libnetwork docs/remote.md, ipam.md). */

export interface RequestPoolRequest {
  readonly AddressSpace: string;
  /** CIDR; empty = our choice. */
  readonly Pool: string;
  readonly SubPool: string;
  /** --ipam-opt. */
  readonly Options: Readonly<Record<string, string>> | null;
  readonly V6: boolean;
}
export interface PoolRef {
  readonly PoolID: string;
}
export interface RequestAddressRequest extends PoolRef {
  /** Empty = our choice. */
  readonly Address: string;
  readonly Options: Readonly<Record<string, string>> | null;
}
export interface ReleaseAddressRequest extends PoolRef {
  readonly Address: string;
}

export interface IpamData {
  readonly AddressSpace: string;
  readonly Pool: string;
  /** With prefix length. */
  readonly Gateway?: string;
  /** Name to address with prefix length. */
  readonly AuxAddresses?: Readonly<Record<string, string>> | null;
}
export interface CreateNetworkRequest {
  readonly NetworkID: string;
  /** com.docker.network.generic holds the user's -o; no name, no labels. */
  readonly Options: Readonly<Record<string, unknown>> | null;
  readonly IPv4Data: readonly IpamData[] | null;
  readonly IPv6Data: readonly IpamData[] | null;
}
export interface NetworkRef {
  readonly NetworkID: string;
}
export interface EndpointRef extends NetworkRef {
  readonly EndpointID: string;
}
export interface CreateEndpointRequest extends EndpointRef {
  readonly Interface: {
    /** With prefix length. */
    readonly Address?: string;
    readonly AddressIPv6?: string;
    readonly MacAddress?: string;
  } | null;
  readonly Options: Readonly<Record<string, unknown>> | null;
}
export interface JoinRequest extends EndpointRef {
  /** Path of the container's network namespace. */
  readonly SandboxKey: string;
}

/** ProgramExternalConnectivity. */
export interface ExternalRequest extends EndpointRef {
  readonly Options: Readonly<Record<string, unknown>> | null;
}

/** Option keys of libnetwork (netlabel package). */
export const KEY = {
  generic: 'com.docker.network.generic',
  internal: 'com.docker.network.internal',
  enableIpv6: 'com.docker.network.enable_ipv6',
  portMap: 'com.docker.network.portmap',
  requestAddressType: 'RequestAddressType',
  gateway: 'com.docker.network.gateway',
  /** Ours, of an endpoint (--driver-opt): its MAC address. */
  mac: 'weft.mac',
} as const;

export const ADDRESS_SPACE = 'weft';
export const GLOBAL_ADDRESS_SPACE = 'weft-global';

/** A pool id carries the id of the network, or of the reservation that it began as, so that it can be understood without any journal. */
export const poolId = (networkId: string, cidr: string): string => `weft/${networkId}/${cidr}`;

export function parsePoolId(id: string): { networkId: string; cidr: string } | null {
  const m = /^weft\/([0-9a-f]{16})\/([0-9a-f.:]+\/\d+)$/.exec(id);
  return m === null ? null : { networkId: m[1]!, cidr: m[2]! };
}
