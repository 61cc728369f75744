/** Whose an address or MAC of a network is by reservation. Pure. */
import type { Reservation } from '../../lib/model.ts';
import type { State } from '../contract.ts';

type Source = Pick<State, 'reservations'>;

export function reservationAt(source: Source, networkId: string, address: string): Reservation | undefined {
  return source.reservations
    .get(networkId)
    ?.values()
    .find((reservation) => reservation.ips.includes(address));
}

/** @param mac lower-case */
export function reservationOfMac(source: Source, networkId: string, mac: string): Reservation | undefined {
  return source.reservations
    .get(networkId)
    ?.values()
    .find((reservation) => reservation.mac === mac);
}

/** Addresses of a network that no new block may have: whoever gets them gets each by itself. */
export function reservedAddresses(source: Source, networkId: string): string[] {
  return [...(source.reservations.get(networkId)?.values() ?? [])].flatMap((reservation) => reservation.ips);
}
