/** Removes a network for a user or for Docker. What has just left it, on whatever host, does not keep it. */
import { codeOf } from '../../lib/errors.ts';
import type { Revision } from '../../lib/model.ts';
import type { Parts } from '../parts.ts';

/** For a host to register what has left; the agent's own call of removeNetwork must not end before. */
const FLUSH_MS = 3000;

/** A host whose coordinator has gone is back within this: an agent fails over within 2 s. */
const RETURN_MS = 2000;

/**
 * Refused because of endpoints, it looks again: another coordinator may have removed them, and on their hosts the removal may be in
 * the journal and not registered yet. One round trip when they are really there. Hosts that are not connected are waited for, but
 * only where theirs are the last endpoints: they may be between two sessions.
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
  const hosts = (): Set<string> =>
    new Set([...(state.endpoints.get(id)?.values() ?? [])].map((endpoint) => endpoint.hostId));
  const flush = async (host: string): Promise<void> => {
    try {
      await fanout.ask(host, { $case: 'flush', value: {} }, FLUSH_MS, signal);
    } catch (error) {
      // Then its endpoints are as they are registered.
      log.debug({ err: error, host, network: id }, 'host does not say what has left');
    }
  };
  const all = [...hosts()];
  const away = new Set(all.filter((host) => !fanout.connected(host)));
  await Promise.all(all.filter((host) => !away.has(host)).map(flush));
  if (all.length > away.size) await store.caughtUp();
  if (away.size > 0 && [...hosts()].every((host) => away.has(host))) {
    await Promise.all([...away].map(async (host) => (await fanout.returned(host, RETURN_MS, signal)) && flush(host)));
    await store.caughtUp();
  }
  return store.deleteNetwork(id);
}
