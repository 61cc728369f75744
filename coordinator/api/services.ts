/** Control: services. */
import type { ControlServer, ServiceStatus } from '../../gen/weft/v1/control.ts';
import { Service as ServiceMessage } from '../../gen/weft/v1/types.ts';
import { middleCut, WeftError } from '../../lib/errors.ts';
import type { Network, Service } from '../../lib/model.ts';
import { checkService } from '../alloc/services.ts';
import { Backends } from '../backends.ts';
import type { State } from '../contract.ts';
import type { Parts } from '../parts.ts';
import type { Method } from './method.ts';
import { networkOf, projectOf, revisionOf } from './resolve.ts';

type Methods = Pick<ControlServer, 'createService' | 'listServices' | 'removeService'>;

export function serviceMethods({ state, store, services, log }: Parts, method: Method): Methods {
  return {
    createService: method(async ({ request, signal }) => {
      const network = networkOf(state, request.project, request.network);
      const asked = request.service ?? ServiceMessage.fromPartial({});
      const made = await services.create(network, checkService(network, asked), signal);
      log.info({ service: made.name, network: network.name, ips: made.ips }, 'service made');
      const backends = new Backends(state, network.id).of(made);
      return { status: { service: made, backends }, revision: revisionOf(state, made.revision) };
    }),

    listServices: method(async ({ request }) => {
      const project = projectOf(request.project);
      const only = request.network === '' ? null : networkOf(state, project, request.network).id;
      const found: ServiceStatus[] = [];
      const networkNames: Record<string, string> = {};
      const hostNames: Record<string, string> = {};
      for (const [id, byName] of state.services) {
        if (only !== null && id !== only) continue;
        networkNames[id] = state.networks.get(id)?.name ?? id;
        const all = new Backends(state, id);
        for (const service of byName.values()) {
          const backends = all.of(service);
          found.push({ service, backends });
          for (const { endpoint } of backends)
            if (endpoint !== undefined)
              hostNames[endpoint.hostId] = state.hosts.get(endpoint.hostId)?.name ?? endpoint.hostId;
        }
      }
      return { services: found, networkNames, hostNames, revision: revisionOf(state) };
    }),

    removeService: method(async ({ request }) => {
      const network = networkOf(state, request.project, request.network);
      const { name } = find(state, network, request.name);
      const revision = await store.removeService(network.id, name);
      log.info({ service: name, network: network.name }, 'service removed');
      return { revision };
    }),
  };
}

/** @throws NOT_FOUND */
function find(state: State, network: Network, name: string): Service {
  const found = state.services.get(network.id)?.get(name);
  if (found !== undefined) return found;
  throw new WeftError('NOT_FOUND', `Network ${network.name} has no service ${middleCut(name)}.`, {
    hint: 'list them with "weft service ls"',
  });
}
