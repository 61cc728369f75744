/** Control: routers. */
import type { ControlServer } from '../../gen/weft/v1/control.ts';
import { Router as RouterMessage } from '../../gen/weft/v1/types.ts';
import { middleCut, WeftError } from '../../lib/errors.ts';
import type { Network, Router } from '../../lib/model.ts';
import { about } from '../alloc/policy-rules.ts';
import { checkRouter, editedRouter } from '../alloc/routers.ts';
import type { Parts } from '../parts.ts';
import type { Method } from './method.ts';
import { networkOf, projectOf, revisionOf } from './resolve.ts';

type Methods = Pick<ControlServer, 'createRouter' | 'listRouters' | 'updateRouter' | 'removeRouter'>;

export function routerMethods({ state, store, log }: Parts, method: Method): Methods {
  const named = (project: string, name: string, texts: readonly string[]): Network[] =>
    texts.map((text) => about(`Router ${middleCut(name)}`, () => networkOf(state, project, text)));
  const namesOf = (router: Router): string[] => router.networkIds.map((id) => state.networks.get(id)?.name ?? id);
  return {
    createRouter: method(async ({ request }) => {
      const project = projectOf(request.project);
      const asked = request.router ?? RouterMessage.fromPartial({});
      const networks = named(project, asked.name, asked.networkIds);
      const wanted = { ...asked, project, networkIds: networks.map(({ id }) => id) };
      const router = await store.createRouter(checkRouter(state, wanted));
      log.info({ router: router.name, networks: namesOf(router) }, 'router created');
      return { router, revision: revisionOf(state, router.revision) };
    }),

    listRouters: method(async ({ request }) => {
      const project = projectOf(request.project);
      const routers = [...state.routers.values()].filter((r) => r.project === project);
      const ids = new Set(routers.flatMap((r) => r.networkIds));
      const networkNames = Object.fromEntries([...ids].map((id) => [id, state.networks.get(id)?.name ?? id]));
      return { routers, networkNames, revision: revisionOf(state) };
    }),

    updateRouter: method(async ({ request }) => {
      const project = projectOf(request.project);
      const { name, addRoutes, removeRoutes } = request;
      const addNetworks = named(project, name, request.addNetworks);
      const removeNetworks = named(project, name, request.removeNetworks);
      if (addNetworks.length + removeNetworks.length + addRoutes.length + removeRoutes.length === 0)
        throw new WeftError('INVALID_ARGUMENT', 'Nothing to change was given.', {
          hint: 'see weft router set --help',
        });
      const edit = (present: Router): Router => {
        const wanted = editedRouter(present, { addNetworks, removeNetworks, addRoutes, removeRoutes });
        return { ...present, ...checkRouter(state, wanted) };
      };
      const router = await store.updateRouter(project, name, edit);
      log.info({ router: router.name, networks: namesOf(router) }, 'router changed');
      return { router, revision: revisionOf(state, router.revision) };
    }),

    removeRouter: method(async ({ request }) => {
      const project = projectOf(request.project);
      const revision = await store.removeRouter(project, request.name);
      log.info({ router: request.name }, 'router removed');
      return { revision };
    }),
  };
}
