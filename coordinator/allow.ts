/**
 * Allowed addresses that lie in a host's block: it is asked first, as for a given address, and keeps them out of what it gives to
 * containers by itself, on disk: also while it is away. Its agent takes them back when it sees that nobody is allowed them any more.
 */
import { WeftError } from '../lib/errors.ts';
import type { Endpoint, Revision } from '../lib/model.ts';
import { grantorGone } from './claims.ts';
import type { Grantor, SettingsChange } from './contract.ts';
import type { Parts } from './parts.ts';

const GRANT_MS = 2500;
/** A block that moves while its holder is asked has another one to ask. */
const MAX_ROUNDS = 4;

type Deps = Pick<Parts, 'state' | 'store' | 'fanout'>;

/** @throws as Store.updateSettings; FAILED_PRECONDITION, UNAVAILABLE a host that is not connected, or silent; ALREADY_EXISTS in use there */
export async function changeSettings(deps: Deps, endpoint: Endpoint, change: SettingsChange): Promise<Revision> {
  const granted: Grantor[] = [];
  for (let round = 0; round < MAX_ROUNDS; round++) {
    const done = await deps.store.updateSettings(endpoint.networkId, endpoint.id, change, granted);
    if ('revision' in done) return done.revision;
    for (const one of done.ask) {
      await askLeave(deps, endpoint, one);
      granted.push(one);
    }
  }
  throw new WeftError('ABORTED', 'The blocks around the addresses go from host to host just now.', {
    hint: 'try again in a moment',
  });
}

async function askLeave({ state, fanout }: Deps, endpoint: Endpoint, { ip, hostId }: Grantor): Promise<void> {
  const name = state.hosts.get(hostId)?.name ?? hostId;
  if (!state.presences.has(hostId)) throw grantorGone(ip, name);
  const query = { networkId: endpoint.networkId, address: ip, forHostId: endpoint.hostId };
  try {
    await fanout.ask(hostId, { $case: 'grant', value: query }, GRANT_MS);
  } catch (error) {
    const { code, message } = WeftError.from(error);
    if (code === 'DEADLINE_EXCEEDED' || code === 'UNAVAILABLE')
      throw new WeftError('UNAVAILABLE', `Host ${name} did not answer for the address ${ip} in its block.`, {
        hint: 'try again, or choose another address',
        cause: error,
      });
    throw new WeftError('FAILED_PRECONDITION', `Host ${name} does not give the address ${ip} away: ${message}`, {
      hint: 'choose another address',
      cause: error,
    });
  }
}
