/** The network driver's endpoints: CreateEndpoint … DeleteEndpoint. Every call may come twice, late, or for what is gone. */
import { canonicalIp } from '../../lib/addr.ts';
import { WeftError } from '../../lib/errors.ts';
import type { Log } from '../../lib/log.ts';
import { defaultMac, normalMac } from '../../lib/mac.ts';
import type { Network } from '../../lib/model.ts';
import { truthOf } from '../../lib/network-options.ts';
import { askedFor, RATE_KEYS } from '../../lib/rate.ts';
import { type AddressBook, addressKey } from '../addresses.ts';
import type { Clock } from '../clock.ts';
import {
  type Datapath,
  ipsOf,
  type Journal,
  type JournalWrite,
  type LocalEndpoint,
  type LocalNetwork,
  type Mesh,
} from '../contract.ts';
import { TRUST } from '../express.ts';
import { transitOf } from '../gateway/assign.ts';
import { type JoinGateway, joinGateway } from '../gateway/egress.ts';
import { parsePortMap } from '../gateway/ports.ts';
import type { Publisher } from '../gateway/publish.ts';
import { resolverRoute } from '../gateway/route.ts';
import { impliedMac } from '../implied-mac.ts';
import { refuseMac } from '../mac-use.ts';
import { type ContainerRoute, containerRoutes } from '../plan/routing.ts';
import type { Copies } from './copies.ts';
import type { JoinWaiter } from './join-wait.ts';
import { shownAddress } from './pools.ts';
import { type CreateEndpointRequest, type EndpointRef, type ExternalRequest, type JoinRequest, KEY } from './wire.ts';

/** Of a static route: no next hop, or one (libnetwork/types, RouteType). */
const CONNECTED = 1;
const BY_GATEWAY = 0;

export interface EndpointOptions {
  readonly journal: Journal;
  readonly mesh: Mesh;
  readonly datapath: Datapath;
  readonly addresses: AddressBook;
  readonly copies: Copies;
  readonly waiter: JoinWaiter;
  readonly publisher: Publisher;
  readonly clock: Clock;
  readonly log: Log;
}

/** What only this process knows of an endpoint. */
interface Living {
  readonly createdAt: number;
  /** Name of the container's link, once all of the endpoint is there. */
  readonly attached: Promise<string>;
}

export class EndpointDriver {
  readonly #o: EndpointOptions;
  readonly #living = new Map<string, Living>();

  constructor(options: EndpointOptions) {
    this.#o = options;
  }

  /** Monotonic moment at which this process answered CreateEndpoint for it; null for what is older than the process. */
  createdAt(endpointId: string): number | null {
    return this.#living.get(endpointId)?.createdAt ?? null;
  }

