/** Judges what is asked of a policy, and makes it canonical. Its rules are in policy-rules.ts. Pure. */
import { middleCut, WeftError } from '../../lib/errors.ts';
import type { Network, Policy } from '../../lib/model.ts';
import { DEFAULT_TIER, ORDERS, TIERS } from '../../lib/policy-order.ts';
import type { NewPolicy, State } from '../contract.ts';
import { canonicalLabels, checkRules, type RuleSources, refusal } from './policy-rules.ts';

/** Of a network. */
export const MAX_POLICIES = 2000;
/** As JSON, bytes: 64 of them are one transaction, and every host of the network keeps all. */
export const MAX_POLICY_SIZE = 256 * 1024;

/**
 * @param asked a selector's network is the name of it, as `networkOf` takes it; id and times mean nothing
 * @returns with all that has a default filled in
 * @throws INVALID_ARGUMENT what no policy can be; NOT_FOUND a network or service that a rule names; FAILED_PRECONDITION the network
 * can have none; UNIMPLEMENTED what hosts cannot do yet; RESOURCE_EXHAUSTED it is too large. Messages name policy and rule
 */
export function checkPolicy(sources: RuleSources, network: Network, asked: Policy): NewPolicy {
  if (!/^[a-z0-9]([a-z0-9_-]{0,61}[a-z0-9])?$/.test(asked.name))
    throw new WeftError('INVALID_ARGUMENT', `"${middleCut(asked.name)}" cannot be the name of a policy.`, {
      hint: 'use 1 to 63 lower-case letters, digits, "-" or "_", beginning and ending with a letter or digit',
    });
  const refuse = refusal(`Policy ${asked.name}`);
  if (network.state !== 'bound')
    throw refuse(`network ${network.id} has no name yet`, 'try again', 'FAILED_PRECONDITION');
  if (network.encap === 'vlan')
    throw refuse(
      `network ${network.name} is a vlan, which has no policies`,
      'make it for a network of another encapsulation',
      'FAILED_PRECONDITION',
    );
  const tier = asked.tier === '' ? DEFAULT_TIER : asked.tier;
  if (!TIERS.some((known) => known === tier))
    throw refuse(`"${middleCut(tier)}" is no tier`, `choose ${TIERS.join(', ')}`);
  if (!Number.isInteger(asked.order) || asked.order < 0 || asked.order >= ORDERS)
    throw refuse(`the order ${asked.order} is out of range`, `choose 0 to ${ORDERS - 1}: lower ones are tried first`);
  if (asked.ingress.length + asked.egress.length === 0)
    throw refuse('it has no rule', 'give it rules for ingress or egress, or remove it: weft policy rm');
  const policy: NewPolicy = {
    networkId: network.id,
    name: asked.name,
    tier,
    order: asked.order,
    selector: canonicalLabels(refuse, asked.selector),
    ingress: checkRules(sources, network, asked, 'ingress'),
    egress: checkRules(sources, network, asked, 'egress'),
    staged: asked.staged,
    labels: canonicalLabels(refuse, asked.labels),
  };
  const size = new TextEncoder().encode(JSON.stringify(policy)).length;
  if (size > MAX_POLICY_SIZE)
    throw refuse(
      `it is too large: ${size} bytes, and ${MAX_POLICY_SIZE} are allowed`,
      'make several policies of it, or name endpoints by labels rather than by addresses',
      'RESOURCE_EXHAUSTED',
    );
  return policy;
}

/** @throws INVALID_ARGUMENT a policy is given twice */
export function refuseTwice(wanted: readonly NewPolicy[], nameOf: (networkId: string) => string): void {
  const seen = new Set<string>();
  for (const { networkId, name } of wanted) {
    const key = `${networkId}/${name}`;
    if (seen.has(key))
      throw new WeftError('INVALID_ARGUMENT', `Policy ${name} of network ${nameOf(networkId)} is given twice.`, {
        hint: 'give each once, or another name',
      });
    seen.add(key);
  }
}

/** @throws RESOURCE_EXHAUSTED a network would have more policies than it may */
export function refuseTooMany(
  source: Pick<State, 'policies' | 'networks'>,
  wanted: readonly Pick<NewPolicy, 'networkId' | 'name'>[],
): void {
  const added = new Map<string, number>();
  for (const { networkId, name } of wanted) {
    const mine = source.policies.get(networkId);
    if (mine?.has(name) === true) continue;
    const more = (added.get(networkId) ?? 0) + 1;
    added.set(networkId, more);
    if ((mine?.size ?? 0) + more <= MAX_POLICIES) continue;
    const network = source.networks.get(networkId)?.name ?? networkId;
    throw new WeftError(
      'RESOURCE_EXHAUSTED',
      `Policy ${name}: network ${network} would have more than ${MAX_POLICIES} policies.`,
      { hint: 'remove some, or make one policy with more rules out of several' },
    );
  }
}
