/**
 * A host that was removed from the mesh while it was away may come back with blocks that others hold by now. The mesh decides: what
 * lies in a block that another host got later is no longer this host's to give. Containers that run with such an address keep it;
 * the mesh refuses their endpoints, and names them.
 */
import { overlaps, parseCidr } from '../lib/addr.ts';
import type { Log } from '../lib/log.ts';
import type { Block } from '../lib/model.ts';
import type { AddressTable } from './address-table.ts';
import type { JournalWrite, LocalBlock } from './contract.ts';

/** Forgets blocks that the complete view shows as another host's. */
export async function loseBlocks(table: AddressTable, log: Log): Promise<void> {
  const { journal, mesh } = table;
  if (!mesh.complete) return;
  const view = mesh.view();
  const writes: JournalWrite[] = [];
  for (const [networkId, interest] of view.interests) {
    const theirs = [...interest.blocks.values()].filter((block) => block.hostId !== mesh.hostId);
    const lost = [...table.blocksOf(networkId)]
      .map(([, block]) => block)
      .filter((mine) => theirs.some((other) => isLost(mine, other, view.revision.epoch)))
      .map((block) => block.cidr);
    if (lost.length === 0) continue;
    const network = table.network(networkId)?.name ?? networkId;
    log.warn({ network, blocks: lost }, 'other hosts hold these blocks now: they are no longer given from');
    writes.push(...table.without(networkId, lost));
  }
  if (writes.length > 0) await journal.write(writes, { durable: true });
}

/** The view may be older than what this host got last: then the other one has given it back since. */
function isLost(mine: LocalBlock, other: Block, epoch: bigint): boolean {
  if (!overlaps(parseCidr(mine.cidr), parseCidr(other.cidr))) return false;
  return BigInt(mine.revision.epoch) !== epoch || other.revision > BigInt(mine.revision.number);
}
