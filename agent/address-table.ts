/** What the journal and the view say of a host's addresses: read by choosing, lending and claiming alike. */
import { type Cidr, containsIp, type Family, familyOfText, lastOf, parseCidr, parseIp } from '../lib/addr.ts';
import type { Network, Reservation, Service } from '../lib/model.ts';
import { isAssignable, REST_MS, type Reserved, reservedOf, type Slot } from './address-pick.ts';
import type { Clock } from './clock.ts';
import { ipsOf, type Journal, type JournalWrite, type LocalAddress, type LocalBlock, type Mesh } from './contract.ts';

export const addressKey = (networkId: string, ip: string): string => `${networkId}/${ip}`;
export const blockKey = (networkId: string, cidr: string): string => `${networkId}/${cidr}`;

export class AddressTable {
  readonly journal: Journal;
  readonly mesh: Mesh;
  readonly clock: Clock;
  /** Block requests under way, by network id/family: number of new blocks. */
  readonly asking = new Map<string, Promise<number>>();
  /** Keys of addresses with a claim under way. */
  readonly claiming = new Set<string>();
  /** Keys of addresses that are being given back to the mesh. */
  readonly releasing = new Map<string, Promise<unknown>>();
  /** Monotonic moments at which addresses were freed or lent in this process's life. */
  readonly #moments = new Map<string, number>();
  /** The same by address, by the view's map. */
  readonly #reserved = new WeakMap<ReadonlyMap<string, Reservation>, ReadonlyMap<bigint, Reservation>>();
  readonly #started: { readonly wall: number; readonly mono: number };

  constructor(options: { journal: Journal; mesh: Mesh; clock: Clock }) {
    this.journal = options.journal;
    this.mesh = options.mesh;
    this.clock = options.clock;
    this.#started = { wall: options.clock.now(), mono: options.clock.monotonic() };
  }

  /** The write that sets an address's state. */
  row(
    networkId: string,
    ip: string,
    state: Exclude<LocalAddress['state'], 'lent'>,
    claimed: boolean,
    reserved?: LocalAddress['reserved'],
  ): JournalWrite {
    const value = { networkId, ip, state, since: this.clock.now(), lentTo: null, claimed };
    return this.#write(reserved === undefined ? value : { ...value, reserved });
  }

  /** The write for an address of an endpoint that comes, is found, or goes. */
  used(networkId: string, ip: string, state: 'requested' | 'endpoint'): JournalWrite {
    const row = this.journal.addresses.get(addressKey(networkId, ip));
    const claimed = row?.claimed ?? this.heldByItself(networkId, ip);
    return this.row(networkId, ip, state, claimed, row?.reserved);
  }

  /** The write that forgets a claim. In an own block it is reserved, or was so a moment ago. */
  afterClaim({ networkId, ip }: LocalAddress): JournalWrite {
    if (this.ownBlock(networkId, parseIp(ip)) !== undefined) return this.row(networkId, ip, 'reserved', false);
    return { table: 'address', key: addressKey(networkId, ip), value: null };
  }

  /** Not as part of an own block: claimed, or reserved. */
  heldByItself(networkId: string, ip: string): boolean {
    const number = parseIp(ip);
    if (this.journal.addresses.get(addressKey(networkId, ip))?.claimed === true) return true;
    return this.ownBlock(networkId, number) === undefined || this.reservedBy(networkId).has(number);
  }

  /** The write that lends an address of an own block. */
  lent(networkId: string, ip: string, lentTo: string): JournalWrite {
    return this.#write({ networkId, ip, state: 'lent', since: this.clock.now(), lentTo, claimed: false });
  }

