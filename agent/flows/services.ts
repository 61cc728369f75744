/**
 * Virtual addresses of services: they are answered for like a gateway, by the host's own MAC, on the client's host. What is sent to a
 * port of theirs has been translated on the client's link (datapath/), and never comes here; the rest ends here, counted. Pure.
 */
import type { BpfAddress } from '../bpf/model.ts';
import { ANYCAST_MAC } from '../gateway/addresses.ts';
import type { Flow, MatchField } from '../openflow/flow.ts';
import { ETH_IPV4, ETH_IPV6, flow, ICMPV6, is, move, set } from './build.ts';
import { answers, echo, toGateway } from './gateway.ts';
import type { NetworkModel } from './model.ts';
import { ndExact } from './nd.ts';
import { PRIORITY, REG } from './pipeline.ts';

/** By a name of their own. None where the network has no endpoint here, as it has no other flows then. */
export function virtualAddresses(n: Pick<NetworkModel, 'locals' | 'encap' | 'services'>): Map<string, BpfAddress> {
  const services = n.locals.length === 0 || n.encap === 'vlan' ? [] : (n.services ?? []);
  return new Map(services.map(({ address }) => [`${address.family}/${address.address}`, address]));
}

export function renderAddress(
  n: Pick<NetworkModel, 'index'>,
  { family, address }: BpfAddress,
  relaysNd = false,
): Flow[] {
  const to = [is(REG.network, n.index), ...toGateway];
  const rest = (type: bigint, field: 'ipv4_dst' | 'ipv6_dst'): Flow =>
    flow('l2', n.index, PRIORITY.virtual, [...to, is('eth_type', type), is(field, address)], []);
  if (family === 4) return [answers(n, address), echo(n, to, address), rest(ETH_IPV4, 'ipv4_dst')];
  return [
    ...ndExact(n, PRIORITY.entry, address, ANYCAST_MAC, relaysNd),
    echo6(n, to, address),
    rest(ETH_IPV6, 'ipv6_dst'),
  ];
}

const ECHO6 = { request: 128, reply: 129 } as const;

/** RFC 4443 §4: the answer to a ping. */
export const echo6 = (n: Pick<NetworkModel, 'index'>, to: readonly MatchField[], ip: bigint): Flow =>
  flow(
    'l2',
    n.index,
    PRIORITY.guard,
    [
      ...to,
      is('eth_type', ETH_IPV6),
      is('ipv6_dst', ip),
      is('ip_proto', ICMPV6),
      is('icmpv6_type', ECHO6.request),
      is('icmpv6_code', 0),
    ],
    [
      move('eth_src', 'eth_dst', 48),
      set('eth_src', ANYCAST_MAC),
      move('ipv6_src', 'ipv6_dst', 128),
      set('ipv6_src', ip),
      set('icmpv6_type', ECHO6.reply),
      { type: 'in_port' },
    ],
  );
