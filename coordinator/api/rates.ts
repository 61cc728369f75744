/** Control: rates and priorities of endpoints, as they are asked for and as they count. */
import type { ListEndpointsResponse, UpdateEndpointRequest } from '../../gen/weft/v1/control.ts';
import { endpointName } from '../../lib/endpoint-name.ts';
import { WeftError } from '../../lib/errors.ts';
import type { Endpoint } from '../../lib/model.ts';
import { checkRate, isHeldUp, parsePriority, priorityInForce, rateInForce } from '../../lib/rate.ts';
import type { SettingsChange, State } from '../contract.ts';

/**
 * @throws INVALID_ARGUMENT a rate, burst or priority that cannot be; FAILED_PRECONDITION the endpoint's host cannot hold its rate
 */
export function shapingOf(
  state: State,
  endpoint: Endpoint,
  request: Pick<UpdateEndpointRequest, 'rate' | 'unsetRate' | 'priority' | 'unsetPriority'>,
): Required<Pick<SettingsChange, 'rate' | 'priority'>> {
  const [unsetRate, unsetPriority] = [request.unsetRate === true, request.unsetPriority === true];
  if ((request.rate !== undefined && unsetRate) || (request.priority !== undefined && unsetPriority))
    throw new WeftError('INVALID_ARGUMENT', 'To set and to unset the same exclude each other.', {
      hint: 'leave one out',
    });
  const rate = request.rate === undefined ? null : checkRate(request.rate);
  if (rate !== null && rate.bits > 0n) refuseUnheld(state, endpoint);
  const priority = request.priority === undefined ? null : parsePriority('--priority', request.priority);
  if (priority !== null && priority !== 'normal') refuseUnmarked(state, endpoint);
  return { rate: unsetRate ? 'unset' : rate, priority: unsetPriority ? 'unset' : priority };
}

function refuseUnheld(state: State, endpoint: Endpoint): void {
  const name = nameOf(endpoint);
  if (!isHeldUp(endpoint))
    throw new WeftError(
      'FAILED_PRECONDITION',
      `${name} is a device that its host's user has made: Weft cannot hold its rate.`,
      { hint: 'set it on the device (tc), or attach a network namespace instead' },
    );
  const host = state.hosts.get(endpoint.hostId);
  if (host !== undefined && !host.express && host.datapath !== 'system')
    throw refusal(host.name, `hold the rate of ${name}: it has neither the express path nor the kernel's Open vSwitch`);
}

function refuseUnmarked(state: State, endpoint: Endpoint): void {
  const host = state.hosts.get(endpoint.hostId);
  if (host?.express === false) throw refusal(host.name, `mark what ${nameOf(endpoint)} sends: it has no express path`);
}

const nameOf = (endpoint: Endpoint): string => endpointName(endpoint) || endpoint.id.slice(0, 12);
const refusal = (host: string, what: string): WeftError =>
  new WeftError('FAILED_PRECONDITION', `Host ${host} cannot ${what}.`, {
    hint: `weft host inspect ${host} says what it has, and why, under "probes"`,
  });

/** What counts of each, where there is something. */
export function shapingInForce(
  state: State,
  endpoints: readonly Endpoint[],
): Pick<ListEndpointsResponse, 'rates' | 'priorities'> {
  const rates: ListEndpointsResponse['rates'] = {};
  const priorities: ListEndpointsResponse['priorities'] = {};
  for (const e of endpoints) {
    const settings = state.settings.get(e.networkId)?.get(e.id);
    const rate = rateInForce(e, state.networks.get(e.networkId), settings);
    if (rate !== null) rates[e.id] = rate;
    const priority = priorityInForce(e, settings);
    if (priority !== '') priorities[e.id] = priority;
  }
  return { rates, priorities };
}
