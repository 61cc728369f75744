/** Control: policies. */
import type { ControlServer } from '../../gen/weft/v1/control.ts';
import { Policy as PolicyMessage } from '../../gen/weft/v1/types.ts';
import { middleCut, WeftError } from '../../lib/errors.ts';
import type { Network, Policy } from '../../lib/model.ts';
import { checkPolicy, refuseTooMany, refuseTwice } from '../alloc/policies.ts';
import { about } from '../alloc/policy-rules.ts';
import type { PolicyOutcome, State } from '../contract.ts';
import type { Parts } from '../parts.ts';
import type { Method } from './method.ts';
import { networkOf, projectOf, revisionOf } from './resolve.ts';

type Methods = Pick<ControlServer, 'applyPolicies' | 'listPolicies' | 'removePolicy'>;

export function policyMethods({ state, store, log }: Parts, method: Method): Methods {
  return {
    applyPolicies: method(async ({ request }) => {
      const project = projectOf(request.project);
      if (request.policies.length === 0)
        throw new WeftError('INVALID_ARGUMENT', 'No policy was given.', { hint: 'see weft policy apply --help' });
      const sources = { services: state.services, networkOf: (text: string) => networkOf(state, project, text) };
      const wanted = request.policies.map((spec) => {
        const asked = spec.policy ?? PolicyMessage.fromPartial({});
        const network = about(`Policy ${middleCut(asked.name)}`, () => networkOf(state, project, spec.network));
        return checkPolicy(sources, network, asked);
      });
      const nameOf = (id: string): string => state.networks.get(id)?.name ?? id;
      refuseTwice(wanted, nameOf);
      refuseTooMany(state, wanted);
      const applied = await store.applyPolicies(wanted);
      const changed = applied.filter(({ outcome }) => outcome !== 'unchanged').map(({ policy }) => policy);
      const names = changed.slice(0, 10).map((p) => `${nameOf(p.networkId)}/${p.name}`);
      log.info({ policies: names, changed: changed.length, given: applied.length }, 'policies applied');
      return {
        policies: applied.map(({ policy }) => policy),
        outcomes: applied.map(({ outcome }) => outcome),
        revision: revisionOf(state, newestOf(applied)),
      };
    }),

    listPolicies: method(async ({ request }) => {
      const project = projectOf(request.project);
      const only = request.network === '' ? null : networkOf(state, project, request.network).id;
      const policies: Policy[] = [];
      const networkNames: Record<string, string> = {};
      for (const [id, byName] of state.policies) {
        if (only !== null && id !== only) continue;
        for (const policy of byName.values()) {
          policies.push(policy);
          for (const named of [id, ...networksOf(policy)])
            networkNames[named] = state.networks.get(named)?.name ?? named;
        }
      }
      return { policies, networkNames, revision: revisionOf(state) };
    }),

    removePolicy: method(async ({ request }) => {
      const network = networkOf(state, request.project, request.network);
      const { name } = find(state, network, request.name);
      const revision = await store.removePolicy(network.id, name);
      log.info({ policy: name, network: network.name }, 'policy removed');
      return { revision };
    }),
  };
}

/** Those that are unchanged too: whoever waits for it waits for all. */
function newestOf(applied: readonly PolicyOutcome[]): bigint {
  let newest = 0n;
  for (const { policy } of applied) if (policy.revision > newest) newest = policy.revision;
  return newest;
}

/** Ids of other networks that its rules name. */
const networksOf = (policy: Policy): string[] =>
  [...policy.ingress, ...policy.egress]
    .flatMap((rule) => rule.peers)
    .flatMap(({ who }) => (who?.$case === 'endpoints' && who.value.networkId !== '' ? [who.value.networkId] : []));

/** @throws NOT_FOUND */
function find(state: State, network: Network, name: string): Policy {
  const found = state.policies.get(network.id)?.get(name);
  if (found !== undefined) return found;
  throw new WeftError('NOT_FOUND', `Network ${network.name} has no policy ${middleCut(name)}.`, {
    hint: 'list them with "weft policy ls"',
  });
}
