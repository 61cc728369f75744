/** A network's record with what a test leaves out, and the blocks that it has room for. */
import {
  blockPrefix,
  blockSpace,
  type Cidr,
  containsIp,
  type Family,
  familyOfText,
  formatIp,
  isUsable,
  lastOf,
  overlaps,
  parseCidr,
  parseIp,
  sizeOf,
  subnetOf,
} from '../../lib/addr.ts';
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
  egressIps: [],
  dnsOrder: '',
  policyDefault: '',
  published: false,
  ...fields,
});

/** @param wanted an address that must be in it, or a family */
export function freeBlock(network: Network, wanted: string | Family, held: readonly Cidr[]): Cidr | null {
  const containing = typeof wanted === 'string' ? wanted : null;
  const subnet = subnetOf(network, typeof wanted === 'string' ? familyOfText(wanted) : wanted)!;
  const range = network.ipRange === '' ? blockSpace(subnet) : parseCidr(network.ipRange);
  for (let prefix = blockPrefix(range); prefix <= 128; prefix++) {
    const size = sizeOf(prefix);
    for (let base = range.base; base < range.base + sizeOf(range.prefix); base += size) {
      const cidr = { base, prefix };
      if (containing !== null && !containsIp(cidr, parseIp(containing))) continue;
      if (!held.some((other) => overlaps(other, cidr)) && useful(network, cidr)) return cidr;
    }
  }
  return null;
}

/** Not only the network, broadcast and gateway address. */
function useful(network: Network, cidr: Cidr): boolean {
  const subnets = network.subnets.map(parseCidr);
  for (let ip = cidr.base; ip <= lastOf(cidr); ip++)
    if (subnets.some((subnet) => isUsable(subnet, ip)) && !network.gateways.includes(formatIp(ip))) return true;
  return false;
}

/** What endpoints may send from besides their own, by network. */
export class FakeSettings {
  readonly #all = new Map<string, Map<string, EndpointSettings>>();

  /** @param allowed none = nothing any more */
  allow(networkId: string, endpointId: string, allowed: AllowedAddress[]): void {
    const now = this.of(networkId);
    if (allowed.length === 0) now.delete(endpointId);
    else now.set(endpointId, { networkId, endpointId, allowed, draining: false, updatedAt: '', revision: 0n });
    this.#all.set(networkId, now);
  }

  /** By endpoint id. */
  of(networkId: string): Map<string, EndpointSettings> {
    return new Map(this.#all.get(networkId));
  }
}
