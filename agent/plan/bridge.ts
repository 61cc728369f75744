/** From what the host was told (view) and what it holds (journal) to what its bridge has to know. Pure. */
import { type Cidr, isIp4, lowOf, subnetOf, tryParseIp } from '../../lib/addr.ts';
import { parseIp } from '../../lib/ip.ts';
import { parseMac } from '../../lib/mac.ts';
import type { ExternalPeer, Network, NetworkView, View, Vtep } from '../../lib/model.ts';
import { linkedTo } from '../../lib/routers.ts';
import { deviceOf, type LocalEndpoint, type LocalNetwork } from '../contract.ts';
import { standingOf } from '../express.ts';
import type { Encap, Entry, LocalPort, NetworkModel, Published, Remote, TunnelEncap } from '../flows/model.ts';
import { entryMac } from '../gateway/addresses.ts';
import { egressOf, gatewaysOf } from '../gateway/egress.ts';
import { type NameSource, NO_NAMES, type PolicySources, policyModel, type Subject } from '../policies/resolve.ts';
import { shapedOf } from '../rates.ts';
import { type HostServices, NO_HOST_SERVICES } from '../services/members.ts';
import { addressesOf, behindHost } from './entries.ts';
import { multicastModel, type Snooped } from './multicast.ts';
import { routingOf } from './routing.ts';
import { allowedFor, sharedOf } from './shared.ts';

/** What this host is, as far as its networks are concerned. */
export interface Self {
  readonly hostId: string;
  /** Its VTEP is an IPv6 address: so are the others' that it reaches. */
  readonly ipv6: boolean;
}

/** What of a network decides how its frames travel and are answered for. */
interface Wire {
  readonly encap: Encap;
  readonly vni: number;
  readonly subnet6: Cidr | null;
}

export interface PortNumbers {
  /** OpenFlow port of an endpoint; null while it has none: it has no flows then. */
  endpoint(endpointId: string): number | null;
  /** OpenFlow port of a physical interface; null = not in the bridge. */
  uplink(name: string): number | null;
}

export function networkModels(
  view: View,
  self: Self,
  networks: ReadonlyMap<string, LocalNetwork>,
  endpoints: Iterable<LocalEndpoint>,
  ports: PortNumbers,
  snooped: Snooped | null = null,
  services: HostServices = NO_HOST_SERVICES,
  names: NameSource = NO_NAMES,
): NetworkModel[] {
  const locals = new Map<string, LocalPort[]>();
  const mtus = new Map<string, number>();
  const subjects = new Map<string, Subject[]>();
  const here = [...endpoints];
  for (const e of here) {
    const port = ports.endpoint(e.id);
    if (port === null) continue;
    const list = locals.get(e.networkId) ?? [];
    const direct = deviceOf(e) === null ? {} : { direct: true as const };
    const transit = e.transit === undefined ? {} : { transit: parseIp(e.transit) };
    const mac = parseMac(e.mac);
    const allowed = allowedFor(view.interests.get(e.networkId), e.id);
    const standing = standingOf(e, networks.get(e.networkId)?.network, view);
    const shaped = shapedOf(e, view);
    list.push({
      id: e.id,
      ofport: port,
      mac,
      ...addressesOf(e),
      ...standing,
      allowed,
      ...transit,
      ...direct,
      ...shaped,
    });
    locals.set(e.networkId, list);
    const judged = subjects.get(e.networkId) ?? [];
    judged.push({ endpoint: e, ofport: port });
    subjects.set(e.networkId, judged);
    mtus.set(e.networkId, Math.min(e.mtu, mtus.get(e.networkId) ?? e.mtu));
  }
  const models: NetworkModel[] = [];
  /** Where routers lead from networks that have endpoints here. */
  const reached = new Set([...locals.keys()].flatMap((id) => [...linkedTo(view.routers.values(), id)]));
  const mtuOf = (n: Network): number => mtus.get(n.id) ?? n.mtu;
  for (const id of new Set([...locals.keys(), ...services.published.models.keys(), ...reached])) {
    const list = locals.get(id) ?? [];
    const network = networks.get(id);
    if (network === undefined) continue;
    const interest = view.interests.get(id);
    const { vni, uplink, vlanTag } = network.network;
    const encap = encapOf(network.network.encap);
    const remotes =
      interest === undefined || encap === 'vlan'
        ? []
        : remotesOf(interest, self, { encap, vni, subnet6: subnetOf(network.network, 6) });
    models.push({
      index: network.index,
      vni,
      encap,
      mtu: mtus.get(id) ?? network.network.mtu,
      uplink: encap === 'vlan' ? { port: ports.uplink(uplink), tag: vlanTag } : null,
      ipv4: subnetOf(network.network, 4) !== null,
      ipv6: subnetOf(network.network, 6) !== null,
      egress: egressOf(network.network),
      locals: list.sort((a, b) => a.ofport - b.ofport),
      remotes,
      ...sharedOf(interest, list, remotes),
      ...servicesOf(network, interest, services, self, list.length > 0),
      ...routingPart(network, reached.has(id)),
      ...policiesOf(network, { hostId: self.hostId, view, subjects: subjects.get(id) ?? [], endpoints: here, names }),
      multicast:
        interest === undefined || encap === 'vlan'
          ? null
          : multicastModel(snooped?.locals.get(id), list, remotes, interest.memberships),
    });
  }
  return models.sort((a, b) => a.index - b.index);

  function routingPart({ network }: LocalNetwork, led: boolean): Pick<NetworkModel, 'routing' | 'routers' | 'reached'> {
    const routing = locals.has(network.id) || led ? routingOf(view, self.hostId, networks, network, mtuOf) : null;
    const interest = view.interests.get(network.id);
    const routers = interest === undefined ? [] : besides(interest, self, encapOf(network.encap), 'routed');
    return {
      ...(routing === null ? {} : { routing }),
      ...(routers.length === 0 ? {} : { routers }),
      ...(led ? { reached: true as const } : {}),
    };
  }
}

