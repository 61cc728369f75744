/** Control: endpoints. */
import type { ControlServer } from '../../gen/weft/v1/control.ts';
import { WeftError } from '../../lib/errors.ts';
import type { Endpoint } from '../../lib/model.ts';
import type { Parts } from '../parts.ts';
import type { Method } from './method.ts';
import { hostOf, networkOf, projectOf, revisionOf } from './resolve.ts';

export function endpointMethods(
  { state }: Parts,
  method: Method,
): Pick<ControlServer, 'listEndpoints' | 'updateEndpoint'> {
  return {
    updateEndpoint: method(async () => {
      throw new WeftError('UNIMPLEMENTED', 'Endpoints cannot be changed yet.');
    }),

    listEndpoints: method(async ({ request }) => {
      const project = projectOf(request.project);
      const only = request.network === '' ? null : networkOf(state, project, request.network).id;
      const host = request.host === '' ? null : hostOf(state, request.host).id;
      const endpoints: Endpoint[] = [];
      for (const [networkId, byId] of state.endpoints) {
        if (only !== null && networkId !== only) continue;
        for (const endpoint of byId.values()) if (host === null || endpoint.hostId === host) endpoints.push(endpoint);
      }
      const networkNames: Record<string, string> = {};
      const hostNames: Record<string, string> = {};
      for (const { networkId, hostId } of endpoints) {
        networkNames[networkId] = state.networks.get(networkId)?.name ?? networkId;
        hostNames[hostId] = state.hosts.get(hostId)?.name ?? hostId;
      }
      return { endpoints, networkNames, hostNames, revision: revisionOf(state) };
    }),
  };
}
