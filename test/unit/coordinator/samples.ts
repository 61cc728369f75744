/** Short forms of the objects that the coordinator's unit tests write. */
import { macOfIp } from '../../../lib/mac.ts';
import type { Endpoint, Host, Network } from '../../../lib/model.ts';

export const aHost = (id: string, more: Partial<Host> = {}): Host => ({
  id,
  name: id,
  vteps: [{ address: '192.0.2.1', encaps: ['vxlan'], encrypted: false }],
  datapath: 'netdev',
  versions: {},
  draining: false,
  createdAt: '',
  capabilities: [],
  underlayMtu: 1500,
  ...more,
});

export const aNetworkRecord = (id: string, more: Partial<Network> = {}): Network => ({
  id,
  project: 'default',
  name: `name-${id}`,
  space: 'default',
  vni: 4096,
  subnets: ['10.0.0.0/24'],
  ipRange: '',
  gateways: ['10.0.0.1'],
  encap: 'vxlan',
  mtu: 1450,
  internal: false,
  encrypted: false,
  labels: {},
  options: {},
  auxAddresses: {},
  state: 'bound',
  originHost: '',
  createdAt: '',
  revision: 1n,
  ipv6: false,
  attachable: false,
  ...more,
});

export const anEndpoint = (
  networkId: string,
  hostId: string,
  n: number,
  ip: string,
  more: Partial<Endpoint> = {},
): Endpoint => ({
  id: `e${n}`,
  networkId,
  hostId,
  ips: [ip],
  mac: macOfIp(ip),
  givenMac: false,
  container: { id: `id${n}`, name: `c${n}` },
  state: 'known',
  labels: {},
  createdAt: '',
  ofport: 1,
  aliases: [],
  revision: 0n,
  ...more,
});
