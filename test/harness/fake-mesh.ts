/** A mesh in memory: what etcd and the coordinators hold, and `Mesh` as each host sees it. Stateful, with failures on request. */
import type { AddressBook } from '../../agent/addresses.ts';
import type { ConflictSource, Mesh } from '../../agent/contract.ts';
import { Turns } from '../../coordinator/turns.ts';
import { type Cidr, containsIp, type Family, formatCidr, overlaps, parseCidr, parseIp } from '../../lib/addr.ts';
import { type Code, WeftError } from '../../lib/errors.ts';
import type {
  Address,
  Block,
  Conflict,
  Endpoint,
  Network,
  NetworkView,
  Reservation,
  Revision,
  Service,
  View,
} from '../../lib/model.ts';
import { FakeSettings, freeBlock, networkOf } from './fake-network.ts';
import { claimByItself, reservationAt } from './fake-reservations.ts';
import { refuseService } from './fake-services.ts';

export { networkOf };

export class FakeWorld {
  readonly networks = new Map<string, Network>();
  /** Key: network id/cidr. */
  readonly blocks = new Map<string, Block>();
  /** Key: network id/address. */
  readonly addresses = new Map<string, Address>();
  readonly endpoints = new Map<string, Endpoint>();
  /** Key: network id/name. */
  readonly reservations = new Map<string, Reservation>();
  /** Key: network id/name. */
  readonly services = new Map<string, Service>();
  readonly settings = new FakeSettings();
  readonly hosts = new Map<string, FakeMesh>();
  /** Awaited inside every call: a test lets others run here. */
  pause: () => Promise<void> = () => Promise.resolve();
  /** Of one host and network: what gives blocks and what takes them, one after the other. */
  readonly #turns = new Map<string, Turns>();
  #revision = 1n;
  #ids = 0;

  host(name: string): FakeMesh {
    const mesh = new FakeMesh(this, `${this.hosts.size + 1}`.padStart(16, '0'), name);
    this.hosts.set(mesh.hostId, mesh);
    return mesh;
  }

  get revision(): Revision {
    return { epoch: 1n, number: this.#revision };
  }

  bump(): bigint {
    this.#revision++;
    return this.#revision;
  }

  publish(): void {
    for (const host of this.hosts.values()) host.changed();
  }

  newId(): string {
    this.#ids++;
    return this.#ids.toString(16).padStart(16, 'a');
  }

  /** As `weft network create`. */
  createNetwork(name: string, subnet: string, fields: Partial<Network> = {}): Network {
    return this.put(networkOf({ id: this.newId(), name, subnets: [subnet], ...fields }));
  }

  /** As `weft network rm`. */
  removeNetwork(id: string): void {
    this.networks.delete(id);
    this.bump();
    this.publish();
  }

  put(network: Network): Network {
    const stored = { ...network, revision: this.bump() };
    this.networks.set(network.id, stored);
    this.publish();
    return stored;
  }

  allow(...of: Parameters<FakeSettings['allow']>): void {
    this.settings.allow(...of);
    this.bump();
    this.publish();
  }

  blocksOf(networkId: string): Block[] {
    return [...this.blocks.values()].filter((block) => block.networkId === networkId);
  }

  inTurn<T>(hostId: string, networkId: string, call: () => Promise<T>): Promise<T> {
    const key = `${hostId} ${networkId}`;
    const turns = this.#turns.get(key) ?? new Turns();
    this.#turns.set(key, turns);
    return turns.run(call);
  }

  async allocate(networkId: string, hostId: string, wanted: string | Family): Promise<Block> {
    const network = this.networks.get(networkId);
    if (network === undefined) throw new WeftError('NOT_FOUND', `no network ${networkId}`);
    for (let round = 0; round < 2; round++) {
      const free = freeBlock(network, wanted, this.#taken(network.id, hostId));
      if (free !== null) {
        const block: Block = { networkId, cidr: formatCidr(free), hostId, revision: this.bump() };
        this.blocks.set(`${networkId}/${block.cidr}`, block);
        this.publish();
        return block;
      }
      for (const other of this.blocksOf(networkId))
        await this.inTurn(other.hostId, networkId, () => this.#takeBack(other));
    }
    throw new WeftError('RESOURCE_EXHAUSTED', `every usable address of network ${network.name} is taken`);
  }

  /** What no new block may have any of. */
  #taken(networkId: string, hostId: string): Cidr[] {
    const kept = [...this.reservations.values(), ...this.services.values()].filter((r) => r.networkId === networkId);
    const ips = kept.flatMap((r) => r.ips);
    for (const a of this.addresses.values())
      if (a.networkId === networkId && a.hostId !== hostId && a.state !== 'refused') ips.push(a.address);
    const blocks = this.blocksOf(networkId).map((block) => parseCidr(block.cidr));
    return [...blocks, ...ips.map((ip) => ({ base: parseIp(ip), prefix: 128 }))];
  }

  async #takeBack(block: Block): Promise<void> {
    if (this.blocks.get(`${block.networkId}/${block.cidr}`) !== block) return; // somebody else did it meanwhile
    const holder = this.hosts.get(block.hostId);
    if (holder?.book === null || holder?.connected !== true) return;
    const keep = await holder.book!.giveBack(block.networkId, block.cidr);
    this.blocks.delete(`${block.networkId}/${block.cidr}`);
    for (const cidr of keep) this.blocks.set(`${block.networkId}/${cidr}`, { ...block, cidr, revision: this.bump() });
    this.publish();
  }
}

export class FakeMesh implements Mesh {
  readonly world: FakeWorld;
  readonly hostId: string;
  readonly hostName: string;
  /** The host's addresses: asked for grants and blocks. */
  book: AddressBook | null = null;
  inSync = true;
  complete = true;
  connected = true;
  draining = false;
  /** What changes is not heard here yet. */
  deaf = false;
  beforeBind: () => Promise<void> = () => Promise.resolve();
  conflicts: readonly Conflict[] = [];
  laggards: readonly string[] = [];
  /** Names of calls, in order. */
  readonly calls: string[] = [];
  readonly #failures = new Map<string, WeftError[]>();
  readonly #listeners = new Set<() => void>();
  #view: View;

