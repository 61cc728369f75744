/** Removes a network for a user or for Docker. What has just left it, on whatever host, does not keep it. */
import { codeOf } from '../../lib/errors.ts';
import type { Revision } from '../../lib/model.ts';
import type { Parts } from '../parts.ts';

/** For a host to register what has left; the agent's own call of removeNetwork must not end before. */
const FLUSH_MS = 3000;

/**
 * Refused because of endpoints, it looks again: another coordinator may have removed them, and on their hosts the removal may be in
 * the journal and not registered yet. One round trip when they are really there.
 * @throws FAILED_PRECONDITION naming endpoints; NOT_FOUND
 */
export async function removeNetwork(
  { state, store, fanout, log }: Pick<Parts, 'state' | 'store' | 'fanout' | 'log'>,
  id: string,
  signal: AbortSignal,
): Promise<Revision> {
  try {
    return await store.deleteNetwork(id);
  } catch (error) {
    if (codeOf(error) !== 'FAILED_PRECONDITION') throw error;
  }
  await store.caughtUp();
  const hosts = new Set([...(state.endpoints.get(id)?.values() ?? [])].map((endpoint) => endpoint.hostId));
  await Promise.all(
    [...hosts].map(async (host) => {
      try {
        await fanout.ask(host, { $case: 'flush', value: {} }, FLUSH_MS, signal);
      } catch (error) {
        // Then its endpoints are as they are registered.
        log.debug({ err: error, host, network: id }, 'host does not say what has left');
      }
    }),
  );
  if (hosts.size > 0) await store.caughtUp();
  return store.deleteNetwork(id);
}
