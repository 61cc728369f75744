/** The desired state of everything on the host that is not Docker's, out of view and journal. Pure. */
import { formatIp } from '../lib/ip.ts';
import { formatIp6 } from '../lib/ip6.ts';
import { formatMac } from '../lib/mac.ts';
import type { Network, View } from '../lib/model.ts';
import { deviceOf, type Journal, type LocalEndpoint } from './contract.ts';
import type { NetworkModel } from './flows/model.ts';
import {
  ANYCAST_MAC,
  DNS_ADDRESS,
  HOST_ADDRESS,
  HOST_ADDRESS6,
  HOST_MAC,
  NEXT_HOP6,
  TRANSIT,
  TRANSIT6,
} from './gateway/addresses.ts';
import { egressOf, joinGateway } from './gateway/egress.ts';
import {
  beside,
  containerLink,
  GATEWAY,
  GATEWAY_SWITCH,
  gateExit,
  gateLink,
  hostLink,
  slowLink,
  switchLink,
  TUNNEL_DEVICE,
  TUNNEL_KERNEL,
  TUNNEL_SWITCH,
} from './link/names.ts';
import type { OvsState } from './ovs/steps.ts';
import { networkModels, type PortNumbers, type Self } from './plan/bridge.ts';
import { type DesiredLink, wantText } from './plan/links.ts';
import type { Snooped } from './plan/multicast.ts';
import {
  type DesiredBridge,
  type DesiredPort,
  endpointPort,
  gatewayPort,
  kernelTunnelPort,
  planPorts,
  tunnelPort,
  uplinkPort,
} from './plan/ports.ts';
import { desiredShaping, isPaced, type Shaping, wantedShaping } from './plan/queues.ts';
import { Settled } from './plan/settled.ts';
import type { NameSource } from './policies/resolve.ts';
import type { HostServices } from './services/index.ts';
import type { Wiring } from './wiring.ts';

export interface DesireOptions {
  readonly bridge: string;
  readonly hostId: string;
  readonly wiring: Wiring;
  /** Endpoints and the host reach each other; absent: they do not. */
  readonly gateway?: boolean;
  /** By IPv6 too. */
  readonly gateway6?: boolean;
  /** What names in policies stand for; absent: nothing. */
  readonly names?: NameSource;
  /** The endpoint's namespace is not there (any more): nothing can be made in it. */
  readonly gone?: (e: LocalEndpoint) => boolean;
}

export const BRIDGE = 'br-weft';

export interface Desired {
  readonly links: readonly DesiredLink[];
  readonly shaping: Shaping;
  readonly bridge: DesiredBridge;
  readonly models: (ports: PortNumbers, snooped: Snooped | null, services: HostServices) => NetworkModel[];
  /** Links, bridge and ports wanted, as kind and id → text: what Settled remembers. */
  readonly wanted: () => Map<string, string>;
}

const NOTHING: OvsState = {
  bridges: new Map(),
  ovsVersion: null,
  datapathTypes: [],
  ifaceTypes: [],
  otherConfig: {},
  externalIds: {},
};

export function desire(view: View, journal: Pick<Journal, 'endpoints' | 'networks'>, o: DesireOptions): Desired {
  const { wiring } = o;
  const endpoints = [...journal.endpoints.values()];
  const present = o.gone === undefined ? endpoints : endpoints.filter((e) => o.gone?.(e) !== true);
  const links = [
    ...tunnelLinks(wiring),
    ...(o.gateway === true ? [gatewayLink(wiring, [...endpoints, ...entered(view, wiring)], o.gateway6 === true)] : []),
    ...present.flatMap((e) => endpointLinks(e, wiring.express, journal)),
    ...present.filter((e) => isPaced(e, view, wiring)).map((e) => gateOf(e, wiring.express)),
  ];
  const shaping = desiredShaping(present, view, wiring);
  const bridge: DesiredBridge = {
    name: o.bridge,
    datapathType: wiring.datapathType,
    ports: [
      ...tunnelPorts(wiring),
      ...(o.gateway === true ? [gatewayPort] : []),
      ...uplinksOf(journal).map(uplinkPort),
      ...endpoints.map((e) => endpointPort({ ...e, device: deviceOf(e) }, wiring.express)),
    ],
  };
  const self: Self = { hostId: o.hostId, ipv6: wiring.vtep.includes(':') };
  return {
    links,
    shaping,
    bridge,
    models: (ports, snooped, services) =>
      networkModels(view, self, journal.networks, endpoints, ports, snooped, services, o.names),
    wanted: () => {
      const out = new Map<string, string>();
      for (const [id, text] of wantedShaping(shaping)) out.set(Settled.key('queue', id), text);
      for (const d of links) out.set(Settled.key('link', d.name), wantText(d));
      for (const p of planPorts(bridge, NOTHING)) out.set(Settled.key(p.kind, p.id), p.want);
      return out;
    },
  };
}

const udpPortOf = (w: Wiring, encap: Wiring['encaps'][number]): number => (encap === 'gre' ? 0 : w.udpPorts[encap]);

/** Physical interfaces that vlan networks with endpoints here need. */
function uplinksOf(journal: Pick<Journal, 'endpoints' | 'networks'>): string[] {
  const names = new Set<string>();
  for (const e of journal.endpoints.values()) {
    const network = journal.networks.get(e.networkId)?.network;
    if (network?.encap === 'vlan' && network.uplink !== '') names.add(network.uplink);
  }
  return [...names].sort();
}

