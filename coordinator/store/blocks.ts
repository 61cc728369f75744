/** Address blocks of networks, and single addresses that are claimed out of other hosts' blocks. */
import { type Cidr, formatCidr, formatIp, overlaps, parseCidr } from '../../lib/addr.ts';
import { WeftError } from '../../lib/errors.ts';
import type { Address, Block, Network } from '../../lib/model.ts';
import { addressPlan, isPartition, pickBlock, pickBlockContaining } from '../alloc/blocks.ts';
import { notForEndpoints, spokenFor } from '../alloc/externals.ts';
import { checkAssignable } from '../alloc/families.ts';
import { addressOfService, reservationAt, serviceAt } from '../alloc/reserved.ts';
import type { WantedBlock } from '../contract.ts';
import { encode } from './codec.ts';
import { type Deps, fresh, modOf } from './deps.ts';
import { keys } from './keys.ts';
import { blockOf, ownerName, takenBlocks } from './taken.ts';
import { type Compare, chunks, MAX_OPS, type Op, type Planned, type Txn } from './txn.ts';

const guardOf = (network: Network): string => keys.blockguard(network.project, network.id);

/** @throws NOT_FOUND */
export function needNetwork(deps: Deps, id: string): Network {
  const network = deps.cache.networks.get(id);
  if (network === undefined)
    throw new WeftError('NOT_FOUND', `there is no network ${id}`, { hint: 'it may have been removed meanwhile' });
  return network;
}

/** @throws NOT_FOUND when etcd does not have it either */
async function findNetwork(deps: Deps, id: string): Promise<Network> {
  await fresh(deps, () => deps.cache.networks.get(id));
  return needNetwork(deps, id);
}

function needHost(deps: Deps, id: string): void {
  const host = deps.cache.hosts.get(id);
  if (host === undefined) throw new WeftError('NOT_FOUND', `there is no host ${id}`);
  if (host.draining)
    throw new WeftError('FAILED_PRECONDITION', `host ${host.name} is draining: it gets no new blocks`, {
      hint: 'start the container on another host',
    });
}

/** The network is still there, and nobody has added a block or an address since the cache's state. */
function guarded(deps: Deps, network: Network): { compares: Compare[]; ops: Op[] } {
  const guard = guardOf(network);
  return {
    compares: [
      { key: keys.network(network.project, network.id), exists: true },
      { key: guard, mod: modOf(deps.cache, guard) },
    ],
    ops: [{ put: guard, value: deps.coordinatorId }],
  };
}

export async function allocateBlock(
  deps: Deps,
  networkId: string,
  hostId: string,
  wanted: WantedBlock,
): Promise<Block | null> {
  const guard = guardOf(await findNetwork(deps, networkId));
  // A plan that is made again after a lost answer finds the first one's block.
  let written: string | null = null;
  return deps.committer.run<Block | null>(guard, (unsure) => {
    const network = needNetwork(deps, networkId);
    const mine = written === null || !unsure ? undefined : deps.cache.blocks.get(networkId)?.get(written);
    if (mine?.hostId === hostId) return { done: mine };
    needHost(deps, hostId);
    const choice = chooseBlock(deps, network, hostId, wanted);
    if (choice === null || typeof choice !== 'string') return { done: choice };
    written = choice;
    const block: Block = { networkId, cidr: choice, hostId, revision: 0n };
    const result = (revision: bigint): Block => deps.cache.blocks.get(networkId)?.get(choice) ?? { ...block, revision };
    return { txn: putBlock(deps, network, block), result };
  });
}

/** @throws ALREADY_EXISTS: no endpoint may have a service's address. */
function refuseService({ cache }: Deps, network: Network, address: string): void {
  const service = serviceAt(cache, network.id, address);
  if (service !== undefined) throw addressOfService(network, address, service);
}

/** A CIDR to write; a block that the host has already; null = nothing is free. */
function chooseBlock(deps: Deps, network: Network, hostId: string, wanted: WantedBlock): string | Block | null {
  const taken = (): Cidr[] => takenBlocks(deps.cache, network.id, hostId);
  if ('family' in wanted) {
    const plan = addressPlan(network, wanted.family);
    if (plan === null)
      throw new WeftError('INVALID_ARGUMENT', `${ownerName(network)} has no IPv${wanted.family} subnet`);
    return textOf(pickBlock(plan, taken()));
  }
  const { ip, plan } = checkAssignable(network, wanted.containing);
  refuseService(deps, network, wanted.containing);
  const block = blockOf(deps.cache, network.id, wanted.containing);
  if (block !== undefined) return block.hostId === hostId ? block : null;
  return textOf(pickBlockContaining(plan, taken(), ip));
}

