/**
 * Docker drops the calls of a plugin that is down and never repeats them: what Docker has and what the journal holds are compared
 * (pure), and the journal is put right, which the mesh and the datapath then follow.
 */
import type { Drift } from '../../lib/model.ts';
import { ipsOf, type LocalAddress, type LocalEndpoint } from '../contract.ts';
import type { DockerEndpoint } from './api.ts';

export interface EndpointsInput {
  /** Docker's answer for each of our networks: its endpoints, or null when Docker does not have it. Not asked = absent. */
  readonly docker: ReadonlyMap<string, readonly DockerEndpoint[] | null>;
  readonly endpoints: ReadonlyMap<string, LocalEndpoint>;
  readonly addresses: ReadonlyMap<string, LocalAddress>;
  /** Made a moment ago, and not joined: Docker may not show them yet. */
  readonly inFlight: (endpointId: string) => boolean;
  /** Old enough that Docker will not make an endpoint of it any more. */
  readonly abandoned: (key: string, address: LocalAddress) => boolean;
}

export interface EndpointsPlan {
  /** Journalled, and Docker does not have them. */
  readonly stale: readonly LocalEndpoint[];
  /** Docker has them in a container, and the journal lacks them. */
  readonly lost: readonly DockerEndpoint[];
  /** Keys of addresses that Docker asked for, and that nothing uses. */
  readonly unused: readonly string[];
}

export function planEndpoints(input: EndpointsInput): EndpointsPlan {
  const stale: LocalEndpoint[] = [];
  const inUse = new Set<string>();
  for (const endpoint of input.endpoints.values()) {
    for (const ip of ipsOf(endpoint)) inUse.add(`${endpoint.networkId}/${ip}`);
    if (endpoint.dockerNetworkId === null || input.inFlight(endpoint.id)) continue;
    const actual = input.docker.get(endpoint.dockerNetworkId);
    if (actual === undefined) continue;
    if (actual === null || !actual.some((e) => e.id === endpoint.id)) stale.push(endpoint);
  }
  const lost: DockerEndpoint[] = [];
  for (const actual of input.docker.values())
    for (const endpoint of actual ?? [])
      if (endpoint.containerId !== null && ipsOf(endpoint).length > 0 && !input.endpoints.has(endpoint.id))
        lost.push(endpoint);
  const unused: string[] = [];
  for (const [key, address] of input.addresses)
    if (
      (address.state === 'requested' || address.state === 'endpoint') &&
      !inUse.has(key) &&
      input.abandoned(key, address)
    )
      unused.push(key);
  return { stale, lost, unused };
}

/** What two looks, a moment apart, agree on: an endpoint that is just being removed is not drift. */
export function confirmed(first: EndpointsPlan, second: EndpointsPlan): EndpointsPlan {
  const ids = (list: readonly { readonly id: string }[]): Set<string> => new Set(list.map((e) => e.id));
  const [stale, lost] = [ids(first.stale), ids(first.lost)];
  return {
    stale: second.stale.filter((e) => stale.has(e.id)),
    lost: second.lost.filter((e) => lost.has(e.id)),
    unused: second.unused.filter((key) => first.unused.includes(key)),
  };
}

export const isEmpty = (plan: EndpointsPlan): boolean =>
  plan.stale.length + plan.lost.length + plan.unused.length === 0;

export function driftOf(plan: EndpointsPlan): Drift[] {
  const of = (id: string, ip: string, who: string): string =>
    `${id.slice(0, 12)} (${who}${who === '' ? '' : ', '}${ip})`;
  return [
    ...plan.stale.map((e) => ({
      kind: 'endpoint',
      object: of(e.id, ipsOf(e).join(' '), e.container?.name ?? ''),
      change: 'extra',
      want: '',
      have: 'in the journal; Docker does not have it',
    })),
    ...plan.lost.map((e) => ({
      kind: 'endpoint',
      object: of(e.id, ipsOf(e).join(' '), e.containerName),
      change: 'missing',
      want: 'Docker has it',
      have: '',
    })),
  ];
}
