/** A network's record with what a test leaves out. */
import { formatIp, parseCidr } from '../../lib/addr.ts';
import type { Network } from '../../lib/model.ts';

export const networkOf = (fields: Partial<Network> & { id: string; subnets: string[] }): Network => ({
  project: 'default',
  name: '',
  space: 'default',
  vni: 100,
  ipRange: '',
  gateways: fields.subnets.map((subnet) => formatIp(parseCidr(subnet).base + 1n)),
  encap: 'vxlan',
  mtu: 1450,
  internal: false,
  encrypted: false,
  labels: {},
  options: {},
  auxAddresses: {},
  state: 'bound',
  originHost: '',
  createdAt: '2026-01-01T00:00:00Z',
  revision: 1n,
  ipv6: false,
  attachable: false,
  uplink: '',
  vlanTag: 0,
  allowTrust: false,
  publishBy: '',
  ...fields,
});
