/** Control: reservations. */
import type { ControlServer, ReservationStatus } from '../../gen/weft/v1/control.ts';
import { Reservation as ReservationMessage } from '../../gen/weft/v1/types.ts';
import { middleCut, WeftError } from '../../lib/errors.ts';
import type { Network, Reservation } from '../../lib/model.ts';
import { checkReservation, holderOf } from '../alloc/reservations.ts';
import type { State } from '../contract.ts';
import type { Parts } from '../parts.ts';
import type { Method } from './method.ts';
import { networkOf, projectOf, revisionOf } from './resolve.ts';

type Methods = Pick<ControlServer, 'createReservation' | 'listReservations' | 'removeReservation'>;

export function reservationMethods({ state, store, reservations, log }: Parts, method: Method): Methods {
  const statusOf = (reservation: Reservation): ReservationStatus => ({
    reservation,
    holder: holderOf(state, reservation),
  });
  return {
    createReservation: method(async ({ request, signal }) => {
      const network = networkOf(state, request.project, request.network);
      const asked = request.reservation ?? ReservationMessage.fromPartial({});
      const made = await reservations.create(network, checkReservation(network, asked), signal);
      log.info({ reservation: made.name, network: network.name, ips: made.ips, mac: made.mac }, 'reservation made');
      return { status: statusOf(made), revision: revisionOf(state, made.revision) };
    }),

    listReservations: method(async ({ request }) => {
      const project = projectOf(request.project);
      const only = request.network === '' ? null : networkOf(state, project, request.network).id;
      const found: ReservationStatus[] = [];
      const networkNames: Record<string, string> = {};
      const hostNames: Record<string, string> = {};
      for (const [id, byName] of state.reservations) {
        if (only !== null && id !== only) continue;
        networkNames[id] = state.networks.get(id)?.name ?? id;
        for (const reservation of byName.values()) {
          const status = statusOf(reservation);
          found.push(status);
          const hostId = status.holder?.hostId;
          if (hostId !== undefined) hostNames[hostId] = state.hosts.get(hostId)?.name ?? hostId;
        }
      }
      return { reservations: found, networkNames, hostNames, revision: revisionOf(state) };
    }),

    removeReservation: method(async ({ request }) => {
      const network = networkOf(state, request.project, request.network);
      const { name } = find(state, network, request.name);
      const revision = await store.removeReservation(network.id, name);
      log.info({ reservation: name, network: network.name }, 'reservation removed');
      return { revision };
    }),
  };
}

/** @throws NOT_FOUND */
function find(state: State, network: Network, name: string): Reservation {
  const found = state.reservations.get(network.id)?.get(name);
  if (found !== undefined) return found;
  throw new WeftError('NOT_FOUND', `Network ${network.name} has no reservation ${middleCut(name)}.`, {
    hint: 'list them with "weft reservation ls"',
  });
}