const textOf = (picked: Cidr | null): string | null => (picked === null ? null : formatCidr(picked));

function putBlock(deps: Deps, network: Network, block: Block): Txn {
  const { compares, ops } = guarded(deps, network);
  const key = keys.block(network.project, network.id, block.cidr);
  return {
    compares: [...compares, { key, mod: 0n }],
    ops: [...ops, { put: key, value: encode.block(block) }],
  };
}

export async function shrinkBlock(
  deps: Deps,
  networkId: string,
  cidr: string,
  hostId: string,
  keep: readonly string[],
): Promise<void> {
  if (!isPartition(parseCidr(cidr), keep.map(parseCidr)))
    throw new WeftError('INVALID_ARGUMENT', `${keep.join(', ')} is not made of separate parts of ${cidr}`);
  if (keep.length > MAX_OPS - 2)
    throw new WeftError('INVALID_ARGUMENT', `${keep.length} parts of one block are too many to keep`, {
      hint: 'keep larger parts',
    });
  const network = deps.cache.networks.get(networkId);
  // Blocks go with their network.
  if (network === undefined || keep.includes(cidr)) return;
  await deps.committer.run(guardOf(network), () => planShrink(deps, network, cidr, hostId, keep));
}

function planShrink(
  deps: Deps,
  network: Network,
  cidr: string,
  hostId: string,
  keep: readonly string[],
): Planned<undefined> {
  const blocks = deps.cache.blocks.get(network.id);
  const block = blocks?.get(cidr);
  if (block === undefined || block.hostId !== hostId) {
    // Done before (a repeated call): the block is gone, and what was to be kept is there.
    if (block === undefined && keep.every((part) => blocks?.get(part)?.hostId === hostId)) return { done: undefined };
    throw new WeftError('FAILED_PRECONDITION', `host ${hostId} does not hold the block ${cidr}`);
  }
  const key = keys.block(network.project, network.id, cidr);
  const part = (of: string): Op => ({
    put: keys.block(network.project, network.id, of),
    value: encode.block({ networkId: network.id, cidr: of, hostId, revision: 0n }),
  });
  return {
    txn: {
      compares: [
        { key, mod: modOf(deps.cache, key) },
        { key: keys.network(network.project, network.id), exists: true },
      ],
      ops: [{ del: key }, ...keep.map(part)],
    },
    result: () => undefined,
  };
}

/** Why another may not have the address now. */
const takenBy = (deps: Deps, network: Network, claim: Address): WeftError => {
  const host = deps.cache.hosts.get(claim.hostId)?.name ?? claim.hostId;
  const verb = claim.state === 'held' ? 'is held' : 'is being claimed';
  return new WeftError('ALREADY_EXISTS', `${claim.address} of ${ownerName(network)} ${verb} by host ${host}`, {
    hint: 'choose another address',
  });
};

export async function claimAddress(
  deps: Deps,
  claim: Omit<Address, 'revision' | 'state' | 'reason'>,
): Promise<Address> {
  const guard = guardOf(await findNetwork(deps, claim.networkId));
  return deps.committer.run<Address>(guard, () => {
    const network = needNetwork(deps, claim.networkId);
    checkAssignable(network, claim.address);
    refuseService(deps, network, claim.address);
    if (reservationAt(deps.cache, network.id, claim.address) !== undefined)
      throw new WeftError('ABORTED', `${claim.address} of ${ownerName(network)} has just been reserved`);
    const present = deps.cache.addresses.get(network.id)?.get(claim.address);
    if (present !== undefined && present.state !== 'refused') {
      if (present.hostId !== claim.hostId) throw takenBy(deps, network, present);
      return { done: present };
    }
    if (spokenFor(deps.cache, network.id).has(claim.address)) throw notForEndpoints(network, claim.address);
    const written: Address = { ...claim, state: 'claimed', reason: '', revision: 0n };
    const key = keys.address(network.project, network.id, claim.address);
    const { compares, ops } = guarded(deps, network);
    const txn = {
      compares: [...compares, { key, mod: modOf(deps.cache, key) }],
      ops: [...ops, { put: key, value: encode.address(written) }],
    };
    const result = (revision: bigint): Address =>
      deps.cache.addresses.get(network.id)?.get(claim.address) ?? { ...written, revision };
    return { txn, result };
  });
}

