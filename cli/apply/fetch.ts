/** Reads what the mesh has. */
import type { Mesh } from '../client.ts';
import { routersOf } from '../routers.ts';
import type { Actual } from './model.ts';

const ALL = { project: '', network: '' };

export async function readActual(mesh: Pick<Mesh, 'call'>): Promise<Actual> {
  const [networks, reservations, routers, services, policies, endpoints, peers] = await Promise.all([
    mesh.call('listNetworks', { project: '' }),
    mesh.call('listReservations', ALL),
    routersOf(mesh),
    mesh.call('listServices', ALL),
    mesh.call('listPolicies', ALL),
    mesh.call('listEndpoints', { ...ALL, host: '' }),
    mesh.call('listPeers', ALL),
  ]);
  const present = <T>(one: T | undefined): T[] => (one === undefined ? [] : [one]);
  return {
    networks: networks.networks.filter(({ state }) => state !== 'reserved'),
    reservations: reservations.reservations.flatMap(({ reservation }) => present(reservation)),
    routers,
    services: services.services.flatMap(({ service }) => present(service)),
    policies: policies.policies,
    endpoints: endpoints.endpoints,
    settings: endpoints.settings,
    hostNames: endpoints.hostNames,
    peers: peers.peers,
  };
}
