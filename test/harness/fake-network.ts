/** A network's record with what a test leaves out. */
import { formatIp, parseCidr } from '../../lib/addr.ts';
import type { AllowedAddress, EndpointSettings, Network } from '../../lib/model.ts';

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

/** What endpoints may send from besides their own, by network. */
export class FakeSettings {
  readonly #all = new Map<string, Map<string, EndpointSettings>>();

  /** @param allowed none = nothing any more */
  allow(networkId: string, endpointId: string, allowed: AllowedAddress[]): void {
    const now = this.of(networkId);
    if (allowed.length === 0) now.delete(endpointId);
    else now.set(endpointId, { networkId, endpointId, allowed, updatedAt: '', revision: 0n });
    this.#all.set(networkId, now);
  }

  /** By endpoint id. */
  of(networkId: string): Map<string, EndpointSettings> {
    return new Map(this.#all.get(networkId));
  }
}
