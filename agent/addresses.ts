/**
 * Addresses of this host: given to Docker from own blocks, claimed from other hosts, lent to them, given back.
 *
 * Choosing and marking happen in one turn (the journal's memory changes at once), so no lock is held while anything is awaited:
 * a coordinator may ask this host for a grant or for a block while this host waits for a block itself.
 */
import { WeftError } from '../lib/errors.ts';
import {
  type Cidr,
  containsCidr,
  containsIp,
  formatCidr,
  formatIp,
  lastOf,
  parseCidr,
  parseIp,
  tryParseIp,
} from '../lib/ip.ts';
import type { Log } from '../lib/log.ts';
import type { Block, Network } from '../lib/model.ts';
import {
  count,
  isAssignable,
  nearestFree,
  partsToKeep,
  pick,
  REST_MS,
  type Reserved,
  reservedOf,
  type Slot,
} from './address-pick.ts';
import type { Clock } from './clock.ts';
import type { Journal, JournalWrite, LocalAddress, LocalBlock, Mesh } from './contract.ts';

export const addressKey = (networkId: string, ip: string): string => `${networkId}/${ip}`;
export const blockKey = (networkId: string, cidr: string): string => `${networkId}/${cidr}`;

/** A further block is asked for when less than this part of the held addresses is free. */
const LOW_WATER = 0.25;
/** After a refusal (pool exhausted), no further block is asked for ahead of need for this long, ms. */
const ASK_AHEAD_PAUSE = 15_000;
/** A lent address that the mesh does not show as claimed this long after the grant was never taken, ms. */
const LENT_UNSEEN_MS = 60_000;
const RETRY_MS = 2_000;

export class AddressBook {
  readonly #journal: Journal;
  readonly #mesh: Mesh;
  readonly #clock: Clock;
  readonly #log: Log;
  /** Block requests under way, by network: those who need one wait for the same. */
  readonly #asking = new Map<string, Promise<number>>();
  readonly #pausedUntil = new Map<string, number>();
  /** Claims under way, by address key. */
  readonly #claiming = new Set<string>();
  /** Monotonic moments at which addresses were freed or lent in this process's life. */
  readonly #moments = new Map<string, number>();
  readonly #seenLent = new Set<string>();
  readonly #started: { readonly wall: number; readonly mono: number };
  #stop: (() => void)[] = [];
  #retry: NodeJS.Timeout | null = null;
  #releasing = false;

  constructor(options: { journal: Journal; mesh: Mesh; clock: Clock; log: Log }) {
    this.#journal = options.journal;
    this.#mesh = options.mesh;
    this.#clock = options.clock;
    this.#log = options.log;
    this.#started = { wall: options.clock.now(), mono: options.clock.monotonic() };
  }

  /** Begins to follow the mesh: lent addresses that come back, claimed ones still to be released. */
  start(): void {
    this.#stop.push(this.#mesh.onView(() => this.#onView()));
    this.#releaseClaimed();
  }

