/** Routing between networks as the eBPF programs do it (datapath/route.h), from what the maps have in them. */
import { familyOfText, lowOf, parseIp } from '../../lib/addr.ts';
import { formatMac } from '../../lib/mac.ts';
import type { TraceHop, TracePacket } from '../../lib/model.ts';
import { configValue, macValue, neighbourKey, routeKey, routeValue } from '../bpf/decode.ts';
import { describeValue } from '../bpf/describe.ts';
import { u32 } from '../bpf/encode.ts';
import { ANYCAST_MAC } from '../gateway/addresses.ts';
import { hop, type Maps } from './maps.ts';

const GATEWAY = formatMac(ANYCAST_MAC);
export const isForGateway = (p: TracePacket): boolean => p.destinationMac === GATEWAY;

/** Where a packet for the gateway goes on. `index` 0: Open vSwitch decides, for the reason that `why` says. */
export async function routedOn(
  m: Maps,
  index: number,
  p: TracePacket,
): Promise<{
  readonly index: number;
  readonly packet: TracePacket;
  readonly hops: readonly TraceHop[];
  readonly why: string;
}> {
  const slow = (why: string): { index: number; packet: TracePacket; hops: TraceHop[]; why: string } => ({
    index: 0,
    packet: p,
    hops: [],
    why,
  });
  if (p.ttl <= 1) return slow('its time to live ends');
  if (p.sourceIp.startsWith('fe80:')) return slow('its source is link-local');
  const value = await m.lookup('routes', routeKey(index, p.destinationIp));
  const route = value === null ? null : routeValue(value);
  if (value === null || route === null) return slow('it is for the gateway');
  if (route.index === 0) return slow('of this route Open vSwitch knows more');
  if (p.length > route.mtu) return slow('it is too big for the route');
  const config = await m.lookup('config', u32(0));
  const known = await m.lookup('neighbours', neighbourKey(route.index, p.destinationIp));
  const packet: TracePacket = {
    ...p,
    destinationMac: known === null ? derived(p.destinationIp) : macValue(known),
    sourceMac: config === null ? p.sourceMac : configValue(config).router,
    ttl: p.ttl - 1,
  };
  const detail = `routes net ${index} … of ${p.destinationIp} = ${describeValue('routes', value)}`;
  const hops = [hop(m, 'routes', `routed into network ${m.network(route.index)}, to ${packet.destinationMac}`, detail)];
  return { index: route.index, packet, hops, why: '' };
}

/** The default MAC of an address, or its alias (lib/mac.ts). */
const derived = (ip: string): string =>
  formatMac((familyOfText(ip) === 4 ? 0x0258n << 32n : 0x0259n << 32n) | BigInt(lowOf(parseIp(ip))));
