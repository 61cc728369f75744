/** A bridge with networks of every kind, and one packet of every kind to trace through it. */
import type { BridgeModel, Routing, Tunnels } from '../../../agent/flows/model.ts';
import { routerMac } from '../../../agent/gateway/addresses.ts';
import { parseCidr as parse6, parseIp as parseAny } from '../../../lib/addr.ts';
import { parseCidr, parseIp } from '../../../lib/ip.ts';
import { formatMac, parseMac } from '../../../lib/mac.ts';
import { localPort, network, remote } from '../../harness/flow-models.ts';

/** Ports of the bridge by OpenFlow number: the tunnels' first. */
export const PORTS: Readonly<Record<number, string>> = {
  1: 'tun',
  2: 'a',
  3: 'b',
  4: 'g',
  5: 'r',
  6: 'v',
  7: 'uplink',
  8: 'trusted',
  9: 'geneve',
  10: 'gre',
  11: 'x',
};
export const OVS_TUNNELS: Tunnels = { kind: 'ovs', ports: { vxlan: 1, geneve: 9, gre: 10 } };
export const KERNEL_TUNNELS: Tunnels = { kind: 'kernel', port: 1 };

const routing = (own: number, other: number): Routing => ({
  mac: routerMac('h1'),
  own: [parseAny(`10.${own}.0.1`)],
  answering: [own, other].map((n) => parseAny(`10.${n}.0.1`)),
  subnets: [parse6(`10.${own}.0.0/24`)],
  routes: [{ to: parse6(`10.${other}.0.0/24`), hops: [{ network: other, ip: null, mtu: 1450 }] }],
});

const peerOf = (vni: number, encap: 'geneve' | 'gre') =>
  remote('192.0.2.2', { encap, key: vni, blocks: [parseCidr('10.3.0.32/27')] });

/**
 * Network 1: VXLAN, both families; a and b here, a block and an endpoint out of it elsewhere. 2: Geneve. 3: GRE. 4: tag 100 on the
 * uplink. 5: VXLAN with a trusted endpoint here and an external peer whose MACs are learned. 6 and 7: joined by a router; the second has no
 * endpoint here, and a third host that is in neither leads into the first.
 */
export const networks: BridgeModel['networks'] = [
  network({
    index: 1,
    locals: [localPort(2, '10.1.0.2', 'fd01::2'), localPort(3, '10.1.0.3', 'fd01::3', '02:42:00:00:00:03')],
    remotes: [
      remote('192.0.2.2', { blocks: [parseCidr('10.1.0.32/27')], blocks6: [parse6('fd01::40/122')] }),
      remote('192.0.2.3', {
        entries: [{ mac: parseMac('02:42:00:00:00:99'), ip: parseIp('10.1.0.40'), ip6: null, express: true }],
      }),
    ],
  }),
  network({
    index: 2,
    encap: 'geneve',
    ipv6: false,
    locals: [localPort(4, '10.3.0.2', '')],
    remotes: [peerOf(4097, 'geneve')],
  }),
  network({
    index: 3,
    encap: 'gre',
    ipv6: false,
    locals: [localPort(5, '10.3.0.2', '')],
    remotes: [peerOf(4098, 'gre')],
  }),
  network({
    index: 4,
    encap: 'vlan',
    vni: 0,
    ipv6: false,
    uplink: { port: 7, tag: 100 },
    locals: [localPort(6, '10.4.0.2', '')],
    remotes: [],
  }),
  network({
    index: 5,
    ipv6: false,
    locals: [{ ...localPort(8, '10.5.0.2', ''), trusted: true }],
    remotes: [remote('192.0.2.9', { key: 77, external: true, learn: true })],
  }),
  network({
    index: 6,
    ipv6: false,
    locals: [localPort(11, '10.6.0.2', '')],
    remotes: [],
    routing: routing(6, 7),
    routers: [{ hostId: 'h3', vtep: '192.0.2.3' }],
    reached: true,
  }),
  network({
    index: 7,
    ipv6: false,
    locals: [],
    remotes: [remote('192.0.2.2', { hostId: 'h2', key: 4102, blocks: [parseCidr('10.7.0.32/27')] })],
    routing: routing(7, 6),
    reached: true,
  }),
];

