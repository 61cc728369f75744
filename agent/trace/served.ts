/** Virtual addresses as the eBPF programs translate them (datapath/service.h), from what the maps have in them. */
import type { TraceHop, TracePacket } from '../../lib/model.ts';
import {
  affinityKey,
  affinityValue,
  type BackendValue,
  backendValue,
  connectionValue,
  flowKey,
  liveKey,
  type PortValue,
  serviceKeyOf,
  serviceValue,
} from '../bpf/decode.ts';
import { describeKey, describeValue } from '../bpf/describe.ts';
import { u32 } from '../bpf/encode.ts';
import { hop, type Maps, type Next } from './maps.ts';
import { hasPorts, PROTOCOL } from './packet.ts';

/** A flow's index of who comes from outside (maps.h, OUTSIDE). */
const OUTSIDE = 0x8000_0000;

/** A host's own MAC in the mesh. */
export const isEntry = (mac: string): boolean => mac.startsWith('02:5b:');

export interface Asked {
  readonly hops: readonly TraceHop[];
  readonly packet: TracePacket;
  /** Null: it is decided as any other packet, by what `packet` is now. */
  readonly next: Next | null;
}

const on = (p: TracePacket): boolean => p.protocol === PROTOCOL.tcp || p.protocol === PROTOCOL.udp;

/** What a container sends (ask). @param port of its link */
export async function served(m: Maps, port: PortValue, p: TracePacket): Promise<Asked> {
  if (!hasPorts(p.protocol) || !on(p)) return { hops: [], packet: p, next: null };
  const own = port.ip4 === p.destinationIp || port.ip6 === p.destinationIp;
  return own ? { hops: [], packet: p, next: null } : chosen(m, port.index, port.index, port, p);
}

/** What comes from the host for a transit address that stands for a published service (from_host). @returns null: it is none */
export async function servedOutside(m: Maps, p: TracePacket): Promise<(Asked & { readonly net: number }) | null> {
  if (!on(p)) return null;
  const address = await m.lookup('services', serviceKeyOf(0, p.destinationIp, 0, 0));
  if (address === null) return null;
  const { net } = serviceValue(address);
  const found = await chosen(m, 0, (net | OUTSIDE) >>> 0, null, p);
  return { ...found, net };
}

/** @param index of the key of the service; `flowIndex` of the connection's */
async function chosen(
  m: Maps,
  index: number,
  flowIndex: number,
  port: PortValue | null,
  p: TracePacket,
): Promise<Asked> {
  const key = serviceKeyOf(index, p.destinationIp, p.protocol, p.destinationPort);
  const value = await m.lookup('services', key);
  if (value === null) return { hops: [], packet: p, next: null };
  const service = serviceValue(value);
  const family = p.destinationIp.includes(':') ? 6 : 4;
  const text = `${describeKey('services', key)} = ${describeValue('services', value)}`;
  const flow = flowKey(
    flowIndex,
    { ip: p.sourceIp, port: p.sourcePort },
    { ip: p.destinationIp, port: p.destinationPort },
    p.protocol,
  );
  const known = await m.lookup('connections', flow);
  const opening = !p.established || p.protocol === PROTOCOL.udp;
  const bound = known === null ? null : connectionValue(known, family);
  const alive = (b: BackendValue): Promise<string | null> => m.lookup('live', liveKey(service.id, b));
  let how = '';
  let to: BackendValue | null = null;
  if (bound?.id === service.id && (!opening || (await alive(bound.backend)) !== null)) {
    to = bound.backend;
    how = 'the one that this connection has';
  }
  if (to === null && service.affinity > 0) {
    const stay = await m.lookup('affinities', affinityKey(service.id, p.sourceIp));
    const last = stay === null ? null : affinityValue(stay, family);
    if (last !== null && (await alive(last)) !== null) {
      to = last;
      how = `the one that this client had last, if that was less than ${service.affinity} s ago`;
    }
  }
  if (to === null) {
    const all = await list(m, service.id, service.count, family);
    const own = (b: BackendValue): boolean => port !== null && (b.ip === port.ip4 || b.ip === port.ip6);
    const others = all.filter((b) => !own(b));
    to = others[0] ?? all[0] ?? null;
    const n = others.length > 0 ? others.length : all.length;
    how = n > 1 ? `one of ${n} by chance; this trace follows the first` : 'the only one';
  }
  if (to === null) {
    const reason = `nobody healthy is behind ${p.destinationIp}:${p.destinationPort} (no_backend)`;
    return { hops: [hop(m, 'services', `dropped: ${reason}`, text)], packet: p, next: { kind: 'dropped', reason } };
  }
  const end = `${family === 6 ? `[${to.ip}]` : to.ip}:${to.port}`;
  const itself = port !== null && (to.ip === port.ip4 || to.ip === port.ip6);
  const packet: TracePacket = {
    ...p,
    destinationIp: to.ip,
    destinationPort: to.port,
    destinationMac: itself ? port.mac : to.mac,
    ...(itself ? { sourceIp: p.destinationIp } : {}),
  };
  const hops = [hop(m, 'services', `a service: destination becomes ${end}, ${how}`, text)];
  // Nobody takes a packet from his own address: it comes back from the virtual one.
  return { hops, packet, next: itself ? { kind: 'back' } : null };
}

async function list(m: Maps, id: number, count: number, family: number): Promise<BackendValue[]> {
  const all: BackendValue[] = [];
  for (let slot = 0; slot < Math.min(count, 1024); slot++) {
    const value = await m.lookup('backends', u32(id) + u32(slot));
    if (value !== null) all.push(backendValue(value, family));
  }
  return all;
}