function policiesOf(
  { network }: LocalNetwork,
  sources: Omit<PolicySources, 'network'>,
): Pick<NetworkModel, 'policies'> {
  if (network.encap === 'vlan') return {};
  const policies = policyModel({ ...sources, network });
  return policies === null ? {} : { policies };
}

/**
 * @param services virtual addresses, where this host has them: its endpoints may be checked all the same
 * @param used the network has an endpoint here: without one there are no clients but those that come in by a port
 */
function servicesOf(
  { network }: LocalNetwork,
  interest: NetworkView | undefined,
  services: HostServices,
  self: Self,
  used: boolean,
): Pick<NetworkModel, 'services' | 'published' | 'checks'> {
  const models = services.index.get(network.id)?.models;
  // Who is asked must know all who may be asking.
  const entry = interest?.services.values().some((s) => s.publish !== '') === true ? entryMac(self.hostId) : null;
  const led = services.published.models.get(network.id) ?? [];
  const hosts = used && interest !== undefined ? besides(interest, self, encapOf(network.encap), 'entry') : [];
  const checks = interest?.services.values().some((s) => s.health !== undefined) ? gatewaysOf(network) : null;
  return {
    ...(models === undefined || !used ? {} : { services: models }),
    ...(entry === null || models === undefined ? {} : { published: { entry, services: led, hosts } }),
    ...(checks === null ? {} : { checks }),
  };
}

const ENCAPS: readonly string[] = ['vxlan', 'geneve', 'gre', 'vlan'] satisfies Encap[];
/** Records of before there was a choice have none. */
export const encapOf = (text: string): Encap => (ENCAPS.includes(text) ? (text as Encap) : 'vxlan');

/** The other hosts of a network, and who is not Weft's: their VTEP, their blocks, and what the blocks do not say. */
export function remotesOf(interest: NetworkView, self: Self, n: Wire): Remote[] {
  const remotes: Remote[] = [];
  const blocks = Map.groupBy(interest.blocks.values(), (b) => b.hostId);
  const endpoints = Map.groupBy(interest.endpoints.values(), (e) => e.hostId);
  for (const peer of interest.peers.values()) {
    if (peer.hostId === self.hostId || peer.entry || peer.routed) continue;
    const vtep = vtepFor(peer.vteps, n.encap, self);
    if (vtep === null) continue;
    const theirs = endpoints.get(peer.hostId) ?? [];
    remotes.push({
      hostId: peer.hostId,
      vtep,
      encap: tunnelEncapOf(n.encap),
      key: n.vni,
      external: false,
      learn: theirs.some((e) => e.trusted),
      ...behindHost(blocks.get(peer.hostId) ?? [], theirs, n.subnet6),
    });
  }
  for (const peer of interest.externals.values()) remotes.push(externalOf(peer, n));
  return remotes.sort((a, b) => (a.vtep < b.vtep ? -1 : a.vtep > b.vtep ? 1 : a.key - b.key));
}

/** Hosts that are peers by their ports alone, or because a router leads here from there, in the order of their ids. */
function besides({ peers }: NetworkView, self: Self, encap: Encap, why: 'entry' | 'routed'): Published['hosts'] {
  const hosts = [...peers.values()].flatMap((peer) => {
    const { hostId, vteps } = peer;
    const vtep = peer[why] && hostId !== self.hostId ? vtepFor(vteps, encap, self) : null;
    return vtep === null ? [] : [{ hostId, vtep }];
  });
  return hosts.sort((a, b) => (a.hostId < b.hostId ? -1 : 1));
}

/** Where a host is reached; null: it cannot carry this, or speaks the other family. */
const vtepFor = (vteps: readonly Vtep[], encap: Encap, self: Self): string | null =>
  vteps.find((v) => !v.encrypted && v.address.includes(':') === self.ipv6 && v.encaps.includes(encap))?.address ?? null;

function externalOf(peer: ExternalPeer, n: Wire): Remote {
  const entries = peer.macs.map(({ mac, ip }): Entry => {
    const address = tryParseIp(ip);
    const four = address !== null && isIp4(address);
    return { mac: parseMac(mac), ip: four ? lowOf(address) : null, ip6: four ? null : address, express: false };
  });
  return {
    hostId: '',
    vtep: peer.vtep,
    encap: tunnelEncapOf(peer.encap === '' ? n.encap : peer.encap),
    key: peer.key === 0 ? n.vni : peer.key,
    blocks: [],
    blocks6: [],
    entries: entries.sort((a, b) => (a.mac < b.mac ? -1 : 1)),
    withheld: [],
    learn: peer.learn,
    external: true,
  };
}

function tunnelEncapOf(text: string): TunnelEncap {
  const encap = encapOf(text);
  return encap === 'vlan' ? 'vxlan' : encap;
}
