/**
 * Given addresses outside a host's own blocks: a claim is a key, and only the host that holds the block grants it. The claimant's
 * coordinator writes the key and watches it; the coordinator that has the grantor's session asks and answers. They may be two.
 */
import { canonicalIp, containsIp, parseCidr, parseIp } from '../lib/addr.ts';
import { WeftError } from '../lib/errors.ts';
import type { Log } from '../lib/log.ts';
import type { Address, Block } from '../lib/model.ts';
import { notForEndpoints, spokenFor } from './alloc/externals.ts';
import { checkAssignable } from './alloc/families.ts';
import { addressOfService, reservationAt, serviceAt } from './alloc/reserved.ts';
import type { Blocks } from './blocks.ts';
import type { State, Store } from './contract.ts';
import type { Reservations } from './reservations.ts';
import type { Sessions, Slot } from './sessions.ts';

const CLAIM_MS = 3000;
const GRANT_MS = 2500;

export interface ClaimDeps {
  readonly state: State;
  readonly store: Store;
  readonly sessions: Sessions;
  readonly blocks: Blocks;
  readonly reservations: Reservations;
  readonly log: Log;
}

/** Only the host itself knows what it has given out meanwhile. */
export const grantorGone = (address: string, host: string): WeftError =>
  new WeftError('FAILED_PRECONDITION', `Address ${address} is in a block of host ${host}, which is not connected.`, {
    hint: `start host ${host}, or choose another address`,
  });

export class Claims {
  readonly #deps: ClaimDeps;
  /** Claims that a host here is being asked about. */
  readonly #asked = new Set<string>();

