/** Reservations, and single addresses that are held because of them. Whatever adds one compares the network's guard. */
import { rfc3339 } from '../../lib/clock.ts';
import { WeftError } from '../../lib/errors.ts';
import type { Address, Network, Reservation, Revision } from '../../lib/model.ts';
import { reservationClash, textOf, withMac } from '../alloc/reservations.ts';
import { reservationAt } from '../alloc/reserved.ts';
import type { NewReservation } from '../contract.ts';
import { encode } from './codec.ts';
import { type Deps, modOf } from './deps.ts';
import { findNetwork, guarded, guardOf, refuseUnagreed, removeGuarded } from './guarded.ts';
import { keys } from './keys.ts';
import { blockOf, ownerName } from './taken.ts';
import type { Compare, Planned } from './txn.ts';

export async function createReservation(
  deps: Deps,
  wanted: NewReservation,
  agreed: ReadonlyMap<string, string>,
): Promise<Reservation> {
  const network = await findNetwork(deps, wanted.networkId);
  const made = { id: deps.newId(), createdAt: rfc3339(deps.clock), revision: 0n };
  return deps.committer.run(guardOf(network), () => planCreate(deps, network, wanted, agreed, made));
}

function planCreate(
  deps: Deps,
  network: Network,
  wanted: NewReservation,
  agreed: ReadonlyMap<string, string>,
  made: Pick<Reservation, 'id' | 'createdAt' | 'revision'>,
): Planned<Reservation> {
  const { cache } = deps;
  const find = (): Reservation | undefined => cache.reservations.get(network.id)?.get(wanted.name);
  const done = find();
  if (done?.id === made.id) return { done };
  const clash = reservationClash(cache, network, wanted);
  if (clash !== null) throw clash;
  refuseUnagreed(deps, network, wanted.ips, agreed);
  const record: Reservation = { ...withMac(cache, wanted), ...made };
  const key = keys.reservation(network.project, network.id, record.name);
  const { compares, ops } = guarded(deps, network, record.id);
  return {
    txn: {
      compares: [...compares, { key, mod: 0n }],
      ops: [...ops, { put: key, value: encode.reservation(record) }],
    },
    result: (revision) => find() ?? { ...record, revision },
  };
}

export const removeReservation = (deps: Deps, networkId: string, name: string): Promise<Revision> =>
  removeGuarded(deps, networkId, name, (network) => keys.reservation(network.project, networkId, name));

export async function holdReserved(deps: Deps, networkId: string, address: string, hostId: string): Promise<Address> {
  const network = await findNetwork(deps, networkId);
  return deps.committer.run(guardOf(network), () => {
    const { cache } = deps;
    const reservation = reservationAt(cache, networkId, address);
    if (reservation === undefined)
      throw new WeftError('ABORTED', `the address ${address} of ${ownerName(network)} is not reserved any more`);
    const user = cache.endpoints
      .get(networkId)
      ?.values()
      .find((endpoint) => endpoint.hostId !== hostId && endpoint.ips.includes(address));
    if (user !== undefined)
      throw new WeftError('ALREADY_EXISTS', `${address} of ${ownerName(network)} is in use by ${textOf(cache, user)}`, {
        hint: `end that one first: the reservation "${reservation.name}" is for one container at a time`,
      });
    const key = keys.reservation(network.project, networkId, reservation.name);
    return planHold(deps, network, { address, hostId, grantorHostId: '' }, [{ key, mod: modOf(cache, key) }]);
  });
}

export async function holdOwn(deps: Deps, networkId: string, address: string, hostId: string): Promise<Address> {
  const network = await findNetwork(deps, networkId);
  return deps.committer.run(guardOf(network), () => {
    const block = blockOf(deps.cache, networkId, address);
    if (block?.hostId !== hostId)
      throw new WeftError('FAILED_PRECONDITION', `host ${hostId} does not hold the address ${address}`);
    const key = keys.block(network.project, networkId, block.cidr);
    return planHold(deps, network, { address, hostId, grantorHostId: hostId }, [{ key, mod: modOf(deps.cache, key) }]);
  });
}

function planHold(
  deps: Deps,
  network: Network,
  held: Pick<Address, 'address' | 'hostId' | 'grantorHostId'>,
  because: readonly Compare[],
): Planned<Address> {
  const find = (): Address | undefined => deps.cache.addresses.get(network.id)?.get(held.address);
  const present = find();
  if (present !== undefined && present.state !== 'refused') {
    if (present.hostId === held.hostId && present.state === 'held') return { done: present };
    const host = deps.cache.hosts.get(present.hostId)?.name ?? present.hostId;
    const verb = present.state === 'held' ? 'is held' : 'is being claimed';
    throw new WeftError('ALREADY_EXISTS', `${held.address} of ${ownerName(network)} ${verb} by host ${host}`, {
      hint: 'end the container that has it first',
    });
  }
  const record: Address = { ...held, networkId: network.id, state: 'held', reason: '', revision: 0n };
  const key = keys.address(network.project, network.id, held.address);
  const { compares, ops } = guarded(deps, network, held.hostId);
  return {
    txn: {
      compares: [...compares, ...because, { key, mod: modOf(deps.cache, key) }],
      ops: [...ops, { put: key, value: encode.address(record) }],
    },
    result: (revision) => find() ?? { ...record, revision },
  };
}
