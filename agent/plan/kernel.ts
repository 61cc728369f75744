/** What the kernel side (eBPF) has to know, from the same models as the flows. Pure. */
import { tryParseIp } from '../../lib/ip.ts';
import { linkLocalOf, tryParseIp6 } from '../../lib/ip6.ts';
import { aliasMac, MAC_PREFIX } from '../../lib/mac.ts';
import type {
  BpfAddress,
  BpfAttachment,
  BpfBlock,
  BpfFdb,
  BpfGroup,
  BpfList,
  BpfModel,
  BpfNeighbour,
  BpfPlace,
  BpfPort,
  BpfRoute,
  BpfService,
  BpfSource,
} from '../bpf/model.ts';
import type { LocalPort, NetworkModel, Published, Remote } from '../flows/model.ts';
import { asked } from '../flows/shared.ts';
import { entryMac, routerMac } from '../gateway/addresses.ts';
import {
  GATEWAY_SWITCH,
  gateExit,
  gateLink,
  hostLink,
  slowLink,
  switchLink,
  TUNNEL_DEVICE,
  TUNNEL_KERNEL,
  TUNNEL_SWITCH,
} from '../link/names.ts';
import { MAX_TAGGED_INDEX, type Wiring } from '../wiring.ts';
import { kernelNeighbours, kernelRoutes } from './kernel-routes.ts';

/** Under it stands the list of those who may know of addresses that no record tells of. */
const ASKED_GROUP = 0xffff_ffff_ffffn;

export interface KernelSide {
  readonly model: BpfModel;
  readonly attachments: readonly BpfAttachment[];
}

/** Every link that the kernel side has to do with. */
export function kernelLinks(networks: readonly NetworkModel[], wiring: Wiring): string[] {
  const names: string[] = [TUNNEL_KERNEL, TUNNEL_SWITCH, GATEWAY_SWITCH, ...wiring.encaps.map((e) => TUNNEL_DEVICE[e])];
  if (wiring.express)
    for (const n of networks)
      for (const { id, direct, paced } of n.locals) {
        if (direct !== true) names.push(hostLink(id), slowLink(id), switchLink(id));
        if (direct !== true && paced === true) names.push(gateLink(id), gateExit(id));
      }
  return names;
}