  #write(value: LocalAddress): JournalWrite {
    const key = addressKey(value.networkId, value.ip);
    if (value.state === 'resting' || value.state === 'lent' || value.state === 'reserved')
      this.#moments.set(key, this.clock.monotonic());
    else this.#moments.delete(key);
    return { table: 'address', key, value };
  }

  /** When it was freed, lent or reserved in this process's life (monotonic ms); undefined for an earlier life. */
  momentOf(key: string): number | undefined {
    return this.#moments.get(key);
  }

  network(networkId: string): Network | null {
    return this.journal.networks.get(networkId)?.network ?? this.mesh.view().networks.get(networkId) ?? null;
  }

  /** The mesh may have given this host a block that it has not heard of yet. */
  blockMayCome(networkId: string): boolean {
    return this.asking.keys().some((key) => key.startsWith(`${networkId}/`)) || this.claimed(networkId).length > 0;
  }

  /** Addresses with a claim under way: it may be answered with a block around them that the host has got by then. */
  claimed(networkId: string): bigint[] {
    const head = `${networkId}/`;
    return [...this.claiming].filter((key) => key.startsWith(head)).map((key) => parseIp(key.slice(head.length)));
  }

  *blocksOf(networkId: string): Generator<[string, LocalBlock]> {
    for (const entry of this.journal.blocks) if (entry[1].networkId === networkId) yield entry;
  }

  /** The writes that forget blocks, and what their addresses were; those in use stay known as that. */
  without(networkId: string, cidrs: readonly string[]): JournalWrite[] {
    const blocks = cidrs.map(parseCidr);
    const writes = cidrs.map((cidr): JournalWrite => ({ table: 'block', key: blockKey(networkId, cidr), value: null }));
    for (const [key, row] of this.journal.addresses) {
      if (row.networkId !== networkId || row.claimed || row.state === 'requested' || row.state === 'endpoint') continue;
      if (blocks.some((block) => containsIp(block, parseIp(row.ip))))
        writes.push({ table: 'address', key, value: null });
    }
    return writes;
  }

  ownBlock(networkId: string, ip: bigint): LocalBlock | undefined {
    for (const [, block] of this.blocksOf(networkId)) if (containsIp(parseCidr(block.cidr), ip)) return block;
    return undefined;
  }

  /** Addresses that the view shows as reserved. */
  reservedBy(networkId: string): ReadonlyMap<bigint, Reservation> {
    const reservations = this.mesh.view().interests.get(networkId)?.reservations;
    if (reservations === undefined || reservations.size === 0) return new Map();
    let known = this.#reserved.get(reservations);
    if (known === undefined) {
      known = new Map([...reservations.values()].flatMap((r) => r.ips.map((ip) => [parseIp(ip), r])));
      this.#reserved.set(reservations, known);
    }
    return known;
  }

  /** Virtual addresses that the view shows: no endpoint ever has one. */
  *servicesOf(networkId: string): Generator<[string, Service]> {
    for (const service of this.mesh.view().interests.get(networkId)?.services.values() ?? [])
      for (const ip of service.ips) yield [ip, service];
  }

  /** Addresses that no new endpoint may have: whose they are, as the view says (services', an endpoint's allowed ones, external peers'). */
  spokenFor(networkId: string): Map<bigint, string> {
    const found = new Map<bigint, string>();
    const interest = this.mesh.view().interests.get(networkId);
    for (const peer of interest?.externals.values() ?? [])
      for (const { ip } of peer.macs)
        if (ip !== '') found.set(parseIp(ip), `it is behind the external peer ${peer.name}`);
    for (const { endpointId, allowed } of interest?.settings.values() ?? []) {
      const name = interest?.endpoints.get(endpointId)?.container?.name ?? endpointId.slice(0, 12);
      for (const { ip } of allowed) if (ip !== '') found.set(parseIp(ip), `it is an allowed address of ${name}`);
    }
    for (const [ip, { name }] of this.servicesOf(networkId))
      found.set(parseIp(ip), `it is the address of service ${name}`);
    return found;
  }

  /** What a pick needs, of one family. */
  slots(network: Network, family: Family): { blocks: Cidr[]; reserved: Reserved; slots: Map<bigint, Slot> } {
    const blocks = [...this.blocksOf(network.id)]
      .filter(([, block]) => familyOfText(block.cidr) === family)
      .map(([, block]) => parseCidr(block.cidr));
    const slots = new Map<bigint, Slot>();
    for (const [key, row] of this.journal.addresses) {
      if (row.networkId !== network.id) continue;
      const resting = row.state === 'resting' && !this.claiming.has(key) && !this.releasing.has(key);
      slots.set(parseIp(row.ip), resting ? { taken: false, freedAt: this.#freedAt(key, row) } : { taken: true });
    }
    for (const ip of this.claimed(network.id)) slots.set(ip, { taken: true });
    for (const ip of this.spokenFor(network.id).keys()) slots.set(ip, { taken: true });
    for (const ip of this.reservedBy(network.id).keys()) slots.set(ip, { taken: true });
    return { blocks, reserved: reservedOf(network), slots };
  }

  /** Monotonic moment; of earlier lives by wall clock, which may have jumped: never in the future. */
  #freedAt(key: string, row: LocalAddress): number {
    return this.#moments.get(key) ?? this.#started.mono - Math.max(0, this.#started.wall - row.since);
  }

  /** Addresses that are used, lent, or resting; not those that are only reserved. @param resting false: those that rest are not counted */
  busy(networkId: string, resting = true): Set<bigint> {
    const busy = new Set<bigint>();
    const now = this.clock.monotonic();
    for (const [key, row] of this.journal.addresses) {
      if (row.networkId !== networkId || row.state === 'reserved') continue;
      if (row.state !== 'resting' || (resting && now - this.#freedAt(key, row) < REST_MS)) busy.add(parseIp(row.ip));
    }
    return busy;
  }

  /** Held addresses that a container could have now. */
  freeOf(network: Network, family: Family): bigint[] {
    const { blocks, reserved } = this.slots(network, family);
    const busy = new Set([...this.busy(network.id), ...this.#reservedHere(network.id)]);
    const free: bigint[] = [];
    for (const block of blocks)
      for (let ip = block.base; ip <= lastOf(block); ip++)
        if (!busy.has(ip) && isAssignable(reserved, ip)) free.push(ip);
    return free;
  }

  /** Reserved addresses, and services', as the view and the journal say. */
  #reservedHere(networkId: string): bigint[] {
    const rows = this.journal.addresses.values().filter((r) => r.networkId === networkId && r.state === 'reserved');
    const virtual = this.servicesOf(networkId).map(([ip]) => parseIp(ip));
    return [...this.reservedBy(networkId).keys(), ...virtual, ...rows.map((row) => parseIp(row.ip))];
  }

  hasEndpoints(networkId: string): boolean {
    return this.journal.endpoints.values().some((endpoint) => endpoint.networkId === networkId);
  }

  /** An endpoint is there, or an address of the network is used, lent, resting or being asked for. */
  inUse(networkId: string): boolean {
    return (
      this.hasEndpoints(networkId) ||
      this.blockMayCome(networkId) ||
      this.busy(networkId).size > 0 ||
      this.releasing.keys().some((key) => key.startsWith(`${networkId}/`))
    );
  }

  /** Who has an address, as part of a sentence. */
  userOf(row: LocalAddress): string {
    const host = this.mesh.hostName;
    if (row.state === 'reserved') return 'it is reserved';
    if (row.state === 'lent')
      return (
        this.seenElsewhere(row.networkId, row.ip) ??
        `it is lent to host ${this.#hostName(row.networkId, row.lentTo ?? '')}`
      );
    const endpoint = this.journal.endpoints
      .values()
      .find((e) => e.networkId === row.networkId && ipsOf(e).includes(row.ip));
    if (endpoint === undefined) return `it is being given to a container on host ${host}`;
    return `container ${endpoint.container?.name ?? endpoint.id.slice(0, 12)} on host ${host} has it`;
  }

  /** The endpoint of another host that has the address, as part of a sentence; null when the view knows none. */
  seenElsewhere(networkId: string, ip: string): string | null {
    const interest = this.mesh.view().interests.get(networkId);
    const endpoint = interest?.endpoints.values().find((e) => e.hostId !== this.mesh.hostId && e.ips.includes(ip));
    if (endpoint === undefined) return null;
    const name = endpoint.container?.name ?? endpoint.id.slice(0, 12);
    return `container ${name} on host ${this.#hostName(networkId, endpoint.hostId)} has it`;
  }

  #hostName(networkId: string, hostId: string): string {
    return this.mesh.view().interests.get(networkId)?.peers.get(hostId)?.name ?? hostId;
  }
}
