/**
 * Reserved addresses among this host's: kept from every pick, and used by themselves, like claimed ones, wherever they lie. So that
 * they are kept also without a coordinator, those of own blocks are journalled. Addresses of services are kept in the same way, and
 * nobody uses them.
 */
import { containsIp, parseCidr, parseIp } from '../lib/addr.ts';
import { WeftError } from '../lib/errors.ts';
import type { Log } from '../lib/log.ts';
import { type AddressTable, addressKey } from './address-table.ts';
import { ipsOf, type JournalWrite, type LocalAddress, nameOf } from './contract.ts';

/** An address that was agreed to and that the mesh does not show as reserved this long after was never made so, ms. */
const UNSEEN_MS = 60_000;
const LOOK_MS = 20_000;

export interface ReservingOptions {
  readonly table: AddressTable;
  /** Gives claimed addresses back to the mesh, and resolves when it has them. */
  readonly release: (rows: readonly LocalAddress[]) => Promise<void>;
  readonly log: Log;
}

export class Reserving {
  readonly #o: ReservingOptions;
  /** Keys of reserved addresses that the view has shown as reserved, or as somebody's. */
  readonly #seen = new Set<string>();
  #timer: NodeJS.Timeout | null = null;

  constructor(options: ReservingOptions) {
    this.#o = options;
  }

  start(): void {
    this.#timer = setInterval(() => this.look(), LOOK_MS);
  }

  close(): void {
    if (this.#timer !== null) clearInterval(this.#timer);
  }

  /**
   * The coordinator's ReserveQuery.
   * @param forHost empty: the reservation, or service, is being made; a container named like it keeps the address
   * @throws ALREADY_EXISTS naming the container that has it
   */
  async reserve(networkId: string, ip: string, name: string, forHost: string): Promise<void> {
    const { table, release } = this.#o;
    const { journal, mesh } = table;
    const key = addressKey(networkId, ip);
    await table.releasing.get(key)?.catch(() => undefined);
    const row = journal.addresses.get(key);
    if (table.claiming.has(key)) throw inUse(ip, `it is being claimed by host ${mesh.hostName}`);
    if (row?.state === 'requested' || row?.state === 'endpoint') {
      if (forHost !== '' || !this.#isNamed(row, name)) throw inUse(ip, table.userOf(row));
      return await this.#keep(key, row);
    }
    if (row?.claimed === true) {
      await release([row]);
      return await this.reserve(networkId, ip, name, forHost);
    }
    // The block may be on its way here, and be heard of before the view that has the reservation.
    const own = table.ownBlock(networkId, parseIp(ip)) !== undefined || table.blockMayCome(networkId);
    if (row?.state === 'reserved' || !own) return;
    // Also one that is lent: had somebody taken it, the mesh would not ask. Lent or reserved, it is withheld.
    this.#seen.delete(key);
    await journal.write([table.row(networkId, ip, 'reserved', false)], { durable: true });
  }

  #isNamed(row: LocalAddress, name: string): boolean {
    const { endpoints } = this.#o.table.journal;
    return endpoints
      .values()
      .some((e) => e.networkId === row.networkId && ipsOf(e).includes(row.ip) && nameOf(e) === name);
  }

  /** The container goes on with its address, which is from now on held by itself and no longer part of the block. */
  async #keep(key: string, row: LocalAddress): Promise<void> {
    if (row.claimed) return;
    const { journal, mesh } = this.#o.table;
    await journal.write([{ table: 'address', key, value: { ...row, claimed: true } }], { durable: true });
    await mesh.claimAddress(row.networkId, row.ip, { ownRecord: true });
  }

  /** Follows the view: what is reserved, and what is so no longer. */
  look(): void {
    const writes = [...this.#kept(), ...this.#back()];
    if (writes.length === 0) return;
    this.#o.log.debug({ addresses: writes.map((write) => write.key) }, 'reserved addresses have changed');
    this.#o.table.journal
      .write(writes)
      .catch((error: unknown) => this.#o.log.error({ err: error }, 'reserved addresses not journalled'));
  }

  /** A block may have come with them, or the journal without them. */
  *#kept(): Generator<JournalWrite> {
    const { table } = this.#o;
    for (const { networkId, reservations, services } of table.mesh.view().interests.values()) {
      const blocks = [...table.blocksOf(networkId)].map(([, block]) => parseCidr(block.cidr));
      if (blocks.length === 0) continue;
      for (const ip of [...reservations.values(), ...services.values()].flatMap((one) => one.ips)) {
        const key = addressKey(networkId, ip);
        const row = table.journal.addresses.get(key);
        const free = row === undefined || (row.state === 'resting' && !row.claimed);
        if (!free || table.claiming.has(key)) continue;
        const number = parseIp(ip);
        if (blocks.some((block) => containsIp(block, number))) yield table.row(networkId, ip, 'reserved', false);
      }
    }
  }

  *#back(): Generator<JournalWrite> {
    const { table } = this.#o;
    const { journal, mesh, clock } = table;
    if (!mesh.complete) return;
    const spokenFor = new Map<string, ReadonlyMap<bigint, string>>();
    for (const [key, row] of journal.addresses) {
      if (row.state !== 'reserved') continue;
      const interest = mesh.view().interests.get(row.networkId);
      if (interest === undefined) continue;
      const number = parseIp(row.ip);
      const reserved = table.reservedBy(row.networkId).has(number);
      const spoken = spokenFor.get(row.networkId) ?? table.spokenFor(row.networkId);
      spokenFor.set(row.networkId, spoken);
      const shown = reserved || interest.addresses.has(row.ip) || spoken.has(number);
      if (shown) {
        this.#seen.add(key);
        continue;
      }
      // The view may be older than this host's word.
      const since = table.momentOf(key);
      if (since !== undefined && clock.monotonic() - since < UNSEEN_MS && !this.#seen.has(key)) continue;
      this.#seen.delete(key);
      if (table.ownBlock(row.networkId, number) === undefined) yield { table: 'address', key, value: null };
      else yield table.row(row.networkId, row.ip, 'resting', false);
    }
  }
}

const inUse = (ip: string, why: string): WeftError =>
  new WeftError('ALREADY_EXISTS', `address ${ip} is in use: ${why}`, { hint: 'choose another address' });
