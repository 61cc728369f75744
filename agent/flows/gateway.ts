/**
 * The way between endpoints and their own host: an endpoint is known there by its transit address, translated here without state, so
 * that equal addresses in two networks do not meet. By it containers reach the resolver and, where their network leads out, the world:
 * the host routes, and translates once more (gateway/nft.ts). Pure.
 */
import { isIp4 } from '../../lib/addr.ts';
import { ANYCAST_MAC, DNS_ADDRESS, DNS_PORT, HOST_MAC, TRANSIT, TRANSIT6, transit6 } from '../gateway/addresses.ts';
import type { Action, Flow, MatchField } from '../openflow/flow.ts';
import {
  ARP_REQUEST,
  arpAnswer,
  arpReply,
  ETH_ARP,
  ETH_IPV4,
  ETH_IPV6,
  flow,
  goto,
  ICMPV6,
  inCidr,
  inPrefix,
  is,
  move,
  set,
} from './build.ts';
import type { LocalPort, NetworkModel } from './model.ts';
import { ndEntry } from './nd.ts';
import { PRIORITY, REG, SIDE, TABLE } from './pipeline.ts';
import { committed, judgedStage } from './policies.ts';
import { erred } from './punt.ts';

/** The stage is before this one, and goto_table leads only onwards (OpenFlow 1.4 §5.9). */
const toRouting: readonly Action[] = [{ type: 'resubmit', table: TABLE.routing }];
const ICMP = { protocol: 1n, echo: 8n, reply: 0n } as const;
const UDP = 17n;
const TCP = 6n;

/** @param port OpenFlow port of the link to the host. One MAC stands for every endpoint there. */
export const gatewayBase = (port: number, maxMeters: number): Flow[] => [
  ...errors(port, maxMeters),
  flow(
    'classify',
    0,
    PRIORITY.guard,
    [is('in_port', port), is('eth_type', ETH_ARP), is('arp_op', ARP_REQUEST), inCidr('arp_tpa', TRANSIT)],
    [
      ...arpAnswer([
        move('arp_tpa', REG.scratch, 32),
        set('eth_src', ANYCAST_MAC),
        set('arp_sha', ANYCAST_MAC),
        move('arp_spa', 'arp_tpa', 32),
        move(REG.scratch, 'arp_spa', 32),
      ]),
      { type: 'in_port' },
    ],
  ),
  // Nobody meets an endpoint of another network by the address that the host has for it.
  flow('l2', 0, PRIORITY.barred, [...toGateway, is('eth_type', ETH_IPV4), inCidr('ipv4_dst', TRANSIT)], []),
  flow('l2', 0, PRIORITY.barred, [...toGateway, is('eth_type', ETH_IPV6), inPrefix('dst', TRANSIT6)], []),
];

/** ICMP errors quote a packet with the endpoint's address of the other side: without state that cannot be translated here. */
function errors(port: number, maxMeters: number): Flow[] {
  const kinds = [
    ...ERRORS4.map((type) => [is('eth_type', ETH_IPV4), is('ip_proto', ICMP.protocol), is('icmp_type', type)]),
    ...ERRORS6.map((type) => [is('eth_type', ETH_IPV6), is('ip_proto', ICMPV6), is('icmpv6_type', type)]),
  ];
  const punt = erred(maxMeters);
  return kinds.flatMap((kind, i) => [
    flow(
      'classify',
      0,
      PRIORITY.error,
      [is('in_port', port), ...kind, i < ERRORS4.length ? inCidr('ipv4_dst', TRANSIT) : inPrefix('dst', TRANSIT6)],
      [punt],
    ),
    flow('routing', 0, PRIORITY.error, [is(REG.side, SIDE.local), ...kind], [set(REG.out, port), punt]),
  ]);
}

/** Unreachable, time exceeded, parameter problem (RFC 792), and all of RFC 4443. */
const ERRORS4 = [3, 11, 12];
const ERRORS6 = [1, 2, 3, 4];

/** What a local endpoint sends to the host that stands for its gateway. */
export const toGateway: readonly MatchField[] = [is(REG.side, SIDE.local), is('eth_dst', ANYCAST_MAC)];

/** A vlan network's machines have their own gateway and resolver. */
export function gateway(n: NetworkModel, port: number, relaysNd: boolean): Flow[] {
  if (n.encap === 'vlan') return [];
  const reached = n.locals.filter((p): p is Reached => p.transit !== undefined);
  return [
    ...(reached.some((p) => p.ip !== null) ? resolver(n) : []),
    ...leadOut(n, relaysNd),
    ...reached.flatMap((p) => [...toHost(n, p, port), ...fromHost(n, p, port)]),
  ];
}

export type Reached = LocalPort & { readonly transit: number };

