/**
 * One host's part of a packet's way, piece by piece: eBPF maps (express.ts), the bridge (ofproto.ts), the host (host-way.ts), each begun
 * anew with the packet as the one before has left it. Nothing is sent, nothing is written.
 */
import { familyOfText, ofFamily } from '../../lib/addr.ts';
import { WeftError } from '../../lib/errors.ts';
import { formatMac } from '../../lib/mac.ts';
import type { TraceAnswer, TraceHop, TracePacket, TraceTunnel } from '../../lib/model.ts';
import { RESOLVER_ADDRESS } from '../../lib/resolver-address.ts';
import { portValue } from '../bpf/decode.ts';
import { u32 } from '../bpf/encode.ts';
import { deviceOf, ipsOf, type LocalEndpoint } from '../contract.ts';
import { ANYCAST_MAC, HOST_MAC } from '../gateway/addresses.ts';
import {
  GATEWAY,
  GATEWAY_SWITCH,
  hostLink,
  slowLink,
  TUNNEL_DEVICE,
  TUNNEL_SWITCH,
  type TunnelEncap,
} from '../link/names.ts';
import { arrived, entered, entryMacOf, fromBridge, sent, toTunnel } from './express.ts';
import { throughHost } from './host-way.ts';
import type { Maps, Step } from './maps.ts';
import { neighbour } from './neighbour.ts';
import { finalFields, lastSet, parseTrace, type Section } from './ofproto.ts';
import { changedBy, difference, type Entry, flowText, isIn } from './packet.ts';
import { served, servedOutside } from './served.ts';
import type { TraceSources } from './sources.ts';
import { bridgeHops, type Words } from './stages.ts';
import { endpointAt, endpointText, linkNames, wordsOf } from './words.ts';

/** Pieces on one host: from a container to the host and back by a published port is four. */
const MAX_PIECES = 12;
/** More than any pipeline asks conntrack for. */
const TRACKED = 4;

export type From =
  | { readonly kind: 'endpoint'; readonly id: string }
  | { readonly kind: 'tunnel'; readonly tunnel: TraceTunnel }
  | { readonly kind: 'outside' };

type End = Pick<TraceAnswer, 'outcome' | 'reason'> & Partial<Pick<TraceAnswer, 'endpointId' | 'tunnel'>>;

/** @throws NOT_FOUND no such endpoint here; what cannot be read is the answer "unknown" */
export async function traceHere(s: TraceSources, from: From, packet: TracePacket): Promise<TraceAnswer> {
  const walk = new Walk(s, packet);
  const end = await walk.run(from);
  return {
    hops: walk.hops,
    outcome: end.outcome,
    reason: end.reason,
    endpointId: end.endpointId ?? '',
    tunnel: end.tunnel,
    packet: walk.packet,
  };
}

class Walk {
  readonly hops: TraceHop[] = [];
  packet: TracePacket;
  readonly #s: TraceSources;
  readonly #words: Words;
  #maps: Maps | null = null;
  #pieces = 0;

  constructor(s: TraceSources, packet: TracePacket) {
    this.#s = s;
    this.packet = packet;
    this.#words = wordsOf(s);
  }

  async run(from: From): Promise<End> {
    const e = from.kind === 'endpoint' ? this.#endpoint(from.id) : null;
    try {
      const link = await linkNames(this.#s);
      const { lookup, hostName } = this.#s;
      this.#maps = {
        lookup: (map, key) => lookup.call(this.#s, map, key),
        host: hostName,
        link,
        network: this.#words.network,
      };
      if (e !== null) return await this.#fromEndpoint(e);
      if (from.kind === 'tunnel') return await this.#fromTunnel(from.tunnel);
      return await this.#host('');
    } catch (error) {
      const { message } = WeftError.from(error);
      return { outcome: 'unknown', reason: `${this.#s.hostName} cannot tell: ${message}` };
    }
  }

  #endpoint(id: string): LocalEndpoint {
    const e = this.#s.endpoints.get(id);
    if (e === undefined)
      throw new WeftError('NOT_FOUND', `Host ${this.#s.hostName} has no endpoint ${id}.`, {
        hint: 'it may have ended just now',
      });
    return e;
  }

  get #kernelSide(): Maps {
    if (this.#maps === null) throw new WeftError('INTERNAL', 'no maps');
    return this.#maps;
  }

