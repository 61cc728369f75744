/** What other hosts get of this host's addresses: single ones lent, free halves of blocks given back. On disk before the answer. */
import { containsCidr, containsIp, familyOf, formatCidr, parseCidr, parseIp } from '../lib/addr.ts';
import { WeftError } from '../lib/errors.ts';
import type { Log } from '../lib/log.ts';
import { isAssignable, nearestFree, partsToKeep, reservedOf } from './address-pick.ts';
import { type AddressTable, addressKey, blockKey } from './address-table.ts';
import type { JournalWrite } from './contract.ts';

/** A lent address that the mesh does not show as claimed this long after the grant was never taken, ms. */
const LENT_UNSEEN_MS = 60_000;

export class Lending {
  readonly #table: AddressTable;
  readonly #log: Log;
  /** Keys of lent addresses that the view has shown as another host's. */
  readonly #seen = new Set<string>();

  constructor(options: { table: AddressTable; log: Log }) {
    this.#table = options.table;
    this.#log = options.log;
  }

  /**
   * A coordinator asks: may another host have this address of ours, or may an endpoint of any host be allowed it?
   * @throws ALREADY_EXISTS naming the container that has it; FAILED_PRECONDITION when it is not this host's to give
   */
  async grant(networkId: string, ip: string, forHost: string): Promise<void> {
    const { journal, mesh, claiming, releasing } = this.#table;
    const key = addressKey(networkId, ip);
    const row = journal.addresses.get(key);
    const own = this.#table.ownBlock(networkId, parseIp(ip));
    // Of an own block it would be given out again.
    if (releasing.has(key) && own === undefined) return;
    if (row?.state === 'lent' && row.lentTo === forHost) return;
    // Whoever asks for what is only reserved here knows that it is reserved no more.
    const free = row === undefined || row.state === 'resting' || row.state === 'reserved';
    if (claiming.has(key) || !free) {
      const who = row === undefined ? `it is being claimed by host ${mesh.hostName}` : this.#table.userOf(row);
      throw new WeftError('ALREADY_EXISTS', `address ${ip} is in use: ${who}`, { hint: 'choose another address' });
    }
    if (row?.claimed === true && own === undefined) {
      await journal.write([{ table: 'address', key, value: null }], { durable: true });
      return;
    }
    const network = this.#table.network(networkId);
    if (own === undefined || network === null || !isAssignable(reservedOf(network), parseIp(ip)))
      throw new WeftError('FAILED_PRECONDITION', `host ${mesh.hostName} does not hold address ${ip}`);
    this.#seen.delete(key);
    await journal.write([this.#table.lent(networkId, ip, forHost)], { durable: true });
  }

  /**
   * A coordinator asks for what is free of a block: the rest is no longer this host's when it resolves.
   * @param last nothing else is free anywhere: also what rests, and the spare one
   * @returns the parts that the host keeps
   */
  async giveBack(networkId: string, cidr: string, last: boolean): Promise<readonly string[]> {
    const asked = parseCidr(cidr);
    const known = this.#table.blocksOf(networkId).some(([, block]) => containsCidr(asked, parseCidr(block.cidr)));
    if (!known && this.#table.blockMayCome(networkId)) return [cidr];
    if (this.#table.claimed(networkId).some((ip) => containsIp(asked, ip))) return [cidr];
    const busy = this.#table.busy(networkId, !last);
    const spare = last ? null : this.#spare(networkId, cidr, busy);
    if (spare !== null) busy.add(spare);
    const writes: JournalWrite[] = [];
    const keep: string[] = [];
    for (const [key, block] of this.#table.blocksOf(networkId)) {
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
      // Of what goes, no history stays.
      const kept = (ip: bigint): boolean => parts.some((part) => containsIp(parseCidr(part), ip));
      for (const [rowKey, row] of this.#table.journal.addresses) {
        const ip = parseIp(row.ip);
        if (row.networkId !== networkId || row.claimed || busy.has(ip) || !containsIp(held, ip)) continue;
        if (row.state !== 'reserved' || !kept(ip)) writes.push({ table: 'address', key: rowKey, value: null });
      }
    }
    if (writes.length > 0) await this.#table.journal.write(writes, { durable: true });
    return keep;
  }

  /** A host at work keeps one address for the next container that it starts while no coordinator is there. */
  #spare(networkId: string, cidr: string, busy: ReadonlySet<bigint>): bigint | null {
    const network = this.#table.network(networkId);
    if (network === null || !this.#table.hasEndpoints(networkId)) return null;
    const asked = parseCidr(cidr);
    const family = familyOf(asked.base);
    const free = this.#table.freeOf(network, family);
    if (free.some((ip) => !containsIp(asked, ip))) return null;
    return nearestFree(
      free,
      [...busy].filter((ip) => familyOf(ip) === family),
    );
  }

  /** A lent address that the mesh no longer shows as somebody's is this host's again, and rests. */
  async takeBack(): Promise<void> {
    const { journal, mesh, clock } = this.#table;
    if (!mesh.complete) return;
    const view = mesh.view();
    const back: JournalWrite[] = [];
    for (const [key, row] of journal.addresses) {
      if (row.state !== 'lent') continue;
      const interest = view.interests.get(row.networkId);
      if (interest === undefined) continue;
      const isClaimed = interest.addresses.values().some((a) => a.address === row.ip && a.state !== 'refused');
      if (isClaimed || this.#table.spokenFor(row.networkId).has(parseIp(row.ip))) {
        this.#seen.add(key);
        continue;
      }
      // The view may be older than the grant.
      const lentAt = this.#table.momentOf(key);
      const young = lentAt !== undefined && clock.monotonic() - lentAt < LENT_UNSEEN_MS;
      if (young && !this.#seen.has(key)) continue;
      this.#seen.delete(key);
      back.push(this.#table.row(row.networkId, row.ip, 'resting', false));
    }
    if (back.length === 0) return;
    this.#log.debug({ addresses: back.map((write) => write.key) }, 'lent addresses are back');
    await journal.write(back);
  }
}
