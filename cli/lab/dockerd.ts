import { mkdirSync, writeFileSync } from 'node:fs';
import { request } from 'node:http';
import { WeftError } from '../../lib/errors.ts';
import { RESOLVER_ADDRESS } from '../../lib/resolver-address.ts';
import { startInHost } from './anchor.ts';
import type { NodePaths } from './paths.ts';
import { alive } from './procs.ts';
import { until } from './run.ts';

/** dockerd of one host, with a containerd of its own and the standard paths in the host's /run. */

/** Content of the configuration file: the same on every host but for the paths. */
export function dockerdConfig(dataRoot: string, cgroup: string): Record<string, unknown> {
  return {
    hosts: ['unix:///run/docker.sock'],
    'data-root': dataRoot,
    'exec-root': '/run/docker',
    pidfile: '/run/docker.pid',
    'live-restore': true,
    // Docker's resolver in a container asks it, from there, for what it does not know.
    dns: [RESOLVER_ADDRESS],
    'cgroup-parent': `/${cgroup}`,
    // systemd's driver wants slices, and the lab has no systemd.
    'exec-opts': ['native.cgroupdriver=cgroupfs'],
    features: { 'containerd-snapshotter': false },
    'shutdown-timeout': 5,
  };
}

/**
 * Starts dockerd. The host must have none.
 * @param enter words before its command line, which lead to where it runs.
 * @returns its pid.
 */
export async function startDockerd(node: NodePaths, dataRoot: string, enter: readonly string[] = []): Promise<number> {
  mkdirSync(dataRoot, { recursive: true });
  const config = `${node.state}/dockerd.json`;
  writeFileSync(config, `${JSON.stringify(dockerdConfig(dataRoot, node.cgroup), null, 2)}\n`);
  const log = `${node.log}/dockerd.log`;
  return startInHost(node, log, [...enter, 'env', 'TMPDIR=/tmp', 'dockerd', `--config-file=${config}`]);
}

/** Waits until it answers. With networks of Weft from before, that is not before the agent does. @throws when it ends */
export async function dockerdAnswers(node: NodePaths, pid: number): Promise<void> {
  const log = `${node.log}/dockerd.log`;
  const socket = `${node.hostRun}/docker.sock`;
  await until(
    `dockerd on ${node.name} answers`,
    async () => {
      if (!alive(pid)) throw new WeftError('INTERNAL', `dockerd on ${node.name} ended.`, { hint: `See ${log}.` });
      return pings(socket);
    },
    { deadline: 60_000, every: 40, hint: `See ${log}.` },
  );
}

/** True when a daemon answers GET /_ping on that socket. */
export function pings(socketPath: string): Promise<boolean> {
  return new Promise((resolve) => {
    const call = request({ socketPath, path: '/_ping', timeout: 2000 }, (response) => {
      response.resume();
      resolve(response.statusCode === 200);
    });
    call.on('error', () => resolve(false));
    call.on('timeout', () => call.destroy());
    call.end();
  });
}
