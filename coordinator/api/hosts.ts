/** Control: hosts, and what every replica knows of those that are connected to it. */
import { type ControlServer, ControlService, type HostStatus } from '../../gen/weft/v1/control.ts';
import { WeftError } from '../../lib/errors.ts';
import type { Host } from '../../lib/model.ts';
import type { Parts } from '../parts.ts';
import type { Session } from '../session.ts';
import type { Method } from './method.ts';
import { hostOf, revisionOf } from './resolve.ts';

const ASK_MS = 3000;

type Methods = Pick<ControlServer, 'listHosts' | 'updateHost' | 'deleteHost'>;

export function hostMethods(parts: Parts, method: Method): Methods {
  const { state, store, log } = parts;
  return {
    listHosts: method(async ({ request, signal }) => ({
      hosts: request.localOnly ? localHosts(parts) : await allHosts(parts, signal),
      revision: revisionOf(state),
    })),

    updateHost: method(async ({ request, signal }) => {
      const host = hostOf(state, request.host);
      if (host.draining !== request.draining) {
        const { number } = await store.putHost({ ...host, draining: request.draining });
        await state.reached(number, signal);
        log.info({ host: host.name, draining: request.draining }, 'host updated');
      }
      const updated = (await allHosts(parts, signal)).find((status) => status.host?.id === host.id);
      return updated ?? down(state.hosts.get(host.id) ?? host);
    }),

    deleteHost: method(async ({ request }) => {
      const host = hostOf(state, request.host);
      const presence = state.presences.get(host.id);
      if (presence !== undefined)
        throw new WeftError('FAILED_PRECONDITION', `Host ${host.name} is connected.`, {
          hint: 'stop its agent first, then remove the host',
        });
      const revision = await store.deleteHost(host.id);
      log.info({ host: host.name, id: host.id }, 'host removed');
      return { revision };
    }),
  };
}

/** Hosts whose session is here. */
export const localHosts = (parts: Parts): HostStatus[] =>
  [...parts.sessions].map((session) => statusOf(session, parts.self.name));

/** Every host; those of other replicas as these say, or why they cannot be asked. */
export async function allHosts(parts: Parts, signal: AbortSignal): Promise<HostStatus[]> {
  const { state, fanout, self } = parts;
  const statuses = new Map<string, HostStatus>();
  const failures = new Map<string, string>();
  await Promise.all(
    fanout.others().map(async (record) => {
      try {
        const settings = { timeoutMs: ASK_MS, signal };
        const { hosts } = await fanout.call(record, ControlService.listHosts, { localOnly: true }, settings);
        for (const status of hosts)
          if (status.host !== undefined && state.presences.get(status.host.id)?.coordinatorId === record.id)
            statuses.set(status.host.id, status);
      } catch (error) {
        failures.set(record.id, WeftError.from(error).message);
      }
    }),
  );
  for (const status of localHosts(parts)) if (status.host !== undefined) statuses.set(status.host.id, status);
  const hosts = [...state.hosts.values()].sort((a, b) => (a.name < b.name ? -1 : 1));
  return hosts.map((host) => {
    const status = statuses.get(host.id);
    if (status !== undefined) return { ...status, host };
    const presence = state.presences.get(host.id);
    if (presence === undefined) return down(host);
    const coordinator = state.coordinators.get(presence.coordinatorId)?.name ?? '';
    const reason =
      failures.get(presence.coordinatorId) ??
      (presence.coordinatorId === self.id
        ? 'its session has only begun'
        : 'its coordinator is gone, or does not know it yet');
    return { ...down(host), state: 'lagging', coordinator, reason };
  });
}

const down = (host: Host): HostStatus => ({
  host,
  state: 'down',
  appliedRevision: undefined,
  coordinator: '',
  reason: '',
  conflicts: [],
});

function statusOf(session: Session, coordinator: string): HostStatus {
  const { host, failure, lagging } = session;
  const reason = failure !== '' ? failure : !session.inSync ? 'it is not in sync yet' : '';
  const refused = session.refused.map((message) => ({ host: host.name, network: '', message }));
  return {
    host,
    state: lagging ? 'lagging' : 'connected',
    appliedRevision: { epoch: session.epoch, number: session.inSync ? session.applied : session.acked },
    coordinator,
    reason: lagging ? reason || 'it has not acknowledged everything yet' : '',
    conflicts: [...session.conflicts, ...refused],
  };
}
