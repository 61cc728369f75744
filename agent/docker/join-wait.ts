/**
 * What Join waits for, bounded: that this host has the network's peers and blocks, and that the other hosts have what they need to
 * reach this very endpoint. Usually nothing: the endpoint's block is known everywhere, and its MAC follows from its address.
 */

import { parseIp } from '../../lib/addr.ts';
import { WeftError } from '../../lib/errors.ts';
import type { Log } from '../../lib/log.ts';
import { isNear } from '../../lib/mac.ts';
import type { Revision } from '../../lib/model.ts';
import { type AddressBook, blockKey } from '../addresses.ts';
import type { Clock } from '../clock.ts';
import { ipsOf, type Journal, type LocalBlock, type LocalEndpoint, type Mesh } from '../contract.ts';

/** For all networks of a container together, ms. */
const JOIN_BUDGET_MS = 2_000;
/** A container's Joins come right after one another; a later one (docker network connect) has its own budget. */
const SAME_START_MS = 10_000;

const REFUSALS: ReadonlySet<string> = new Set(['ALREADY_EXISTS', 'PERMISSION_DENIED']);

interface Interest {
  applied: boolean;
  readonly done: Promise<void>;
}

export class JoinWaiter {
  readonly #journal: Journal;
  readonly #mesh: Mesh;
  readonly #addresses: AddressBook;
  readonly #clock: Clock;
  readonly #log: Log;
  /** Networks whose first use has been told to the mesh in this process's life. */
  readonly #interests = new Map<string, Interest>();
  /** Sandbox to the monotonic moment its budget began. */
  readonly #budgets = new Map<string, { began: number; spent: number }>();

  constructor(options: { journal: Journal; mesh: Mesh; addresses: AddressBook; clock: Clock; log: Log }) {
    this.#journal = options.journal;
    this.#mesh = options.mesh;
    this.#addresses = options.addresses;
    this.#clock = options.clock;
    this.#log = options.log;
  }

  /** Says that the host is going to use a network. Does not wait. */
  begin(networkId: string): void {
    const known = this.#interests.get(networkId);
    // A host that gave up all it had of a network is told nothing more of it.
    if (known !== undefined && (!known.applied || this.#mesh.view().interests.has(networkId))) return;
    const interest: Interest = {
      applied: false,
      done: this.#mesh.interested(networkId, AbortSignal.timeout(60_000)).then(
        () => {
          interest.applied = true;
        },
        (error: unknown) => {
          this.#interests.delete(networkId); // said again with the next endpoint; the session says it by itself too
          this.#log.debug({ network: networkId, err: error }, 'interest not applied');
        },
      ),
    };
    this.#interests.set(networkId, interest);
  }

  /** Who is late is logged. @throws when the mesh refuses the endpoint: its MAC or address is another's. */
  async wait(endpoint: LocalEndpoint): Promise<void> {
    this.begin(endpoint.networkId);
    const interest = this.#interests.get(endpoint.networkId);
    const blocks = this.#blocks(endpoint);
    const needed = blocks === null || blocks.some((block) => !block.converged);
    if (interest?.applied === true && !needed) return;
    const began = this.#clock.monotonic();
    const left = this.#budget(endpoint.sandbox ?? endpoint.id, began);
    if (left <= 0) return;
    const peers = needed ? this.#peers(endpoint, blocks, left) : Promise.resolve();
    await within(left, Promise.all([interest?.done, peers]));
    this.#spend(endpoint.sandbox ?? endpoint.id, this.#clock.monotonic() - began);
  }

  /** The own blocks that tell others all of the endpoint; null when they need an entry for it. */
  #blocks(endpoint: LocalEndpoint): LocalBlock[] | null {
    const { networkId, ip6, prefix6 } = endpoint;
    if (endpoint.givenMac || (ip6 !== '' && !isNear(parseIp(ip6), prefix6))) return null;
    const blocks = ipsOf(endpoint).map((ip) => this.#addresses.coveredBy(networkId, ip));
    return blocks.some((block) => block === undefined) ? null : blocks.filter((block) => block !== undefined);
  }

  async #peers(endpoint: LocalEndpoint, blocks: readonly LocalBlock[] | null, timeoutMs: number): Promise<void> {
    const { networkId } = endpoint;
    try {
      const revision = blocks === null ? await this.#mesh.registered(endpoint.id) : newestOf(blocks);
      const laggards = await this.#mesh.waitPeers(networkId, revision, timeoutMs);
      if (laggards.length > 0)
        this.#log.warn({ network: networkId, endpoint: endpoint.id, laggards }, 'hosts late for a new endpoint');
      else for (const block of blocks ?? []) await this.#converged(networkId, block);
    } catch (error) {
      const e = WeftError.from(error);
      if (REFUSALS.has(e.code)) throw e;
      this.#log.info(
        { network: networkId, endpoint: endpoint.id, code: e.code, reason: e.message },
        'peers not waited for',
      );
    }
  }

  async #converged(networkId: string, block: LocalBlock): Promise<void> {
    const key = blockKey(networkId, block.cidr);
    const now = this.#journal.blocks.get(key);
    if (now !== undefined && !now.converged)
      await this.#journal.write([{ table: 'block', key, value: { ...now, converged: true } }]);
  }

  #budget(sandbox: string, now: number): number {
    for (const [key, budget] of this.#budgets) if (now - budget.began > SAME_START_MS) this.#budgets.delete(key);
    const budget = this.#budgets.get(sandbox);
    if (budget === undefined) this.#budgets.set(sandbox, { began: now, spent: 0 });
    return JOIN_BUDGET_MS - (budget?.spent ?? 0);
  }

  #spend(sandbox: string, ms: number): void {
    const budget = this.#budgets.get(sandbox);
    if (budget !== undefined) budget.spent += ms;
  }
}

function newestOf(blocks: readonly LocalBlock[]): Revision {
  const revisions = blocks.map(({ revision }) => ({ epoch: BigInt(revision.epoch), number: BigInt(revision.number) }));
  return revisions.reduce((a, b) => (b.epoch > a.epoch || (b.epoch === a.epoch && b.number > a.number) ? b : a));
}

/** Resolves with the promise, or after `ms`. */
async function within(ms: number, promise: Promise<unknown>): Promise<void> {
  let timer: NodeJS.Timeout | undefined;
  const timeout = new Promise<void>((resolve) => {
    timer = setTimeout(resolve, ms);
  });
  try {
    await Promise.race([promise, timeout]);
  } finally {
    clearTimeout(timer);
  }
}