/** @param ifindex of a link by name; null while it is not there: then nothing is said of it. */
export function kernelSide(
  networks: readonly NetworkModel[],
  wiring: Wiring,
  ifindex: (link: string) => number | null,
): KernelSide {
  const attachments: BpfAttachment[] = [];
  const attach = (link: string, program: BpfAttachment['program']): number | null => {
    const index = ifindex(link);
    if (index !== null) attachments.push({ ifindex: index, link, program });
    return index;
  };
  const tunnelPort = attach(TUNNEL_KERNEL, 'to_tunnel') ?? 0;
  attach(TUNNEL_SWITCH, 'sink');
  const devices = new Map(wiring.encaps.map((e) => [e, attach(TUNNEL_DEVICE[e], 'from_tunnel') ?? 0]));
  const gateway = wiring.express && networks.some((n) => n.published !== undefined);
  const host = gateway ? attach(GATEWAY_SWITCH, 'from_host') : null;
  const device = (r: Pick<Remote, 'encap'>): number => devices.get(r.encap) ?? 0;

  const model = {
    ports: [] as BpfPort[],
    nets: [] as BpfModel['nets'][number][],
    fdb: [] as BpfFdb[],
    blocks: [] as BpfBlock[],
    sources: [] as BpfSource[],
    lists: [] as BpfList[],
    groups: [] as BpfGroup[],
    services: [] as BpfService[],
    routes: [] as BpfRoute[],
    neighbours: [] as BpfNeighbour[],
  };
  const carried = new Set(
    networks.filter((n) => n.encap !== 'vlan' && n.index <= MAX_TAGGED_INDEX).map((n) => n.index),
  );
  const router = networks.find((n) => n.routing !== undefined)?.routing?.mac;
  for (const n of networks) {
    const { index } = n;
    for (const p of n.locals) {
      if (wiring.express && p.direct !== true) addPort(n, p);
      else addName(n, p);
    }
    // The tag has twelve bits; a vlan network has no tunnels.
    if (n.encap === 'vlan' || !carried.has(index)) continue;
    model.services.push(...(n.services ?? []).map((s) => ({ ...s, index })));
    if (n.published !== undefined && host !== null) addEntry(n, n.published, host);
    addHosts(n);
    addRouters(n);
    if (wiring.express) {
      model.routes.push(...kernelRoutes(n, carried));
      model.neighbours.push(...kernelNeighbours(n));
    }
    model.nets.push({ index, device: devices.get(n.encap) ?? 0, vni: n.vni, mtu: n.mtu });
    for (const r of n.remotes) {
      const vtep = addressOf(r.vtep);
      if (vtep === null || device(r) === 0) continue;
      const own = r.encap === n.encap && r.key === n.vni;
      const at = { vtep, device: own ? null : device(r), key: own ? null : r.key };
      const place: BpfPlace & { kind: 'remote' } = { kind: 'remote', ...at };
      if (n.published !== undefined && r.hostId !== '')
        model.fdb.push({ index, mac: entryMac(r.hostId), place, express: true });
      if (n.routing !== undefined && r.hostId !== '')
        model.fdb.push({ index, mac: routerMac(r.hostId), place, express: true });
      for (const e of r.entries) model.fdb.push({ index, mac: e.mac, place, express: !r.external && e.express });
      for (const mac of r.withheld) model.fdb.push({ index, mac, place, express: false });
      for (const range of [...r.blocks.map(macRange), ...r.blocks6.map(aliasRange)])
        model.blocks.push({ index, ...range, place, express: true });
      const { learn } = r;
      // It may send from MACs that no entry tells of: Open vSwitch judges.
      const external = r.external || learn || n.macs.some((m) => m.remotes.includes(r));
      model.sources.push({ index, vtep, device: device(r), key: r.key, external, learn });
    }
    const used = new Set<number>();
    if (n.locals.length > 0 || n.reached === true)
      for (const { mac, remotes } of n.macs) addGroup(index, mac, remotes, used);
    // Who has no endpoint hears, and asks, nothing.
    if (n.locals.length === 0) continue;
    model.lists.push({ id: index, vteps: receivers(n.remotes) });
    const may = asked(n);
    if (may.length > 0) addGroup(index, ASKED_GROUP, may, used);
    if (n.multicast !== null) {
      const { groups, rest } = n.multicast;
      for (const { mac, remotes } of [{ mac: 0n, ...rest }, ...groups]) {
        addGroup(index, mac, remotes, used);
      }
    }
  }
  return {
    model: {
      ...model,
      config: {
        tunnelPort,
        ttl: wiring.outer.ttl === 'inherit' ? null : wiring.outer.ttl,
        dscp: wiring.outer.dscp === 'inherit' ? null : wiring.outer.dscp,
        checksum: wiring.outer.checksum,
        dontFragment: true,
        source4: tryParseIp(wiring.vtep),
        source6: tryParseIp6(wiring.vtep),
        ...(router === undefined ? {} : { router }),
        entry: host === null ? 0n : (networks.find((n) => n.published !== undefined)?.published?.entry ?? 0n),
      },
    },
    attachments,
  };

  /** Its links belong to the kernel side on any network: what may not take the express path goes on to Open vSwitch. */
  function addPort({ index, encap }: NetworkModel, p: LocalPort): void {
    // Its exit first: whatever goes in by the gate must be taken on.
    const gate = p.paced === true ? gateOf(p.id) : {};
    const wft = attach(hostLink(p.id), gate.gate === undefined ? 'from_container' : 'to_gate');
    const wfk = attach(slowLink(p.id), 'from_ovs');
    attach(switchLink(p.id), 'sink');
    if (wft === null || wfk === null) return;
    const { mac, ip: ip4, ip6, alias } = p;
    const mark = p.dscp === undefined ? {} : { dscp: p.dscp };
    const express = p.express && encap !== 'vlan' && index <= MAX_TAGGED_INDEX;
    model.ports.push({
      ifindex: wft,
      slow: wfk,
      index,
      mac,
      ip4,
      ip6,
      linkLocal: linkLocalOf(mac),
      express,
      ...gate,
      ...mark,
    });
    const paced = p.paced === true ? { paced: true as const } : {};
    const place: BpfPlace = { kind: 'local', ifindex: wft, rewrite: null, ...paced };
    model.fdb.push({ index, mac, place, express });
    if (alias !== null && alias !== mac)
      model.fdb.push({ index, mac: alias, place: { ...place, rewrite: mac }, express });
  }

  /** Where an endpoint with a rate waits before it goes on; empty while it is not there. */
  function gateOf(id: string): Pick<BpfPort, 'gate'> {
    const exit = attach(gateExit(id), 'from_gate');
    const entry = ifindex(gateLink(id));
    return exit === null || entry === null ? {} : { gate: { entry, exit } };
  }

  /** Who comes in by a port of this host comes from its MAC, and is answered to it. @param ifindex of weft-go */
  function addEntry({ index }: NetworkModel, { entry, services }: Published, ifindex: number): void {
    model.services.push(...services.map((s) => ({ ...s, index: 0, net: index })));
    const place: BpfPlace = { kind: 'local', ifindex, rewrite: null, host: true };
    model.fdb.push({ index, mac: entry, place, express: true });
  }

  /** Who leads ports into the network without an endpoint there sends from its own MAC alone, and gets what is sent to that. */
  function addHosts({ index, encap, vni, published }: NetworkModel): void {
    const through = encap === 'vlan' ? 0 : device({ encap });
    for (const { hostId, vtep: text } of through === 0 ? [] : (published?.hosts ?? [])) {
      const vtep = addressOf(text);
      if (vtep === null) continue;
      const place: BpfPlace = { kind: 'remote', vtep, device: null, key: null };
      model.fdb.push({ index, mac: entryMac(hostId), place, express: true });
      model.sources.push({ index, vtep, device: through, key: vni, external: false, learn: false });
    }
  }

  /** What hosts have routed into the network comes from their own MACs, this one's from here alone. */
  function addRouters({ index, encap, vni, routing, routers = [] }: NetworkModel): void {
    if (routing === undefined) return;
    const nobody: BpfPlace = { kind: 'local', ifindex: 0, rewrite: null };
    model.fdb.push({ index, mac: routing.mac, place: nobody, express: false });
    const through = encap === 'vlan' ? 0 : device({ encap });
    for (const { hostId, vtep: text } of through === 0 ? [] : routers) {
      const vtep = addressOf(text);
      if (vtep === null) continue;
      const place: BpfPlace = { kind: 'remote', vtep, device: null, key: null };
      model.fdb.push({ index, mac: routerMac(hostId), place, express: true });
      model.sources.push({ index, vtep, device: through, key: vni, external: false, learn: false });
    }
  }

  /** Nothing is delivered past Open vSwitch; but nobody else may send from its MAC. */
  function addName({ index, encap }: NetworkModel, { mac, alias }: LocalPort): void {
    if (encap === 'vlan' || index > MAX_TAGGED_INDEX) return;
    const place: BpfPlace = { kind: 'local', ifindex: 0, rewrite: null };
    for (const one of new Set([mac, alias ?? mac])) model.fdb.push({ index, mac: one, place, express: false });
  }

  function addGroup(index: number, mac: bigint, remotes: readonly Remote[], used: Set<number>): void {
    const list = listOf(index, mac, used);
    model.lists.push({ id: list, vteps: receivers(remotes) });
    model.groups.push({ index, mac, list });
  }

  function receivers(remotes: readonly Remote[]): BpfList['vteps'] {
    return remotes.flatMap((r) => {
      const vtep = addressOf(r.vtep);
      return vtep === null || device(r) === 0 ? [] : [{ vtep, device: device(r), key: r.key }];
    });
  }
}

/**
 * Number of a group's list: the network's index above twenty bits that depend on the MAC alone as far as that can be, so that a group
 * which comes or goes does not renumber others.
 */
function listOf(index: number, mac: bigint, used: Set<number>): number {
  let low = Number(BigInt.asUintN(20, mac ^ (mac >> 20n)));
  while (used.has(low)) low = (low + 1) & 0xfffff;
  used.add(low);
  return index * 0x100000 + low;
}

/** A block's default MACs: the fixed sixteen bits, and those of its prefix. */
const macRange = (block: { base: number; prefix: number }): { mac: bigint; bits: number } => ({
  mac: (BigInt(MAC_PREFIX) << 32n) | BigInt(block.base),
  bits: 16 + block.prefix,
});

/** Alias MACs of a block of IPv6 addresses. */
const aliasRange = (block: { base: bigint; prefix: number }): { mac: bigint; bits: number } => ({
  mac: aliasMac(block.base),
  bits: 16 + block.prefix - 96,
});

function addressOf(text: string): BpfAddress | null {
  const ip4 = tryParseIp(text);
  if (ip4 !== null) return { family: 4, address: ip4 };
  const ip6 = tryParseIp6(text);
  return ip6 === null ? null : { family: 6, address: ip6 };
}
