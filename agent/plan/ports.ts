/** What is to be done in OVSDB: the bridge, its tunnel, and a port an endpoint. Pure. */
import { diff } from '../../lib/delta.ts';
import { GATEWAY_SWITCH, hostLink, switchLink, TUNNEL_DEVICE, TUNNEL_SWITCH, type TunnelEncap } from '../link/names.ts';
import type { Link } from '../link/steps.ts';
import type { OvsPort, OvsState, OvsStep, PortType } from '../ovs/steps.ts';
import type { OuterHeaders } from '../wiring.ts';
import { mapText, type Planned } from './planned.ts';

export interface DesiredPort {
  readonly name: string;
  readonly type: PortType;
  readonly options: Readonly<Record<string, string>>;
  readonly externalIds: Readonly<Record<string, string>>;
}

export interface DesiredBridge {
  readonly name: string;
  readonly datapathType: string;
  readonly ports: readonly DesiredPort[];
}

/**
 * A tunnel that carries every network of one encapsulation: VNI and peer are set by flows (ovs-vswitchd.conf.db(5), Tunnel Options).
 * @param o.vtep this host's VTEP
 */
export function tunnelPort(encap: TunnelEncap, o: { vtep: string; udpPort: number; outer: OuterHeaders }): DesiredPort {
  const { ttl, dscp, checksum } = o.outer;
  return {
    name: TUNNEL_DEVICE[encap],
    type: encap,
    options: {
      remote_ip: 'flow',
      key: 'flow',
      local_ip: o.vtep,
      ...(encap === 'gre' ? {} : { dst_port: String(o.udpPort) }),
      // What Open vSwitch does without being told is not repeated: ttl 64, DSCP 0, no checksum.
      ...(ttl === 64 ? {} : { ttl: String(ttl) }),
      // The whole TOS byte: DSCP is its upper six bits.
      ...(dscp === 0 ? {} : { tos: dscp === 'inherit' ? 'inherit' : String(dscp << 2) }),
      ...(checksum ? { csum: 'true' } : {}),
    },
    externalIds: { weft: 'tunnel' },
  };
}

/** The way to the kernel's tunnel devices. */
export const kernelTunnelPort: DesiredPort = {
  name: TUNNEL_SWITCH,
  type: '',
  options: {},
  externalIds: { weft: 'tunnel' },
};

/** The way to the host itself. */
export const gatewayPort: DesiredPort = {
  name: GATEWAY_SWITCH,
  type: '',
  options: {},
  externalIds: { weft: 'gateway' },
};

/** A physical interface that the user has named for vlan networks. */
export const uplinkPort = (name: string): DesiredPort => ({
  name,
  type: '',
  options: {},
  externalIds: { weft: 'uplink' },
});

/** Name of an endpoint's port. @param e.device the user's own device, where that is the port */
export const portNameOf = (e: { id: string; device: string | null }, express: boolean): string =>
  e.device ?? (express ? switchLink(e.id) : hostLink(e.id));

/** `iface-id` and `attached-mac` are what OVN and other tools read as well (ovs-vswitchd.conf.db(5)). */
export const endpointPort = (
  e: { id: string; networkId: string; mac: string; device: string | null },
  express: boolean,
): DesiredPort => ({
  name: portNameOf(e, express),
  type: '',
  options: {},
  externalIds: { weft: 'endpoint', 'weft-network': e.networkId, 'iface-id': e.id, 'attached-mac': e.mac },
});

const EXTERNAL_IDS = { weft: 'bridge' };

/**
 * Ports whose device was deleted and made again under the same name: the userspace datapath keeps the dead one, without an error.
 * They must be taken out, and put in by a second transaction.
 */
export function stalePorts(desired: DesiredBridge, actual: OvsState, links: ReadonlyMap<string, Link>): string[] {
  const ports = actual.bridges.get(desired.name)?.ports;
  return desired.ports
    .filter(({ name }) => {
      const port = ports?.get(name);
      const link = links.get(name);
      if (port === undefined || link === undefined || link.ifindex === null) return false;
      return port.ofport !== null && port.ofport > 0 && port.ifindex !== link.ifindex;
    })
    .map((port) => port.name);
}

/** The bridge is wholly ours: a port in it that nobody wants is drift, whoever put it there. */
export function planPorts(desired: DesiredBridge, actual: OvsState): Planned<OvsStep>[] {
  const planned: Planned<OvsStep>[] = [];
  const bridge = actual.bridges.get(desired.name);
  const want = bridgeText(desired.datapathType, 'secure', EXTERNAL_IDS);
  const have =
    bridge === undefined
      ? ''
      : bridgeText(bridge.datapathType, bridge.failMode, bridge.externalIds) + protocolsText(bridge.protocols);
  if (have !== want)
    planned.push({
      kind: 'bridge',
      id: desired.name,
      object: desired.name,
      change: bridge === undefined ? 'missing' : 'differs',
      want,
      have,
      step: {
        kind: 'ensureBridge',
        name: desired.name,
        datapathType: desired.datapathType,
        failMode: 'secure',
        externalIds: EXTERNAL_IDS,
        otherConfig: bridge?.otherConfig ?? {},
      },
    });
  // The bridge's own port comes and goes with it.
  const there = new Map([...(bridge?.ports ?? [])].filter(([name]) => name !== desired.name));
  const wanted = new Map(desired.ports.map((port) => [port.name, port]));
  const { missing, differs, extra } = diff(wanted, there, (want, have) => portText(want) === haveText(have));
  const add = (port: DesiredPort, present: OvsPort | null): Planned<OvsStep> => ({
    kind: 'port',
    id: port.name,
    object: port.name,
    change: present === null ? 'missing' : 'differs',
    want: portText(port),
    have: present === null ? '' : haveText(present),
    step: { kind: 'addPort', bridge: desired.name, ...port },
  });
  const remove = (name: string, port: OvsPort): Planned<OvsStep> => ({
    kind: 'port',
    id: name,
    object: name,
    change: 'extra',
    want: '',
    have: haveText(port),
    step: { kind: 'delPort', bridge: desired.name, name },
  });
  return [
    ...planned,
    ...[...missing.values()].map((port) => add(port, null)),
    ...[...differs.values()].map(({ want: port, have: present }) => add(port, present)),
    ...[...extra].map(([name, port]) => remove(name, port)),
  ];
}

const haveText = (port: OvsPort): string => portText(port) + extrasText(port);

const bridgeText = (type: string, failMode: string | null, ids: Readonly<Record<string, string>>): string =>
  `datapath_type=${type} fail_mode=${failMode ?? 'none'} external_ids=${mapText({ weft: ids['weft'] ?? '' })}`;

/** Nothing is wanted of these, so they are shown only where somebody set them. */
const protocolsText = (protocols: readonly string[]): string =>
  protocols.length === 0 ? '' : ` protocols=${protocols.join(',')}`;
const extrasText = ({ ingress, mtuRequest }: OvsPort): string =>
  (ingress.rate === 0 && ingress.burst === 0 ? '' : ` ingress=${ingress.rate}/${ingress.burst}`) +
  (mtuRequest === null ? '' : ` mtu_request=${mtuRequest}`);

const portText = (p: {
  type: string;
  options: Readonly<Record<string, string>>;
  externalIds: Readonly<Record<string, string>>;
}): string =>
  `type=${p.type === '' ? 'system' : p.type} options=${mapText(p.options)} external_ids=${mapText(p.externalIds)}`;
