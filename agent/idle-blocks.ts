/**
 * Blocks of networks that are not used here go back to the mesh by themselves: with no endpoint and no address used, lent or
 * resting for ten minutes. The host lets go on disk first, then tells the mesh; until the mesh has taken it, nothing else of that
 * network is asked for, or a release that comes late could undo what was just given.
 */
import { WeftError } from '../lib/errors.ts';
import type { Log } from '../lib/log.ts';
import type { AddressTable } from './address-table.ts';

const IDLE_MS = 600_000;
/** Less than freed addresses rest, so that no use goes unseen. */
const LOOK_MS = 20_000;

export class IdleBlocks {
  readonly #table: AddressTable;
  readonly #log: Log;
  /** Networks with blocks, and since when they are seen unused (monotonic ms). */
  readonly #idleSince = new Map<string, number>();
  /** Blocks that are no longer the host's, and may still be in the mesh: CIDRs by network. */
  readonly #letGo = new Map<string, readonly string[]>();
  /** By network. */
  readonly #releasing = new Map<string, Promise<void>>();
  #timer: NodeJS.Timeout | null = null;

  constructor(options: { table: AddressTable; log: Log }) {
    this.#table = options.table;
    this.#log = options.log;
  }

  start(): void {
    this.#timer = setInterval(() => {
      this.look().catch((error: unknown) => this.#log.info({ err: error }, 'unused blocks not given back yet'));
    }, LOOK_MS);
  }

  close(): void {
    if (this.#timer !== null) clearInterval(this.#timer);
  }

  /** Gives back what has been unused for long, and what could not be given back before. @throws the first failure */
  async look(): Promise<void> {
    const { journal, mesh, clock } = this.#table;
    const now = clock.monotonic();
    const held = new Set(journal.blocks.values().map((block) => block.networkId));
    for (const id of this.#idleSince.keys()) if (!held.has(id)) this.#idleSince.delete(id);
    for (const id of held)
      if (this.#table.inUse(id)) this.#idleSince.delete(id);
      else if (!this.#idleSince.has(id)) this.#idleSince.set(id, now);
    if (!mesh.inSync) return;
    const due = this.#idleSince.entries().filter(([, since]) => now - since >= IDLE_MS);
    const networks = new Set([...due.map(([id]) => id), ...this.#letGo.keys()]);
    await Promise.all([...networks].map((id) => this.#release(id)));
  }

  /**
   * To be awaited before the mesh is asked for anything of the network.
   * @throws when the mesh has not taken back what was let go
   */
  async settled(networkId: string): Promise<void> {
    if (this.#releasing.has(networkId) || this.#letGo.has(networkId)) await this.#release(networkId);
  }

  #release(networkId: string): Promise<void> {
    let release = this.#releasing.get(networkId);
    if (release === undefined) {
      release = this.#releaseNow(networkId).finally(() => this.#releasing.delete(networkId));
      this.#releasing.set(networkId, release);
    }
    return release;
  }

  async #releaseNow(networkId: string): Promise<void> {
    const { journal, mesh } = this.#table;
    if (!this.#letGo.has(networkId)) {
      const blocks = [...this.#table.blocksOf(networkId)].map(([, block]) => block.cidr);
      this.#idleSince.delete(networkId);
      await journal.write(this.#table.without(networkId, blocks), { durable: true });
      this.#letGo.set(networkId, blocks);
      const network = this.#table.network(networkId)?.name ?? networkId;
      this.#log.info({ network, blocks }, 'network not used here: its blocks go back');
    }
    try {
      await mesh.releaseBlocks(networkId, this.#letGo.get(networkId) ?? []);
    } catch (error) {
      // Otherwise they are somebody else's by now, or gone with their network.
      const { code } = WeftError.from(error);
      if (code !== 'NOT_FOUND' && code !== 'FAILED_PRECONDITION') throw error;
    }
    this.#letGo.delete(networkId);
  }
}
