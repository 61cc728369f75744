/** External peers: VTEPs that are no hosts of the mesh. One adds at a time to a network: the name is compared by its guard. */
import { rfc3339 } from '../../lib/clock.ts';
import { WeftError } from '../../lib/errors.ts';
import type { ExternalPeer, Network, Revision } from '../../lib/model.ts';
import { checkCarried, isEncap } from '../alloc/encap.ts';
import { blockAround, peerClash } from '../alloc/externals.ts';
import { encode } from './codec.ts';
import { type Deps, fresh, modOf, revisionOf } from './deps.ts';
import { keys } from './keys.ts';
import { connectedHosts, ownerName } from './taken.ts';
import type { Compare, Op, Planned } from './txn.ts';

const MAX_PEERS = 1000;

export async function addPeer(
  deps: Deps,
  peer: Omit<ExternalPeer, 'id' | 'revision' | 'createdAt'>,
): Promise<ExternalPeer> {
  const network = await fresh(deps, () => deps.cache.networks.get(peer.networkId));
  if (network === undefined) throw new WeftError('NOT_FOUND', `there is no network ${peer.networkId}`);
  const record: ExternalPeer = { ...peer, id: deps.newId(), createdAt: rfc3339(deps.clock), revision: 0n };
  const guard = keys.blockguard(network.project, network.id);
  return deps.committer.run(guard, () => planAdd(deps, network, record, guard));
}

function planAdd(deps: Deps, network: Network, peer: ExternalPeer, guard: string): Planned<ExternalPeer> {
  const { cache } = deps;
  const mine = cache.externals.get(network.id);
  const done = mine?.get(peer.id);
  if (done !== undefined) return { done };
  if (mine !== undefined && mine.size >= MAX_PEERS)
    throw new WeftError('RESOURCE_EXHAUSTED', `${ownerName(network)} has ${MAX_PEERS} external peers`);
  refuse(deps, network, peer);
  const key = keys.external(network.project, network.id, peer.id);
  const compares: Compare[] = [
    { key: keys.network(network.project, network.id), exists: true },
    { key: guard, mod: modOf(cache, guard) },
    { key, mod: 0n },
  ];
  const ops: Op[] = [
    { put: key, value: encode.external(peer) },
    { put: guard, value: peer.id },
  ];
  return {
    txn: { compares, ops },
    result: (revision) => cache.externals.get(network.id)?.get(peer.id) ?? { ...peer, revision },
  };
}

/** @throws ALREADY_EXISTS, FAILED_PRECONDITION */
function refuse(deps: Deps, network: Network, peer: ExternalPeer): void {
  const { cache } = deps;
  const clash = peerClash(cache, network, peer);
  if (clash !== null) throw clash;
  const encap = peer.encap || network.encap;
  if (isEncap(encap)) checkCarried(connectedHosts(deps), { encap, uplink: '' });
  for (const { ip } of peer.macs) {
    const block = ip === '' ? undefined : blockAround(cache, network, ip);
    if (block === undefined) continue;
    const host = cache.hosts.get(block.hostId)?.name ?? block.hostId;
    throw new WeftError('FAILED_PRECONDITION', `the address ${ip} is in the block ${block.cidr} of host ${host}`, {
      hint: 'choose one that no host gives out: outside of --ip-range, or an auxiliary address of the network',
    });
  }
}

export async function removePeer(deps: Deps, networkId: string, id: string): Promise<Revision> {
  const network = await fresh(deps, () => deps.cache.networks.get(networkId));
  if (network === undefined) throw new WeftError('NOT_FOUND', `there is no network ${networkId}`);
  const key = keys.external(network.project, networkId, id);
  return deps.committer.run(key, () => {
    if (!deps.cache.raw.has(key)) return { done: revisionOf(deps, deps.cache.revision) };
    const txn = { compares: [{ key, mod: modOf(deps.cache, key) }], ops: [{ del: key }] };
    return { txn, result: (revision) => revisionOf(deps, revision) };
  });
}
