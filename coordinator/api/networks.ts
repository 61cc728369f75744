/** Control: networks. */
import type { ControlServer } from '../../gen/weft/v1/control.ts';
import { Network as NetworkMessage } from '../../gen/weft/v1/types.ts';
import { WeftError } from '../../lib/errors.ts';
import { checkEdit } from '../alloc/edits.ts';
import type { Parts } from '../parts.ts';
import type { Method } from './method.ts';
import { removeNetwork } from './remove-network.ts';
import { networkOf, projectOf, revisionOf } from './resolve.ts';

type Methods = Pick<ControlServer, 'createNetwork' | 'getNetwork' | 'listNetworks' | 'updateNetwork' | 'deleteNetwork'>;

export function networkMethods(parts: Parts, method: Method): Methods {
  const { state, store, log } = parts;
  return {
    createNetwork: method(async ({ request }) => {
      const project = projectOf(request.project);
      if (request.name === '')
        throw new WeftError('INVALID_ARGUMENT', 'A network needs a name.', { hint: 'weft network create NAME' });
      const network = await store.createNetwork({ ...request, project, originHost: '' });
      log.info(
        { network: network.name, id: network.id, vni: network.vni, subnets: network.subnets },
        'network created',
      );
      return network;
    }),

    getNetwork: method(async ({ request }) => networkOf(state, request.project, request.network)),

    listNetworks: method(async ({ request }) => {
      const project = projectOf(request.project);
      const networks = [...state.networks.values()]
        .filter((network) => network.project === project && network.state !== 'reserved')
        .sort((a, b) => (a.name < b.name ? -1 : 1));
      return { networks, revision: revisionOf(state) };
    }),

    updateNetwork: method(async ({ request }) => {
      const network = networkOf(state, request.project, request.network);
      const edit = checkEdit(network, request.fields, request.values ?? NetworkMessage.fromPartial({}));
      const changed = await store.editNetwork(network.id, edit);
      log.info({ network: network.name, id: network.id, fields: request.fields }, 'network changed');
      return changed;
    }),

    deleteNetwork: method(async ({ request, signal }) => {
      const network = networkOf(state, request.project, request.network);
      const revision = await removeNetwork(parts, network.id, signal);
      log.info({ network: network.name, id: network.id }, 'network removed');
      return { revision };
    }),
  };
}
