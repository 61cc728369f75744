/**
 * The way between endpoints and their own host: an endpoint is known there by its transit address, translated here without state, so
 * that equal addresses in two networks do not meet. So far the resolver is what can be reached by it. Pure.
 */
import { ANYCAST_MAC, DNS_ADDRESS, DNS_PORT, HOST_MAC, TRANSIT } from '../gateway/addresses.ts';
import type { Action, Flow } from '../openflow/flow.ts';
import { ARP_REQUEST, arpAnswer, arpReply, ETH_ARP, ETH_IPV4, flow, goto, inCidr, is, move, set } from './build.ts';
import type { LocalPort, NetworkModel } from './model.ts';
import { PRIORITY, REG, SIDE, TABLE } from './pipeline.ts';

/** The stage is before this one, and goto_table leads only onwards (OpenFlow 1.4 §5.9). */
const toRouting: readonly Action[] = [{ type: 'resubmit', table: TABLE.routing }];
const UDP = 17n;
const TCP = 6n;

/** @param port OpenFlow port of the link to the host. One MAC stands for every endpoint there. */
export const gatewayBase = (port: number): Flow[] => [
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
];

/** A vlan network's machines have their own gateway and resolver. */
export function gateway(n: NetworkModel, port: number): Flow[] {
  const reached = n.locals.filter((p): p is Reached => p.ip !== null && p.transit !== undefined);
  if (n.encap === 'vlan' || reached.length === 0) return [];
  const inNetwork = is(REG.network, n.index);
  const toResolver = [
    inNetwork,
    is(REG.side, SIDE.local),
    is('eth_dst', ANYCAST_MAC),
    is('eth_type', ETH_IPV4),
    is('ipv4_dst', DNS_ADDRESS),
  ];
  return [
    flow(
      'arpNd',
      n.index,
      PRIORITY.guard,
      [inNetwork, is('eth_type', ETH_ARP), is('arp_op', ARP_REQUEST), is('arp_tpa', DNS_ADDRESS)],
      [...arpReply({ mac: ANYCAST_MAC, ip: DNS_ADDRESS }), { type: 'in_port' }],
    ),
    flow('l2', n.index, PRIORITY.guard, [...toResolver, is('ip_proto', UDP), is('udp_dst', DNS_PORT)], toRouting),
    flow('l2', n.index, PRIORITY.guard, [...toResolver, is('ip_proto', TCP), is('tcp_dst', DNS_PORT)], toRouting),
    ...reached.flatMap((p) => [toHost(n, p, port), fromHost(n, p, port)]),
  ];
}

type Reached = LocalPort & { readonly ip: number; readonly transit: number };

const toHost = (n: NetworkModel, p: Reached, port: number): Flow =>
  flow(
    'routing',
    n.index,
    PRIORITY.local,
    [is(REG.network, n.index), is('in_port', p.ofport), is('eth_type', ETH_IPV4), is('ipv4_src', p.ip)],
    [
      set('ipv4_src', p.transit),
      set('eth_src', ANYCAST_MAC),
      set('eth_dst', HOST_MAC),
      set(REG.out, port),
      goto('output'),
    ],
  );

const fromHost = (n: NetworkModel, p: Reached, port: number): Flow =>
  flow(
    'classify',
    n.index,
    PRIORITY.guard,
    [is('in_port', port), is('eth_type', ETH_IPV4), is('ipv4_dst', p.transit)],
    [
      set(REG.network, n.index),
      set(REG.side, SIDE.host),
      set('ipv4_dst', p.ip),
      set('eth_src', ANYCAST_MAC),
      set('eth_dst', p.mac),
      goto('l2'),
    ],
  );
