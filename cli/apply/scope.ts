/** What the files speak of, what of the mesh they do not have, and how the mesh will be: what the plan and the judgement share. Pure. */
import type { Endpoint, Router } from '../../gen/weft/v1/types.ts';
import { endpointName, endpointsNamed as endpointsIn } from '../../lib/endpoint-name.ts';
import type { Actual, Desired, Section } from './model.ts';

/** Things that `--prune` removes; of endpoints, their settings. Those in a network that goes are not among them: they go with it. */
export type Pruned = Pick<Actual, 'networks' | 'reservations' | 'routers' | 'services' | 'policies' | 'endpoints'>;

export const NOTHING_PRUNED: Pruned = {
  networks: [],
  reservations: [],
  routers: [],
  services: [],
  policies: [],
  endpoints: [],
};

/** Network id to name; an id stands for a name that is gone. */
export function namer({ networks }: Pick<Actual, 'networks'>): (id: string) => string {
  const names = new Map(networks.map(({ id, name }) => [id, name]));
  return (id) => names.get(id) ?? id;
}

/** Key of a thing of a network. */
export const keyOf = (network: string, name: string): string => `${network}/${name}`;

/** Networks that something in the files is about. */
function spokenOf(desired: Desired): Set<string> {
  return new Set([
    ...desired.networks.map(({ name }) => name),
    ...[desired.reservations, desired.services, desired.policies, desired.endpoints].flatMap((list) =>
      list.map(({ network }) => network),
    ),
    ...desired.routers.flatMap(({ router }) => router.networkIds),
  ]);
}

export function prunedBy(desired: Desired, actual: Actual, endpointsMeant: ReadonlySet<string>): Pruned {
  const nameOf = namer(actual);
  const says = (section: Section): boolean => desired.sections.has(section);
  const named = new Set(desired.networks.map(({ name }) => name));
  const networks = says('networks') ? actual.networks.filter(({ name }) => !named.has(name)) : [];
  const going = new Set(networks.map(({ id }) => id));
  const spoken = spokenOf(desired);
  const inScope = (networkId: string): boolean => spoken.has(nameOf(networkId)) && !going.has(networkId);
  const others = <T extends { readonly networkId: string; readonly name: string }>(
    section: Section,
    have: readonly T[],
    wanted: readonly { readonly network: string; readonly name: string }[],
  ): T[] => {
    const keys = new Set(wanted.map(({ network, name }) => keyOf(network, name)));
    const extra = ({ networkId, name }: T): boolean => inScope(networkId) && !keys.has(keyOf(nameOf(networkId), name));
    return says(section) ? have.filter(extra) : [];
  };
  const routers = new Set(desired.routers.map(({ name }) => name));
  const inAll = ({ networkIds }: Router): boolean => networkIds.every((id) => spoken.has(nameOf(id)) || going.has(id));
  return {
    networks,
    reservations: others('reservations', actual.reservations, desired.reservations),
    routers: says('routers') ? actual.routers.filter((r) => !routers.has(r.name) && inAll(r)) : [],
    services: others('services', actual.services, desired.services),
    policies: others('policies', actual.policies, desired.policies),
    endpoints: says('endpoints')
      ? actual.endpoints.filter(
          (e) => inScope(e.networkId) && actual.settings[e.id] !== undefined && !endpointsMeant.has(e.id),
        )
      : [],
  };
}

/** All that a text may mean, as `weft endpoint set` takes it. @param network its name; empty: any */
export function endpointsNamed(actual: Actual, text: string, network: string): Endpoint[] {
  const nameOf = namer(actual);
  const all = actual.endpoints.filter((e) => network === '' || nameOf(e.networkId) === network);
  return endpointsIn(all, text, (id) => actual.hostNames[id] ?? id);
}

/** HOST/NAME, or the id where it has no name. */
export function endpointText(actual: Pick<Actual, 'hostNames'>, e: Endpoint): string {
  const name = endpointName(e);
  return name === '' ? e.id : `${actual.hostNames[e.hostId] ?? e.hostId}/${name}`;
}
