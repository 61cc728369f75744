/** From what the host was told (view) and what it holds (journal) to what its bridge has to know. Pure. */
import { cidrOf, containsIp, parseCidr, parseIp, tryParseIp } from '../../lib/ip.ts';
import { parseMac } from '../../lib/mac.ts';
import type { NetworkView, View } from '../../lib/model.ts';
import type { LocalEndpoint, LocalNetwork } from '../contract.ts';
import type { Entry, LocalPort, NetworkModel, Remote } from '../flows/model.ts';

/** @param ofport OpenFlow port of an endpoint; null while it has none: it has no flows then. */
export function networkModels(
  view: View,
  self: string,
  networks: ReadonlyMap<string, LocalNetwork>,
  endpoints: Iterable<LocalEndpoint>,
  ofport: (endpointId: string) => number | null,
): NetworkModel[] {
  const locals = new Map<string, LocalPort[]>();
  for (const e of endpoints) {
    const port = ofport(e.id);
    if (port === null) continue;
    const list = locals.get(e.networkId) ?? [];
    list.push({ ofport: port, mac: parseMac(e.mac), ip: parseIp(e.ip) });
    locals.set(e.networkId, list);
  }
  const models: NetworkModel[] = [];
  for (const [id, ports] of locals) {
    const network = networks.get(id);
    if (network === undefined) continue;
    const interest = view.interests.get(id);
    models.push({
      index: network.index,
      vni: network.network.vni,
      locals: ports.sort((a, b) => a.ofport - b.ofport),
      remotes: interest === undefined ? [] : remotesOf(interest, self),
    });
  }
  return models.sort((a, b) => a.index - b.index);
}

/** The other hosts of a network: their VTEP, their blocks, and what the blocks do not say. */
export function remotesOf(interest: NetworkView, self: string): Remote[] {
  const remotes: Remote[] = [];
  const blocks = Map.groupBy(interest.blocks.values(), (b) => b.hostId);
  const endpoints = Map.groupBy(interest.endpoints.values(), (e) => e.hostId);
  for (const peer of interest.peers.values()) {
    if (peer.hostId === self) continue;
    const vtep = peer.vteps.map((v) => tryParseIp(v.address)).find((ip) => ip !== null);
    if (vtep === undefined || vtep === null) continue;
    const own = (blocks.get(peer.hostId) ?? []).map((b) => parseCidr(b.cidr));
    const entries: Entry[] = [];
    for (const e of endpoints.get(peer.hostId) ?? []) {
      const ip = tryParseIp(e.ips[0] ?? '');
      if (ip === null) continue;
      if (e.givenMac || !own.some((block) => containsIp(block, ip))) entries.push({ mac: parseMac(e.mac), ip });
    }
    remotes.push({
      vtep,
      blocks: own.map((b) => cidrOf(b.base, b.prefix)).sort(byBase),
      entries: entries.sort((a, b) => a.ip - b.ip),
    });
  }
  return remotes.sort((a, b) => a.vtep - b.vtep);
}

const byBase = (a: { base: number; prefix: number }, b: { base: number; prefix: number }): number =>
  a.base - b.base || a.prefix - b.prefix;