function resolver(n: NetworkModel): Flow[] {
  const inNetwork = is(REG.network, n.index);
  const match = [inNetwork, ...toGateway, is('eth_type', ETH_IPV4), is('ipv4_dst', DNS_ADDRESS)];
  const out = [...committed(n), ...toRouting];
  return [
    answers(n, DNS_ADDRESS),
    flow('l2', n.index, PRIORITY.guard, [...match, is('ip_proto', UDP), is('udp_dst', DNS_PORT)], out),
    flow('l2', n.index, PRIORITY.guard, [...match, is('ip_proto', TCP), is('tcp_dst', DNS_PORT)], out),
  ];
}

/** ARP for an address that stands for the host. */
export const answers = (n: Pick<NetworkModel, 'index'>, ip: number): Flow =>
  flow(
    'arpNd',
    n.index,
    PRIORITY.guard,
    [is(REG.network, n.index), is('eth_type', ETH_ARP), is('arp_op', ARP_REQUEST), is('arp_tpa', ip)],
    [...arpReply({ mac: ANYCAST_MAC, ip }), { type: 'in_port' }],
  );

/** The same gateway on every host: it answers, and takes whatever is for somewhere else. */
function leadOut(n: NetworkModel, relaysNd: boolean): Flow[] {
  const { egress } = n;
  if (egress == null) return [];
  const to = [is(REG.network, n.index), ...toGateway];
  const out = (type: bigint): Flow =>
    flow('l2', n.index, PRIORITY.local, [...to, is('eth_type', type)], [...committed(n), ...toRouting]);
  return [
    ...(egress.ip === null ? [] : [answers(n, egress.ip), echo(n, to, egress.ip), out(ETH_IPV4)]),
    ...(egress.ip6 === null
      ? []
      : [...ndEntry(n, { mac: ANYCAST_MAC, ip: null, ip6: egress.ip6, express: false }, relaysNd), out(ETH_IPV6)]),
    ...egress.subnets.map((subnet) => {
      const type = isIp4(subnet.base) ? ETH_IPV4 : ETH_IPV6;
      return flow('l2', n.index, PRIORITY.barred, [...to, is('eth_type', type), inPrefix('dst', subnet)], []);
    }),
  ];
}

/** RFC 792: the answer to a ping. */
export const echo = (n: Pick<NetworkModel, 'index'>, to: readonly MatchField[], ip: number): Flow =>
  flow(
    'l2',
    n.index,
    PRIORITY.guard,
    [
      ...to,
      is('eth_type', ETH_IPV4),
      is('ipv4_dst', ip),
      is('ip_proto', ICMP.protocol),
      is('icmp_type', ICMP.echo),
      is('icmp_code', 0),
    ],
    [
      move('eth_src', 'eth_dst', 48),
      set('eth_src', ANYCAST_MAC),
      move('ipv4_src', 'ipv4_dst', 32),
      set('ipv4_src', ip),
      set('icmp_type', ICMP.reply),
      { type: 'in_port' },
    ],
  );

function toHost(n: NetworkModel, p: Reached, port: number): Flow[] {
  const from = [is(REG.network, n.index), is('in_port', p.ofport)];
  const send = [set('eth_src', ANYCAST_MAC), set('eth_dst', HOST_MAC), set(REG.out, port), goto('output')];
  const of = (match: readonly MatchField[], source: Action): Flow =>
    flow('routing', n.index, PRIORITY.local, [...from, ...match], [source, ...send]);
  return [
    ...(p.ip === null ? [] : [of([is('eth_type', ETH_IPV4), is('ipv4_src', p.ip)], set('ipv4_src', p.transit))]),
    ...(p.ip6 === null
      ? []
      : [of([is('eth_type', ETH_IPV6), is('ipv6_src', p.ip6)], set('ipv6_src', transit6(p.transit)))]),
  ];
}

function fromHost(n: NetworkModel, p: Reached, port: number): Flow[] {
  const of = (match: readonly MatchField[], destination: Action): Flow =>
    flow(
      'classify',
      n.index,
      PRIORITY.guard,
      [is('in_port', port), ...match],
      [
        set(REG.network, n.index),
        set(REG.side, SIDE.host),
        destination,
        set('eth_src', ANYCAST_MAC),
        set('eth_dst', p.mac),
        goto(judgedStage(n)),
      ],
    );
  return [
    ...(p.ip === null ? [] : [of([is('eth_type', ETH_IPV4), is('ipv4_dst', p.transit)], set('ipv4_dst', p.ip))]),
    ...(p.ip6 === null
      ? []
      : [of([is('eth_type', ETH_IPV6), is('ipv6_dst', transit6(p.transit))], set('ipv6_dst', p.ip6))]),
  ];
}
