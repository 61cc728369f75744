/** The desired state of everything on the host that is not Docker's, out of view and journal. Pure. */
import type { View } from '../lib/model.ts';
import type { Journal, LocalEndpoint } from './contract.ts';
import type { NetworkModel } from './flows/model.ts';
import type { OvsState } from './ovs/steps.ts';
import { networkModels } from './plan/bridge.ts';
import { type DesiredLink, planLinks } from './plan/links.ts';
import { type DesiredBridge, endpointPort, planPorts, TUNNEL_PORT, tunnelPort } from './plan/ports.ts';
import { Settled } from './plan/settled.ts';

export interface DesireOptions {
  readonly bridge: string;
  readonly tunnelPort: string;
  readonly datapathType: string;
  readonly vtep: string;
  readonly udpPort: number;
  readonly hostId: string;
}

export const BRIDGE = 'br-weft';
export { TUNNEL_PORT };

export interface Desired {
  readonly links: readonly DesiredLink[];
  readonly bridge: DesiredBridge;
  readonly models: (ofport: (endpointId: string) => number | null) => NetworkModel[];
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
  const endpoints = [...journal.endpoints.values()];
  const links = endpoints.map(linkOf);
  // The userspace datapath sends from a given address only while the kernel's routes are in its table, which it empties and
  // reads anew with every change to any link; from what a route of its own says (ovs/route/add) it always sends.
  const local = o.datapathType === 'netdev' ? null : o.vtep;
  const bridge: DesiredBridge = {
    name: o.bridge,
    datapathType: o.datapathType,
    ports: [tunnelPort(local, o.udpPort), ...endpoints.map(endpointPort)],
  };
  return {
    links,
    bridge,
    models: (ofport) => networkModels(view, o.hostId, journal.networks, endpoints, ofport),
    wanted: () => {
      const out = new Map<string, string>();
      for (const p of [...planLinks(links, new Map()), ...planPorts(bridge, NOTHING)])
        out.set(Settled.key(p.kind, p.id), p.want);
      return out;
    },
  };
}

function linkOf(e: LocalEndpoint): DesiredLink {
  const joined =
    e.sandbox === null || e.interfaceName === null
      ? null
      : { sandbox: e.sandbox, interfaceName: e.interfaceName, address: `${e.ip}/${e.prefix}` };
  return { endpointId: e.id, mtu: e.mtu, mac: e.mac, joined };
}
