/** Control: every host reads its real things anew; the coordinator does the same with etcd's keys, as the host "etcd". */
import type { ControlServer, HostAudit } from '../../gen/weft/v1/control.ts';
import { WeftError } from '../../lib/errors.ts';
import type { Host } from '../../lib/model.ts';
import type { Parts } from '../parts.ts';
import type { Method } from './method.ts';
import { hostOf } from './resolve.ts';

const AUDIT_MS = 30_000;

export function auditMethods(parts: Parts, method: Method): Pick<ControlServer, 'audit'> {
  const { state, sessions, fanout, auditor, log } = parts;

  const auditHost = async (host: Host, noHeal: boolean, signal: AbortSignal): Promise<HostAudit> => {
    try {
      const answer = await fanout.ask(host.id, { $case: 'audit', value: { noHeal } }, AUDIT_MS, signal);
      return { host: host.name, drift: answer.body?.$case === 'audit' ? answer.body.value.drift : [], error: '' };
    } catch (error) {
      return { host: host.name, drift: [], error: WeftError.from(error).message };
    }
  };

  const auditEtcd = async (noHeal: boolean): Promise<HostAudit[]> => {
    if (auditor === null) return [];
    try {
      const drift = [...(await auditor.audit(!noHeal))];
      return drift.length === 0 ? [] : [{ host: 'etcd', drift, error: '' }];
    } catch (error) {
      log.warn({ err: error }, 'etcd cannot be audited');
      return [{ host: 'etcd', drift: [], error: WeftError.from(error).message }];
    }
  };

  return {
    audit: method(async ({ request, signal }) => {
      const { noHeal, localOnly } = request;
      const all = [...state.hosts.values()].sort((a, b) => (a.name < b.name ? -1 : 1));
      const chosen = request.host === '' ? all : [hostOf(state, request.host)];
      const hosts = localOnly ? chosen.filter((host) => sessions.live(host.id) !== undefined) : chosen;
      const [found, etcd] = await Promise.all([
        Promise.all(hosts.map((host) => auditHost(host, noHeal, signal))),
        request.host === '' && !localOnly ? auditEtcd(noHeal) : [],
      ]);
      return { hosts: [...found, ...etcd] };
    }),
  };
}
