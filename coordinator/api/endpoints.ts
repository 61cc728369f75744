/** Control: endpoints, and what the mesh's side sets on them. */
import type { ControlServer } from '../../gen/weft/v1/control.ts';
import { canonicalIp } from '../../lib/addr.ts';
import { endpointName, endpointsNamed } from '../../lib/endpoint-name.ts';
import { middleCut, WeftError } from '../../lib/errors.ts';
import { normalMac } from '../../lib/mac.ts';
import type { AllowedAddress, Endpoint, EndpointSettings } from '../../lib/model.ts';
import { formatRate } from '../../lib/rate.ts';
import { changeSettings } from '../allow.ts';
import type { State } from '../contract.ts';
import type { Parts } from '../parts.ts';
import type { Method } from './method.ts';
import { shapingInForce, shapingOf } from './rates.ts';
import { hostOf, networkOf, projectOf, revisionOf } from './resolve.ts';

export function endpointMethods(parts: Parts, method: Method): Pick<ControlServer, 'listEndpoints' | 'updateEndpoint'> {
  const { state, log } = parts;
  return {
    updateEndpoint: method(async ({ request }) => {
      const project = projectOf(request.project);
      const network = request.network === '' ? null : networkOf(state, project, request.network).id;
      const endpoint = findEndpoint(state, request.endpoint, network);
      const allow = request.allow.map(canonical);
      const disallow = request.disallow.map(canonical);
      const draining = request.draining ?? null;
      const { rate, priority } = shapingOf(state, endpoint, request);
      if (allow.length + disallow.length === 0 && draining === null && rate === null && priority === null)
        throw new WeftError('INVALID_ARGUMENT', 'Nothing to change was given.', {
          hint: 'weft endpoint set E --allow-address IP[,MAC], --drain, --rate or --priority',
        });
      const revision = await changeSettings(parts, endpoint, { allow, disallow, draining, rate, priority });
      const said = rate === null || rate === 'unset' ? rate : formatRate(rate);
      log.info({ endpoint: endpoint.id, allow, disallow, draining, rate: said, priority }, 'endpoint changed');
      return { endpoint: withSettings(state, endpoint), revision };
    }),

    listEndpoints: method(async ({ request }) => {
      const project = projectOf(request.project);
      const only = request.network === '' ? null : networkOf(state, project, request.network).id;
      const host = request.host === '' ? null : hostOf(state, request.host).id;
      const endpoints: Endpoint[] = [];
      for (const [networkId, byId] of state.endpoints) {
        if (only !== null && networkId !== only) continue;
        for (const endpoint of byId.values())
          if (host === null || endpoint.hostId === host) endpoints.push(withSettings(state, endpoint));
      }
      const networkNames: Record<string, string> = {};
      const hostNames: Record<string, string> = {};
      for (const { networkId, hostId } of endpoints) {
        networkNames[networkId] = state.networks.get(networkId)?.name ?? networkId;
        hostNames[hostId] = state.hosts.get(hostId)?.name ?? hostId;
      }
      const draining = endpoints.filter((e) => state.settings.get(e.networkId)?.get(e.id)?.draining === true);
      const drainingIds = draining.map((e) => e.id);
      const settings: Record<string, EndpointSettings> = {};
      for (const { networkId, id } of endpoints) {
        const own = state.settings.get(networkId)?.get(id);
        if (own !== undefined) settings[id] = own;
      }
      return {
        endpoints,
        networkNames,
        hostNames,
        revision: revisionOf(state),
        drainingIds,
        settings,
        ...shapingInForce(state, endpoints),
      };
    }),
  };
}

/** The endpoint as it is: what its host registered, with what the mesh's side set. */
function withSettings(state: State, endpoint: Endpoint): Endpoint {
  const settings = state.settings.get(endpoint.networkId)?.get(endpoint.id);
  if (settings === undefined) return endpoint;
  const all = new Map([...endpoint.allowed, ...settings.allowed].map((one) => [`${one.ip} ${one.mac}`, one]));
  return { ...endpoint, allowed: [...all.values()] };
}

/** @throws INVALID_ARGUMENT */
function canonical({ ip, mac }: AllowedAddress): AllowedAddress {
  if (ip === '' && mac === '')
    throw new WeftError('INVALID_ARGUMENT', 'An allowed address is empty.', { hint: 'write IP, IP,MAC or ,MAC' });
  return { ip: ip === '' ? '' : canonicalIp(ip), mac: mac === '' ? '' : normalMac(mac) };
}

/**
 * By id, container id or a prefix of one, name, HOST/NAME, or address, as the command line takes it.
 * @throws NOT_FOUND; FAILED_PRECONDITION when several could be meant
 */
export function findEndpoint(state: State, text: string, networkId: string | null): Endpoint {
  if (text === '') throw new WeftError('INVALID_ARGUMENT', 'No endpoint is named.', { hint: 'write its id or NAME' });
  const host = (e: Endpoint): string => state.hosts.get(e.hostId)?.name ?? e.hostId;
  const all = [...state.endpoints].flatMap(([id, byId]) =>
    networkId === null || networkId === id ? [...byId.values()] : [],
  );
  const found = endpointsNamed(all, text, (id) => state.hosts.get(id)?.name ?? id);
  const [first] = found;
  if (first === undefined)
    throw new WeftError('NOT_FOUND', `There is no endpoint ${middleCut(text)}.`, {
      hint: 'list them with "weft endpoint ls"',
    });
  if (found.length === 1) return first;
  const one = (e: Endpoint): string =>
    `${e.id.slice(0, 12)} (${host(e)}/${endpointName(e) || '-'} on ${state.networks.get(e.networkId)?.name ?? e.networkId})`;
  throw new WeftError('FAILED_PRECONDITION', `${text} means several endpoints: ${found.map(one).join(', ')}.`, {
    hint: 'name the network too, or write HOST/NAME or the id',
  });
}
