/** After a change: until every connected host has it, so that the next `docker run --network`, on any host, finds it so. */
import type { Revision } from '../gen/weft/v1/types.ts';
import { WeftError } from '../lib/errors.ts';
import type { Mesh } from './client.ts';
import type { Io } from './io.ts';
import { showWarning } from './output.ts';

const SETTLE_MS = 10_000;
/** What the coordinator may need on top of what it was told to wait. */
const GRACE_MS = 2_000;

/**
 * The change is done and stays done: who is late, or why it cannot be known, is a warning. Never rejects.
 * @param revision undefined = the newest that the coordinator knows
 */
export async function settle(io: Io, mesh: Mesh, revision: Revision | undefined, json: boolean): Promise<void> {
  const hint = 'weft wait waits for them; weft status says more';
  try {
    const request = { revision, network: '', project: '', timeoutMs: SETTLE_MS, localOnly: false, exceptHostIds: [] };
    const { laggards } = await mesh.call('waitApplied', request, { timeoutMs: SETTLE_MS + GRACE_MS });
    if (laggards.length === 0) return;
    const late = laggards.map((l) => (l.reason === '' ? l.host : `${l.host} (${l.reason})`));
    showWarning(io, `Done, but not on every host yet: ${late.join(', ')}.`, hint, json);
  } catch (error) {
    const { message } = WeftError.from(error);
    showWarning(io, `Done, but whether every host has it is not known: ${message}`, hint, json);
  }
}

/** A revision of the present epoch, whatever that is. */
export const ofThisEpoch = (number: bigint): Revision => ({ epoch: 0n, number });
