/** What of the mesh's networks this host can carry; what it cannot is refused here, with a sentence. Pure. */
import { WeftError } from '../lib/errors.ts';
import type { Network, Probe } from '../lib/model.ts';
import { isOurLink } from './link/names.ts';
import type { HostInterface } from './probe/links.ts';
import { MAX_TAGGED_INDEX, type Wiring } from './wiring.ts';

export interface HostSide {
  readonly hostName: string;
  readonly wiring: Wiring;
  readonly probes: readonly Probe[];
  readonly interfaces: readonly HostInterface[];
  /** Bridge of Open vSwitch that has the interface; null = none has. */
  readonly bridgeOf: (name: string) => string | null;
  readonly ourBridge: string;
}

/** @param index local network index */
export function refusalOf(network: Network, index: number, host: HostSide): WeftError | null {
  const refuse = (why: string, hint: string): WeftError =>
    new WeftError('FAILED_PRECONDITION', `Host ${host.hostName} cannot carry network ${network.name}: ${why}.`, {
      hint,
    });
  if (network.encap === 'vlan') {
    const why = uplinkProblem(network.uplink, host);
    return why === null
      ? null
      : refuse(
          why,
          `give ${host.hostName} an interface ${network.uplink} without an address, or run the container elsewhere`,
        );
  }
  const { wiring } = host;
  if (!(wiring.encaps as readonly string[]).includes(network.encap === '' ? 'vxlan' : network.encap)) {
    const why = host.probes.find((p) => p.name === `encap/${network.encap}`)?.reason ?? `it has no ${network.encap}.`;
    return refuse(
      why.replace(/\.$/, '').replace(/^The kernel/, 'its kernel'),
      `hosts that can: weft host ls --json; or a network of another encapsulation: weft network create --encap vxlan`,
    );
  }
  if (wiring.backend === 'kernel-tunnel' && index > MAX_TAGGED_INDEX)
    return refuse(
      `it has ${MAX_TAGGED_INDEX} networks already, and its way to the kernel's tunnels (backend kernel-tunnel) has no number for more`,
      'load the openvswitch kernel module (backend ovs-tunnel), or use another host',
    );
  return null;
}

/** Why Weft may not take this interface for vlan networks; null = it may. What the host itself lives on is never taken. */
export function uplinkProblem(
  name: string,
  host: Pick<HostSide, 'interfaces' | 'bridgeOf' | 'ourBridge'>,
): string | null {
  const link = host.interfaces.find((i) => i.name === name);
  if (link === undefined) return `it has no interface ${name}`;
  const bridge = host.bridgeOf(name);
  if (bridge === host.ourBridge) return null;
  if (bridge !== null) return `its interface ${name} is in bridge ${bridge}`;
  if (isOurLink(name) || link.kind === 'openvswitch') return `${name} is one of Weft's own links`;
  if (link.master !== '') return `its interface ${name} belongs to ${link.master}`;
  const [address] = link.addresses;
  if (address !== undefined) return `its interface ${name} has the address ${address.address}, and is left alone`;
  return null;
}

/** Kinds of devices that are no way out of the host. */
const INNER = new Set([
  'bridge',
  'vxlan',
  'geneve',
  'gretap',
  'ip6gretap',
  'openvswitch',
  'tun',
  'dummy',
  'ifb',
  'wireguard',
]);

/**
 * What the mesh is told of interfaces: of those that a vlan network could have, the MTU as result; of the others that a user might
 * mean, why not.
 */
export const uplinkProbes = (host: Pick<HostSide, 'interfaces' | 'bridgeOf' | 'ourBridge'>): Probe[] =>
  host.interfaces
    .filter(
      (i) => !INNER.has(i.kind) && !isOurLink(i.name) && (i.master === '' || host.bridgeOf(i.name) === host.ourBridge),
    )
    .map((i) => {
      const reason = uplinkProblem(i.name, host);
      const name = `uplink/${i.name}`;
      return reason === null ? { name, result: String(i.mtu), reason: '' } : { name, result: 'no', reason };
    })
    .sort((a, b) => (a.name < b.name ? -1 : 1));

/** Interfaces that a vlan network could have. */
export const uplinksOf = (host: Pick<HostSide, 'interfaces' | 'bridgeOf' | 'ourBridge'>): string[] =>
  host.interfaces
    .filter((i) => !INNER.has(i.kind) && !isOurLink(i.name) && uplinkProblem(i.name, host) === null)
    .map((i) => i.name)
    .sort();
