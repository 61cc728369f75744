/** Services. Whatever makes one compares the network's guard, for its addresses, and the mesh's, for ports of the hosts. */
import { familyOfText } from '../../lib/addr.ts';
import { rfc3339 } from '../../lib/clock.ts';
import type { Network, Revision, Service } from '../../lib/model.ts';
import { familiesToPick, occupiedAddresses, pickOutside, serviceClash } from '../alloc/service-clash.ts';
import type { NewService, ServiceOutcome } from '../contract.ts';
import { encode } from './codec.ts';
import { type Deps, modOf } from './deps.ts';
import { findNetwork, guarded, guardOf, refuseUnagreed, removeGuarded } from './guarded.ts';
import { keys } from './keys.ts';
import type { Compare, Op, Planned } from './txn.ts';

export async function createService(
  deps: Deps,
  wanted: NewService,
  agreed: ReadonlyMap<string, string>,
): Promise<ServiceOutcome> {
  const network = await findNetwork(deps, wanted.networkId);
  const made = { id: deps.newId(), createdAt: rfc3339(deps.clock), revision: 0n };
  return deps.committer.run(guardOf(network), () => planCreate(deps, network, wanted, agreed, made));
}

function planCreate(
  deps: Deps,
  network: Network,
  wanted: NewService,
  agreed: ReadonlyMap<string, string>,
  made: Pick<Service, 'id' | 'createdAt' | 'revision'>,
): Planned<ServiceOutcome> {
  const { cache } = deps;
  const find = (): Service | undefined => cache.services.get(network.id)?.get(wanted.name);
  const done = find();
  if (done?.id === made.id) return { done: { made: done } };
  const clash = serviceClash(cache, network, wanted);
  if (clash !== null) throw clash;
  refuseUnagreed(deps, network, wanted.ips, agreed);
  const ips = [...wanted.ips];
  const families = familiesToPick(network, wanted);
  const blocks = cache.blocks.get(network.id)?.values().toArray() ?? [];
  const occupied: ReadonlySet<string> = families.length === 0 ? new Set() : occupiedAddresses(cache, network.id);
  for (const family of families) {
    const ip = pickOutside(network, family, blocks, occupied);
    if (ip === null) return { done: { crowded: family } };
    ips.push(ip);
  }
  ips.sort((a, b) => familyOfText(a) - familyOfText(b));
  const record: Service = { ...wanted, ips, ...made };
  const key = keys.service(network.project, network.id, record.name);
  const { compares, ops } = guarded(deps, network, record.id);
  const ports = record.publish === '' ? { compares: [], ops: [] } : guardedPorts(deps, record.id);
  return {
    txn: {
      compares: [...compares, ...ports.compares, { key, mod: 0n }],
      ops: [...ops, ...ports.ops, { put: key, value: encode.service(record) }],
    },
    result: (revision) => ({ made: find() ?? { ...record, revision } }),
  };
}

/** Networks have guards of their own, and all share the hosts' ports. */
function guardedPorts({ cache }: Deps, by: string): { compares: Compare[]; ops: Op[] } {
  const guard = keys.portguard();
  return { compares: [{ key: guard, mod: modOf(cache, guard) }], ops: [{ put: guard, value: by }] };
}

export const removeService = (deps: Deps, networkId: string, name: string): Promise<Revision> =>
  removeGuarded(deps, networkId, name, (network) => keys.service(network.project, networkId, name));
