/**
 * What the eBPF programs do with a packet (datapath/weft.bpf.c), decided anew from what the maps have in them: a wrong entry shows. Only
 * what one whole unicast packet can meet; nothing is written. Pure but for the lookups that it is given.
 */
import { formatIp, parseIp } from '../../lib/addr.ts';
import type { TraceHop, TracePacket } from '../../lib/model.ts';
import {
  blockKey,
  configValue,
  netValue,
  numberValue,
  type PlaceValue,
  type PortValue,
  placeKey,
  placeValue,
  portValue,
  sourceValue,
  vtepKey,
} from '../bpf/decode.ts';
import { describeValue } from '../bpf/describe.ts';
import { u32 } from '../bpf/encode.ts';
import { entryText, hop, type Maps, type Next, type Step } from './maps.ts';
import { is6, PROTOCOL } from './packet.ts';
import { isForGateway, routedOn } from './routed.ts';
import { isEntry, served } from './served.ts';

interface Found {
  readonly place: PlaceValue;
  readonly text: string;
  readonly map: 'fdb' | 'blocks';
}

/** An exact entry, else the block's with the longest prefix. */
async function find(m: Maps, index: number, mac: string): Promise<Found | null> {
  const key = placeKey(index, mac);
  const exact = await m.lookup('fdb', key);
  if (exact !== null) return { place: placeValue(exact), text: entryText('fdb', key, exact), map: 'fdb' };
  const block = await m.lookup('blocks', blockKey(index, mac));
  if (block === null) return null;
  const text = `blocks net ${index} … of ${mac} = ${describeValue('blocks', block)}`;
  return { place: placeValue(block), text, map: 'blocks' };
}

/** What Open vSwitch need not see (read_frame). */
function isGood(p: TracePacket): boolean {
  if ((Number.parseInt(p.destinationMac.slice(0, 2), 16) & 1) !== 0) return false;
  if (!is6(p)) return true;
  if (p.protocol === PROTOCOL.icmp6) return p.icmpType < 133 || p.icmpType > 137;
  return ![0, 43, 60, 51].includes(p.protocol);
}

function isOwn(port: PortValue, p: TracePacket): boolean {
  if (port.mac !== p.sourceMac) return false;
  return is6(p) ? p.sourceIp === port.ip6 || p.sourceIp === port.linkLocal : p.sourceIp === port.ip4;
}

/** From a container's link (from_container). @param ifindex of wft… */
export async function sent(m: Maps, ifindex: number, p: TracePacket): Promise<Step> {
  const value = await m.lookup('ports', u32(ifindex));
  if (value === null) {
    const reason = `the map "ports" does not know ${m.link(ifindex)}`;
    return { hops: [hop(m, 'ports', `dropped: ${reason}`)], packet: p, next: { kind: 'dropped', reason } };
  }
  const port = portValue(value);
  const text = entryText('ports', u32(ifindex), value);
  const bridge = (why: string, packet = p, before: readonly TraceHop[] = [], detail = text): Step => ({
    hops: [...before, hop(m, 'ports', `to Open vSwitch: ${why}`, detail)],
    packet,
    next: { kind: 'bridge' },
  });
  if (!port.express && !port.served) return bridge('the endpoint is not express');
  if (!isGood(p)) return bridge('not plain IP');
  if (!isOwn(port, p))
    return bridge(`${p.sourceIp} with MAC ${p.sourceMac} is not the endpoint’s own: Open vSwitch judges`);
  const asked = port.served ? await served(m, port, p) : { hops: [], packet: p, next: null };
  if (asked.next !== null) return { ...asked, next: asked.next };
  const { packet, hops } = asked;
  if (!port.express && !isEntry(packet.destinationMac)) return bridge('the endpoint is not express', packet, hops);
  const way = isForGateway(packet)
    ? await routedOn(m, port.index, packet)
    : { index: port.index, packet, hops: [], why: '' };
  if (way.index === 0) return bridge(way.why, packet, hops);
  const to = await find(m, way.index, way.packet.destinationMac);
  if (to === null) return bridge(`the maps do not know ${way.packet.destinationMac}`, packet, [...hops, ...way.hops]);
  if (to.place.host) return { hops: [...hops, hop(m, to.map, 'to the host', to.text)], packet, next: { kind: 'host' } };
  if (!to.place.express || (to.place.vtep === null && to.place.device === 0))
    return bridge('the destination is not express', packet, hops, to.text);
  const own = hop(m, 'ports', `${packet.sourceIp} is ${m.link(ifindex)}’s own, and express`, text);
  return forward(m, way.index, to, way.packet, [own, ...hops, ...way.hops]);
}

