/** Routers. Whatever makes or changes one compares the guards of its networks: they are there, and no other router led there meanwhile. */
import { rfc3339 } from '../../lib/clock.ts';
import { WeftError } from '../../lib/errors.ts';
import type { Revision, Router } from '../../lib/model.ts';
import { checkRouter } from '../alloc/routers.ts';
import type { NewRouter } from '../contract.ts';
import { encode } from './codec.ts';
import { type Deps, fresh, modOf, revisionOf } from './deps.ts';
import { findNetwork, guarded } from './guarded.ts';
import { keys } from './keys.ts';
import type { Compare, Op, Planned } from './txn.ts';

/** One after the other: those of one coordinator would only make each other's compares fail. */
const QUEUE = 'routers';

const id = (project: string, name: string): string => `${project}/${name}`;

export async function createRouter(deps: Deps, wanted: NewRouter): Promise<Router> {
  for (const networkId of wanted.networkIds) await findNetwork(deps, networkId);
  const made = { id: deps.newId(), createdAt: rfc3339(deps.clock), revision: 0n };
  return deps.committer.run(QUEUE, () => {
    const present = deps.cache.routers.get(id(wanted.project, wanted.name));
    if (present?.id === made.id) return { done: present };
    if (present !== undefined)
      throw new WeftError('ALREADY_EXISTS', `There is a router ${wanted.name} already.`, {
        hint: 'change it: weft router set; or take another name',
      });
    return planPut(deps, { ...checkRouter(deps.cache, wanted), ...made });
  });
}

export async function updateRouter(
  deps: Deps,
  project: string,
  name: string,
  edit: (present: Router) => Router,
): Promise<Router> {
  await fresh(deps, () => deps.cache.routers.get(id(project, name)));
  return deps.committer.run(QUEUE, () => {
    const present = deps.cache.routers.get(id(project, name));
    if (present === undefined) throw gone(name);
    const router = edit(present);
    return encode.router(router) === encode.router(present) ? { done: present } : planPut(deps, router);
  });
}

function planPut(deps: Deps, record: Router): Planned<Router> {
  const { cache } = deps;
  const key = keys.router(record.project, record.name);
  const compares: Compare[] = [{ key, mod: modOf(cache, key) }];
  const ops: Op[] = [{ put: key, value: encode.router(record) }];
  for (const networkId of record.networkIds) {
    const network = cache.networks.get(networkId);
    if (network === undefined) continue;
    const guard = guarded(deps, network, record.id);
    compares.push(...guard.compares);
    ops.push(...guard.ops);
  }
  return {
    txn: { compares, ops },
    result: (revision) => cache.routers.get(id(record.project, record.name)) ?? { ...record, revision },
  };
}

export async function removeRouter(deps: Deps, project: string, name: string): Promise<Revision> {
  await fresh(deps, () => deps.cache.routers.get(id(project, name)));
  let tried = false;
  return deps.committer.run(QUEUE, () => {
    const present = deps.cache.routers.get(id(project, name));
    if (present === undefined) {
      if (tried) return { done: revisionOf(deps, deps.cache.revision) };
      throw gone(name);
    }
    tried = true;
    const key = keys.router(project, name);
    const txn = { compares: [{ key, mod: modOf(deps.cache, key) }], ops: [{ del: key }] };
    return { txn, result: (revision) => revisionOf(deps, revision) };
  });
}

const gone = (name: string): WeftError =>
  new WeftError('NOT_FOUND', `There is no router ${name}.`, { hint: 'list them with "weft router ls"' });