  constructor(world: FakeWorld, hostId: string, hostName: string) {
    this.world = world;
    this.hostId = hostId;
    this.hostName = hostName;
    this.#view = this.#render();
  }

  /** The next call of that name fails. */
  failNext(call: string, code: Code, message = `${call} fails`): void {
    this.#failures.set(call, [...(this.#failures.get(call) ?? []), new WeftError(code, message)]);
  }

  /** The host hears of the world's present state. */
  changed(): void {
    if (!this.connected || this.deaf) return;
    this.#view = this.#render();
    for (const listener of this.#listeners) listener();
  }

  setConnected(connected: boolean): void {
    this.connected = connected;
    this.inSync = connected;
    this.complete = connected;
    this.changed();
  }

  view(): View {
    return this.#view;
  }

  onView(listener: () => void): () => void {
    this.#listeners.add(listener);
    return () => this.#listeners.delete(listener);
  }

  #render(): View {
    const { world } = this;
    const interests = new Map<string, NetworkView>();
    for (const networkId of world.networks.keys()) {
      const of = <T extends { networkId: string }>(map: ReadonlyMap<string, T>): Map<string, T> =>
        new Map([...map].filter(([, value]) => value.networkId === networkId));
      const peers = new Map(
        [...world.hosts].map(([id, host]) => [
          id,
          { hostId: id, name: host.hostName, vteps: [], entry: false, routed: false },
        ]),
      );
      interests.set(networkId, {
        networkId,
        blocks: of(world.blocks),
        endpoints: of(world.endpoints),
        peers,
        addresses: of(world.addresses),
        externals: new Map(),
        memberships: new Map(),
        settings: world.settings.of(networkId),
        policies: new Map(),
        services: new Map([...of(world.services).values()].map((service) => [service.name, service])),
        reservations: new Map(
          [...of(world.reservations).values()].map((reservation) => [reservation.name, reservation]),
        ),
      });
    }
    return { revision: world.revision, networks: new Map(world.networks), routers: new Map(), interests };
  }

  async #call(name: string): Promise<void> {
    this.calls.push(name);
    if (!this.connected) throw new WeftError('UNAVAILABLE', 'no coordinator is connected');
    const failure = this.#failures.get(name)?.shift();
    if (failure !== undefined) throw failure;
    await this.world.pause();
  }

  async requestBlock(networkId: string, family: Family): Promise<{ blocks: Block[]; revision: Revision }> {
    await this.#call('requestBlock');
    const block = await this.world.allocate(networkId, this.hostId, family);
    await this.world.pause();
    return { blocks: [block], revision: this.world.revision };
  }

  async releaseBlocks(networkId: string, cidrs: readonly string[]): Promise<void> {
    await this.#call('releaseBlocks');
    await this.world.inTurn(this.hostId, networkId, async () => {
      for (const key of cidrs.map((cidr) => `${networkId}/${cidr}`))
        if (this.world.blocks.get(key)?.hostId === this.hostId) this.world.blocks.delete(key);
    });
    this.world.publish();
  }

