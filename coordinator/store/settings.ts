/** What the mesh's side sets on an endpoint: allowed addresses. Kept by the endpoint's id, apart from what its host registers. */
import { rfc3339 } from '../../lib/clock.ts';
import { WeftError } from '../../lib/errors.ts';
import type { AllowedAddress, EndpointSettings, Revision } from '../../lib/model.ts';
import { allowedClash, changedAllowed } from '../alloc/externals.ts';
import { encode } from './codec.ts';
import { type Deps, fresh, modOf, revisionOf } from './deps.ts';
import { keys } from './keys.ts';

const MAX_ALLOWED = 64;

export async function updateAllowed(
  deps: Deps,
  networkId: string,
  endpointId: string,
  allow: readonly AllowedAddress[],
  disallow: readonly AllowedAddress[],
): Promise<Revision> {
  const endpoint = await fresh(deps, () => deps.cache.endpoints.get(networkId)?.get(endpointId));
  const network = deps.cache.networks.get(networkId);
  if (endpoint === undefined || network === undefined)
    throw new WeftError('NOT_FOUND', `there is no endpoint ${endpointId}`, { hint: 'list them: weft endpoint ls' });
  const key = keys.settings(network.project, networkId, endpointId);
  const owner = keys.endpoint(network.project, networkId, endpointId);
  const guard = keys.blockguard(network.project, networkId);
  return deps.committer.run(guard, () => {
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
    const same = encode.settings({ ...blank(networkId, endpointId), allowed: [...(before?.allowed ?? [])] });
    if (same === encode.settings({ ...blank(networkId, endpointId), allowed }))
      return { done: revisionOf(deps, cache.revision) };
    const record: EndpointSettings = {
      ...blank(networkId, endpointId),
      allowed,
      updatedAt: rfc3339(deps.clock),
    };
    const op = allowed.length === 0 ? { del: key } : { put: key, value: encode.settings(record) };
    const compares = [
      { key: owner, exists: true as const },
      { key, mod: modOf(cache, key) },
      { key: guard, mod: modOf(cache, guard) },
    ];
    const ops = [op, { put: guard, value: endpointId }];
    return { txn: { compares, ops }, result: (revision) => revisionOf(deps, revision) };
  });
}

const blank = (networkId: string, endpointId: string): EndpointSettings => ({
  endpointId,
  networkId,
  allowed: [],
  updatedAt: '',
  revision: 0n,
});