async function forward(
  m: Maps,
  index: number,
  to: Found,
  packet: TracePacket,
  hops: readonly TraceHop[],
): Promise<Step> {
  const { place, text, map } = to;
  if (place.vtep === null) {
    const queue = place.paced ? ', by the queue of its rate' : '';
    const moved = place.rewrite === null ? packet : { ...packet, destinationMac: place.rewrite };
    const what = `${packet.destinationMac} is here: to ${m.link(place.device)}${queue}`;
    return { hops: [...hops, hop(m, map, what, text)], packet: moved, next: { kind: 'here', ifindex: place.device } };
  }
  return leave(m, index, place, packet, [
    ...hops,
    hop(m, map, `${packet.destinationMac} is behind VTEP ${place.vtep}`, text),
  ]);
}

/** Into a tunnel: key and device are the network's, unless the place has its own. */
async function leave(
  m: Maps,
  index: number,
  place: PlaceValue,
  packet: TracePacket,
  hops: readonly TraceHop[],
): Promise<Step> {
  const value = await m.lookup('nets', u32(index));
  const config = await m.lookup('config', u32(0));
  if (value === null || config === null) {
    const reason = `the map "nets" does not know network ${m.network(index)}`;
    return { hops: [...hops, hop(m, 'nets', `dropped: ${reason}`)], packet, next: { kind: 'dropped', reason } };
  }
  const net = netValue(value);
  const next: Next = {
    kind: 'tunnel',
    vtep: place.vtep ?? '',
    device: place.device === 0 ? net.device : place.device,
    key: place.key === 0 ? net.vni : place.key,
  };
  return { hops, packet, next };
}

/** Out of a tunnel (from_tunnel). @param from VTEP that it comes from, the device that it comes by, and its key */
export async function arrived(
  m: Maps,
  from: { readonly vtep: string; readonly device: number; readonly key: number },
  p: TracePacket,
): Promise<Step & { readonly index: number }> {
  const at = vtepKey(from.vtep, from.device, from.key);
  const value = await m.lookup('vteps', at);
  const drop = (stage: string, reason: string, detail = ''): Step & { index: number } => ({
    hops: [hop(m, stage, `dropped: ${reason}`, detail)],
    packet: p,
    next: { kind: 'dropped', reason },
    index: 0,
  });
  if (value === null) {
    const known = await m.lookup('vnis', u32(from.device) + u32(from.key));
    const reason =
      known === null
        ? `its host knows nothing of VNI ${from.key}: ${m.host} has no network of it (unknown_vni)`
        : `${from.vtep} is no VTEP of the network with VNI ${from.key} as ${m.host} knows it (foreign_vtep)`;
    return drop(known === null ? 'vnis' : 'vteps', reason);
  }
  const peer = sourceValue(value);
  const text = entryText('vteps', at, value);
  const sender = await find(m, peer.index, p.sourceMac);
  const behind = sender !== null && sender.place.vtep === canonical(from.vtep);
  if (sender === null ? !peer.external : !behind) {
    const who = sender === null ? 'nobody is known to have' : 'another place has';
    const reason = `${who} the source MAC ${p.sourceMac}, which comes from ${from.vtep} (foreign_source)`;
    return drop('fdb', reason, sender?.text ?? text);
  }
  const hops = [hop(m, 'vteps', `${from.vtep} is a VTEP of network ${m.network(peer.index)}`, text)];
  if (sender !== null && (sender.place.express || isEntry(p.destinationMac)) && isGood(p)) {
    const to = await find(m, peer.index, p.destinationMac);
    if (to?.place.host === true)
      return {
        hops: [...hops, hop(m, to.map, 'to the host', to.text)],
        packet: p,
        next: { kind: 'host' },
        index: peer.index,
      };
    if (to?.place.express === true && to.place.vtep === null && to.place.device !== 0)
      return { ...(await forward(m, peer.index, to, p, hops)), index: peer.index };
    const why = to === null ? `the maps do not know ${p.destinationMac}` : 'the destination is not express';
    const detail = to?.text ?? '';
    return {
      hops: [...hops, hop(m, to?.map ?? 'fdb', `to Open vSwitch: ${why}`, detail)],
      packet: p,
      next: { kind: 'bridge' },
      index: peer.index,
    };
  }
  const detail = sender?.text ?? '';
  return {
    hops: [...hops, hop(m, sender?.map ?? 'fdb', 'to Open vSwitch: the sender is not express', detail)],
    packet: p,
    next: { kind: 'bridge' },
    index: peer.index,
  };
}

