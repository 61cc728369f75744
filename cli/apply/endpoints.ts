/** Settings of endpoints: which endpoint is meant, and what changes. One that is not there can have none: it is told, and waits. Pure. */
import type { UpdateEndpointRequest } from '../../gen/weft/v1/control.ts';
import { type Endpoint, EndpointSettings } from '../../gen/weft/v1/types.ts';
import { WeftError } from '../../lib/errors.ts';
import { allowedText, endpointDifferences } from './compare.ts';
import type { Actual, Change, Desired, EndpointWish, Ref } from './model.ts';
import { endpointsNamed, endpointText, namer } from './scope.ts';

export interface Meant {
  /** Endpoint id to what it is to have. */
  readonly byId: ReadonlyMap<string, { readonly endpoint: Endpoint; readonly wish: EndpointWish }>;
  readonly missing: readonly EndpointWish[];
  readonly problems: readonly WeftError[];
}

export function meantBy(desired: Desired, actual: Actual): Meant {
  const byId = new Map<string, { endpoint: Endpoint; wish: EndpointWish }>();
  const [missing, problems]: [EndpointWish[], WeftError[]] = [[], []];
  const nameOf = namer(actual);
  const refuse = (wish: EndpointWish, message: string, hint: string): void => {
    const where = wish.where('name');
    problems.push(new WeftError('INVALID_ARGUMENT', `${where}: endpoint ${wish.name}: ${message}.`, { hint }));
  };
  for (const wish of desired.endpoints) {
    const found = endpointsNamed(actual, wish.name, wish.network);
    const [endpoint] = found;
    const texts = found.map((e) => `${endpointText(actual, e)} on ${nameOf(e.networkId)}`);
    const earlier = endpoint === undefined ? undefined : byId.get(endpoint.id);
    if (endpoint === undefined) missing.push(wish);
    else if (found.length > 1)
      refuse(wish, `it means several: ${texts.slice(0, 5).join(', ')}`, 'write HOST/NAME, and its network');
    else if (earlier === undefined) byId.set(endpoint.id, { endpoint, wish });
    else if (earlier.wish.name !== wish.name || earlier.wish.network !== wish.network)
      refuse(wish, `it is the one of ${earlier.wish.where()} (${earlier.wish.name})`, 'leave one of them out');
  }
  return { byId, missing, problems };
}

const blank: Omit<UpdateEndpointRequest, 'endpoint' | 'network'> = { project: '', allow: [], disallow: [] };

export function endpointChanges({ byId, missing }: Meant, actual: Actual) {
  const nameOf = namer(actual);
  const changes: Change[] = [];
  const unchanged: Ref[] = [];
  for (const { endpoint, wish } of byId.values()) {
    const ref: Ref = { kind: 'endpoint', network: nameOf(endpoint.networkId), name: endpointText(actual, endpoint) };
    const change = settingsChange(ref, endpoint, actual.settings[endpoint.id], wish.settings);
    if (change === null) unchanged.push(ref);
    else changes.push(change);
  }
  for (const { network, name } of missing)
    changes.push({
      kind: 'endpoint',
      network: network || null,
      name,
      action: 'missing',
      differences: [],
      calls: [],
      undo: null,
    });
  return { changes, unchanged, problems: [] };
}

/** Everything that was set goes. */
export function unsetChange(endpoint: Endpoint, actual: Actual): Change {
  const ref: Ref = {
    kind: 'endpoint',
    network: namer(actual)(endpoint.networkId),
    name: endpointText(actual, endpoint),
  };
  const change = settingsChange(ref, endpoint, actual.settings[endpoint.id], EndpointSettings.fromPartial({}));
  return { ...ref, differences: change?.differences ?? [], calls: change?.calls ?? [], action: 'remove', undo: null };
}

function settingsChange(
  ref: Ref,
  endpoint: Endpoint,
  have: EndpointSettings | undefined,
  want: EndpointSettings,
): Change | null {
  const differences = endpointDifferences(want, have);
  if (differences.length === 0) return null;
  const differs = (...keys: string[]): boolean => differences.some(({ key }) => keys.includes(key));
  const [mine, theirs] = [want.allowed, have?.allowed ?? []];
  const without = (some: typeof mine, others: typeof mine): typeof mine => {
    const texts = new Set(others.map(allowedText));
    return some.filter((one) => !texts.has(allowedText(one)));
  };
  const request: UpdateEndpointRequest = {
    ...blank,
    endpoint: endpoint.id,
    network: '',
    allow: without(mine, theirs),
    disallow: without(theirs, mine),
    ...(differs('drain') ? { draining: want.draining } : {}),
    ...(differs('rate', 'burst') ? (want.rate === undefined ? { unsetRate: true } : { rate: want.rate }) : {}),
    ...(differs('priority')
      ? want.priority === undefined
        ? { unsetPriority: true }
        : { priority: want.priority }
      : {}),
  };
  return { ...ref, action: 'update', differences, calls: [{ method: 'updateEndpoint', request }], undo: null };
}
