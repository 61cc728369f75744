/** Address blocks for hosts: out of what is free, else out of what other hosts give back. */
import { ReplicaService } from '../gen/weft/v1/replica.ts';
import { containsCidr, containsIp, familyOfText, parseCidr, parseIp, sizeOf } from '../lib/addr.ts';
import { WeftError } from '../lib/errors.ts';
import type { Log } from '../lib/log.ts';
import type { Block } from '../lib/model.ts';
import type { State, Store, WantedBlock } from './contract.ts';
import type { Fanout } from './fanout.ts';
import type { Sessions, Slot } from './sessions.ts';
import { Turns } from './turns.ts';

const ASK_MS = 2000;
/** Hosts that are asked at once. */
const AT_ONCE = 3;
/** Each round of asking must have freed something. */
const MAX_ROUNDS = 16;

export interface BlockDeps {
  readonly state: State;
  readonly store: Store;
  readonly sessions: Sessions;
  readonly fanout: Fanout;
  readonly log: Log;
}

export class Blocks {
  readonly #deps: BlockDeps;
  /**
   * Per network: hosts are asked for one caller at a time. Per host and network: a host never gets as its own what it has just
   * given back, and what it keeps is known before it gives that back too.
   */
  readonly #turns = new Map<string, Turns>();

  constructor(deps: BlockDeps) {
    this.#deps = deps;
  }

  /**
   * A block of the network for the host.
   * @throws RESOURCE_EXHAUSTED when nothing is free and nobody can give anything back
   */
  async request(slot: Slot, networkId: string, wanted: WantedBlock): Promise<Block> {
    const free = await this.#allocate(slot, networkId, wanted);
    if (free !== null) return free;
    return await this.#inTurn(networkId, () => this.#reclaimFor(slot, networkId, wanted));
  }

