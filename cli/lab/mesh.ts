import { WeftError } from '../../lib/errors.ts';
import { Mesh } from '../client.ts';
import { tlsFiles, USER } from './certs.ts';
import { daemonBuilt, type LabPaths, nodePaths } from './paths.ts';
import { coordinatorUrls, type LabPlan } from './plan.ts';
import { until } from './run.ts';

const DEADLINE = 60_000;

/**
 * Waits until every host with an agent is connected and in sync.
 * @throws DEADLINE_EXCEEDED naming those that are not, and why.
 */
export async function waitForMesh(lab: LabPaths, plan: LabPlan): Promise<void> {
  if (!daemonBuilt('coordinator') || !daemonBuilt('agent')) return;
  const missing = new Map(
    plan.hosts.filter((host) => !host.bare).map((host) => [host.id, { name: host.name, why: 'unknown' }]),
  );
  if (missing.size === 0 || plan.coordinators.length === 0) return;
  const target = { coordinators: coordinatorUrls(plan), tls: tlsFiles(lab, USER) };
  const giveUp = AbortSignal.timeout(DEADLINE);
  const look = async (): Promise<boolean> => {
    const mesh = await Mesh.connect(target, giveUp);
    try {
      return await until(
        'hosts',
        async () => {
          const { hosts } = await mesh.call('listHosts', { localOnly: false });
          for (const { host, state, reason } of hosts) {
            const one = missing.get(host?.id ?? '');
            if (state === 'connected') missing.delete(host?.id ?? '');
            else if (one !== undefined) one.why = reason === '' ? state : `${state}, ${reason}`;
          }
          return missing.size === 0;
        },
        { deadline: DEADLINE, every: 50 },
      );
    } finally {
      mesh.close();
    }
  };
  try {
    // A coordinator that was just started may refuse the first connections.
    await until('mesh', () => look().catch((error: unknown) => (giveUp.aborted ? Promise.reject(error) : false)), {
      deadline: DEADLINE,
      every: 100,
    });
  } catch (cause) {
    if (missing.size === 0) throw cause;
    const names = [...missing.values()].map(({ name, why }) => `${name} (${why})`);
    const first = [...missing.values()][0]?.name ?? '';
    const reached = WeftError.from(cause).code === 'UNAVAILABLE' ? ` ${WeftError.from(cause).message}` : '';
    throw new WeftError('DEADLINE_EXCEEDED', `Not in sync after ${DEADLINE / 1000} s: ${names.join(', ')}.${reached}`, {
      hint: `See ${nodePaths(lab.name, first).log}.`,
      cause,
    });
  }
}
