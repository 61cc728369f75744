import { existsSync, mkdirSync, readFileSync, writeFileSync } from 'node:fs';
import { parseDocument, stringify } from 'yaml';
import type { TlsFiles } from '../../lib/tls.ts';
import type { NodePaths } from './paths.ts';
import {
  COORDINATOR_PORT,
  coordinatorAddress,
  coordinatorUrls,
  etcdUrls,
  type HostPlan,
  hostAddress,
  type LabPlan,
} from './plan.ts';

/** Configuration files of the lab's agents and coordinators: what their authors read, with the lab's paths in it. */

export const AGENT_METRICS = '127.0.0.1:7472';
const COORDINATOR_METRICS_PORT = 7471;

export function agentConfig(plan: LabPlan, host: HostPlan, node: NodePaths, tls: TlsFiles): Record<string, unknown> {
  return {
    name: host.name,
    coordinators: coordinatorUrls(plan),
    tls,
    stateDir: `${node.state}/agent`,
    runDir: '/run/weft',
    pluginSocket: '/run/docker/plugins/weft.sock',
    dockerSocket: '/run/docker.sock',
    ovs: { db: '/run/openvswitch/db.sock', rundir: '/run/openvswitch' },
    datapath: 'auto',
    bpfDir: '/run/weft/bpf/pins',
    underlay: { vtep: hostAddress(plan, host) },
    metrics: AGENT_METRICS,
    log: { level: 'info', file: `${node.log}/agent.log` },
    heal: true,
    vxlanPort: 4789,
  };
}

export function coordinatorConfig(
  plan: LabPlan,
  index: number,
  node: NodePaths,
  tls: TlsFiles,
): Record<string, unknown> {
  const address = coordinatorAddress(plan, index);
  return {
    name: node.name,
    listen: [`${address}:${COORDINATOR_PORT}`],
    advertise: `${address}:${COORDINATOR_PORT}`,
    metrics: `${address}:${COORDINATOR_METRICS_PORT}`,
    tls,
    etcd: { endpoints: etcdUrls(plan) },
    stateDir: `${node.state}/coordinator`,
    log: { level: 'info', file: `${node.log}/coordinator.log` },
  };
}

/**
 * Writes a configuration file and the directory that it names as stateDir. A file that is there stays as somebody edited it,
 * but for `follow`: the key that changes when the lab grows.
 * @returns its path.
 */
export function writeConfig(file: string, config: Record<string, unknown>, follow: string): string {
  if (typeof config['stateDir'] === 'string') mkdirSync(config['stateDir'], { recursive: true });
  if (!existsSync(file)) {
    writeFileSync(file, stringify(config));
    return file;
  }
  const document = parseDocument(readFileSync(file, 'utf8'));
  // What cannot be read is for the daemon to complain about.
  if (document.errors.length > 0 || JSON.stringify(document.toJS()?.[follow]) === JSON.stringify(config[follow]))
    return file;
  document.set(follow, config[follow]);
  writeFileSync(file, document.toString());
  return file;
}