  async #inTurn<T>(key: string, call: () => Promise<T>): Promise<T> {
    const turns = this.#turns.get(key) ?? new Turns();
    this.#turns.set(key, turns);
    try {
      return await turns.run(call);
    } finally {
      if (!turns.busy) this.#turns.delete(key);
    }
  }

  #allocate(slot: Slot, networkId: string, wanted: WantedBlock): Promise<Block | null> {
    const allocate = () =>
      slot.holdings.during(async () => {
        const block = await this.#deps.store.allocateBlock(networkId, slot.hostId, wanted);
        if (block !== null) slot.holdings.set('block', block);
        return block;
      });
    // With an address it may be a block that the host has already.
    return 'family' in wanted ? allocate() : this.#inTurn(`${slot.hostId} ${networkId}`, allocate);
  }

  async #reclaimFor(slot: Slot, networkId: string, wanted: WantedBlock): Promise<Block> {
    const silent = new Map<string, string>();
    // First what hosts can spare; when that is nothing, all that nobody uses.
    let last = false;
    for (let round = 0; round < MAX_ROUNDS; round++) {
      // Those before us in the turn may have freed enough.
      const free = await this.#allocate(slot, networkId, wanted);
      if (free !== null) return free;
      let freed = false;
      const holders = this.#holders(networkId, slot.hostId, wanted);
      for (let i = 0; i < holders.length && !freed; i += AT_ONCE) {
        const asked = holders
          .slice(i, i + AT_ONCE)
          .map(async ([hostId, blocks]) => this.#reclaimOf(hostId, blocks, last, silent));
        freed = (await Promise.all(asked)).includes(true);
      }
      if (!freed && last) break;
      last ||= !freed;
    }
    throw this.#exhausted(networkId, wanted, silent);
  }

  /** Other hosts with blocks of the network, biggest holders first; of the wanted family, or only the block that has the address. */
  #holders(networkId: string, except: string, wanted: WantedBlock): [string, Block[]][] {
    const fits = (cidr: string): boolean =>
      'family' in wanted
        ? familyOfText(cidr) === wanted.family
        : containsIp(parseCidr(cidr), parseIp(wanted.containing));
    const held = new Map<string, Block[]>();
    for (const block of this.#deps.state.blocks.get(networkId)?.values() ?? []) {
      if (block.hostId === except || !fits(block.cidr)) continue;
      held.set(block.hostId, [...(held.get(block.hostId) ?? []), block]);
    }
    const size = (block: Block): number => Number(sizeOf(parseCidr(block.cidr).prefix));
    const total = (blocks: readonly Block[]): number => blocks.reduce((sum, block) => sum + size(block), 0);
    for (const blocks of held.values()) blocks.sort((a, b) => size(b) - size(a));
    return [...held].sort(([, a], [, b]) => total(b) - total(a));
  }

  async #reclaimOf(
    hostId: string,
    blocks: readonly Block[],
    last: boolean,
    silent: Map<string, string>,
  ): Promise<boolean> {
    const { state, fanout, log } = this.#deps;
    const name = state.hosts.get(hostId)?.name ?? hostId;
    for (const { networkId, cidr } of blocks) {
      try {
        const at = fanout.locate(hostId);
        const freed =
          at === null
            ? await this.reclaim(hostId, networkId, cidr, last)
            : (
                await fanout.call(
                  at,
                  ReplicaService.reclaimBlock,
                  { hostId, networkId, cidr, last },
                  { timeoutMs: 2 * ASK_MS },
                )
              ).freed;
        if (freed) return true;
      } catch (error) {
        const weft = WeftError.from(error);
        silent.set(name, state.presences.has(hostId) ? weft.message : 'down');
        log.info({ host: name, network: networkId, cidr, reason: weft.message }, 'block not given back');
        if (weft.retryable || weft.code === 'FAILED_PRECONDITION') return false;
      }
    }
    return false;
  }

  /** Has a host whose session is here give back what is free of its block. @returns true when something has become free */
  async reclaim(hostId: string, networkId: string, cidr: string, last: boolean): Promise<boolean> {
    const { sessions, state, store } = this.#deps;
    const slot = sessions.slot(hostId);
    const session = sessions.live(hostId);
    if (slot === undefined || session === undefined)
      throw new WeftError('UNAVAILABLE', `The session of host ${hostId} has ended.`);
    const reclaim = async (): Promise<boolean> => {
      // Those before in the turn have taken something of it.
      if (state.blocks.get(networkId)?.get(cidr)?.hostId !== hostId) return true;
      const answer = await session.ask({ $case: 'giveBack', value: { networkId, cidr, last } }, ASK_MS);
      const keep = answer.body?.$case === 'giveBack' ? answer.body.value.keep : [cidr];
      if (keep.includes(cidr)) return false;
      const whole = parseCidr(cidr);
      if (!keep.every((part) => containsCidr(whole, parseCidr(part))))
        throw new WeftError('INTERNAL', `Host ${session.host.name} wants to keep ${keep.join(', ')} of ${cidr}.`);
      try {
        await store.shrinkBlock(networkId, cidr, hostId, keep);
      } catch (error) {
        // The host has let go of it already: its next Hello says what it still has.
        slot.end(new WeftError('ABORTED', `Block ${cidr} could not be taken back: ${WeftError.from(error).message}`));
        throw error;
      }
      slot.holdings.delete('block', networkId, cidr);
      for (const part of keep) slot.holdings.set('block', { networkId, cidr: part, hostId, revision: 0n });
      return true;
    };
    return await this.#inTurn(`${hostId} ${networkId}`, () => slot.holdings.during(reclaim));
  }

  /** The host gives blocks back by itself. */
  async release(slot: Slot, networkId: string, cidrs: readonly string[]): Promise<void> {
    const release = async (): Promise<void> => {
      for (const cidr of cidrs) {
        if (this.#deps.state.blocks.get(networkId)?.get(cidr)?.hostId === slot.hostId)
          await this.#deps.store.shrinkBlock(networkId, cidr, slot.hostId, []);
        slot.holdings.delete('block', networkId, cidr);
      }
    };
    await this.#inTurn(`${slot.hostId} ${networkId}`, () => slot.holdings.during(release));
  }

  #exhausted(networkId: string, wanted: WantedBlock, silent: ReadonlyMap<string, string>): WeftError {
    const { state } = this.#deps;
    const network = state.networks.get(networkId);
    const what = network === undefined ? networkId : `${network.name || networkId} (${network.subnets.join(', ')})`;
    const rest = [...silent].map(([name, reason]) => `${name} (${reason})`);
    const counts = [
      [state.reservations.get(networkId)?.size ?? 0, 'reservations'],
      [state.services.get(networkId)?.size ?? 0, 'services'],
    ].flatMap(([count, what]) => (count === 0 ? [] : [`${count} by ${what}`]));
    const kept = counts.length === 0 ? '' : ` (${counts.join(', ')})`;
    const unasked = rest.length === 0 ? '' : `; the blocks of ${rest.join(', ')} could not be asked`;
    const head =
      'family' in wanted
        ? `Every usable ${wanted.family === 6 ? 'IPv6 ' : ''}address of network ${what} is taken${kept}`
        : `The block of network ${what} with the address ${wanted.containing} is not free`;
    return new WeftError('RESOURCE_EXHAUSTED', `${head}${unasked}.`, {
      hint:
        rest.length > 0
          ? 'start these hosts, or remove them with "weft host rm"'
          : 'remove containers, or make a network with a larger subnet',
    });
  }
}
