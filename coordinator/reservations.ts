/**
 * Reservations, as far as hosts have to do with them: whoever has the address's block, or holds it, must agree before it becomes
 * reserved (its journal is what it picks from, with the control plane gone too); and whoever uses it gets it by itself, of nobody's
 * block, so that the block's host need not be there for that.
 */
import { containsIp, parseCidr, parseIp } from '../lib/addr.ts';
import { codeOf, WeftError } from '../lib/errors.ts';
import type { Log } from '../lib/log.ts';
import type { Address, Network, Reservation } from '../lib/model.ts';
import { mustAgree, reservationClash } from './alloc/reservations.ts';
import { reservationAt } from './alloc/reserved.ts';
import type { NewReservation, State, Store } from './contract.ts';
import type { Fanout } from './fanout.ts';
import type { Slot } from './sessions.ts';

const ASK_MS = 3000;
/** Blocks may go from host to host while they are asked. */
const TRIES = 5;
/** A host takes an address back that it has agreed to and that did not become reserved, after 60 s: long before, it is asked again. */
const AGREED_MS = 15_000;

export interface ReservationDeps {
  readonly state: State;
  readonly store: Store;
  readonly fanout: Fanout;
  readonly log: Log;
}

export class Reservations {
  readonly #deps: ReservationDeps;

  constructor(deps: ReservationDeps) {
    this.#deps = deps;
  }

  /**
   * @param wanted as checkReservation made it
   * @throws ALREADY_EXISTS name, address or MAC is another's; FAILED_PRECONDITION who must agree is not connected
   */
  async create(network: Network, wanted: NewReservation, signal: AbortSignal): Promise<Reservation> {
    const { state, store } = this.#deps;
    if (reservationClash(state, network, wanted) !== null) await this.#flushed(network.id, wanted.ips, signal);
    for (let attempt = 1; ; attempt++) {
      const clash = reservationClash(state, network, wanted);
      if (clash !== null) throw clash;
      const began = performance.now();
      const agreed = new Map<string, string>();
      for (const ip of wanted.ips) {
        const host = this.#whoMustAgree(network.id, ip);
        if (host === null) continue;
        await this.#ask(network, ip, { name: wanted.name, host, forHostId: '' }, signal);
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
      await this.#ask(network, address, what, AbortSignal.timeout(ASK_MS));
      await store.caughtUp();
    }
    if (this.#users(networkId, [address]).some((hostId) => hostId !== slot.hostId))
      await this.#flushed(networkId, [address], AbortSignal.timeout(ASK_MS));
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

  #whoMustAgree(networkId: string, address: string): string | null {
    const { state } = this.#deps;
    const ip = parseIp(address);
    const block = state.blocks
      .get(networkId)
      ?.values()
      .find(({ cidr }) => containsIp(parseCidr(cidr), ip));
    return mustAgree(state.addresses.get(networkId)?.get(address), block?.hostId);
  }

  async #ask(
    network: Network,
    address: string,
    what: { readonly name: string; readonly host: string; readonly forHostId: string },
    signal: AbortSignal,
  ): Promise<void> {
    const { state, fanout } = this.#deps;
    const hostName = state.hosts.get(what.host)?.name ?? what.host;
    const { name, forHostId } = what;
    try {
      const value = { networkId: network.id, address, name, forHostId };
      await fanout.ask(what.host, { $case: 'reserve', value }, ASK_MS, signal);
    } catch (error) {
      const weft = WeftError.from(error);
      if (weft.code !== 'FAILED_PRECONDITION' || fanout.connected(what.host)) throw weft;
      const held = state.addresses.get(network.id)?.get(address)?.state === 'held';
      throw new WeftError(
        'FAILED_PRECONDITION',
        `The address ${address} of network ${network.name} is ${held ? 'held by' : 'in a block of'} host ${hostName}, which is not connected.`,
        { hint: `start host ${hostName}, or remove it with "weft host rm ${hostName}"` },
      );
    }
  }

  /** Hosts with an endpoint that has one of the addresses. */
  #users(networkId: string, ips: readonly string[]): string[] {
    const endpoints = [...(this.#deps.state.endpoints.get(networkId)?.values() ?? [])];
    return [...new Set(endpoints.filter((e) => e.ips.some((ip) => ips.includes(ip))).map((e) => e.hostId))];
  }

  /** What has just left, on hosts that are connected, is known to have left. */
  async #flushed(networkId: string, ips: readonly string[], signal: AbortSignal): Promise<void> {
    const { fanout, store, log } = this.#deps;
    await Promise.all(
      this.#users(networkId, ips).map((host) =>
        fanout.ask(host, { $case: 'flush', value: {} }, ASK_MS, signal).catch((error: unknown) => {
          // Then its endpoints are as they are registered.
          log.debug({ err: error, host, network: networkId }, 'host does not say what has left');
        }),
      ),
    );
    await store.caughtUp();
  }
}
