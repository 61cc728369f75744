/** What of the mesh's number spaces is in use: by the records and by the index keys, whichever has it (one may be damaged). Pure. */

import { type Cidr, overlaps, parseCidr, parseIp, tryParseIp } from '../../lib/addr.ts';
import { WeftError } from '../../lib/errors.ts';
import type { Host, Network } from '../../lib/model.ts';
import { spokenFor } from '../alloc/externals.ts';
import { reservedAddresses } from '../alloc/reserved.ts';
import type { RestingSubnet } from '../alloc/subnets.ts';
import type { Cache } from '../cache.ts';
import { decode, type RawKey } from './codec.ts';
import { type Key, keys } from './keys.ts';

export function takenVnis(cache: Cache): Set<number> {
  const taken = new Set<number>();
  for (const network of cache.networks.values()) taken.add(network.vni);
  for (const { key } of keysOf(cache, 'vni')) taken.add(key.vni);
  return taken;
}

/** VNI → since when it rests. */
export function restingVnis(cache: Cache): Map<number, string> {
  const resting = new Map<number, string>();
  for (const { key, raw } of keysOf(cache, 'restingVni')) resting.set(key.vni, sinceOf(key, raw));
  return resting;
}

export function restingSubnets(cache: Cache, project: string, space: string): RestingSubnet[] {
  const resting: RestingSubnet[] = [];
  for (const { key, raw } of keysOf(cache, 'restingSubnet'))
    if (key.project === project && key.space === space)
      resting.push({ cidr: parseCidr(key.cidr), since: sinceOf(key, raw) });
  return resting;
}

const sinceOf = (key: Key, raw: RawKey): string => {
  const decoded = decode(key, raw);
  return decoded?.kind === 'resting' ? decoded.value.since : '';
};

export interface TakenSubnet {
  readonly cidr: Cidr;
  /** Of the network that has it; the id where there is no name. */
  readonly owner: string;
}

export function takenSubnets(cache: Cache, project: string, space: string): TakenSubnet[] {
  const taken: TakenSubnet[] = [];
  for (const network of cache.networks.values()) {
    if (network.project !== project || network.space !== space) continue;
    for (const subnet of network.subnets) taken.push({ cidr: parseCidr(subnet), owner: ownerName(network) });
  }
  for (const { key, raw } of keysOf(cache, 'subnet'))
    if (key.project === project && key.space === space && !cache.networks.has(raw.value))
      taken.push({ cidr: parseCidr(key.cidr), owner: raw.value });
  return taken;
}

export const ownerName = (network: Network): string =>
  network.name === '' ? `the reservation ${network.id}` : `network "${network.name}"`;

/**
 * Parts of a network that a new block for the host must not touch: every block, and addresses that another host claims, holds or
 * has an endpoint on.
 * @param reserved also reserved addresses: a new block has none of them. A block that is put back had them before.
 */
export function takenBlocks(cache: Cache, networkId: string, hostId: string, reserved = true): Cidr[] {
  const taken = [...(cache.blocks.get(networkId)?.keys() ?? [])].map((cidr) => parseCidr(cidr));
  const single = (text: string): void => {
    const ip = tryParseIp(text);
    if (ip !== null) taken.push({ base: ip, prefix: 128 });
  };
  for (const claim of cache.addresses.get(networkId)?.values() ?? [])
    if (claim.hostId !== hostId && claim.state !== 'refused') single(claim.address);
  for (const address of spokenFor(cache, networkId)) single(address);
  if (reserved) for (const address of reservedAddresses(cache, networkId)) single(address);
  for (const endpoint of cache.endpoints.get(networkId)?.values() ?? [])
    if (endpoint.hostId !== hostId) for (const ip of endpoint.ips) single(ip);
  return taken;
}

/** The keys of a network besides its record, and the id that they hold. */
export function indexKeys(network: Network): string[] {
  const { project, space } = network;
  const subnets = network.subnets.map((cidr) => keys.subnet(project, space, cidr));
  const name = network.state === 'bound' ? [keys.name(project, network.name)] : [];
  return [...name, identityKey(network), ...subnets];
}

/** What tells the network's frames from others': its VNI, or for a vlan uplink and tag. */
export const identityKey = (network: Network): string =>
  network.encap === 'vlan' ? keys.vlan(network.uplink, network.vlanTag) : keys.vni(network.vni);

/** @throws ALREADY_EXISTS */
export function refuseTakenTag(
  { cache }: { readonly cache: Cache },
  wire: { readonly uplink: string; readonly vlanTag: number },
  id: string,
): void {
  const { uplink, vlanTag } = wire;
  const other = [...cache.networks.values()].find(
    (n) => n.id !== id && n.encap === 'vlan' && n.uplink === uplink && n.vlanTag === vlanTag,
  );
  const key = cache.raw.get(keys.vlan(uplink, vlanTag))?.value ?? id;
  if (other === undefined && key === id) return;
  const owner = other === undefined ? 'another network' : ownerName(other);
  throw new WeftError('ALREADY_EXISTS', `the tag ${vlanTag} of ${uplink} belongs to ${owner}`, {
    hint: 'choose another --tag or --uplink',
  });
}

/** Hosts that a coordinator has a session of, by name. */
export const connectedHosts = ({ cache }: { readonly cache: Cache }): Host[] =>
  [...cache.hosts.values()].filter((host) => cache.presences.has(host.id)).sort((a, b) => (a.name < b.name ? -1 : 1));

/** The block that contains the address. */
export function blockOf(cache: Cache, networkId: string, address: string) {
  const ip = { base: parseIp(address), prefix: 128 };
  for (const block of cache.blocks.get(networkId)?.values() ?? [])
    if (overlaps(parseCidr(block.cidr), ip)) return block;
  return undefined;
}

type OfKind<K extends Key['kind']> = Extract<Key, { kind: K }>;

function* keysOf<K extends Key['kind']>(cache: Cache, kind: K): Generator<{ key: OfKind<K>; raw: RawKey }> {
  for (const [text, key] of cache.byKind.get(kind) ?? []) {
    const raw = cache.raw.get(text);
    if (raw !== undefined && key !== null) yield { key: key as OfKind<K>, raw };
  }
}
