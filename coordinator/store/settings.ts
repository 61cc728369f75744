/**
 * What the mesh's side sets on an endpoint: allowed addresses, that services drain it, its rate and priority. Kept by the endpoint's id,
 * apart from what its host registers.
 */
import { rfc3339 } from '../../lib/clock.ts';
import { WeftError } from '../../lib/errors.ts';
import type { EndpointSettings } from '../../lib/model.ts';
import { allowedClash, changedAllowed, leaveNeeded } from '../alloc/allowed.ts';
import type { Allowing, Grantor, SettingsChange } from '../contract.ts';
import { encode } from './codec.ts';
import { type Deps, fresh, modOf, revisionOf } from './deps.ts';
import { keys } from './keys.ts';

const MAX_ALLOWED = 64;

export async function updateSettings(
  deps: Deps,
  networkId: string,
  endpointId: string,
  change: SettingsChange,
  granted: readonly Grantor[],
): Promise<Allowing> {
  const endpoint = await fresh(deps, () => deps.cache.endpoints.get(networkId)?.get(endpointId));
  const network = deps.cache.networks.get(networkId);
  if (endpoint === undefined || network === undefined)
    throw new WeftError('NOT_FOUND', `there is no endpoint ${endpointId}`, { hint: 'list them: weft endpoint ls' });
  const { allow, disallow } = change;
  const key = keys.settings(network.project, networkId, endpointId);
  const owner = keys.endpoint(network.project, networkId, endpointId);
  const guard = keys.blockguard(network.project, networkId);
  return deps.committer.run<Allowing>(guard, () => {
    const { cache } = deps;
    const before = cache.settings.get(networkId)?.get(endpointId);
    const allowed = changedAllowed(before?.allowed ?? [], allow, disallow);
    if (allowed.length > MAX_ALLOWED)
      throw new WeftError('RESOURCE_EXHAUSTED', `an endpoint may have ${MAX_ALLOWED} allowed addresses`, {
        hint: 'remove some with --disallow-address, or make it trusted',
      });
    for (const one of allow) {
      const clash = allowedClash(cache, network, endpoint, one);
      if (clash !== null) throw clash;
    }
    const { ask, sharedWith } = leaveNeeded(cache, network, allow, granted);
    if (ask.length > 0) return { done: { ask } };
    const nothing = blank(networkId, endpointId);
    const wanted = { ...changed(before ?? nothing, change), allowed, updatedAt: '', revision: 0n };
    const text = encode.settings(wanted);
    if (encode.settings({ ...(before ?? nothing), updatedAt: '' }) === text)
      return { done: { revision: revisionOf(deps, cache.revision) } };
    const record: EndpointSettings = { ...wanted, updatedAt: rfc3339(deps.clock) };
    const op = text === encode.settings(nothing) ? { del: key } : { put: key, value: encode.settings(record) };
    const compares = [
      { key: owner, exists: true as const },
      { key, mod: modOf(cache, key) },
      // The address stays out of its block as long as somebody is allowed it, without a gap.
      ...sharedWith
        .map((id) => keys.settings(network.project, networkId, id))
        .filter((other) => other !== key)
        .map((other) => ({ key: other, mod: modOf(cache, other) })),
      { key: guard, mod: modOf(cache, guard) },
    ];
    const ops = [op, { put: guard, value: endpointId }];
    return { txn: { compares, ops }, result: (revision) => ({ revision: revisionOf(deps, revision) }) };
  });
}

/** But for the addresses. */
function changed(before: EndpointSettings, { draining, rate, priority }: SettingsChange): EndpointSettings {
  const { rate: oldRate, priority: oldPriority, ...rest } = before;
  const newRate = rate === 'unset' ? undefined : (rate ?? oldRate);
  const newPriority = priority === 'unset' ? undefined : (priority ?? oldPriority);
  return {
    ...rest,
    draining: draining ?? before.draining,
    ...(newRate === undefined ? {} : { rate: newRate }),
    ...(newPriority === undefined ? {} : { priority: newPriority }),
  };
}

const blank = (networkId: string, endpointId: string): EndpointSettings => ({
  endpointId,
  networkId,
  allowed: [],
  draining: false,
  updatedAt: '',
  revision: 0n,
});
