/** Control: the whole mesh at a glance. */
import type { ControlServer, CoordinatorStatus } from '../../gen/weft/v1/control.ts';
import { ControlService } from '../../gen/weft/v1/control.ts';
import { WeftError } from '../../lib/errors.ts';
import type { CoordinatorRecord } from '../contract.ts';
import { mtuConflicts } from '../mtu-conflicts.ts';
import type { Parts } from '../parts.ts';
import { nameConflicts } from '../reservation-conflicts.ts';
import { allHosts } from './hosts.ts';
import type { Method } from './method.ts';
import { revisionOf } from './resolve.ts';

const ASK_MS = 3000;

export function statusMethods(parts: Parts, method: Method): Pick<ControlServer, 'getStatus'> {
  const { state, sessions, self, fanout } = parts;
  const statusOf = async (record: CoordinatorRecord, signal: AbortSignal): Promise<CoordinatorStatus> => {
    const { id, name, address, version } = record;
    const up = { id, name, address, version, state: 'up' };
    if (id === self.id) return { ...up, sessions: sessions.size, revision: revisionOf(state) };
    try {
      const settings = { timeoutMs: ASK_MS, signal };
      const answer = await fanout.call(record, ControlService.listHosts, { localOnly: true }, settings);
      return { ...up, sessions: answer.hosts.length, revision: answer.revision };
    } catch (error) {
      return { ...up, state: WeftError.from(error).message, sessions: 0, revision: undefined };
    }
  };
  return {
    getStatus: method(async ({ signal }) => {
      const records = [...state.coordinators.values()].sort((a, b) => (a.name < b.name ? -1 : 1));
      const [coordinators, hosts] = await Promise.all([
        Promise.all(records.map((record) => statusOf(record, signal))),
        allHosts(parts, signal),
      ]);
      const conflicts = [...hosts.flatMap((host) => host.conflicts), ...mtuConflicts(state), ...nameConflicts(state)];
      return { revision: revisionOf(state), coordinators, hosts, conflicts };
    }),
  };
}
