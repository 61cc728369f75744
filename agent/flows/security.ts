/**
 * Port security: a local endpoint sends with its own MAC and its own addresses only, in Ethernet, ARP, IP and neighbour discovery
 * headers alike; everything else is dropped by the table's default. Pure.
 */
import { linkLocalOf } from '../../lib/ip6.ts';
import type { Flow, MatchField } from '../openflow/flow.ts';
import { ARP_REPLY, ARP_REQUEST, ETH_ARP, ETH_IPV4, ETH_IPV6, flow, goto, ICMPV6, is, ND } from './build.ts';
import type { Allowed, LocalPort, NetworkModel } from './model.ts';
import { PRIORITY, type Stage } from './pipeline.ts';
import { judgedStage } from './policies.ts';
import { trustedSecurity } from './shared.ts';

/** Reports and the end of a membership (MLD, RFC 2710, RFC 3810) may come before there is an address. */
const MLD_REPORTS = [131n, 132n, 143n];

/** Neighbour discovery that no flow of an endpoint lets through: what is false in it, router advertisements, redirects. */
export const securityBase = (): Flow[] =>
  [ND.routerAdvertisement, ND.solicitation, ND.advertisement, ND.redirect].map((type) =>
    flow(
      'portSecurity',
      0,
      PRIORITY.ndDrop,
      [is('eth_type', ETH_IPV6), is('ip_proto', ICMPV6), is('icmpv6_type', type)],
      [],
    ),
  );

export const portSecurity = (n: NetworkModel, port: LocalPort): Flow[] => {
  const from = [is('in_port', port.ofport), is('eth_src', port.mac)];
  return [
    ...(port.ip === null ? [] : security4(n, from, port.mac, port.ip)),
    ...(port.ip6 === null ? [] : security6(n, from, port.mac, [port.ip6, linkLocalOf(port.mac)])),
    ...port.allowed.flatMap((a) => allowedSecurity(n, port, a)),
    ...trustedSecurity(n, port),
  ];
};

/** Addresses that it shares: from its own MAC, or from the one that was allowed with them. */
function allowedSecurity(n: NetworkModel, port: LocalPort, a: Allowed): Flow[] {
  const macs = new Set([a.mac ?? port.mac, ...(a.ip === null && a.ip6 === null ? [] : [port.mac])]);
  return [...macs].flatMap((mac) => {
    const from = [is('in_port', port.ofport), is('eth_src', mac)];
    if (a.ip !== null) return security4(n, from, mac, a.ip);
    if (a.ip6 !== null) return security6(n, from, mac, [a.ip6]);
    return [flow('portSecurity', n.index, PRIORITY.plain, from, [goto(judgedStage(n))])];
  });
}

function security4(n: NetworkModel, from: readonly MatchField[], mac: bigint, ip: number): Flow[] {
  const arp = (op: bigint, spa: number): MatchField[] => [
    ...from,
    is('eth_type', ETH_ARP),
    is('arp_op', op),
    is('arp_spa', spa),
    is('arp_sha', mac),
  ];
  const pass = (match: readonly MatchField[], to: Stage): Flow =>
    flow('portSecurity', n.index, PRIORITY.local, match, [goto(to)]);
  return [
    pass(arp(ARP_REQUEST, ip), 'arpNd'),
    // Is an address taken? (RFC 5227 §2.1.1)
    pass(arp(ARP_REQUEST, 0), 'arpNd'),
    // An answer to such a probe, from another host.
    pass(arp(ARP_REPLY, ip), 'l2'),
    pass([...from, is('eth_type', ETH_IPV4), is('ipv4_src', ip)], judgedStage(n)),
  ];
}

/** @param own global and link-local address */
function security6(n: NetworkModel, from: readonly MatchField[], mac: bigint, own: readonly bigint[]): Flow[] {
  const ipv6 = [...from, is('eth_type', ETH_IPV6)];
  const nd = (type: bigint, source: bigint): MatchField[] => [
    ...ipv6,
    is('ip_proto', ICMPV6),
    is('icmpv6_type', type),
    is('ipv6_src', source),
  ];
  const pass = (match: readonly MatchField[], to: Stage, priority: number = PRIORITY.local): Flow =>
    flow('portSecurity', n.index, priority, match, [goto(to)]);
  return [
    // A unicast one may leave its own MAC out (RFC 4861 §4.3, §4.4): Open vSwitch then sees zero.
    ...own.flatMap((ip) => [mac, 0n].map((m) => pass([...nd(ND.solicitation, ip), is('nd_sll', m)], 'arpNd'))),
    // Is an address taken?
    pass([...nd(ND.solicitation, 0n), is('nd_sll', 0n)], 'arpNd'),
    ...own.flatMap((ip) =>
      [mac, 0n].map((m) => pass([...nd(ND.advertisement, ip), is('nd_target', ip), is('nd_tll', m)], 'l2')),
    ),
    ...MLD_REPORTS.map((type) => pass(nd(type, 0n), 'l2')),
    ...own.map((ip) => pass([...ipv6, is('ipv6_src', ip)], judgedStage(n), PRIORITY.plain)),
  ];
}