const A = '02:58:0a:01:00:02';
const B = '02:42:00:00:00:03';
const G = '02:58:0a:03:00:02';
const FAR = '02:58:0a:01:00:21';
const ALL = 'ff:ff:ff:ff:ff:ff';
const NOBODY = '02:00:00:00:00:99';
const X = '02:58:0a:06:00:02';
const GATEWAY = '02:57:65:66:74:01';
const ROUTER = formatMac(routerMac('h3'));

const ip = (port: number, src: string, dst: string, from: string, to: string, more = ''): string =>
  `in_port=${port},icmp,dl_src=${src},dl_dst=${dst},nw_src=${from},nw_dst=${to},nw_ttl=64${more}`;
const arp = (port: number, op: number, dst: string, sha: string, spa: string, tpa: string, src = sha): string =>
  `in_port=${port},arp,dl_src=${src},dl_dst=${dst},arp_op=${op},arp_sha=${sha},arp_spa=${spa},arp_tpa=${tpa}`;
const ns = (src: string, target: string, sll: string): string =>
  `in_port=2,icmp6,dl_src=${A},dl_dst=33:33:ff:00:00:01,ipv6_src=${src},ipv6_dst=ff02::1:ff00:1,icmpv6_type=135,nd_target=${target},nd_sll=${sll}`;

export interface Arrival {
  /** Whether Open vSwitch judges where a frame comes from; else the kernel side has. */
  readonly judged: boolean;
  /** How a frame comes by tunnel, with the backend's own words for network and sender. */
  tunnel(index: number, vtep: string): string;
}
export const viaOvs: Arrival = {
  judged: true,
  tunnel: (index, vtep) => {
    const [port, key] = { 1: [1, 4096], 2: [9, 4097], 3: [10, 4098], 5: [1, 77], 6: [1, 4101] }[index] ?? [1, 0xabc];
    return `in_port=${port},tun_id=${key},tun_src=${vtep},tun_dst=192.0.2.1`;
  },
};
export const viaKernel: Arrival = { judged: false, tunnel: (index) => `in_port=1,dl_vlan=${index}` };

/** What it is → the packet, as ovs-appctl(8) takes it. */
export const packets = (by: Arrival): readonly (readonly [string, string])[] => [
  ...everywhere(by),
  ...(by.judged ? fromNobody(by) : []),
];

function arrived(by: Arrival, index: number, vtep: string, packet: string): string {
  return `${by.tunnel(index, vtep)},${packet.replace(/^in_port=\d+,/, '')}`;
}

