/**
 * Reservations, as far as hosts have to do with them: who must agree is asked (agreement.ts); and whoever uses the address gets it by
 * itself, of nobody's block, so that the block's host need not be there for that.
 */
import { codeOf } from '../lib/errors.ts';
import type { Address, Network, Reservation } from '../lib/model.ts';
import { AGREED_MS, type AgreementDeps, ASK_MS, askHost, flushed, TRIES, usersOf, whoMustAgree } from './agreement.ts';
import { reservationClash } from './alloc/reservations.ts';
import { reservationAt } from './alloc/reserved.ts';
import type { NewReservation } from './contract.ts';
import type { Slot } from './sessions.ts';

export class Reservations {
  readonly #deps: AgreementDeps;

  constructor(deps: AgreementDeps) {
    this.#deps = deps;
  }

  /**
   * @param wanted as checkReservation made it
   * @throws ALREADY_EXISTS name, address or MAC is another's; FAILED_PRECONDITION who must agree is not connected
   */
  async create(network: Network, wanted: NewReservation, signal: AbortSignal): Promise<Reservation> {
    const { state, store } = this.#deps;
    if (reservationClash(state, network, wanted) !== null) await flushed(this.#deps, network.id, wanted.ips, signal);
    for (let attempt = 1; ; attempt++) {
      const clash = reservationClash(state, network, wanted);
      if (clash !== null) throw clash;
      const began = performance.now();
      const agreed = new Map<string, string>();
      for (const ip of wanted.ips) {
        const host = whoMustAgree(this.#deps, network.id, ip);
        if (host === null) continue;
        await askHost(this.#deps, network, ip, { name: wanted.name, host, forHostId: '' }, signal);
        agreed.set(ip, host);
      }
      if (agreed.size > 0) await store.caughtUp();
      if (performance.now() - began < AGREED_MS || attempt >= TRIES)
        try {
          return await store.createReservation(wanted, agreed);
        } catch (error) {
          if (codeOf(error) !== 'ABORTED' || attempt >= TRIES) throw error;
        }
    }
  }

  /**
   * A reserved address for the host: whoever had it last lets go of it.
   * @returns null when it is not reserved (any more)
   * @throws ALREADY_EXISTS a container has it; FAILED_PRECONDITION the host that holds it is not connected
   */
  async claim(slot: Slot, networkId: string, address: string): Promise<Address | null> {
    const { state, store } = this.#deps;
    const network = state.networks.get(networkId);
    const reservation = reservationAt(state, networkId, address);
    if (network === undefined || reservation === undefined) return null;
    const present = state.addresses.get(networkId)?.get(address);
    if (present?.state === 'held' && present.hostId !== slot.hostId) {
      const what = { name: reservation.name, host: present.hostId, forHostId: slot.hostId };
      await askHost(this.#deps, network, address, what, AbortSignal.timeout(ASK_MS));
      await store.caughtUp();
    }
    if (usersOf(this.#deps, networkId, [address]).some((hostId) => hostId !== slot.hostId))
      await flushed(this.#deps, networkId, [address], AbortSignal.timeout(ASK_MS));
    return slot.holdings.during(async () => {
      try {
        const held = await store.holdReserved(networkId, address, slot.hostId);
        slot.holdings.set('address', held);
        return held;
      } catch (error) {
        if (codeOf(error) === 'ABORTED' && reservationAt(state, networkId, address) === undefined) return null;
        throw error;
      }
    });
  }

  /** An address of an own block that is about to be reserved for the very container that has it. */
  async own(slot: Slot, networkId: string, address: string): Promise<Address> {
    return slot.holdings.during(async () => {
      const held = await this.#deps.store.holdOwn(networkId, address, slot.hostId);
      slot.holdings.set('address', held);
      return held;
    });
  }
}