  async createEndpoint(request: CreateEndpointRequest): Promise<object> {
    const row = this.#network(request.NetworkID);
    const network = this.#o.copies.record(row);
    this.#refuse(request, network);
    const addresses = addressesOf(request, network);
    const usual = defaultMac(addresses.ip, addresses.ip6, addresses.prefix6);
    const given = macOf(request);
    const ips = ipsOf(addresses);
    const implied = impliedMac(this.#o, { network, ips, given, flag: '--mac-address' });
    const mac = given ?? implied ?? usual.mac;
    // Docker takes no answer for what it has given itself.
    const answer = { Interface: (request.Interface?.MacAddress ?? '') === '' ? { MacAddress: mac } : {} };
    const known = this.#o.journal.endpoints.get(request.EndpointID);
    if (known !== undefined && ipsOf(known).join() === ips.join() && known.mac === mac) return answer;
    refuseMac(this.#o, { network, mac, usual, ips, endpointId: request.EndpointID, flag: '--mac-address' });
    await this.#o.datapath.carries(network.id);
    const endpoint: LocalEndpoint = {
      id: request.EndpointID,
      networkId: network.id,
      dockerNetworkId: request.NetworkID,
      ...addresses,
      mac,
      givenMac: mac !== usual.mac || usual.own,
      mtu: network.mtu,
      createdAt: new Date(this.#o.clock.now()).toISOString(),
      sandbox: null,
      container: null,
      labels: {},
      aliases: [],
      interfaceName: null,
      ...transitOf(this.#o.journal, { id: request.EndpointID }),
      ...(trusted(request) ? { trust: true } : {}),
      ...(Object.keys(ratesOf(request)).length > 0 ? { asked: ratesOf(request) } : {}),
    };
    const written = this.#o.journal.write([
      { table: 'endpoint', key: endpoint.id, value: endpoint },
      ...ipsOf(endpoint).map((ip) => this.#address(endpoint, ip, 'endpoint')),
    ]);
    // Link, port and flows, peers and blocks: it all begins now, and dockerd goes on meanwhile. Join waits for it.
    const attached = written.then(() => this.#attach(endpoint.id));
    attached.catch(() => undefined); // Join tries again, and tells
    this.#living.set(endpoint.id, { createdAt: this.#o.clock.monotonic(), attached });
    await written;
    this.#o.waiter.begin(network.id);
    return answer;
  }

  async #attach(endpointId: string): Promise<string> {
    return (await this.#o.datapath.attach(endpointId)).containerLink;
  }

  async join(request: JoinRequest): Promise<object> {
    const endpoint = this.#o.journal.endpoints.get(request.EndpointID);
    if (endpoint === undefined)
      throw new WeftError('NOT_FOUND', `Weft does not know endpoint ${request.EndpointID.slice(0, 12)}`, {
        hint: 'start the container again',
      });
    const begun = this.#living.get(endpoint.id)?.attached ?? Promise.reject(new Error('made by an earlier process'));
    const attached = begun.catch(() => this.#attach(endpoint.id));
    attached.catch(() => undefined); // awaited below, after the journal
    const route = this.#resolverRoute(endpoint, request.SandboxKey);
    const routed = this.#routed(endpoint, request.SandboxKey);
    await this.#o.journal.write([
      {
        table: 'endpoint',
        key: endpoint.id,
        value: {
          ...this.#now(endpoint),
          sandbox: request.SandboxKey,
          ...(route === null ? {} : { resolverRoute: route }),
          routed,
        },
      },
    ]);
    const [link] = await Promise.all([attached, this.#o.waiter.wait(this.#now(endpoint))]);
    const { gateway, gateway6, disableDockers } = this.#gateway(endpoint);
    return {
      InterfaceName: { SrcName: link, DstPrefix: 'eth' },
      Gateway: gateway,
      GatewayIPv6: gateway6,
      DisableGatewayService: disableDockers,
      StaticRoutes: [
        ...(route === null ? [] : [{ Destination: route, RouteType: CONNECTED, NextHop: '' }]),
        ...routed.map(({ cidr, via }) => ({ Destination: cidr, RouteType: BY_GATEWAY, NextHop: via })),
      ],
    };
  }

  #gateway(endpoint: LocalEndpoint): JoinGateway {
    const row = this.#o.journal.networks.get(endpoint.networkId);
    return row === undefined
      ? { gateway: '', gateway6: '', disableDockers: true }
      : joinGateway(this.#o.copies.record(row), endpoint);
  }

  /** Where routers lead; two equal routes in one container are an error to Docker. */
  #routed(endpoint: LocalEndpoint, sandbox: string): ContainerRoute[] {
    const row = this.#o.journal.networks.get(endpoint.networkId);
    if (row === undefined) return [];
    const others = [...this.#o.journal.endpoints.values()].filter((e) => e.id !== endpoint.id && e.sandbox === sandbox);
    return containerRoutes(this.#o.mesh.view(), endpoint, row.network, others);
  }

  /** The machines of a vlan have a resolver of their own. */
  #resolverRoute(endpoint: LocalEndpoint, sandbox: string): string | null {
    const { journal } = this.#o;
    if (journal.networks.get(endpoint.networkId)?.network.encap === 'vlan') return null;
    return resolverRoute(journal, endpoint, sandbox);
  }

  /** Docker leads the container out by this endpoint, and only now says which ports are to be published. */
  async leadOut(request: ExternalRequest): Promise<object> {
    await this.#o.publisher.publish(request.EndpointID, parsePortMap(request.Options?.[KEY.portMap]));
    return {};
  }

  async leadOutNoMore(request: EndpointRef): Promise<object> {
    await this.#o.publisher.revoke(request.EndpointID);
    return {};
  }

  async leave(request: EndpointRef): Promise<object> {
    await this.#o.publisher.revoke(request.EndpointID);
    const endpoint = this.#o.journal.endpoints.get(request.EndpointID);
    if (endpoint !== undefined && endpoint.sandbox !== null)
      await this.#o.journal.write([{ table: 'endpoint', key: endpoint.id, value: { ...endpoint, sandbox: null } }]);
    return {};
  }

  async deleteEndpoint(request: EndpointRef): Promise<object> {
    const endpoint = this.#o.journal.endpoints.get(request.EndpointID);
    this.#living.delete(request.EndpointID);
    if (endpoint !== undefined) await this.#forget(endpoint);
    else await this.#o.datapath.detach(request.EndpointID); // a repeated call; what an earlier one left is finished
    return {};
  }

  operInfo(request: EndpointRef): object {
    const endpoint = this.#o.journal.endpoints.get(request.EndpointID);
    if (endpoint === undefined) return { Value: {} };
    return {
      Value: { 'weft.network': endpoint.networkId, 'weft.mac': endpoint.mac, 'weft.mtu': String(endpoint.mtu) },
    };
  }

  /** The endpoint leaves; its address stays Docker's until ReleaseAddress. */
  async #forget(endpoint: LocalEndpoint): Promise<void> {
    this.#living.delete(endpoint.id);
    const writes: JournalWrite[] = [{ table: 'endpoint', key: endpoint.id, value: null }];
    for (const ip of ipsOf(endpoint)) {
      const address = this.#o.journal.addresses.get(addressKey(endpoint.networkId, ip));
      if (address?.state === 'endpoint') writes.push(this.#address(endpoint, ip, 'requested'));
    }
    await this.#o.journal.write(writes);
    await this.#o.datapath.detach(endpoint.id);
  }

  #address({ networkId }: LocalEndpoint, ip: string, state: 'requested' | 'endpoint'): JournalWrite {
    return this.#o.addresses.used(networkId, ip, state);
  }

  /** The row as it is now: identity may have come meanwhile. */
  #now(endpoint: LocalEndpoint): LocalEndpoint {
    return this.#o.journal.endpoints.get(endpoint.id) ?? endpoint;
  }

  #network(dockerNetworkId: string): LocalNetwork {
    const row = this.#o.copies.byDockerId(dockerNetworkId);
    if (row === undefined)
      throw new WeftError('NOT_FOUND', `Docker's network ${dockerNetworkId.slice(0, 12)} is not on the mesh`, {
        hint: 'look at weft status and docker network ls; was the network removed elsewhere?',
      });
    return row;
  }

  #refuse(request: CreateEndpointRequest, network: Network): void {
    const { mesh } = this.#o;
    if (mesh.draining)
      throw new WeftError('FAILED_PRECONDITION', `host ${mesh.hostName} is being drained: it takes no new endpoints`, {
        hint: `start the container on another host, or end it with weft host undrain ${mesh.hostName}`,
      });
    for (const option of Object.keys(request.Options ?? {}))
      if (option.startsWith('weft.') && option !== KEY.mac && option !== TRUST && !RATE_OPTIONS.includes(option))
        throw new WeftError('UNIMPLEMENTED', `option "${option}" is not available on endpoints of Weft networks`, {
          hint: 'leave it out',
        });
    askedFor(ratesOf(request)); // it says what is wrong
    if (trusted(request) && !network.allowTrust)
      throw new WeftError('PERMISSION_DENIED', `network ${network.name} was made without --allow-trust`, {
        hint: `leave ${TRUST} out, or make a network with weft network create --allow-trust`,
      });
    if (parsePortMap(request.Options?.[KEY.portMap]).length > 0 && network.encap === 'vlan')
      throw new WeftError('FAILED_PRECONDITION', `ports cannot be published (-p) on ${network.name}, a vlan network`, {
        hint: 'leave -p out: the container has its own address in the vlan',
      });
    for (const ip of ipsOf(addressesOf(request, network)))
      if (this.#o.journal.addresses.get(addressKey(network.id, ip))?.state === 'lent')
        throw new WeftError('ALREADY_EXISTS', `address ${ip} is lent to another host`);
  }
}

/** Empty: it has no address of that family. @throws INVALID_ARGUMENT when it has none at all */
function addressesOf(
  request: CreateEndpointRequest,
  network: Network,
): Pick<LocalEndpoint, 'ip' | 'prefix' | 'ip6' | 'prefix6'> {
  const [four = '', six = ''] = [request.Interface?.Address, request.Interface?.AddressIPv6];
  const of = (text: string): { ip: string; prefix: number } => {
    const ip = shownAddress(text);
    return ip === '' ? { ip, prefix: 0 } : { ip: canonicalIp(ip), prefix: Number(text.split('/')[1] ?? 0) };
  };
  const [v4, v6] = [of(four), of(six)];
  if (v4.ip === '' && v6.ip === '')
    throw new WeftError('INVALID_ARGUMENT', `an endpoint of network ${network.name} needs an address`, {
      hint: 'was the network made with --ipam-driver weft?',
    });
  return { ip: v4.ip, prefix: v4.prefix, ip6: v6.ip, prefix6: v6.prefix };
}

/** --mac-address, or our driver option; null when none is given. */
function macOf(request: CreateEndpointRequest): string | null {
  const given = [request.Interface?.MacAddress, request.Options?.[KEY.mac]]
    .filter((text) => typeof text === 'string' && text !== '')
    .map((text) => normalMac(String(text)));
  const [mac = null, other = mac] = given;
  if (mac === other) return mac;
  throw new WeftError('INVALID_ARGUMENT', `two MAC addresses are given: ${mac} and, in option ${KEY.mac}, ${other}`, {
    hint: 'leave one out',
  });
}

const RATE_OPTIONS: readonly string[] = Object.values(RATE_KEYS);

/** Driver options about rate and priority. */
const ratesOf = (request: CreateEndpointRequest): Record<string, string> =>
  Object.fromEntries(
    Object.entries(request.Options ?? {})
      .filter(([key]) => RATE_OPTIONS.includes(key))
      .map(([key, value]) => [key, typeof value === 'string' ? value : JSON.stringify(value)]),
  );

/** @throws INVALID_ARGUMENT */
const trusted = (request: CreateEndpointRequest): boolean => {
  const asked = request.Options?.[TRUST];
  return asked !== undefined && truthOf(TRUST, typeof asked === 'string' ? asked : JSON.stringify(asked));
};