export async function answerClaim(deps: Deps, claim: Address, granted: boolean, reason: string): Promise<void> {
  const network = needNetwork(deps, claim.networkId);
  const key = keys.address(network.project, network.id, claim.address);
  const state = granted ? 'held' : 'refused';
  await deps.committer.run(guardOf(network), () => {
    const present = deps.cache.addresses.get(network.id)?.get(claim.address);
    if (present?.state === state && present.hostId === claim.hostId) return { done: undefined };
    if (present === undefined || present.revision !== claim.revision)
      throw new WeftError('FAILED_PRECONDITION', `the claim of ${claim.address} is not there any more`, {
        hint: 'claim it again',
      });
    const value = encode.address({ ...present, state, reason });
    return { txn: { compares: [{ key, mod: present.revision }], ops: [{ put: key, value }] }, result: () => undefined };
  });
}

export async function releaseAddresses(
  deps: Deps,
  networkId: string,
  hostId: string,
  addresses: readonly string[],
): Promise<void> {
  const network = deps.cache.networks.get(networkId);
  if (network === undefined) return;
  for (const part of chunks([...new Set(addresses)], MAX_OPS))
    await deps.committer.run(guardOf(network), () => {
      const claims = deps.cache.addresses.get(networkId);
      const mine = part.filter((address) => claims?.get(address)?.hostId === hostId);
      if (mine.length === 0) return { done: undefined };
      const texts = mine.map((address) => keys.address(network.project, networkId, address));
      const compares = texts.map((key): Compare => ({ key, mod: modOf(deps.cache, key) }));
      return { txn: { compares, ops: texts.map((key): Op => ({ del: key })) }, result: () => undefined };
    });
}

/**
 * Puts back what a host holds and etcd does not know (a key deleted by hand, a backup that was older).
 * @returns null, or the sentence why it cannot be
 */
export async function restoreBlock(deps: Deps, block: Block): Promise<string | null> {
  const network = deps.cache.networks.get(block.networkId);
  if (network === undefined) return `block ${block.cidr}: there is no network ${block.networkId}`;
  return deps.committer.run<string | null>(guardOf(network), () => {
    const present = deps.cache.blocks.get(network.id)?.get(block.cidr);
    if (present?.hostId === block.hostId) return { done: null };
    const cidr = parseCidr(block.cidr);
    const other = [...(deps.cache.blocks.get(network.id)?.values() ?? [])].find((b) =>
      overlaps(parseCidr(b.cidr), cidr),
    );
    if (other !== undefined) return { done: conflict(deps, network, `block ${block.cidr}`, other.cidr, other.hostId) };
    const lost = takenBlocks(deps.cache, network.id, block.hostId, false).find((taken) => overlaps(taken, cidr));
    if (lost !== undefined)
      return {
        done: `block ${block.cidr} of ${ownerName(network)} has the address ${formatIp(lost.base)}, which went to somebody else while the host was away: weft endpoint ls and weft peer ls show whose it is now, or by whom it may be used; when it is free again, restart the host's agent`,
      };
    return { txn: putBlock(deps, network, block), result: () => null };
  });
}

export async function restoreAddress(deps: Deps, held: Address): Promise<string | null> {
  const network = deps.cache.networks.get(held.networkId);
  if (network === undefined) return `address ${held.address}: there is no network ${held.networkId}`;
  return deps.committer.run<string | null>(guardOf(network), () => {
    const present = deps.cache.addresses.get(network.id)?.get(held.address);
    if (present !== undefined) {
      if (present.hostId === held.hostId) return { done: null };
      return { done: conflict(deps, network, `address ${held.address}`, held.address, present.hostId) };
    }
    const user = [...(deps.cache.endpoints.get(network.id)?.values() ?? [])].find(
      (e) => e.hostId !== held.hostId && e.ips.includes(held.address),
    );
    if (user !== undefined)
      return { done: conflict(deps, network, `address ${held.address}`, held.address, user.hostId) };
    const service = serviceAt(deps.cache, network.id, held.address);
    if (service !== undefined)
      return { done: `address ${held.address} of ${ownerName(network)}: it is the address of service ${service.name}` };
    const key = keys.address(network.project, network.id, held.address);
    const { compares, ops } = guarded(deps, network);
    const value = encode.address({ ...held, state: 'held', reason: '' });
    return {
      txn: { compares: [...compares, { key, mod: 0n }], ops: [...ops, { put: key, value }] },
      result: () => null,
    };
  });
}

function conflict(deps: Deps, network: Network, what: string, theirs: string, hostId: string): string {
  const host = deps.cache.hosts.get(hostId)?.name ?? hostId;
  return `${what} of ${ownerName(network)}: host ${host} holds ${theirs}`;
}
