/** A host of a drawn mesh as `weft trace` reads it: real flows by whoever gives them, and eBPF maps as they would be written. */
import { type EncodedMaps, encode } from '../../agent/bpf/encode.ts';
import type { BpfProgram } from '../../agent/bpf/model.ts';
import { TUNNEL_DEVICE, TUNNEL_SWITCH } from '../../agent/link/names.ts';
import { kernelSide } from '../../agent/plan/kernel.ts';
import { NO_NAMES } from '../../agent/policies/resolve.ts';
import type { TraceSources } from '../../agent/trace/sources.ts';
import type { Wiring } from '../../agent/wiring.ts';
import { bridgeOf, holdingsOf, TUNNEL_PORT, VTEPS } from './mesh-models.ts';
import type { HOSTS, Mesh } from './policy-mesh.ts';

/** As the kernel looks it up: of blocks the longest prefix. Keys and values as in encode.ts. */
export function lookupIn(maps: EncodedMaps, map: string, key: string): string | null {
  const entries = maps.get(map as 'fdb');
  if (map !== 'blocks') return entries?.get(key) ?? null;
  const bits = (hex: string): string => BigInt(`0x1${hex}`).toString(2).slice(1);
  const length = (hex: string): number => Buffer.from(hex.slice(0, 8), 'hex').readUInt32LE();
  const asked = bits(key.slice(8));
  const found = [...(entries ?? [])]
    .filter(([k]) => asked.startsWith(bits(k.slice(8)).slice(0, length(k))))
    .sort(([a], [b]) => length(b) - length(a));
  return found[0]?.[1] ?? null;
}

/** Numbers for links, in the order in which they are asked for. */
export function linkNumbers(): (name: string) => number {
  const numbers = new Map<string, number>();
  return (name) => {
    const n = numbers.get(name) ?? numbers.size + 10;
    numbers.set(name, n);
    return n;
  };
}

/** @param backend by which hosts reach each other. @param trace as Open vSwitch says it of that host's bridge, which is called as the host */
export function traceHost(
  m: Mesh,
  hostId: (typeof HOSTS)[number],
  trace: TraceSources['trace'],
  backend: Wiring['backend'] = 'kernel-tunnel',
): TraceSources & { readonly maps: EncodedMaps } {
  const { networks, locals, numbers, view } = holdingsOf(m, hostId);
  const wiring = {
    backend,
    express: backend === 'kernel-tunnel',
    services: backend === 'kernel-tunnel',
    vtep: VTEPS[hostId],
    encaps: ['vxlan' as const],
    outer: { ttl: 64, dscp: 'inherit' as const, checksum: false },
  } satisfies Partial<Wiring>;
  const number = linkNumbers();
  const side = kernelSide(bridgeOf(m, hostId).networks, wiring as unknown as Wiring, number);
  const programs = new Map<number, BpfProgram>(side.attachments.map((a) => [a.ifindex, a.program]));
  const maps = encode(side.model);
  return {
    maps,
    hostName: hostId,
    hostId,
    bridge: hostId,
    wiring,
    endpoints: new Map(locals.map((e) => [e.id, e])),
    networks,
    view,
    names: NO_NAMES,
    ofport: numbers.endpoint,
    port: (name) => (name === (wiring.express ? TUNNEL_SWITCH : TUNNEL_DEVICE.vxlan) ? TUNNEL_PORT : null),
    trace,
    lookup: (map, key) =>
      wiring.express ? Promise.resolve(lookupIn(maps, map, key)) : Promise.reject(new Error('there are no maps')),
    ifindexes: (names) => Promise.resolve(new Map(wiring.express ? names.map((name) => [name, number(name)]) : [])),
    program: (ifindex) => Promise.resolve(programs.get(ifindex) ?? null),
    nft: () => Promise.reject(new Error('there is none')),
    route: () => Promise.resolve(null),
  };
}
