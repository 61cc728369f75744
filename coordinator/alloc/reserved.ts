/** Whose an address or MAC of a network is by reservation, or as the virtual address of a service. Pure. */
import { WeftError } from '../../lib/errors.ts';
import type { Network, Reservation, Service } from '../../lib/model.ts';
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

/** The service that has the address, which no endpoint ever may. */
export function serviceAt(source: Pick<State, 'services'>, networkId: string, address: string): Service | undefined {
  return source.services
    .get(networkId)
    ?.values()
    .find((service) => service.ips.includes(address));
}

/** Why nobody else may have an address. */
export const addressOfService = (network: Network, address: string, service: Service): WeftError =>
  new WeftError(
    'ALREADY_EXISTS',
    `Address ${address} of network ${network.name} is the address of service ${service.name}.`,
    { hint: 'choose another address; weft service ls shows them' },
  );

/** Addresses of a network that no new block may have: of a reservation, whoever gets them gets each by itself; of a service, nobody. */
export function reservedAddresses(source: Pick<State, 'reservations' | 'services'>, networkId: string): string[] {
  const reserved = source.reservations.get(networkId)?.values() ?? [];
  const services = source.services.get(networkId)?.values() ?? [];
  return [...reserved, ...services].flatMap((one) => one.ips);
}
