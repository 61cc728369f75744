/** The IPAM driver: pools are mesh networks, addresses come from the host's blocks. */
import {
  canonicalIp,
  containsIp,
  type Family,
  familyOf,
  familyOfText,
  formatCidr,
  formatIp,
  isUsable,
  parseCidr,
  parseIp,
  subnetOf,
} from '../../lib/addr.ts';
import { WeftError } from '../../lib/errors.ts';
import type { Log } from '../../lib/log.ts';
import type { Network } from '../../lib/model.ts';
import { networkOptions } from '../../lib/network-options.ts';
import type { AddressBook } from '../addresses.ts';
import type { Clock } from '../clock.ts';
import type { Journal, LocalNetwork, Mesh } from '../contract.ts';
import type { Copies } from './copies.ts';
import { gatewayText, NO_IPV4, rowOfPool, subnetText } from './pools.ts';
import {
  ADDRESS_SPACE,
  GLOBAL_ADDRESS_SPACE,
  KEY,
  type PoolRef,
  parsePoolId,
  poolId,
  type ReleaseAddressRequest,
  type RequestAddressRequest,
  type RequestPoolRequest,
} from './wire.ts';

/** How long a container's address waits for its network to be bound, ms. */
const BIND_WAIT_MS = 5_000;

export class Ipam {
  readonly #journal: Journal;
  readonly #mesh: Mesh;
  readonly #addresses: AddressBook;
  readonly #copies: Copies;
  readonly #clock: Clock;
  readonly #log: Log;

  constructor(options: {
    journal: Journal;
    mesh: Mesh;
    addresses: AddressBook;
    copies: Copies;
    clock: Clock;
    log: Log;
  }) {
    this.#journal = options.journal;
    this.#mesh = options.mesh;
    this.#addresses = options.addresses;
    this.#copies = options.copies;
    this.#clock = options.clock;
    this.#log = options.log;
  }

  /** MACs are made from addresses: Docker need not choose any. */
  capabilities(): object {
    return { RequiresMACAddress: false, RequiresRequestReplay: false };
  }

  addressSpaces(): object {
    return { LocalDefaultAddressSpace: ADDRESS_SPACE, GlobalDefaultAddressSpace: GLOBAL_ADDRESS_SPACE };
  }

  async requestPool(request: RequestPoolRequest): Promise<object> {
    const options = request.Options ?? {};
    if (request.AddressSpace !== ADDRESS_SPACE && request.AddressSpace !== GLOBAL_ADDRESS_SPACE)
      throw new WeftError('INVALID_ARGUMENT', `address space "${request.AddressSpace}" is not Weft's`);
    if (request.Pool === NO_IPV4.pool && !request.V6)
      return { PoolID: NO_IPV4.poolId, Pool: NO_IPV4.pool, Data: { [KEY.gateway]: NO_IPV4.address } };
    const family: Family = request.V6 ? 6 : 4;
    const copyOf = this.#copies.creating.get(request.Pool);
    const network = copyOf === undefined ? await this.#reserve(request, options) : this.#copyOf(copyOf);
    const pool = subnetText(network, family);
    this.#copies.touchedAt.set(network.id, this.#clock.monotonic());
    await this.#journal.write([this.#copies.put(this.#copies.rowFor(network, null))]);
    return { PoolID: poolId(network.id, pool), Pool: pool, Data: {} };
  }

