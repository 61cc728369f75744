/** What the mesh's side sets on an endpoint: allowed addresses, and that services drain it. Kept by the endpoint's id, apart from what its host registers. */
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
  { allow, disallow, draining: drain }: SettingsChange,
  granted: readonly Grantor[],
): Promise<Allowing> {
  const endpoint = await fresh(deps, () => deps.cache.endpoints.get(networkId)?.get(endpointId));
  const network = deps.cache.networks.get(networkId);
  if (endpoint === undefined || network === undefined)
    throw new WeftError('NOT_FOUND', `there is no endpoint ${endpointId}`, { hint: 'list them: weft endpoint ls' });
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
    const draining = drain ?? before?.draining ?? false;
    const text = (of: Pick<EndpointSettings, 'allowed' | 'draining'>): string =>
      encode.settings({ ...blank(networkId, endpointId), allowed: of.allowed, draining: of.draining });
    if (text(before ?? blank(networkId, endpointId)) === text({ allowed, draining }))
      return { done: { revision: revisionOf(deps, cache.revision) } };
    const record: EndpointSettings = {
      ...blank(networkId, endpointId),
      allowed,
      draining,
      updatedAt: rfc3339(deps.clock),
    };
    const op = allowed.length === 0 && !draining ? { del: key } : { put: key, value: encode.settings(record) };
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

const blank = (networkId: string, endpointId: string): EndpointSettings => ({
  endpointId,
  networkId,
  allowed: [],
  draining: false,
  updatedAt: '',
  revision: 0n,
});