function tunnelPorts(w: Wiring): DesiredPort[] {
  if (w.backend === 'kernel-tunnel') return [kernelTunnelPort];
  return w.encaps.map((encap) => tunnelPort(encap, { vtep: w.vtep, udpPort: udpPortOf(w, encap), outer: w.outer }));
}

/** Networks that ports of this host lead into, whether it has endpoints there or not. */
const entered = (view: View, { express }: Wiring): Network[] =>
  express ? [...view.networks.values()].filter(({ id, published }) => published && view.interests.has(id)) : [];

/** Its MTU is the smallest of those behind it: whoever sends more is told by the host (RFC 1191), or it cuts the packet up. */
function gatewayLink(w: Wiring, behind: readonly { readonly mtu: number }[], ipv6: boolean): DesiredLink {
  const mtus = behind.map(({ mtu }) => mtu).filter((mtu) => mtu > 0);
  return {
    kind: 'pair',
    name: GATEWAY,
    peer: GATEWAY_SWITCH,
    mtu: Math.min(w.underlayMtu === 0 ? 1500 : w.underlayMtu, ...mtus),
    host: {
      mac: formatMac(HOST_MAC),
      addresses: [
        `${formatIp(HOST_ADDRESS)}/${TRANSIT.prefix}`,
        `${formatIp(DNS_ADDRESS)}/32`,
        ...(ipv6 ? [`${formatIp6(HOST_ADDRESS6)}/128`] : []),
      ],
      ...(ipv6 ? { behind: BEHIND6 } : {}),
    },
  };
}

const BEHIND6 = {
  cidr: `${formatIp6(TRANSIT6.base)}/${TRANSIT6.prefix}`,
  address: NEXT_HOP6,
  mac: formatMac(ANYCAST_MAC),
};

/** Bytes that an encapsulation adds to the inner Ethernet frame's payload, over IPv4; over IPv6 20 more. */
const OVERHEAD = { vxlan: 50, geneve: 50, gre: 42 } as const;

function tunnelLinks(w: Wiring): DesiredLink[] {
  if (w.backend !== 'kernel-tunnel') return [];
  const underlay = w.underlayMtu === 0 ? 1500 : w.underlayMtu;
  const ipv6 = w.vtep.includes(':');
  return [
    // What is inside a tunnel is smaller than what is around it: room enough for the tag.
    { kind: 'pair', name: TUNNEL_KERNEL, peer: TUNNEL_SWITCH, mtu: underlay },
    ...w.encaps.map((encap): DesiredLink => {
      const mtu = underlay - OVERHEAD[encap] - (ipv6 ? 20 : 0);
      return { kind: 'tunnel', name: TUNNEL_DEVICE[encap], encap, ipv6, udpPort: udpPortOf(w, encap), mtu };
    }),
  ];
}

/** Docker leads its container out by this endpoint. */
function gatewaysOf(e: LocalEndpoint, journal: Pick<Journal, 'networks'>): string[] {
  const row = journal.networks.get(e.networkId);
  if (row === undefined) return [];
  const { gateway, gateway6 } = joinGateway(row.network, e);
  return [gateway, gateway6].filter((ip) => ip !== '');
}

/** Of an endpoint with a rate: what it sends waits there. */
const gateOf = ({ id, mtu }: LocalEndpoint, express: boolean): DesiredLink =>
  express
    ? { kind: 'pair', name: gateLink(id), peer: gateExit(id), mtu, whole: true }
    : { kind: 'ifb', name: beside(id), mtu };

function endpointLinks(e: LocalEndpoint, express: boolean, journal: Pick<Journal, 'networks'>): DesiredLink[] {
  const device = deviceOf(e);
  if (device !== null) return [{ kind: 'device', name: device, mtu: e.mtu }];
  const joined =
    e.sandbox === null || e.interfaceName === null
      ? null
      : {
          sandbox: e.sandbox,
          interfaceName: e.interfaceName,
          addresses: addressesOf(e),
          ...(e.resolverRoute === undefined ? {} : { routes: [e.resolverRoute] }),
          ...(e.routed === undefined ? {} : { ways: e.routed }),
          ...(e.external === undefined ? {} : { gateways: gatewaysOf(e, journal) }),
        };
  const links: DesiredLink[] = [
    { kind: 'endpoint', name: hostLink(e.id), container: containerLink(e.id), mtu: e.mtu, mac: e.mac, joined },
  ];
  if (express) {
    const network = journal.networks.get(e.networkId)?.network;
    const rewritten = network !== undefined && egressOf(network) !== null ? { rewritten: true as const } : {};
    links.push({ kind: 'pair', name: slowLink(e.id), peer: switchLink(e.id), mtu: e.mtu, ...rewritten });
  }
  return links;
}

/** address/prefix, as the interface has them. */
function addressesOf(e: LocalEndpoint): string[] {
  const all = [
    [e.ip, e.prefix],
    [e.ip6, e.prefix6],
  ] as const;
  return all.filter(([ip]) => ip !== '').map(([ip, prefix]) => `${ip}/${prefix}`);
}