  constructor(deps: ClaimDeps) {
    this.#deps = deps;
    deps.sessions.onClaim((claim) => {
      this.#grant(claim).catch((error: unknown) =>
        deps.log.warn({ err: error, address: claim.address, network: claim.networkId }, 'claim not answered'),
      );
    });
  }

  /**
   * Gets the address for the host: by itself when it is reserved, with the block around it when that is free, else out of another
   * host's block.
   * @throws ALREADY_EXISTS taken; INVALID_ARGUMENT no address for endpoints; FAILED_PRECONDITION the grantor is not connected
   */
  async claim(slot: Slot, networkId: string, given: string): Promise<{ block?: Block; address?: Address }> {
    const address = canonicalIp(given);
    const { state } = this.#deps;
    const network = state.networks.get(networkId);
    if (network === undefined) throw new WeftError('NOT_FOUND', `There is no network ${networkId}.`);
    checkAssignable(network, address);
    if (spokenFor(state, networkId).has(address)) throw notForEndpoints(network, address);
    const own = state.addresses.get(networkId)?.get(address);
    if (own?.hostId === slot.hostId && own.state === 'held') return { address: own };
    // A host asks for what is in its own block when it takes it for reserved: another coordinator may have made it so just now.
    if (this.#around(networkId, address)?.hostId === slot.hostId) await this.#deps.store.caughtUp();
    const service = serviceAt(state, networkId, address);
    if (service !== undefined) throw addressOfService(network, address, service);
    try {
      const reserved = await this.#deps.reservations.claim(slot, networkId, address);
      return reserved === null ? await this.#unreserved(slot, networkId, address) : { address: reserved };
    } catch (error) {
      // Reserved while it was being claimed.
      const { code } = WeftError.from(error);
      const beaten = code === 'ABORTED' || code === 'RESOURCE_EXHAUSTED';
      if (!beaten || reservationAt(state, networkId, address) === undefined) throw error;
      const reserved = await this.#deps.reservations.claim(slot, networkId, address);
      if (reserved === null) throw error;
      return { address: reserved };
    }
  }

  #around(networkId: string, address: string): Block | undefined {
    const ip = parseIp(address);
    const blocks = this.#deps.state.blocks.get(networkId)?.values();
    return blocks?.find((block) => containsIp(parseCidr(block.cidr), ip));
  }

  async #unreserved(slot: Slot, networkId: string, address: string): Promise<{ block?: Block; address?: Address }> {
    const { state, blocks } = this.#deps;
    const own = state.addresses.get(networkId)?.get(address);
    const around = (): Block | undefined => this.#around(networkId, address);
    const mine = own?.hostId === slot.hostId;
    // In an own block there is nobody to ask.
    const holder = around()?.hostId === slot.hostId ? undefined : around()?.hostId;
    const grantor = own === undefined || own.state === 'refused' ? holder : mine ? own.grantorHostId : own.hostId;
    if (grantor === undefined) {
      try {
        return { block: await blocks.request(slot, networkId, { containing: address }) };
      } catch (error) {
        // Somebody was faster: then it is theirs to grant.
        const holder = around()?.hostId;
        if (WeftError.from(error).code !== 'RESOURCE_EXHAUSTED' || holder === undefined) throw error;
        return { address: await this.#claimFrom(slot, networkId, address, holder) };
      }
    }
    return { address: await this.#claimFrom(slot, networkId, address, grantor) };
  }

  async #claimFrom(slot: Slot, networkId: string, address: string, grantor: string): Promise<Address> {
    const { state, store } = this.#deps;
    const name = state.hosts.get(grantor)?.name ?? grantor;
    const gone = (): WeftError => grantorGone(address, name);
    if (grantor !== slot.hostId && !state.presences.has(grantor)) throw gone();
    return slot.holdings.during(async () => {
      const claim = await store.claimAddress({ networkId, address, hostId: slot.hostId, grantorHostId: grantor });
      const outcome = await this.#outcome(claim);
      if (outcome === 'held') {
        const held = state.addresses.get(networkId)?.get(address) ?? { ...claim, state: 'held' };
        slot.holdings.set('address', held);
        return held;
      }
      const reason = state.addresses.get(networkId)?.get(address)?.reason ?? '';
      await store.releaseAddresses(networkId, slot.hostId, [address]);
      if (outcome === 'refused')
        throw new WeftError(
          'ALREADY_EXISTS',
          `Address ${address} is taken on host ${name}: ${reason || 'it is in use'}`,
          {
            hint: 'choose another address',
          },
        );
      if (!state.presences.has(grantor)) throw gone();
      throw new WeftError('UNAVAILABLE', `Host ${name} did not answer for the address ${address} in its block.`, {
        hint: 'try again, or choose another address',
      });
    });
  }

  /** What becomes of a claim: decided by its key, or by the grantor's going. */
  #outcome(claim: Address): Promise<'held' | 'refused' | 'unanswered'> {
    const { state } = this.#deps;
    const look = (): 'held' | 'refused' | 'unanswered' | null => {
      const now = state.addresses.get(claim.networkId)?.get(claim.address);
      if (now === undefined || now.hostId !== claim.hostId) return 'unanswered';
      if (now.state === 'held' || now.state === 'refused') return now.state;
      return state.presences.has(claim.grantorHostId) ? null : 'unanswered';
    };
    return new Promise((resolve) => {
      const finish = (outcome: 'held' | 'refused' | 'unanswered'): void => {
        clearTimeout(timer);
        stop();
        resolve(outcome);
      };
      const stop = state.subscribe(() => {
        const outcome = look();
        if (outcome !== null) finish(outcome);
      });
      const timer = setTimeout(() => finish('unanswered'), CLAIM_MS);
      const already = look();
      if (already !== null) finish(already);
    });
  }

  /** The other side: a claim on what a host of this coordinator holds. */
  async #grant(claim: Address): Promise<void> {
    const { sessions, store, state } = this.#deps;
    const session = sessions.live(claim.grantorHostId);
    const key = `${claim.networkId} ${claim.address} ${claim.hostId} ${claim.revision}`;
    if (session === undefined || this.#asked.has(key)) return;
    this.#asked.add(key);
    try {
      const { networkId, address, hostId: forHostId } = claim;
      let refusal: string | null = null;
      try {
        await session.ask({ $case: 'grant', value: { networkId, address, forHostId } }, GRANT_MS);
      } catch (error) {
        const weft = WeftError.from(error);
        // No answer is no refusal: the claimant gives up by itself.
        if (session.ended || weft.code === 'DEADLINE_EXCEEDED' || weft.code === 'UNAVAILABLE') throw error;
        refusal = weft.message;
      }
      if (state.addresses.get(networkId)?.get(address)?.state !== 'claimed') return;
      await store.answerClaim(claim, refusal === null, refusal ?? '');
    } finally {
      this.#asked.delete(key);
    }
  }

  /** Gives claimed addresses back. */
  async release(slot: Slot, networkId: string, addresses: readonly string[]): Promise<void> {
    await slot.holdings.during(async () => {
      await this.#deps.store.releaseAddresses(networkId, slot.hostId, addresses);
      for (const address of addresses) slot.holdings.delete('address', networkId, address);
    });
  }
}