const canonical = (ip: string): string => formatIp(parseIp(ip));

/** From Open vSwitch's port to the tunnels (to_tunnel). @param index of the network, by the frame's tag */
export async function toTunnel(m: Maps, index: number, p: TracePacket): Promise<Step> {
  let to = await find(m, index, p.destinationMac);
  if (to === null) {
    const key = placeKey(index, p.destinationMac);
    const learned = await m.lookup('learned', key);
    if (learned !== null)
      to = {
        place: placeValue(learned),
        text: `learned ${p.destinationMac} = ${describeValue('fdb', learned)}`,
        map: 'fdb',
      };
  }
  if (to === null || to.place.vtep === null) {
    const reason = `no host is known behind which ${p.destinationMac} is (unknown_unicast)`;
    return {
      hops: [hop(m, 'fdb', `dropped: ${reason}`, to?.text ?? '')],
      packet: p,
      next: { kind: 'dropped', reason },
    };
  }
  return leave(m, index, to.place, p, [hop(m, to.map, `${p.destinationMac} is behind VTEP ${to.place.vtep}`, to.text)]);
}

/** From Open vSwitch's port of an endpoint to its link (from_ovs). @param ifindex of wfk… */
export async function fromBridge(m: Maps, ifindex: number, p: TracePacket): Promise<Step> {
  const value = await m.lookup('slow', u32(ifindex));
  if (value === null) {
    const reason = `the map "slow" does not know ${m.link(ifindex)}`;
    return { hops: [hop(m, 'slow', `dropped: ${reason}`)], packet: p, next: { kind: 'dropped', reason } };
  }
  const to = numberValue(value);
  const text = entryText('slow', u32(ifindex), value);
  return {
    hops: [hop(m, 'slow', `from Open vSwitch to ${m.link(to)}`, text)],
    packet: p,
    next: { kind: 'here', ifindex: to },
  };
}

/** This host's MAC in the mesh, of what comes in by a published service. */
export async function entryMacOf(m: Maps): Promise<string | null> {
  const config = await m.lookup('config', u32(0));
  return config === null ? null : configValue(config).entry;
}

/** To where the maps lead from this host's own port (from_host, after a backend is chosen). */
export async function entered(m: Maps, index: number, p: TracePacket): Promise<Step> {
  const to = await find(m, index, p.destinationMac);
  if (to === null || (to.place.vtep === null && to.place.device === 0)) {
    const reason = `the maps do not know ${p.destinationMac}`;
    return { hops: [hop(m, 'fdb', `dropped: ${reason}`)], packet: p, next: { kind: 'dropped', reason } };
  }
  if (to.place.vtep === null && !to.place.express)
    return {
      hops: [hop(m, to.map, 'to Open vSwitch: the destination is not express', to.text)],
      packet: p,
      next: { kind: 'bridge' },
    };
  return forward(m, index, to, p, []);
}