  async claimAddress(
    networkId: string,
    ip: string,
    { ownRecord } = { ownRecord: false },
  ): ReturnType<Mesh['claimAddress']> {
    await this.#call('claimAddress');
    const { world, hostId } = this;
    const itself = await claimByItself(world, { hostId, networkId, ip, ownRecord });
    if (itself !== null)
      return { block: null, revision: world.revision, reservation: itself === 'own' ? null : itself };
    const reservation = null;
    const around = async () =>
      world.blocksOf(networkId).find((block) => containsIp(parseCidr(block.cidr), parseIp(ip)));
    const holding = await world.inTurn(this.hostId, networkId, around);
    refuseService(world, networkId, ip);
    if (reservationAt(world, networkId, ip) !== undefined) return await this.claimAddress(networkId, ip);
    if (holding === undefined)
      return { block: await world.allocate(networkId, hostId, ip), revision: world.revision, reservation };
    const key = `${networkId}/${ip}`;
    const present = world.addresses.get(key);
    if (present === undefined && holding.hostId === hostId)
      return { block: holding, revision: world.revision, reservation };
    if (present !== undefined && present.hostId !== this.hostId)
      throw new WeftError('ALREADY_EXISTS', `address ${ip} is held by host ${present.hostId}`);
    const grantor = world.hosts.get(holding.hostId)!;
    if (!grantor.connected) throw new WeftError('FAILED_PRECONDITION', `host ${grantor.hostName} is not connected`);
    const claim: Address = {
      networkId,
      address: ip,
      hostId: this.hostId,
      state: 'claimed',
      grantorHostId: grantor.hostId,
      reason: '',
      revision: world.bump(),
    };
    world.addresses.set(key, claim);
    world.publish();
    try {
      await grantor.book!.grant(networkId, ip, this.hostId);
    } catch (error) {
      world.addresses.delete(key);
      world.publish();
      throw error;
    }
    world.addresses.set(key, { ...claim, state: 'held', revision: world.bump() });
    world.publish();
    await world.pause();
    return { block: null, revision: world.revision, reservation };
  }

  async releaseAddresses(networkId: string, ips: readonly string[]): Promise<void> {
    await this.#call('releaseAddresses');
    for (const ip of ips) {
      const key = `${networkId}/${ip}`;
      if (this.world.addresses.get(key)?.hostId === this.hostId) this.world.addresses.delete(key);
    }
    this.world.bump();
    this.world.publish();
  }

  async reserveNetwork(r: Parameters<Mesh['reserveNetwork']>[0]): Promise<Network> {
    await this.#call('reserveNetwork');
    const { world } = this;
    const taken = [...world.networks.values()].flatMap((n) => n.subnets.map(parseCidr));
    let subnet = r.pool;
    for (let i = 0; subnet === ''; i++) {
      const candidate = parseCidr(r.ipv6 ? `fd00:200:${i}::/64` : `10.200.${i}.0/24`);
      if (!taken.some((other) => overlaps(other, candidate))) subnet = formatCidr(candidate);
    }
    if (taken.some((other) => overlaps(other, parseCidr(subnet))))
      throw new WeftError('FAILED_PRECONDITION', `subnet ${subnet} overlaps another network's`);
    return world.put(
      networkOf({
        id: world.newId(),
        subnets: [subnet],
        ipRange: r.subPool,
        state: 'reserved',
        originHost: this.hostId,
        ipv6: r.ipv6,
      }),
    );
  }

  async bindNetwork(
    b: Parameters<Mesh['bindNetwork']>[0],
  ): Promise<{ network: Network; won: boolean; winnerHost: string }> {
    await this.#call('bindNetwork');
    await this.beforeBind();
    const { world } = this;
    const reserved = world.networks.get(b.networkId);
    if (reserved === undefined) throw new WeftError('NOT_FOUND', `no network ${b.networkId}`);
    const other = b.joins === '' ? undefined : world.networks.get(b.joins);
    if (b.joins !== '' && other === undefined) throw new WeftError('NOT_FOUND', `no network ${b.joins}`);
    if (other !== undefined) world.networks.delete(other.id);
    const winner = [...world.networks.values()].find((n) => n.name === b.name && n.id !== b.networkId);
    if (winner !== undefined) {
      world.removeNetwork(b.networkId);
      return { network: winner, won: false, winnerHost: world.hosts.get(winner.originHost)?.hostName ?? '' };
    }
    const network = world.put({
      ...reserved,
      name: b.name,
      labels: { ...b.labels },
      options: { ...b.options },
      internal: b.internal,
      attachable: b.attachable,
      subnets: [...reserved.subnets, ...(other?.subnets ?? [])],
      gateways: [b.gateway, b.gateway6].filter((ip) => ip !== ''),
      ipv6: b.ipv6 || reserved.ipv6,
      auxAddresses: { ...b.auxAddresses },
      state: 'bound',
    });
    return { network, won: true, winnerHost: this.hostName };
  }

  async removeNetwork(networkId: string): Promise<void> {
    await this.#call('removeNetwork');
    if (!this.world.networks.has(networkId)) throw new WeftError('NOT_FOUND', `no network ${networkId}`);
    const others = [...this.world.endpoints.values()].filter(
      (e) => e.networkId === networkId && e.hostId !== this.hostId,
    );
    if (others.length > 0) throw new WeftError('FAILED_PRECONDITION', 'network in use elsewhere');
    this.world.removeNetwork(networkId);
  }

  async interested(_networkId: string, _signal: AbortSignal): Promise<void> {
    await this.#call('interested');
  }

  async registered(endpointId: string): Promise<Revision> {
    await this.#call(`registered ${endpointId}`);
    return this.world.revision;
  }

  async registerMemberships(): Promise<void> {
    await this.#call('registerMemberships');
  }
  async waitPeers(_networkId: string, _revision: Revision, _timeoutMs: number): Promise<readonly string[]> {
    await this.#call('waitPeers');
    return this.laggards;
  }

  reportConflicts(_source: ConflictSource, conflicts: readonly Conflict[]): void {
    this.conflicts = conflicts;
  }
}