const everywhere = (by: Arrival): readonly (readonly [string, string])[] => {
  return [
    ['unicast to a container here', ip(2, A, B, '10.1.0.2', '10.1.0.3')],
    ['unicast into another host’s block', ip(2, A, FAR, '10.1.0.2', '10.1.0.33')],
    ['unicast to an endpoint outside of its host’s block', ip(2, A, '02:42:00:00:00:99', '10.1.0.2', '10.1.0.40')],
    ['unicast to nobody', ip(2, A, NOBODY, '10.1.0.2', '10.1.0.250')],
    ['unicast to a container of another network', ip(2, A, G, '10.1.0.2', '10.3.0.2')],
    ['with a tag of the container’s own', ip(2, A, FAR, '10.1.0.2', '10.1.0.33', ',dl_vlan=5')],
    ['a later fragment', ip(2, A, FAR, '10.1.0.2', '10.1.0.33', ',nw_frag=later')],
    ['broadcast', ip(2, A, ALL, '10.1.0.2', '10.1.15.255')],
    ['a link-local group', ip(2, A, '01:00:5e:00:00:fb', '10.1.0.2', '224.0.0.251')],
    ['a group', ip(2, A, '01:00:5e:01:02:03', '10.1.0.2', '239.1.2.3')],
    ['IGMP', `in_port=2,ip,nw_proto=2,dl_src=${A},dl_dst=01:00:5e:00:00:16,nw_src=10.1.0.2,nw_dst=224.0.0.22`],
    ['another MAC as source', ip(2, NOBODY, B, '10.1.0.2', '10.1.0.3')],
    ['another address as source', ip(2, A, B, '10.1.0.9', '10.1.0.3')],
    ['multicast MAC as source', ip(2, '01:00:5e:00:00:01', B, '10.1.0.2', '10.1.0.3')],
    ['zero MAC as source', ip(2, '00:00:00:00:00:00', B, '10.1.0.2', '10.1.0.3')],
    ['no protocol that is known', `in_port=2,dl_type=0x9999,dl_src=${A},dl_dst=${B}`],
    ['ARP for a container here', arp(2, 1, ALL, A, '10.1.0.2', '10.1.0.3')],
    ['ARP into another host’s block', arp(2, 1, ALL, A, '10.1.0.2', '10.1.0.33')],
    ['ARP for an endpoint outside of its host’s block', arp(2, 1, ALL, A, '10.1.0.2', '10.1.0.40')],
    ['ARP for nobody', arp(2, 1, ALL, A, '10.1.0.2', '10.1.0.250')],
    ['ARP probe of another host’s address', arp(2, 1, ALL, A, '0.0.0.0', '10.1.0.33')],
    ['ARP probe of an address here', arp(2, 1, ALL, A, '0.0.0.0', '10.1.0.3')],
    ['ARP announcement', arp(2, 1, ALL, A, '10.1.0.2', '10.1.0.2')],
    ['ARP reply to another host', arp(2, 2, FAR, A, '10.1.0.2', '10.1.0.33')],
    ['ARP with another MAC inside', arp(2, 1, ALL, NOBODY, '10.1.0.2', '10.1.0.3', A)],
    ['ARP with another address inside', arp(2, 1, ALL, A, '10.1.0.9', '10.1.0.3')],
    [
      'IPv6 into another host’s block',
      `in_port=2,tcp6,dl_src=${A},dl_dst=02:59:00:00:00:41,ipv6_src=fd01::2,ipv6_dst=fd01::41`,
    ],
    [
      'IPv6 to a container’s alias',
      arrived(
        by,
        1,
        '192.0.2.2',
        `tcp6,dl_src=02:59:00:00:00:41,dl_dst=02:59:00:00:00:02,ipv6_src=fd01::41,ipv6_dst=fd01::2`,
      ),
    ],
    ['IPv6 with another address as source', `in_port=2,tcp6,dl_src=${A},dl_dst=${B},ipv6_src=fd01::9,ipv6_dst=fd01::3`],
    ['ND for a container here', ns('fd01::2', 'fd01::3', A)],
    ['ND into another host’s block', ns('fd01::2', 'fd01::41', A)],
    ['ND probe of another host’s address', ns('::', 'fd01::41', '00:00:00:00:00:00')],
    ['ND for nobody', ns('fd01::2', 'fd01::999', A)],
    ['ND with another MAC inside', ns('fd01::2', 'fd01::3', NOBODY)],
    [
      'a router advertisement',
      `in_port=2,icmp6,dl_src=${A},dl_dst=33:33:00:00:00:01,ipv6_src=fe80::58:aff:fe01:2,ipv6_dst=ff02::1,icmpv6_type=134`,
    ],
    ['by tunnel to a container', arrived(by, 1, '192.0.2.2', ip(0, FAR, A, '10.1.0.33', '10.1.0.2'))],
    [
      'by tunnel to another host',
      arrived(by, 1, '192.0.2.2', ip(0, FAR, '02:42:00:00:00:99', '10.1.0.33', '10.1.0.40')),
    ],
    ['by tunnel to nobody', arrived(by, 1, '192.0.2.2', ip(0, FAR, NOBODY, '10.1.0.33', '10.1.0.250'))],
    ['by tunnel, broadcast', arrived(by, 1, '192.0.2.2', ip(0, FAR, ALL, '10.1.0.33', '10.1.15.255'))],
    ['Geneve', ip(4, G, '02:58:0a:03:00:21', '10.3.0.2', '10.3.0.33')],
    ['Geneve, arriving', arrived(by, 2, '192.0.2.2', ip(0, '02:58:0a:03:00:21', G, '10.3.0.33', '10.3.0.2'))],
    ['GRE', ip(5, G, '02:58:0a:03:00:21', '10.3.0.2', '10.3.0.33')],
    ['GRE, arriving', arrived(by, 3, '192.0.2.2', ip(0, '02:58:0a:03:00:21', G, '10.3.0.33', '10.3.0.2'))],
    ['vlan, unicast to the uplink', ip(6, '02:58:0a:04:00:02', NOBODY, '10.4.0.2', '10.4.0.9')],
    ['vlan, broadcast', ip(6, '02:58:0a:04:00:02', ALL, '10.4.0.2', '10.4.0.255')],
    ['vlan, ARP to the uplink', arp(6, 1, ALL, '02:58:0a:04:00:02', '10.4.0.2', '10.4.0.9')],
    ['vlan, from the uplink', ip(7, NOBODY, '02:58:0a:04:00:02', '10.4.0.9', '10.4.0.2', ',dl_vlan=100')],
    ['vlan, ARP from the uplink', `${arp(7, 1, ALL, NOBODY, '10.4.0.9', '10.4.0.2')},dl_vlan=100`],
    ['vlan, another tag from the uplink', ip(7, NOBODY, '02:58:0a:04:00:02', '10.4.0.9', '10.4.0.2', ',dl_vlan=101')],
    ['trusted, from any MAC and address', ip(8, NOBODY, ALL, '10.5.0.77', '10.5.0.255')],
    ['ARP that an external peer may answer', arp(8, 1, ALL, '02:58:0a:05:00:02', '10.5.0.2', '10.5.0.200')],
    ['unicast to a MAC that may have been learned', ip(8, '02:58:0a:05:00:02', NOBODY, '10.5.0.2', '10.5.0.200')],
    [
      'from an external peer',
      arrived(by, 5, '192.0.2.9', ip(0, NOBODY, '02:58:0a:05:00:02', '10.5.0.200', '10.5.0.2')),
    ],
    ['ARP for a router’s gateway', arp(11, 1, ALL, X, '10.6.0.2', '10.6.0.1')],
    ['a ping of the other network’s gateway', ip(11, X, GATEWAY, '10.6.0.2', '10.7.0.1', ',icmp_type=8')],
    ['routed to another host', ip(11, X, GATEWAY, '10.6.0.2', '10.7.0.33')],
    ['routed, and its time ends', ip(11, X, GATEWAY, '10.6.0.2', '10.7.0.33').replace('nw_ttl=64', 'nw_ttl=1')],
    ['routed, to nobody', ip(11, X, GATEWAY, '10.6.0.2', '10.7.0.200')],
    ['to its own subnet by the gateway', ip(11, X, GATEWAY, '10.6.0.2', '10.6.0.9')],
    ['to where no router leads', ip(11, X, GATEWAY, '10.6.0.2', '10.8.0.2')],
    ['routed by another host', arrived(by, 6, '192.0.2.3', ip(0, ROUTER, X, '10.7.0.40', '10.6.0.2'))],
    ['routed by another host, to nobody', arrived(by, 6, '192.0.2.3', ip(0, ROUTER, NOBODY, '10.7.0.40', '10.6.0.9'))],
    ['by tunnel to the gateway', arrived(by, 6, '192.0.2.3', ip(0, ROUTER, GATEWAY, '10.7.0.40', '10.7.0.33'))],
  ];
};

const fromNobody = (by: Arrival): readonly (readonly [string, string])[] => [
  [
    'from a host that only routes, with another MAC',
    arrived(by, 6, '192.0.2.3', ip(0, FAR, X, '10.7.0.40', '10.6.0.2')),
  ],
  ['by tunnel from a stranger', arrived(by, 1, '192.0.2.77', ip(0, FAR, A, '10.1.0.33', '10.1.0.2'))],
  ['by tunnel with a VNI that nobody has', arrived(by, 99, '192.0.2.2', ip(0, FAR, A, '10.1.0.33', '10.1.0.2'))],
  [
    'from an external peer, with an endpoint’s MAC',
    arrived(by, 5, '192.0.2.9', ip(0, '02:58:0a:05:00:03', '02:58:0a:05:00:02', '10.5.0.3', '10.5.0.2')),
  ],
];
