/** The network driver's networks: a Docker network is bound to its reservation, or is a copy of a network of the catalogue. */
import { parseCidr, parseIp } from '../../lib/addr.ts';
import { endpointName } from '../../lib/endpoint-name.ts';
import { WeftError } from '../../lib/errors.ts';
import type { Log } from '../../lib/log.ts';
import type { Network } from '../../lib/model.ts';
import { networkOptions } from '../../lib/network-options.ts';
import type { Clock } from '../clock.ts';
import type { Journal, LocalNetwork, Mesh } from '../contract.ts';
import type { Copies } from './copies.ts';
import { auxOf, joined, poolsOf } from './pools.ts';
import { type CreateNetworkRequest, type IpamData, KEY, type NetworkRef } from './wire.ts';

export class NetworkDriver {
  readonly #journal: Journal;
  readonly #mesh: Mesh;
  readonly #copies: Copies;
  readonly #clock: Clock;
  readonly #log: Log;
  readonly #created: () => void;

  /** @param options.created called when Docker has a new network: its name can be asked for soon */
  constructor(options: { journal: Journal; mesh: Mesh; copies: Copies; clock: Clock; log: Log; created: () => void }) {
    this.#journal = options.journal;
    this.#mesh = options.mesh;
    this.#copies = options.copies;
    this.#clock = options.clock;
    this.#log = options.log;
    this.#created = options.created;
  }

  capabilities(): object {
    return { Scope: 'local', ConnectivityScope: 'global' };
  }

