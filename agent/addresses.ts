/**
 * Addresses of this host: given to Docker from own blocks, claimed from other hosts, lent to them, given back.
 *
 * Choosing and marking happen in one turn (the journal's memory changes at once), so no lock is held while anything is awaited:
 * a coordinator may ask this host for a grant or for a block while this host waits for a block itself.
 */
import { type Family, familyOf, formatIp, parseIp, tryParseIp } from '../lib/addr.ts';
import { WeftError } from '../lib/errors.ts';
import type { Log } from '../lib/log.ts';
import type { Block, Network, Revision } from '../lib/model.ts';
import { explainNoBlock, flagOf, inUse, refuseUnusable } from './address-errors.ts';
import { count, pick } from './address-pick.ts';
import { AddressTable, addressKey, blockKey } from './address-table.ts';
import type { Clock } from './clock.ts';
import { ipsOf, type Journal, type JournalWrite, type LocalAddress, type LocalBlock, type Mesh } from './contract.ts';
import { IdleBlocks } from './idle-blocks.ts';
import { Lending } from './lending.ts';
import { loseBlocks } from './lost-blocks.ts';
import { Reserving } from './reserving.ts';

export { addressKey, blockKey } from './address-table.ts';

/** A further block is asked for when less than this part of the held addresses is free. */
const LOW_WATER = 0.25;
/** After a refusal (pool exhausted), no further block is asked for ahead of need for this long, ms. */
const ASK_AHEAD_PAUSE = 15_000;
const RETRY_MS = 2_000;

export class AddressBook {
  readonly #journal: Journal;
  readonly #mesh: Mesh;
  readonly #clock: Clock;
  readonly #log: Log;
  readonly #table: AddressTable;
  readonly #lending: Lending;
  readonly #idle: IdleBlocks;
  readonly #reserving: Reserving;
  readonly #pausedUntil = new Map<string, number>();
  /** Keys of freed claims whose release has surely not reached a coordinator: they may be used again at once. */
  readonly #stillHeld = new Set<string>();
  #stop: (() => void)[] = [];
  #retry: NodeJS.Timeout | null = null;
  #releasing = false;
  #closed = false;

  constructor(options: { journal: Journal; mesh: Mesh; clock: Clock; log: Log }) {
    this.#journal = options.journal;
    this.#mesh = options.mesh;
    this.#clock = options.clock;
    this.#log = options.log;
    this.#table = new AddressTable(options);
    this.#lending = new Lending({ table: this.#table, log: options.log });
    this.#idle = new IdleBlocks({ table: this.#table, log: options.log });
    const release = (rows: readonly LocalAddress[]): Promise<void> => this.#giveBackClaims(rows);
    this.#reserving = new Reserving({ table: this.#table, release, log: options.log });
  }

