/** The IPAM driver: pools are mesh networks, addresses come from the host's blocks. */
import { WeftError } from '../../lib/errors.ts';
import { containsIp, isUsable, parseCidr, parseIp } from '../../lib/ip.ts';
import type { Log } from '../../lib/log.ts';
import type { Network } from '../../lib/model.ts';
import type { AddressBook } from '../addresses.ts';
import type { Clock } from '../clock.ts';
import type { Journal, LocalNetwork, Mesh } from '../contract.ts';
import type { Copies } from './copies.ts';
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
    if (request.V6)
      throw new WeftError('UNIMPLEMENTED', 'IPv6 is not available yet on Weft networks', {
        hint: 'leave --ipv6 and IPv6 subnets out',
      });
    const copyOf = this.#copies.creating.get(request.Pool);
    const network = copyOf === undefined ? await this.#reserve(request, options) : this.#copyOf(copyOf);
    const pool = network.subnets[0]!;
    this.#copies.touchedAt.set(network.id, this.#clock.monotonic());
    await this.#journal.write([this.#copies.put(this.#copies.rowFor(network, null))]);
    return { PoolID: poolId(network.id, pool), Pool: pool, Data: {} };
  }

  /** docker network create by a user: subnet and VNI are held by the mesh until the name is known. */
  async #reserve(request: RequestPoolRequest, options: Readonly<Record<string, string>>): Promise<Network> {
    refuseUnknownOptions(options);
    if (request.Pool !== '') parseCidr(request.Pool);
    return await this.#mesh.reserveNetwork({ pool: request.Pool, subPool: request.SubPool, ipv6: false, options });
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
    const row = pool === null ? undefined : this.#copies.byId(pool.networkId);
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
    const { networkId, cidr } = this.#pool(request.PoolID);
    const row = this.#copies.byId(networkId);
    const prefix = parseCidr(cidr).prefix;
    const answer = (ip: string): object => ({ Address: `${ip}/${prefix}`, Data: {} });
    if (row !== undefined && request.Options?.[KEY.requestAddressType] === KEY.gateway)
      return answer(await this.#gateway(row, request.Address));
    if (row !== undefined && row.dockerNetworkId === null && request.Address !== '')
      return answer(await this.#auxAddress(row, request.Address));
    const network = await this.#copies.untilBound(networkId, BIND_WAIT_MS);
    if (request.Address === '') return answer(await this.#addresses.request(network));
    return answer(await this.#addresses.requestGiven(network, request.Address));
  }

  /** Docker's user may give a gateway when the network is created; afterwards it is what it is. */
  async #gateway(row: LocalNetwork, wanted: string): Promise<string> {
    const network = this.#copies.record(row);
    const present = network.gateways[0] ?? '';
    if (wanted === '' || wanted === present) return present;
    if (network.state !== 'reserved')
      throw new WeftError('INVALID_ARGUMENT', `network ${network.name} has gateway ${present}, not ${wanted}`);
    checkUsable('the gateway', wanted, network);
    await this.#journal.write([this.#copies.put({ ...row, network: { ...row.network, gateways: [wanted] } })]);
    return wanted;
  }

  /** Kept from endpoints; its name comes with CreateNetwork. */
  async #auxAddress(row: LocalNetwork, ip: string): Promise<string> {
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
    if (pool !== null) await this.#addresses.release(pool.networkId, request.Address);
    return {};
  }

  #pool(id: string): { networkId: string; cidr: string } {
    const pool = parsePoolId(id);
    if (pool === null) throw new WeftError('NOT_FOUND', `"${id}" is not a pool of Weft`);
    return pool;
  }
}

/** As the coordinator would, but in time: later Docker has told its user that the network is made. @throws INVALID_ARGUMENT */
function checkUsable(what: string, text: string, { subnets }: Network): void {
  const subnet = parseCidr(subnets[0] ?? '');
  const ip = parseIp(text);
  if (isUsable(subnet, ip)) return;
  const why = !containsIp(subnet, ip)
    ? `not in the subnet ${subnets[0]}`
    : `the ${ip === subnet.base ? 'network' : 'broadcast'} address of ${subnets[0]}`;
  throw new WeftError('INVALID_ARGUMENT', `${what} ${text} is ${why}`, { hint: 'choose another address' });
}

/** An option that would be ignored is refused; those without our prefix are the user's own remarks. */
export function refuseUnknownOptions(options: Readonly<Record<string, string>>): void {
  for (const key of Object.keys(options))
    if (key.startsWith('weft.') || key.startsWith('com.docker.network.'))
      throw new WeftError('UNIMPLEMENTED', `option "${key}" is not available on Weft networks`, {
        hint: 'leave it out',
      });
}