  /** docker network create by a user: subnet and VNI are held by the mesh until the name is known. */
  async #reserve(request: RequestPoolRequest, options: Readonly<Record<string, string>>): Promise<Network> {
    networkOptions(options);
    // Docker writes IPv6 its own way.
    const canonical = (text: string): string => (text === '' ? '' : formatCidr(parseCidr(text)));
    const [pool, subPool] = [canonical(request.Pool), canonical(request.SubPool)];
    return await this.#mesh.reserveNetwork({ pool, subPool, ipv6: request.V6, options });
  }

  /** The agent itself makes the copy of a network of the catalogue. */
  #copyOf(networkId: string): Network {
    const row = this.#copies.byId(networkId);
    const network = this.#mesh.view().networks.get(networkId) ?? row?.network;
    if (network === undefined)
      throw new WeftError('NOT_FOUND', `the mesh has no network with id "${networkId}" any more`);
    if (row !== undefined && row.dockerNetworkId !== null)
      throw new WeftError('ALREADY_EXISTS', `network ${network.name} is on this host already`);
    return network;
  }

  /** The first half of a creation that did not come to its second half. Idempotent. */
  async releasePool(request: PoolRef): Promise<object> {
    const pool = parsePoolId(request.PoolID);
    const row = pool === null ? undefined : rowOfPool(this.#journal.networks, pool);
    if (row === undefined || row.dockerNetworkId !== null) return {};
    await this.#journal.write([{ table: 'network', key: row.networkId, value: null }]);
    this.#copies.changed();
    if (this.#copies.record(row).state === 'reserved')
      this.#mesh.removeNetwork(row.networkId).catch((error: unknown) => {
        this.#log.debug({ network: row.networkId, err: error }, 'reservation not given back: it ends by itself');
      });
    return {};
  }

  async requestAddress(request: RequestAddressRequest): Promise<object> {
    if (request.PoolID === NO_IPV4.poolId) return noIpv4(request);
    const { networkId, cidr, row } = this.#pool(request.PoolID);
    const family = familyOfText(cidr);
    const prefix = cidr.split('/')[1] ?? '';
    const answer = (ip: string): object => ({ Address: `${ip}/${prefix}`, Data: {} });
    if (row !== undefined && request.Options?.[KEY.requestAddressType] === KEY.gateway)
      return answer(await this.#gateway(row, request.Address, family));
    if (row !== undefined && row.dockerNetworkId === null && request.Address !== '')
      return answer(await this.#auxAddress(row, request.Address));
    const network = await this.#copies.untilBound(networkId, BIND_WAIT_MS);
    if (request.Address === '') return answer(await this.#addresses.request(network, family));
    return answer(await this.#addresses.requestGiven(network, request.Address));
  }

  /** Docker's user may give a gateway when the network is created; afterwards it is what it is. */
  async #gateway(row: LocalNetwork, given: string, family: Family): Promise<string> {
    const network = this.#copies.record(row);
    const wanted = given === '' ? '' : canonicalIp(given);
    const present = gatewayText(network, family);
    // dockerd wants one always: a network without gets its own base address, which nobody can have, and no route leads there.
    if (wanted === '' && present === '') return formatIp(subnetOf(network, family)!.base);
    if (wanted === '' || wanted === present) return present;
    if (network.state !== 'reserved')
      throw new WeftError('INVALID_ARGUMENT', `network ${network.name} has gateway ${present}, not ${wanted}`);
    checkUsable('the gateway', wanted, network);
    await this.#journal.write([this.#copies.put({ ...row, network: { ...row.network, gateways: [wanted] } })]); // a reservation has one family
    return wanted;
  }

  /** Kept from endpoints; its name comes with CreateNetwork. */
  async #auxAddress(row: LocalNetwork, given: string): Promise<string> {
    const ip = canonicalIp(given);
    checkUsable('the auxiliary address', ip, row.network);
    if (row.network.gateways.includes(ip))
      throw new WeftError('INVALID_ARGUMENT', `the auxiliary address ${ip} is the gateway`, {
        hint: 'choose another address',
      });
    const known = Object.values(row.network.auxAddresses).includes(ip);
    if (row.network.state === 'reserved' && !known) {
      const auxAddresses = { ...row.network.auxAddresses, [ip]: ip };
      await this.#journal.write([this.#copies.put({ ...row, network: { ...row.network, auxAddresses } })]);
    }
    return ip;
  }

  async releaseAddress(request: ReleaseAddressRequest): Promise<object> {
    const pool = parsePoolId(request.PoolID);
    if (pool === null) return {};
    const row = rowOfPool(this.#journal.networks, pool);
    await this.#addresses.release(row?.networkId ?? pool.networkId, request.Address);
    return {};
  }

  #pool(id: string): { networkId: string; cidr: string; row: LocalNetwork | undefined } {
    const pool = parsePoolId(id);
    if (pool === null) throw new WeftError('NOT_FOUND', `"${id}" is not a pool of Weft`);
    const row = rowOfPool(this.#journal.networks, pool);
    return { networkId: row?.networkId ?? pool.networkId, cidr: pool.cidr, row };
  }
}

/** The pool of networks without IPv4 has one address for everybody. @throws INVALID_ARGUMENT when one is given */
function noIpv4({ Address }: RequestAddressRequest): object {
  if (Address === '' || Address === '0.0.0.0') return { Address: NO_IPV4.address, Data: {} };
  throw new WeftError('INVALID_ARGUMENT', `the network has no IPv4: it cannot give ${Address}`, {
    hint: 'leave --ip out',
  });
}

/** As the coordinator would, but in time: later Docker has told its user that the network is made. @throws INVALID_ARGUMENT */
function checkUsable(what: string, text: string, network: Network): void {
  const ip = parseIp(text);
  const subnet = subnetOf(network, familyOf(ip)) ?? parseCidr(network.subnets[0] ?? '');
  if (isUsable(subnet, ip)) return;
  const why = !containsIp(subnet, ip)
    ? `not in the subnet ${formatCidr(subnet)}`
    : `the ${ip === subnet.base ? 'network' : 'broadcast'} address of ${formatCidr(subnet)}`;
  throw new WeftError('INVALID_ARGUMENT', `${what} ${text} is ${why}`, { hint: 'choose another address' });
}
