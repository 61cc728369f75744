/** What can be done to OVSDB, and what is there: the vocabulary between the planner and the driver. Pure. */
import type { InterfaceRow, Rows } from './rows.ts';

type StringMap = Readonly<Record<string, string>>;

/** '' = a netdev of the system (a veth); others by their OVS type. */
export type PortType = '' | 'vxlan' | 'geneve' | 'gre' | 'internal';

export type OvsStep =
  | {
      readonly kind: 'ensureBridge';
      readonly name: string;
      readonly datapathType: string;
      readonly failMode: 'secure' | 'standalone';
      /** Maps replace what is there. It speaks every version of OpenFlow then. */
      readonly externalIds: StringMap;
      readonly otherConfig: StringMap;
    }
  | {
      /** Adds it, or makes an existing one (also one in another bridge) equal. */
      readonly kind: 'addPort';
      readonly bridge: string;
      readonly name: string;
      readonly type: PortType;
      readonly options: StringMap;
      readonly externalIds: StringMap;
      readonly mtuRequest?: number;
      readonly ingress?: Ingress;
    }
  | {
      /** Changes what is given of a port that exists; NOT_FOUND otherwise. */
      readonly kind: 'setPort';
      readonly bridge: string;
      readonly name: string;
      readonly type?: PortType;
      readonly options?: StringMap;
      readonly externalIds?: StringMap;
      readonly mtuRequest?: number;
      readonly ingress?: Ingress;
    }
  | { readonly kind: 'delPort'; readonly bridge: string; readonly name: string }
  | { readonly kind: 'delBridge'; readonly name: string };

/** Policing of what a port sends: rate in kbit/s, burst in kbit; rate 0 = none. */
export interface Ingress {
  readonly rate: number;
  readonly burst: number;
}

export interface OvsPort {
  readonly name: string;
  readonly type: string;
  readonly options: StringMap;
  readonly externalIds: StringMap;
  /** null: ovs-vswitchd has not said yet; -1: it cannot open the device, `error` says why. */
  readonly ofport: number | null;
  readonly error: string | null;
  readonly macInUse: string | null;
  /**
   * Of the device now under that name, 0 when there is none. A device that was removed and made again has another one:
   * the userspace datapath then goes on reading the old one, without an error, until the port is deleted (applied) and
   * added again by a second `apply`.
   */
  readonly ifindex: number | null;
  readonly mtu: number | null;
  readonly mtuRequest: number | null;
  readonly ingress: Ingress;
}

export interface OvsBridge {
  readonly name: string;
  readonly datapathType: string;
  readonly failMode: string | null;
  /** OpenFlow versions that it speaks; empty = all. */
  readonly protocols: readonly string[];
  readonly externalIds: StringMap;
  readonly otherConfig: StringMap;
  /** By name; the bridge's own local port is among them. */
  readonly ports: ReadonlyMap<string, OvsPort>;
}

/** Pure data: a picture of the moment. */
export interface OvsState {
  readonly bridges: ReadonlyMap<string, OvsBridge>;
  readonly ovsVersion: string | null;
  readonly datapathTypes: readonly string[];
  readonly ifaceTypes: readonly string[];
  /** Of the root row: options of the whole switch, such as `hw-offload`, `userspace-tso-enable`. */
  readonly otherConfig: StringMap;
  readonly externalIds: StringMap;
}

const portOf = (row: InterfaceRow): OvsPort => ({
  name: row.name,
  type: row.type,
  options: row.options,
  externalIds: row.externalIds,
  ofport: row.ofport,
  error: row.error,
  macInUse: row.macInUse,
  ifindex: row.ifindex,
  mtu: row.mtu,
  mtuRequest: row.mtuRequest,
  ingress: { rate: row.ingressRate, burst: row.ingressBurst },
});

/** Rows as bridges with their ports. A bond appears under its first interface that is there. */
export function stateOf(rows: Rows): OvsState {
  const root = rows.Open_vSwitch.values().next().value;
  const bridges = new Map<string, OvsBridge>();
  for (const bridge of rows.Bridge.values()) {
    const ports = new Map<string, OvsPort>();
    for (const uuid of bridge.ports) {
      const port = rows.Port.get(uuid);
      const row = port?.interfaces.map((id) => rows.Interface.get(id)).find((found) => found !== undefined);
      if (port !== undefined && row !== undefined) ports.set(port.name, { ...portOf(row), name: port.name });
    }
    const { name, datapathType, failMode, protocols, externalIds, otherConfig } = bridge;
    bridges.set(name, { name, datapathType, failMode, protocols, externalIds, otherConfig, ports });
  }
  return {
    bridges,
    ovsVersion: root?.ovsVersion ?? null,
    datapathTypes: root?.datapathTypes ?? [],
    ifaceTypes: root?.ifaceTypes ?? [],
    otherConfig: root?.otherConfig ?? {},
    externalIds: root?.externalIds ?? {},
  };
}