  /** Begins to follow the mesh: lent addresses that come back, claimed ones still to be released. */
  start(): void {
    this.#stop.push(
      this.#mesh.onView(() => {
        loseBlocks(this.#table, this.#log).catch((error: unknown) =>
          this.#log.error({ err: error }, 'blocks of other hosts not forgotten'),
        );
        this.#lending
          .takeBack()
          .catch((error: unknown) => this.#log.error({ err: error }, 'lent addresses not taken back'));
        this.#reserving.look();
        if (this.#mesh.connected) this.#releaseClaimed();
      }),
    );
    this.#releaseClaimed();
    this.#idle.start();
    this.#reserving.start();
  }

  close(): void {
    this.#closed = true;
    this.#idle.close();
    this.#reserving.close();
    for (const stop of this.#stop) stop();
    this.#stop = [];
    if (this.#retry !== null) clearTimeout(this.#retry);
    this.#retry = null;
  }

  /**
   * An address of the host's choice.
   * @throws RESOURCE_EXHAUSTED, or UNAVAILABLE when own blocks are full and no coordinator can be asked
   */
  async request(network: Network, family: Family): Promise<string> {
    for (;;) {
      const ip = this.#pick(network, family, false);
      if (ip !== null) return await this.#take(network, ip);
      let got: number;
      try {
        got = await this.#moreBlocks(network, family);
      } catch (error) {
        const last = this.#pick(network, family, false) ?? this.#pick(network, family, true);
        if (last !== null) return await this.#take(network, last);
        throw explainNoBlock(network, family, this.#mesh.hostName, error);
      }
      if (got > 0) continue;
      const last = this.#pick(network, family, false) ?? this.#pick(network, family, true);
      if (last !== null) return await this.#take(network, last);
      throw new WeftError(
        'RESOURCE_EXHAUSTED',
        `network ${network.name} has no free ${family === 6 ? 'IPv6 ' : ''}address left`,
        {
          hint: 'remove containers from the network, or create one with a larger subnet',
        },
      );
    }
  }

  /**
   * An address of the user's choice (--ip, or a restarted container's own).
   * @throws INVALID_ARGUMENT not of the subnet; ALREADY_EXISTS in use; FAILED_PRECONDITION reserved, or its holder cannot be asked
   */
  async requestGiven(network: Network, given: string): Promise<string> {
    const number = parseIp(given);
    const ip = formatIp(number);
    refuseUnusable(network, number);
    const key = addressKey(network.id, ip);
    // Otherwise the release could overtake the claim.
    await this.#table.releasing.get(key)?.catch(() => undefined);
    if (this.#table.claiming.has(key)) throw inUse(ip, network, 'it is being given to another container');
    const spoken = this.#table.spokenFor(network.id).get(number);
    if (spoken !== undefined) throw inUse(ip, network, spoken);
    const row = this.#journal.addresses.get(key);
    const free = row === undefined || row.state === 'resting' || row.state === 'reserved';
    if (!free) throw inUse(ip, network, this.#table.userOf(row));
    const held = row?.claimed === true && this.#stillHeld.has(key);
    // Only the mesh knows whether somebody has it now.
    const reserved = row?.state === 'reserved' || this.#table.reservedBy(network.id).has(number);
    if (!held && (reserved || this.#table.ownBlock(network.id, number) === undefined)) {
      const other = reserved ? null : this.#table.seenElsewhere(network.id, ip);
      if (other !== null) throw inUse(ip, network, other);
      return await this.#claim(network, ip, key);
    }
    await this.#journal.write([this.#table.row(network.id, ip, 'requested', held, row?.reserved)]);
    return ip;
  }

  /** Frees an address. Unknown ones, and those that an endpoint still has, are left as they are. */
  async release(networkId: string, given: string): Promise<void> {
    const number = tryParseIp(given);
    if (number === null) return;
    const ip = formatIp(number);
    const row = this.#journal.addresses.get(addressKey(networkId, ip));
    if (row === undefined || (row.state !== 'requested' && row.state !== 'endpoint')) return;
    for (const endpoint of this.#journal.endpoints.values())
      if (endpoint.networkId === networkId && ipsOf(endpoint).includes(ip)) return;
    const written = this.#journal.write([this.#table.row(networkId, ip, 'resting', row.claimed, row.reserved)]);
    if (row.claimed) this.#stillHeld.add(addressKey(networkId, ip));
    await written;
    if (row.claimed) this.#releaseClaimed();
  }

  /** The coordinator's GrantQuery: see Lending.grant. */
  grant(networkId: string, ip: string, forHost: string): Promise<void> {
    return this.#lending.grant(networkId, ip, forHost);
  }

  /** The coordinator's ReserveQuery: see Reserving.reserve. */
  reserve(networkId: string, ip: string, name: string, forHost: string): Promise<void> {
    return this.#reserving.reserve(networkId, ip, name, forHost);
  }

  /** The coordinator's GiveBackQuery: the parts of the block that the host keeps. */
  giveBack(networkId: string, cidr: string, last = false): Promise<readonly string[]> {
    return this.#lending.giveBack(networkId, cidr, last);
  }

  /** Gives back the blocks of networks that have not been used here for long; happens by itself from time to time. */
  releaseUnused(): Promise<void> {
    return this.#idle.look();
  }

  /** The row of an address that an endpoint has, or had until now. */
  used(networkId: string, ip: string, state: 'requested' | 'endpoint'): JournalWrite {
    return this.#table.used(networkId, ip, state);
  }

  /** The own block whose flows others reach the address by; undefined for one that is held by itself. */
  coveredBy(networkId: string, ip: string): LocalBlock | undefined {
    return this.#table.heldByItself(networkId, ip) ? undefined : this.blockOf(networkId, ip);
  }

  /** The own block that an address lies in. */
  blockOf(networkId: string, ip: string): LocalBlock | undefined {
    return this.#table.ownBlock(networkId, parseIp(ip));
  }

  /**
   * The journal was lost: the host's blocks as the last view has them. Only before the session, which compares them with the mesh's.
   */
  async recover(): Promise<void> {
    const { hostId } = this.#mesh;
    const writes: JournalWrite[] = [];
    for (const interest of this.#mesh.view().interests.values())
      for (const block of interest.blocks.values())
        if (block.hostId === hostId) writes.push(holding(block, { epoch: 0n, number: block.revision }));
    if (writes.length > 0) await this.#journal.write(writes);
    this.#reserving.look();
  }

  #pick(network: Network, family: Family, resting: boolean): string | null {
    const { blocks, reserved, slots } = this.#table.slots(network, family);
    const ip = pick(blocks, reserved, slots, this.#clock.monotonic(), resting);
    return ip === null ? null : formatIp(ip);
  }

  async #take(network: Network, ip: string): Promise<string> {
    const written = this.#journal.write([this.#table.row(network.id, ip, 'requested', false)]);
    const family = familyOf(parseIp(ip));
    const { blocks, reserved, slots } = this.#table.slots(network, family);
    const { usable, free } = count(blocks, reserved, slots, this.#clock.monotonic());
    if (free < usable * LOW_WATER) this.#askAhead(network, family);
    await written;
    return ip;
  }

  /** So that containers still start when the coordinators go away. */
  #askAhead(network: Network, family: Family): void {
    if (!this.#mesh.connected || this.#mesh.draining) return;
    const key = askKey(network, family);
    if ((this.#pausedUntil.get(key) ?? 0) > this.#clock.monotonic()) return;
    this.#moreBlocks(network, family).catch((error: unknown) => {
      this.#pausedUntil.set(key, this.#clock.monotonic() + ASK_AHEAD_PAUSE);
      this.#log.debug({ network: network.name, err: error }, 'no further block ahead of need');
    });
  }

  /** Number of blocks that are new. All who need one wait for the same request. */
  #moreBlocks(network: Network, family: Family): Promise<number> {
    const key = askKey(network, family);
    let asking = this.#table.asking.get(key);
    if (asking === undefined) {
      asking = this.#requestBlock(network, family).finally(() => this.#table.asking.delete(key));
      this.#table.asking.set(key, asking);
    }
    return asking;
  }

  async #requestBlock(network: Network, family: Family): Promise<number> {
    await this.#idle.settled(network.id);
    const { blocks, revision } = await this.#mesh.requestBlock(network.id, family);
    const fresh = this.#fresh(blocks);
    await this.#journal.write(fresh.map((block) => holding(block, revision)));
    return fresh.length;
  }

  #fresh(blocks: readonly Block[]): Block[] {
    return blocks.filter((block) => !this.#journal.blocks.has(blockKey(block.networkId, block.cidr)));
  }

  async #claim(network: Network, ip: string, key: string): Promise<string> {
    this.#table.claiming.add(key);
    try {
      await this.#idle.settled(network.id);
      const { block, revision, reservation } = await this.#mesh.claimAddress(network.id, ip);
      const blocks = block === null ? [] : this.#fresh([block]);
      const { name, mac } = reservation ?? { name: '', mac: '' };
      const reserved = reservation === null ? undefined : { name, mac };
      const requested = this.#table.row(network.id, ip, 'requested', block === null, reserved);
      await this.#journal.write([...blocks.map((b) => holding(b, revision)), requested]);
      return ip;
    } catch (error) {
      const e = WeftError.from(error);
      if (e.code !== 'UNAVAILABLE') throw e;
      throw new WeftError(
        'UNAVAILABLE',
        `address ${ip} lies outside the blocks of host ${this.#mesh.hostName}, and no coordinator can be asked for it`,
        { hint: `leave ${flagOf(ip)} out, or try again when the coordinator is back`, cause: error },
      );
    } finally {
      this.#table.claiming.delete(key);
    }
  }

  /** Claimed addresses that are no longer used go back to the mesh; tried again until it has taken them. */
  #releaseClaimed(): void {
    if (this.#releasing || this.#closed) return;
    if (this.#retry !== null) clearTimeout(this.#retry);
    this.#retry = null;
    this.#releasing = true;
    this.#releaseAll()
      .catch((error: unknown) => {
        this.#log.debug({ err: error }, 'claimed addresses not released yet');
        if (!this.#closed) this.#retry = setTimeout(() => this.#releaseClaimed(), RETRY_MS);
      })
      .finally(() => {
        this.#releasing = false;
      });
  }

  async #releaseAll(): Promise<void> {
    for (;;) {
      const unused = this.#journal.addresses
        .values()
        .filter((row) => row.claimed && row.state === 'resting')
        .toArray();
      const [first] = unused;
      if (first === undefined) return;
      await this.#giveBackClaims(unused.filter((row) => row.networkId === first.networkId));
    }
  }

  async #giveBackClaims(rows: readonly LocalAddress[]): Promise<void> {
    if (!this.#mesh.connected) throw new WeftError('UNAVAILABLE', 'no coordinator is connected');
    const keys = rows.map((row) => addressKey(row.networkId, row.ip));
    const release = this.#releaseNow(rows, keys);
    for (const key of keys) {
      this.#stillHeld.delete(key);
      this.#table.releasing.set(key, release);
    }
    try {
      await release;
    } finally {
      for (const key of keys) this.#table.releasing.delete(key);
    }
  }

  async #releaseNow(rows: readonly LocalAddress[], keys: readonly string[]): Promise<void> {
    try {
      await this.#mesh.releaseAddresses(
        rows[0]!.networkId,
        rows.map((row) => row.ip),
      );
    } catch (error) {
      if (WeftError.from(error).code !== 'NOT_FOUND') throw error; // else the network is gone, and they with it
    }
    const same = rows.filter((row, index) => this.#journal.addresses.get(keys[index]!) === row);
    await this.#journal.write(same.map((row) => this.#table.afterClaim(row)));
    this.#reserving.look();
  }
}

function holding(block: Block, revision: Revision): JournalWrite {
  const { networkId, cidr } = block;
  const at = { epoch: String(revision.epoch), number: String(revision.number) };
  return { table: 'block', key: blockKey(networkId, cidr), value: { networkId, cidr, converged: false, revision: at } };
}

const askKey = (network: Network, family: Family): string => `${network.id}/${family}`;