  close(): void {
    for (const stop of this.#stop) stop();
    this.#stop = [];
    if (this.#retry !== null) clearTimeout(this.#retry);
    this.#retry = null;
  }

  /**
   * An address of the host's choice.
   * @throws RESOURCE_EXHAUSTED, or UNAVAILABLE when own blocks are full and no coordinator can be asked
   */
  async request(network: Network): Promise<string> {
    for (;;) {
      const ip = this.#pickNow(network, false);
      if (ip !== null) return await this.#take(network, ip);
      let got: number;
      try {
        got = await this.#moreBlocks(network);
      } catch (error) {
        const last = this.#pickNow(network, true);
        if (last !== null) return await this.#take(network, last);
        throw explainNoBlock(network, this.#mesh.hostName, error);
      }
      if (got > 0) continue;
      const last = this.#pickNow(network, false) ?? this.#pickNow(network, true);
      if (last !== null) return await this.#take(network, last);
      throw new WeftError('RESOURCE_EXHAUSTED', `network ${network.name} has no free address left`, {
        hint: 'remove containers from the network, or create one with a larger subnet',
      });
    }
  }

  /**
   * An address of the user's choice (--ip, or a restarted container's own).
   * @throws INVALID_ARGUMENT not of the subnet, ALREADY_EXISTS in use, FAILED_PRECONDITION reserved, or its holder cannot be asked
   */
  async requestGiven(network: Network, ip: string): Promise<string> {
    const number = parseIp(ip);
    this.#refuseUnusable(network, number);
    const key = addressKey(network.id, ip);
    if (this.#claiming.has(key)) throw inUse(ip, network, 'it is being given to another container');
    const row = this.#journal.addresses.get(key);
    if (row !== undefined && row.state !== 'resting') throw inUse(ip, network, this.#userOf(network.id, row));
    if (row?.claimed !== true && this.#ownBlock(network.id, number) === undefined) {
      const other = this.#seenElsewhere(network.id, ip);
      if (other !== null) throw inUse(ip, network, other);
      return await this.#claim(network, ip, key);
    }
    await this.#journal.write([this.#row(network.id, ip, 'requested', row?.claimed ?? false)]);
    return ip;
  }

  /** Frees an address. Unknown ones, and those that an endpoint still has, are left as they are. */
  async release(networkId: string, ip: string): Promise<void> {
    const row = this.#journal.addresses.get(addressKey(networkId, ip));
    if (row === undefined || (row.state !== 'requested' && row.state !== 'endpoint')) return;
    for (const endpoint of this.#journal.endpoints.values())
      if (endpoint.networkId === networkId && endpoint.ip === ip) return;
    await this.#journal.write([this.freed(row)]);
    if (row.claimed) this.#releaseClaimed();
  }

  /** The write that frees an address, for callers that free it together with other rows. */
  freed(row: LocalAddress): JournalWrite {
    return this.#row(row.networkId, row.ip, 'resting', row.claimed);
  }

  /**
   * A coordinator asks: may another host have this address of ours? Journalled on disk before it resolves.
   * @throws ALREADY_EXISTS naming the container that has it; FAILED_PRECONDITION when it is not this host's to give
   */
  async grant(networkId: string, ip: string, forHost: string): Promise<void> {
    const key = addressKey(networkId, ip);
    const row = this.#journal.addresses.get(key);
    if (row?.state === 'lent' && row.lentTo === forHost) return;
    if ((row !== undefined && row.state !== 'resting') || this.#claiming.has(key))
      throw new WeftError(
        'ALREADY_EXISTS',
        `address ${ip} is in use: ${row === undefined ? 'it is being claimed' : this.#userOf(networkId, row)}`,
      );
    if (row?.claimed === true) {
      await this.#journal.write([{ table: 'address', key, value: null }], { durable: true });
      return;
    }
    const network = this.#network(networkId);
    const own = this.#ownBlock(networkId, parseIp(ip));
    if (own === undefined || network === null || !isAssignable(reservedOf(network), parseIp(ip)))
      throw new WeftError('FAILED_PRECONDITION', `host ${this.#mesh.hostName} does not hold address ${ip}`);
    this.#moments.set(key, this.#clock.monotonic());
    this.#seenLent.delete(key);
    const value: LocalAddress = {
      networkId,
      ip,
      state: 'lent',
      since: this.#clock.now(),
      lentTo: forHost,
      claimed: false,
    };
    await this.#journal.write([{ table: 'address', key, value }], { durable: true });
  }

  /**
   * A coordinator asks for what is free of a block: the rest is no longer this host's, on disk, when it resolves.
   * @returns the parts that the host keeps
   */
  async giveBack(networkId: string, cidr: string): Promise<readonly string[]> {
    const asked = parseCidr(cidr);
    const network = this.#network(networkId);
    const writes: JournalWrite[] = [];
    const keep: string[] = [];
    const busy = this.#busy(networkId);
    const now = this.#clock.monotonic();
    if (network !== null && this.#hasEndpoints(networkId)) {
      // A host at work keeps one address for the next container that it starts while no coordinator is there.
      const free = this.#freeOf(network, now);
      const outside = free.some((ip) => !containsIp(asked, ip));
      const spare = outside ? null : nearestFree(free, [...busy]);
      if (spare !== null) busy.add(spare);
    }
    for (const [key, block] of this.#blocksOf(networkId)) {
      const held = parseCidr(block.cidr);
      if (!containsCidr(asked, held)) {
        if (containsCidr(held, asked)) return [cidr];
        continue;
      }
      const parts = partsToKeep(held, busy).map(formatCidr);
      keep.push(...parts);
      if (parts.length === 1 && parts[0] === block.cidr) continue;
      writes.push({ table: 'block', key, value: null });
      for (const part of parts)
        writes.push({ table: 'block', key: blockKey(networkId, part), value: { ...block, cidr: part } });
      for (const [addressRowKey, row] of this.#journal.addresses)
        if (row.networkId === networkId && !busy.has(parseIp(row.ip)) && containsIp(held, parseIp(row.ip)))
          writes.push({ table: 'address', key: addressRowKey, value: null });
    }
    if (writes.length > 0) await this.#journal.write(writes, { durable: true });
    return keep;
  }

  /** The own block that an address lies in. */
  blockOf(networkId: string, ip: string): LocalBlock | undefined {
    return this.#ownBlock(networkId, parseIp(ip));
  }

  // --- choosing

  #pickNow(network: Network, resting: boolean): string | null {
    const { blocks, reserved, slots } = this.#table(network);
    const ip = pick(blocks, reserved, slots, this.#clock.monotonic(), resting);
    return ip === null ? null : formatIp(ip);
  }

  async #take(network: Network, ip: string): Promise<string> {
    const written = this.#journal.write([this.#row(network.id, ip, 'requested', false)]);
    const { blocks, reserved, slots } = this.#table(network);
    const { usable, free } = count(blocks, reserved, slots, this.#clock.monotonic());
    if (free < usable * LOW_WATER) this.#askAhead(network);
    await written;
    return ip;
  }

  #askAhead(network: Network): void {
    if (!this.#mesh.connected || this.#mesh.draining) return;
    if ((this.#pausedUntil.get(network.id) ?? 0) > this.#clock.monotonic()) return;
    this.#moreBlocks(network).catch((error: unknown) => {
      this.#pausedUntil.set(network.id, this.#clock.monotonic() + ASK_AHEAD_PAUSE);
      this.#log.debug({ network: network.name, err: error }, 'no further block ahead of need');
    });
  }

  /** Number of blocks that are new. */
  #moreBlocks(network: Network): Promise<number> {
    let asking = this.#asking.get(network.id);
    if (asking === undefined) {
      asking = this.#requestBlock(network).finally(() => this.#asking.delete(network.id));
      this.#asking.set(network.id, asking);
    }
    return asking;
  }

  async #requestBlock(network: Network): Promise<number> {
    const { blocks, revision } = await this.#mesh.requestBlock(network.id, null);
    return await this.#hold(network.id, blocks, revision);
  }

  async #hold(
    networkId: string,
    blocks: readonly Block[],
    revision: { readonly epoch: bigint; readonly number: bigint },
    more: readonly JournalWrite[] = [],
  ): Promise<number> {
    const fresh = blocks.filter((block) => !this.#journal.blocks.has(blockKey(networkId, block.cidr)));
    const writes = fresh.map((block): JournalWrite => {
      const at = { epoch: String(revision.epoch), number: String(revision.number) };
      const value: LocalBlock = { networkId, cidr: block.cidr, converged: false, revision: at };
      return { table: 'block', key: blockKey(networkId, block.cidr), value };
    });
    await this.#journal.write([...writes, ...more]);
    return fresh.length;
  }

  // --- given addresses

  #refuseUnusable(network: Network, ip: number): void {
    const reserved = reservedOf(network);
    const text = formatIp(ip);
    const subnet = formatCidr(reserved.subnet);
    if (!containsIp(reserved.subnet, ip))
      throw new WeftError('INVALID_ARGUMENT', `address ${text} is not in subnet ${subnet} of network ${network.name}`, {
        hint: `choose one between ${formatIp(reserved.subnet.base + 1)} and ${formatIp(lastOf(reserved.subnet) - 1)}`,
      });
    if (isAssignable(reserved, ip)) return;
    const what =
      ip === reserved.subnet.base
        ? 'the network address'
        : ip === lastOf(reserved.subnet)
          ? 'the broadcast address'
          : network.gateways.some((gateway) => tryParseIp(gateway) === ip)
            ? 'the gateway'
            : 'an auxiliary address';
    throw new WeftError('FAILED_PRECONDITION', `address ${text} is ${what} of network ${network.name}`, {
      hint: 'choose another address',
    });
  }

  async #claim(network: Network, ip: string, key: string): Promise<string> {
    this.#claiming.add(key);
    try {
      const { block, revision } = await this.#mesh.claimAddress(network.id, ip);
      const claimed = block === null;
      const requested = this.#row(network.id, ip, 'requested', claimed);
      await this.#hold(network.id, block === null ? [] : [block], revision, [requested]);
      return ip;
    } catch (error) {
      const e = WeftError.from(error);
      if (e.code !== 'UNAVAILABLE') throw e;
      throw new WeftError(
        'UNAVAILABLE',
        `address ${ip} lies outside the blocks of host ${this.#mesh.hostName}, and no coordinator can be asked for it`,
        {
          hint: 'leave --ip out, or try again when the coordinator is back',
          cause: error,
        },
      );
    } finally {
      this.#claiming.delete(key);
    }
  }

  /** Claimed addresses that are no longer used go back to the mesh; tried again until it has taken them. */
  #releaseClaimed(): void {
    if (this.#releasing || this.#retry !== null) return;
    this.#releasing = true;
    this.#releaseAll()
      .catch((error: unknown) => {
        this.#log.debug({ err: error }, 'claimed addresses not released yet');
        this.#retry = setTimeout(() => {
          this.#retry = null;
          this.#releaseClaimed();
        }, RETRY_MS);
        this.#retry.unref();
      })
      .finally(() => {
        this.#releasing = false;
      });
  }

  async #releaseAll(): Promise<void> {
    for (;;) {
      const row = this.#journal.addresses.values().find((r) => r.claimed && r.state === 'resting');
      if (row === undefined) return;
      const same = this.#journal.addresses
        .values()
        .filter((r) => r.claimed && r.state === 'resting' && r.networkId === row.networkId)
        .toArray();
      // Out of the journal first: taken anew meanwhile it must be claimed anew, and a crash here is made good by the next hello.
      await this.#journal.write(
        same.map((r) => ({ table: 'address', key: addressKey(r.networkId, r.ip), value: null })),
      );
      try {
        await this.#mesh.releaseAddresses(
          row.networkId,
          same.map((r) => r.ip),
        );
      } catch (error) {
        if (WeftError.from(error).code === 'NOT_FOUND') continue;
        const back = same.filter((r) => !this.#journal.addresses.has(addressKey(r.networkId, r.ip)));
        await this.#journal.write(
          back.map((r) => ({ table: 'address', key: addressKey(r.networkId, r.ip), value: r })),
        );
        throw error;
      }
    }
  }

  // --- lent addresses

  /** A lent address that the mesh no longer shows as somebody's is this host's again, and rests. */
  #onView(): void {
    if (!this.#mesh.complete) return;
    const view = this.#mesh.view();
    const back: JournalWrite[] = [];
    for (const [key, row] of this.#journal.addresses) {
      if (row.state !== 'lent') continue;
      const interest = view.interests.get(row.networkId);
      if (interest === undefined) continue;
      const shown = interest.addresses.values().some((a) => a.address === row.ip && a.state !== 'refused');
      if (shown) {
        this.#seenLent.add(key);
        continue;
      }
      const lentAt = this.#moments.get(key);
      const young = lentAt !== undefined && this.#clock.monotonic() - lentAt < LENT_UNSEEN_MS;
      if (young && !this.#seenLent.has(key)) continue;
      back.push(this.#row(row.networkId, row.ip, 'resting', false));
    }
    if (back.length > 0)
      this.#journal
        .write(back)
        .catch((error: unknown) => this.#log.error({ err: error }, 'lent addresses not taken back'));
  }

  // --- reading the journal

  #row(networkId: string, ip: string, state: LocalAddress['state'], claimed: boolean): JournalWrite {
    const key = addressKey(networkId, ip);
    if (state === 'resting') this.#moments.set(key, this.#clock.monotonic());
    const value: LocalAddress = { networkId, ip, state, since: this.#clock.now(), lentTo: null, claimed };
    return { table: 'address', key, value };
  }

  #network(networkId: string): Network | null {
    return this.#journal.networks.get(networkId)?.network ?? this.#mesh.view().networks.get(networkId) ?? null;
  }

  *#blocksOf(networkId: string): Generator<[string, LocalBlock]> {
    for (const entry of this.#journal.blocks) if (entry[1].networkId === networkId) yield entry;
  }

  #ownBlock(networkId: string, ip: number): LocalBlock | undefined {
    for (const [, block] of this.#blocksOf(networkId)) if (containsIp(parseCidr(block.cidr), ip)) return block;
    return undefined;
  }

  #table(network: Network): { blocks: Cidr[]; reserved: Reserved; slots: Map<number, Slot> } {
    const blocks = [...this.#blocksOf(network.id)].map(([, block]) => parseCidr(block.cidr));
    const slots = new Map<number, Slot>();
    for (const [key, row] of this.#journal.addresses) {
      if (row.networkId !== network.id) continue;
      const resting = row.state === 'resting' && !this.#claiming.has(key);
      slots.set(parseIp(row.ip), resting ? { taken: false, freedAt: this.#freedAt(key, row) } : { taken: true });
    }
    return { blocks, reserved: reservedOf(network), slots };
  }

  /** Monotonic moment; of earlier lives by wall clock, which may have jumped: never in the future. */
  #freedAt(key: string, row: LocalAddress): number {
    return this.#moments.get(key) ?? this.#started.mono - Math.max(0, this.#started.wall - row.since);
  }

  #busy(networkId: string): Set<number> {
    const busy = new Set<number>();
    const now = this.#clock.monotonic();
    for (const [key, row] of this.#journal.addresses) {
      if (row.networkId !== networkId) continue;
      if (row.state !== 'resting' || now - this.#freedAt(key, row) < REST_MS) busy.add(parseIp(row.ip));
    }
    return busy;
  }

  #freeOf(network: Network, now: number): number[] {
    const { blocks, reserved, slots } = this.#table(network);
    const free: number[] = [];
    for (const block of blocks)
      for (let ip = block.base; ip <= lastOf(block); ip++) {
        const slot = slots.get(ip);
        const rests = slot !== undefined && (slot.taken || now - slot.freedAt < REST_MS);
        if (!rests && isAssignable(reserved, ip)) free.push(ip);
      }
    return free;
  }

  #hasEndpoints(networkId: string): boolean {
    return this.#journal.endpoints.values().some((endpoint) => endpoint.networkId === networkId);
  }

  /** Who has an address, as part of a sentence. */
  #userOf(networkId: string, row: LocalAddress): string {
    const host = this.#mesh.hostName;
    if (row.state === 'lent')
      return (
        this.#seenElsewhere(networkId, row.ip) ?? `it is lent to host ${this.#hostName(networkId, row.lentTo ?? '')}`
      );
    const endpoint = this.#journal.endpoints.values().find((e) => e.networkId === networkId && e.ip === row.ip);
    if (endpoint === undefined) return `it is being given to a container on host ${host}`;
    return `container ${endpoint.container?.name ?? endpoint.id.slice(0, 12)} on host ${host} has it`;
  }

  #seenElsewhere(networkId: string, ip: string): string | null {
    const interest = this.#mesh.view().interests.get(networkId);
    const endpoint = interest?.endpoints.values().find((e) => e.hostId !== this.#mesh.hostId && e.ips.includes(ip));
    if (endpoint === undefined) return null;
    const name = endpoint.container?.name ?? endpoint.id.slice(0, 12);
    return `container ${name} on host ${this.#hostName(networkId, endpoint.hostId)} has it`;
  }

  #hostName(networkId: string, hostId: string): string {
    return this.#mesh.view().interests.get(networkId)?.peers.get(hostId)?.name ?? hostId;
  }
}

const inUse = (ip: string, network: Network, why: string): WeftError =>
  new WeftError('ALREADY_EXISTS', `address ${ip} of network ${network.name} is in use: ${why}`, {
    hint: 'choose another address, or leave --ip out',
  });

function explainNoBlock(network: Network, host: string, error: unknown): WeftError {
  const e = WeftError.from(error);
  if (e.code !== 'UNAVAILABLE') return e;
  return new WeftError(
    'UNAVAILABLE',
    `host ${host} has no free address of network ${network.name} in its own blocks, and no coordinator can be asked for a further block`,
    { hint: 'try again when the coordinator is back', cause: error },
  );
}
