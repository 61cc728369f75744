/** Policies: made or replaced together. Whatever writes one compares its network's guard, so that their number is what it seems. */
import { rfc3339 } from '../../lib/clock.ts';
import { WeftError } from '../../lib/errors.ts';
import type { Network, Policy, Revision } from '../../lib/model.ts';
import { refuseTooMany } from '../alloc/policies.ts';
import type { NewPolicy, PolicyOutcome } from '../contract.ts';
import { encode } from './codec.ts';
import { type Deps, modOf } from './deps.ts';
import { findNetwork, guarded, removeGuarded } from './guarded.ts';
import { keys } from './keys.ts';
import { type Compare, MAX_OPS, type Op, type Planned } from './txn.ts';

export const BATCH = 64;
/** Of a transaction: etcd refuses requests of more than 1.5 MiB. */
const BATCH_BYTES = 1024 * 1024;
/** One apply after the other: those of one coordinator would only make each other's compares fail. */
const QUEUE = 'policies';

export async function applyPolicies(deps: Deps, wanted: readonly NewPolicy[]): Promise<readonly PolicyOutcome[]> {
  const networks = new Map<string, Network>();
  for (const { networkId } of wanted)
    if (!networks.has(networkId)) networks.set(networkId, await findNetwork(deps, networkId));
  const records = wanted.map((one): Policy => {
    return { ...one, id: deps.newId(), createdAt: rfc3339(deps.clock), revision: 0n };
  });
  const outcomes: PolicyOutcome[] = [];
  for (const batch of batches(records)) {
    /** What has been tried: a transaction whose answer was lost may be done. */
    const tried = new Map<string, PolicyOutcome['outcome']>();
    try {
      outcomes.push(...(await deps.committer.run(QUEUE, (unsure) => planApply(deps, networks, batch, tried, unsure))));
    } catch (error) {
      const { code, message } = WeftError.from(error);
      // With a network its policies are gone.
      if (outcomes.length === 0 || code === 'NOT_FOUND') throw error;
      throw new WeftError(code, `${message} (${outcomes.length} of ${wanted.length} policies are in place)`, {
        hint: 'apply them again: those that are in place stay as they are',
        cause: error,
      });
    }
  }
  return outcomes;
}

/** Each policy is a compare and an operation, and each network two compares. */
export function batches(records: readonly Policy[]): readonly (readonly Policy[])[] {
  const all: Policy[][] = [];
  let [batch, networks, bytes]: [Policy[], Set<string>, number] = [[], new Set(), 0];
  for (const record of records) {
    const size = Buffer.byteLength(encode.policy(record));
    const compares = batch.length + 1 + 2 * new Set([...networks, record.networkId]).size;
    if (batch.length > 0 && (batch.length >= BATCH || compares > MAX_OPS || bytes + size > BATCH_BYTES))
      [batch, networks, bytes] = [[], new Set(), 0];
    if (batch.length === 0) all.push(batch);
    batch.push(record);
    networks.add(record.networkId);
    bytes += size;
  }
  return all;
}

function planApply(
  deps: Deps,
  networks: ReadonlyMap<string, Network>,
  batch: readonly Policy[],
  tried: Map<string, PolicyOutcome['outcome']>,
  unsure: boolean,
): Planned<readonly PolicyOutcome[]> {
  const { cache } = deps;
  const find = ({ networkId, name }: Policy): Policy | undefined => cache.policies.get(networkId)?.get(name);
  refuseTooMany(cache, batch);
  const compares: Compare[] = [];
  const ops: Op[] = [];
  const touched = new Set<Network>();
  const planned = batch.map((record): { policy: Policy; outcome: PolicyOutcome['outcome'] } => {
    const network = networks.get(record.networkId)!;
    const key = keys.policy(network.project, network.id, record.name);
    const present = find(record);
    // Another policy of that name is another one: only what is replaced keeps its id.
    const policy = present === undefined ? record : { ...record, id: present.id, createdAt: present.createdAt };
    const value = encode.policy(policy);
    if (present !== undefined && encode.policy(present) === value)
      return { policy, outcome: (unsure ? tried.get(key) : undefined) ?? 'unchanged' };
    const outcome = present === undefined ? 'created' : 'updated';
    tried.set(key, outcome);
    touched.add(network);
    compares.push({ key, mod: modOf(cache, key) });
    ops.push({ put: key, value });
    return { policy, outcome };
  });
  const result = (revision: bigint): readonly PolicyOutcome[] =>
    planned.map(({ policy, outcome }) => ({ policy: find(policy) ?? { ...policy, revision }, outcome }));
  if (ops.length === 0) return { done: result(cache.revision) };
  for (const network of touched) {
    const guard = guarded(deps, network, network.id);
    compares.push(...guard.compares);
    ops.push(...guard.ops);
  }
  return { txn: { compares, ops }, result };
}

export const removePolicy = (deps: Deps, networkId: string, name: string): Promise<Revision> =>
  removeGuarded(deps, networkId, name, (network) => keys.policy(network.project, networkId, name));
