/** Changes of a network that is in use: its record alone, whose keys in the indexes stay. */
import { WeftError } from '../../lib/errors.ts';
import type { Network } from '../../lib/model.ts';
import type { NetworkEdit } from '../contract.ts';
import { encode } from './codec.ts';
import { type Deps, fresh, modOf } from './deps.ts';
import { keys } from './keys.ts';

export async function editNetwork(deps: Deps, id: string, edit: NetworkEdit): Promise<Network> {
  const present = await fresh(deps, () => deps.cache.networks.get(id));
  if (present === undefined || present.state !== 'bound')
    throw new WeftError('NOT_FOUND', `there is no network ${id}`, { hint: 'list them: weft network ls' });
  const guard = keys.pool(present.project, present.space);
  return deps.committer.run(guard, () => {
    const { cache } = deps;
    const network = cache.networks.get(id);
    if (network === undefined)
      throw new WeftError('NOT_FOUND', `network ${present.name} has been removed`, {
        hint: 'list them: weft network ls',
      });
    const changed: Network = { ...network, ...edit };
    const key = keys.network(network.project, id);
    const value = encode.network(changed);
    if (cache.raw.get(key)?.value === value) return { done: network };
    return {
      txn: { compares: [{ key, mod: modOf(cache, key) }], ops: [{ put: key, value }] },
      result: (revision) => cache.networks.get(id) ?? { ...changed, revision },
    };
  });
}
