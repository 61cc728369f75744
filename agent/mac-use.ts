/** One MAC, one endpoint of a network, as far as this host knows; default MACs are unique as their addresses are. Pure. */
import { allowedMac } from '../lib/allowed.ts';
import { endpointName } from '../lib/endpoint-name.ts';
import { WeftError } from '../lib/errors.ts';
import { isDefaultForm } from '../lib/mac.ts';
import type { Network } from '../lib/model.ts';
import { type Journal, type Mesh, nameOf } from './contract.ts';

export interface MacUse {
  readonly network: Network;
  readonly mac: string;
  /** The default MAC of its address; `own`: it does not follow from the address by a rule that others know. */
  readonly usual: { readonly mac: string; readonly own: boolean };
  /** Addresses of the endpoint. */
  readonly ips: readonly string[];
  readonly endpointId: string;
  /** By which the user gave it. */
  readonly flag: '--mac' | '--mac-address';
}

/** @throws INVALID_ARGUMENT another address's default MAC; ALREADY_EXISTS in use */
export function refuseMac(
  { journal, mesh }: { journal: Pick<Journal, 'endpoints'>; mesh: Pick<Mesh, 'hostId' | 'hostName' | 'view'> },
  { network, mac, usual, ips, endpointId, flag }: MacUse,
): void {
  if (mac === usual.mac && !usual.own) return;
  if (isDefaultForm(mac) && mac !== usual.mac)
    throw new WeftError('INVALID_ARGUMENT', `MAC address ${mac} belongs to another address of the network`, {
      hint: `addresses beginning with 02:57 to 02:5c are the mesh’s own; leave ${flag} out to get ${usual.mac}`,
    });
  const inUse = (user: string, host: string): never => {
    throw new WeftError(
      'ALREADY_EXISTS',
      `MAC address ${mac} of network ${network.name} is in use by ${user} on ${host}`,
      { hint: `choose another one, or leave ${flag} out` },
    );
  };
  for (const other of journal.endpoints.values())
    if (other.networkId === network.id && other.mac === mac && other.id !== endpointId)
      inUse(who(other.container?.name, nameOf(other), other.id), mesh.hostName);
  const interest = mesh.view().interests.get(network.id);
  for (const { name, ips: reserved, mac: owned } of interest?.reservations.values() ?? [])
    if (owned === mac && !reserved.some((ip) => ips.includes(ip)))
      throw new WeftError('ALREADY_EXISTS', `MAC address ${mac} of network ${network.name} is reserved as "${name}"`, {
        hint: `give its address, --ip ${reserved[0]}, or another MAC`,
      });
  const peer = interest?.externals.values().find((p) => p.macs.some((known) => known.mac === mac));
  if (peer !== undefined) inUse(`the external peer ${peer.name}`, peer.vtep);
  const sharer = allowedMac(interest?.settings.values() ?? [], mac, endpointId);
  if (sharer !== null) {
    const other = interest?.endpoints.get(sharer);
    const user = who(other?.container?.name, other === undefined ? '' : endpointName(other), sharer);
    const host = other === undefined ? '' : ` on ${interest?.peers.get(other.hostId)?.name ?? other.hostId}`;
    throw new WeftError(
      'ALREADY_EXISTS',
      `MAC address ${mac} of network ${network.name}, or its link-local address, is one that ${user}${host} may send from`,
      { hint: `choose another one, or leave ${flag} out` },
    );
  }
  for (const other of interest?.endpoints.values() ?? [])
    if (other.mac === mac && other.id !== endpointId && other.hostId !== mesh.hostId)
      inUse(
        who(other.container?.name, endpointName(other), other.id),
        interest?.peers.get(other.hostId)?.name ?? other.hostId,
      );
}

const who = (container: string | undefined, name: string, id: string): string =>
  container === undefined ? name || `endpoint ${id.slice(0, 12)}` : `container ${container}`;