  #say(engine: string, stage: string, what: string, detail = ''): void {
    this.hops.push({ host: this.#s.hostName, engine, stage, table: undefined, what, detail });
  }

  #drop(engine: string, stage: string, reason: string, detail = ''): End {
    this.#say(engine, stage, `dropped: ${reason}`, detail);
    return { outcome: 'dropped', reason };
  }

  async #fromEndpoint(e: LocalEndpoint): Promise<End> {
    const name = endpointText(e);
    const p = this.packet;
    const own = familyOfText(p.destinationIp) === 6 ? e.ip6 : e.ip;
    this.packet = { ...p, sourceMac: p.sourceMac || e.mac, sourceIp: p.sourceIp || own };
    const port = this.#s.ofport(e.id);
    if (own === '') return this.#drop('agent', 'endpoint', `${name} has no address of that family`);
    if (ipsOf(e).includes(p.destinationIp)) {
      this.#say('agent', 'endpoint', `${p.destinationIp} is ${name}’s own address: the packet does not leave it`);
      return this.#deliver(e);
    }
    if (port === null) return this.#drop('agent', 'endpoint', `${name} has no port in Open vSwitch (yet)`);
    if (e.mtu > 0 && p.length > e.mtu)
      return this.#drop(
        'agent',
        'endpoint',
        `${p.length} bytes are more than the MTU of ${name}’s link, ${e.mtu}: its own kernel does not send it`,
      );
    if (this.packet.destinationMac === '') {
      const ended = await this.#findNeighbour(e, port);
      if (ended !== null) return ended;
    }
    return this.#send(e, port);
  }

  /** Whom the sender's kernel sends it to: the destination, or the gateway. @returns null: it is known now */
  async #findNeighbour(e: LocalEndpoint, port: number): Promise<End | null> {
    const row = this.#s.networks.get(e.networkId);
    const ip = this.packet.destinationIp;
    const family = familyOfText(ip);
    const near = isIn(row?.network.subnets ?? [], ip) || ip === RESOLVER_ADDRESS;
    const gateway = ofFamily(row?.network.gateways ?? [], family)[0];
    const target = near ? ip : gateway;
    const network = row?.name ?? e.networkId;
    if (target === undefined) {
      const why = row?.network.internal === true ? 'it is internal' : 'it has no gateway of that family';
      return this.#drop('agent', 'endpoint', `network ${network} does not lead to ${ip}: ${why}`);
    }
    const found = await neighbour(this.#s, this.#words, e, port, target);
    this.hops.push(...found.hops);
    if (found.mac === null) {
      const why = row?.network.internal === true ? 'it is internal' : `nobody answers for its gateway ${target}`;
      return {
        outcome: 'dropped',
        reason: near ? `no host holds ${ip}` : `network ${network} does not lead to ${ip}: ${why}`,
      };
    }
    this.packet = { ...this.packet, destinationMac: found.mac };
    return null;
  }

  async #send(e: LocalEndpoint, port: number): Promise<End> {
    const { wiring } = this.#s;
    if (deviceOf(e) === null && (wiring.express || wiring.services)) {
      const name = hostLink(e.id);
      const ifindex = (await this.#s.ifindexes([name])).get(name);
      if (ifindex === undefined) return this.#drop('express', 'ports', `its link ${name} is not there`);
      if (wiring.express) {
        const program = await this.#s.program(ifindex);
        if (program === 'to_gate')
          this.#say('express', 'gates', `${endpointText(e)} has a rate: it waits there for its turn`);
        else if (program !== 'from_container')
          return this.#drop(
            'express',
            'programs',
            `no program of Weft’s is on its link ${name}: nothing takes its frames on`,
          );
        const step = this.#take(await sent(this.#kernelSide, ifindex, this.packet));
        if (step.next.kind !== 'bridge') return this.#next(step, e);
      } else {
        const value = await this.#s.lookup('ports', u32(ifindex));
        if (value !== null) {
          const asked = await served(this.#kernelSide, portValue(value), this.packet);
          this.hops.push(...asked.hops);
          this.packet = asked.packet;
          if (asked.next?.kind === 'dropped') return { outcome: 'dropped', reason: asked.next.reason };
          if (asked.next?.kind === 'back') return this.#deliver(e);
        }
      }
    }
    return this.#bridge({ inPort: port });
  }

  #take(step: Step): Step {
    this.hops.push(...step.hops);
    this.packet = step.packet;
    return step;
  }

  /** Where eBPF programs send it. @param sender null: it comes from elsewhere */
  async #next(step: Step, sender: LocalEndpoint | null): Promise<End> {
    const { next } = step;
    switch (next.kind) {
      case 'dropped':
        return { outcome: 'dropped', reason: next.reason };
      case 'here':
        return this.#toLink(next.ifindex);
      case 'back':
        if (sender !== null) return this.#deliver(sender);
        break;
      case 'tunnel':
        return this.#tunnel(next.vtep, await this.#encapOf(next.device), next.key);
      case 'host':
        return {
          outcome: 'answered',
          reason: `${this.#s.hostName} itself takes it: an answer for who came in by its port`,
        };
      case 'bridge':
        break;
    }
    throw new WeftError('INTERNAL', `a packet cannot go to ${next.kind} from there`);
  }

  async #encapOf(device: number): Promise<string> {
    const numbers = await this.#s.ifindexes(Object.values(TUNNEL_DEVICE));
    const found = Object.entries(TUNNEL_DEVICE).find(([, name]) => numbers.get(name) === device);
    return found?.[0] ?? `device ${device}`;
  }

  async #toLink(ifindex: number): Promise<End> {
    const here = [...this.#s.endpoints.values()].filter((e) => deviceOf(e) === null);
    const numbers = await this.#s.ifindexes(here.map((e) => hostLink(e.id)));
    const e = here.find((one) => numbers.get(hostLink(one.id)) === ifindex);
    if (e === undefined) return this.#drop('express', 'links', `no endpoint has link ${ifindex}`);
    return this.#deliver(e);
  }

  #deliver(e: LocalEndpoint): End {
    return { outcome: 'delivered', reason: '', endpointId: e.id };
  }

  #tunnel(toVtep: string, encap: string, key: number): End {
    const { vtep } = this.#s.wiring;
    this.#say('tunnel', encap, `by ${encap}, key ${key}, from ${vtep} to ${toVtep}`);
    return { outcome: 'tunnel', reason: `to ${toVtep}`, tunnel: { fromVtep: vtep, toVtep, encap, key } };
  }

  async #fromTunnel(t: TraceTunnel): Promise<End> {
    const name = TUNNEL_DEVICE[t.encap as TunnelEncap] as string | undefined;
    if (name === undefined)
      return this.#drop('tunnel', t.encap, `${this.#s.hostName} has no tunnels of kind ${t.encap}`);
    if (this.#s.wiring.backend === 'ovs-tunnel') {
      const port = this.#s.port(name);
      if (port === null) return this.#drop('tunnel', t.encap, `${this.#s.hostName} has no port for ${t.encap}`);
      return this.#bridge({ inPort: port, tunnel: { key: t.key, from: t.fromVtep, to: t.toVtep } });
    }
    const device = (await this.#s.ifindexes([name])).get(name);
    if (device === undefined) return this.#drop('tunnel', t.encap, `the tunnel device ${name} is not there`);
    if ((await this.#s.program(device)) !== 'from_tunnel')
      return this.#drop('express', 'programs', `no program of Weft’s is on ${name}: nothing takes its frames on`);
    const step = await arrived(this.#kernelSide, { vtep: t.fromVtep, device, key: t.key }, this.packet);
    this.#take(step);
    if (step.next.kind !== 'bridge') return this.#next(step, null);
    return this.#fromTunnels(step.index);
  }

  /** On to the bridge, with the network's tag. */
  #fromTunnels(index: number): Promise<End> | End {
    const port = this.#s.port(TUNNEL_SWITCH);
    if (port === null) return this.#drop('openvswitch', 'ports', `${TUNNEL_SWITCH} has no port in Open vSwitch`);
    return this.#bridge({ inPort: port, vlan: index });
  }

  async #bridge(entry: Entry): Promise<End> {
    if (++this.#pieces > MAX_PIECES) return { outcome: 'unknown', reason: 'it goes round in circles' };
    const states = Array.from({ length: TRACKED }, () => (this.packet.established ? 'trk,est' : 'trk,new'));
    const { sections } = parseTrace(await this.#s.trace(flowText(this.packet, entry), states), this.#s.bridge);
    const start = { inPort: entry.inPort, packet: this.packet };
    const { hops, reason } = bridgeHops(sections, start, this.#words);
    this.hops.push(...hops);
    this.packet = changedBy(this.packet, finalFields(sections));
    if (sections.some((one) => one.punts.some((action) => action.includes('userdata=02'))))
      return { outcome: 'rejected', reason };
    const outputs = sections.flatMap((one) => one.outputs);
    const [first] = outputs;
    if (outputs.length > 1)
      this.#say('openvswitch', 'copies', `copies go to ${outputs.map((o) => this.#portText(o)).join(', ')}`);
    if (first === undefined) {
      const punted = sections.some((one) => one.punts.length > 0);
      return { outcome: 'dropped', reason: punted ? `the agent of ${this.#s.hostName} gets it: ${reason}` : reason };
    }
    if (first === 'in_port') return { outcome: 'answered', reason };
    return this.#out(first, sections);
  }

  #portText(output: number | 'in_port'): string {
    return output === 'in_port' ? 'where it came from' : this.#words.port(output);
  }

  /** Out of the bridge by a port. */
  async #out(port: number, sections: readonly Section[]): Promise<End> {
    const e = endpointAt(this.#s, port);
    if (e !== null) return this.#toEndpoint(e);
    if (port === this.#s.port(GATEWAY_SWITCH)) return this.#host(GATEWAY);
    if (port === this.#s.port(TUNNEL_SWITCH)) {
      const index = Number(finalFields(sections).get('dl_vlan') ?? 0);
      return this.#next(this.#take(await toTunnel(this.#kernelSide, index, this.packet)), null);
    }
    const tunnel = Object.entries(TUNNEL_DEVICE).find(([, name]) => this.#s.port(name) === port);
    const vtep = lastSet(sections, 'tun_dst') ?? lastSet(sections, 'tun_ipv6_dst');
    if (tunnel !== undefined && vtep !== null)
      return this.#tunnel(vtep, tunnel[0], Number(lastSet(sections, 'tun_id') ?? 0));
    const reason = `it leaves ${this.#s.hostName} by ${this.#words.port(port)}, where Weft cannot follow it`;
    return { outcome: 'unknown', reason };
  }

  async #toEndpoint(e: LocalEndpoint): Promise<End> {
    if (!this.#s.wiring.express || deviceOf(e) !== null) return this.#deliver(e);
    const name = slowLink(e.id);
    const ifindex = (await this.#s.ifindexes([name])).get(name);
    if (ifindex === undefined) return this.#drop('express', 'slow', `its link ${name} is not there`);
    if ((await this.#s.program(ifindex)) !== 'from_ovs')
      return this.#drop('express', 'programs', `no program of Weft’s is on ${name}: nothing takes its frames on`);
    return this.#next(this.#take(await fromBridge(this.#kernelSide, ifindex, this.packet)), null);
  }

  /** Through the host's own routes and packet filter. @param iif empty: from outside */
  async #host(iif: string): Promise<End> {
    if (++this.#pieces > MAX_PIECES) return { outcome: 'unknown', reason: 'it goes round in circles' };
    const way = await throughHost(this.#s, this.packet, iif);
    this.hops.push(...way.hops);
    this.packet = way.packet;
    if (way.end.kind !== 'bridge') return { outcome: way.end.kind, reason: way.end.reason };
    this.packet = { ...this.packet, sourceMac: formatMac(HOST_MAC), destinationMac: formatMac(ANYCAST_MAC) };
    const service = this.#s.wiring.express ? await this.#published() : null;
    if (service !== null) return service;
    const port = this.#s.port(GATEWAY_SWITCH);
    if (port === null) return this.#drop('openvswitch', 'ports', `${GATEWAY_SWITCH} has no port in Open vSwitch`);
    return this.#bridge({ inPort: port });
  }

  /** What a port of the host leads to a service of. @returns null: it is none */
  async #published(): Promise<End | null> {
    const before = this.packet;
    const found = await servedOutside(this.#kernelSide, before);
    if (found === null) return null;
    this.hops.push(...found.hops);
    if (found.next?.kind === 'dropped') return { outcome: 'dropped', reason: found.next.reason };
    if (difference(before, found.packet) === '') return this.#drop('express', 'services', 'nobody is behind that port');
    this.packet = { ...found.packet, sourceMac: (await entryMacOf(this.#kernelSide)) ?? before.sourceMac };
    const step = this.#take(await entered(this.#kernelSide, found.net, this.packet));
    return step.next.kind === 'bridge' ? this.#fromTunnels(found.net) : this.#next(step, null);
  }
}
