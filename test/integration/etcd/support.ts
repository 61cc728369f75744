/** Short forms of the objects that the store's tests write. */

import type { NetworkSpec } from '../../../coordinator/contract.ts';
import { type OpenedStore, type OpenOptions, openStore } from '../../../coordinator/store/index.ts';
import { silentLog } from '../../../lib/log.ts';
import { macOfIp } from '../../../lib/mac.ts';
import type { Endpoint, Host } from '../../../lib/model.ts';

export const open = (endpoint: string, id: string, more: Partial<OpenOptions> = {}): Promise<OpenedStore> =>
  openStore({
    endpoints: [endpoint],
    coordinator: { id, name: `coord-${id}`, address: '127.0.0.1:7470', version: '0.1.0' },
    log: silentLog(),
    ...more,
  });

export const aSpec = (name: string, more: Partial<NetworkSpec> = {}): NetworkSpec => ({
  project: 'default',
  name,
  space: 'default',
  subnets: [],
  ipRange: '',
  gateways: [],
  ipv6: false,
  encap: '',
  vni: 0,
  mtu: 0,
  internal: false,
  encrypted: false,
  labels: {},
  options: {},
  originHost: '',
  uplink: '',
  vlanTag: 0,
  allowTrust: false,
  publishBy: '',
  dnsOrder: '',
  policyDefault: '',
  ...more,
});

export const aHost = (id: string, more: Partial<Host> = {}): Host => ({
  id,
  name: `name-${id}`,
  vteps: [{ address: '192.0.2.1', encaps: ['vxlan'], encrypted: false }],
  datapath: 'netdev',
  versions: {},
  draining: false,
  createdAt: '2025-01-01T00:00:00Z',
  capabilities: [],
  underlayMtu: 1500,
  backend: 'ovs-tunnel',
  express: false,
  probes: [],
  ...more,
});

export const anEndpoint = (networkId: string, hostId: string, id: string, ip: string): Endpoint => ({
  id,
  networkId,
  hostId,
  ips: [ip],
  mac: macOfIp(ip),
  givenMac: false,
  container: { id: `id-${id}`, name: `c-${id}` },
  state: 'known',
  labels: {},
  createdAt: '2025-01-01T00:00:00Z',
  ofport: 1,
  aliases: [],
  allowed: [],
  trusted: false,
  express: false,
  kind: 'container',
  ports: [],
  unhealthy: [],
  revision: 0n,
});

/** Waits for a condition. @throws when it has not come within `ms` */
export async function until(what: string, condition: () => boolean | Promise<boolean>, ms = 10_000): Promise<void> {
  const end = performance.now() + ms;
  while (!(await condition())) {
    if (performance.now() > end) throw new Error(`${what}: not within ${ms} ms`);
    await new Promise((resolve) => setTimeout(resolve, 10));
  }
}