  async createNetwork(request: CreateNetworkRequest): Promise<object> {
    const options = userOptions(request.Options);
    const pools = poolsOf(request);
    if (this.#copies.byDockerId(request.NetworkID) !== undefined) return {}; // asked again after a lost answer
    const row = this.#pendingRow(pools.four ?? pools.six!);
    const other = pools.four === null || pools.six === null ? row : this.#pendingRow(pools.six);
    let network = row.network;
    if (row.network.state === 'reserved') {
      const internal = request.Options?.[KEY.internal] === true;
      const carried = await this.#carried(network, options, internal);
      network = {
        ...(other === row ? carried : joined(carried, other.network)),
        options,
        internal,
        auxAddresses: auxOf(pools),
      };
      // Where dockerd asked for no pool of it, the mesh chooses a subnet, and the copy is made again with it.
      if (request.Options?.[KEY.enableIpv6] === true) network = { ...network, ipv6: true };
    }
    this.#copies.createdAt.set(row.networkId, this.#clock.monotonic());
    const joins = other === row ? {} : { joins: other.networkId };
    await this.#journal.write([
      this.#copies.put({ ...row, dockerNetworkId: request.NetworkID, network, ...joins }),
      ...(other === row ? [] : [{ table: 'network' as const, key: other.networkId, value: null }]),
    ]);
    this.#copies.changed();
    this.#created();
    return {};
  }

  /** Options say how the network travels: the mesh judges that now, while Docker can still tell its user. @throws its refusal */
  async #carried(reserved: Network, options: Readonly<Record<string, string>>, internal: boolean): Promise<Network> {
    // Who leads out may have come with the pool (--ipam-opt).
    const judged = internal && reserved.publishBy !== '';
    if (Object.keys(networkOptions(options)).length === 0 && !judged) return reserved;
    const bind = { networkId: reserved.id, name: '', labels: {}, options, internal, attachable: false };
    const none = { gateway: '', gateway6: '', joins: '', ipv6: false, auxAddresses: {} };
    const { network } = await this.#mesh.bindNetwork({ ...bind, ...none });
    const { vni, encap, uplink, vlanTag, allowTrust, publishBy, dnsOrder, policyDefault, mtu, revision } = network;
    // The mesh's own choice of a gateway is not there on a vlan; the user's stays.
    const mesh = network.gateways.length === 0 && reserved.encap !== 'vlan';
    const gateways = mesh ? reserved.gateways.filter((text) => !isFirst(reserved, text)) : reserved.gateways;
    const how = { vni, encap, uplink, vlanTag, allowTrust, publishBy, dnsOrder, policyDefault, mtu };
    return { ...reserved, ...how, revision, gateways };
  }

  /** The pool that Docker has asked for just before. */
  #pendingRow(data: IpamData): LocalNetwork {
    const copyOf = this.#copies.creating.get(data.Pool);
    const pending = this.#journal.networks
      .values()
      .find(
        (row) =>
          row.dockerNetworkId === null &&
          (copyOf === undefined ? row.network.subnets.includes(data.Pool) : row.networkId === copyOf),
      );
    if (pending === undefined)
      throw new WeftError('FAILED_PRECONDITION', `subnet ${data.Pool} is not reserved for a new network`, {
        hint: 'try docker network create again',
      });
    return pending;
  }

  /** `docker network rm`. Docker does not honour a refusal (only libnetwork's own errors stop it): the network then comes back. */
  async deleteNetwork(request: NetworkRef): Promise<object> {
    const row = this.#copies.byDockerId(request.NetworkID);
    if (row === undefined) return {};
    this.#copies.createdAt.delete(row.networkId);
    if (this.#copies.removing.has(request.NetworkID)) {
      await this.#journal.write([this.#copies.put({ ...row, dockerNetworkId: null })]);
      return {};
    }
    this.#copies.deleting.add(row.networkId);
    try {
      return await this.#deleteByUser(row);
    } finally {
      this.#copies.deleting.delete(row.networkId);
    }
  }

  async #deleteByUser(row: LocalNetwork): Promise<object> {
    const network = this.#copies.record(row);
    const gone = this.#mesh.complete && network.state === 'bound' && !this.#mesh.view().networks.has(row.networkId);
    try {
      if (!gone) await this.#remove(network);
    } catch (error) {
      const e = WeftError.from(error);
      if (e.code !== 'NOT_FOUND') {
        this.#copies.refused.set(row.networkId, {
          network: network.name,
          message: `docker network rm ${network.name} was refused, and the network put back: ${e.message}`,
          inCatalogue: true,
          at: this.#clock.monotonic(),
        });
        throw e; // the destroy event makes the networks loop put it back
      }
    }
    this.#copies.removed.set(row.networkId, this.#clock.monotonic());
    this.#copies.refused.delete(row.networkId);
    await this.#journal.write(this.#copies.forget(row.networkId));
    this.#copies.changed();
    return {};
  }

  async #remove(network: Network): Promise<void> {
    const elsewhere = this.#endpointsElsewhere(network.id);
    if (elsewhere.length > 0)
      throw new WeftError('FAILED_PRECONDITION', `network ${network.name} is in use: ${elsewhere.join(', ')}`, {
        hint: 'remove or disconnect these containers first',
      });
    this.#log.info({ network: network.name }, 'docker network rm: removed from the mesh');
    await this.#mesh.removeNetwork(network.id);
  }

  #endpointsElsewhere(networkId: string): string[] {
    const interest = this.#mesh.view().interests.get(networkId);
    if (interest === undefined) return [];
    return interest.endpoints
      .values()
      .filter((endpoint) => endpoint.hostId !== this.#mesh.hostId)
      .take(5)
      .map((endpoint) => {
        const host = interest.peers.get(endpoint.hostId)?.name ?? endpoint.hostId;
        return `${endpointName(endpoint) || endpoint.id.slice(0, 12)} on ${host}`;
      })
      .toArray();
  }
}

/** The address that the mesh takes for a gateway by itself. */
const isFirst = (network: Network, text: string): boolean =>
  network.subnets.some((subnet) => parseCidr(subnet).base + 1n === parseIp(text));

function userOptions(options: Readonly<Record<string, unknown>> | null): Record<string, string> {
  const generic = options?.[KEY.generic];
  if (typeof generic !== 'object' || generic === null) return {};
  return Object.fromEntries(Object.entries(generic).map(([key, value]) => [key, String(value)]));
}
