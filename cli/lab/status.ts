import type { TlsFiles } from '../../lib/tls.ts';
import { tlsFiles, USER } from './certs.ts';
import { type HostPids, hostProcesses, memberPid } from './inventory.ts';
import { currentUnderlay } from './ovs.ts';
import { labPaths, nodePaths } from './paths.ts';
import { COORDINATOR_PORT, coordinatorAddress, etcdClientUrl, hostAddress } from './plan.ts';
import { processes } from './procs.ts';
import { requirePlan } from './state.ts';

/** What `lab status --json` prints. Paths are valid inside the hosts and outside. */
export interface LabStatus {
  readonly name: string;
  readonly hosts: readonly {
    readonly name: string;
    readonly netns: string;
    readonly dockerSocket: string;
    readonly pluginSocket: string;
    readonly agentSocket: string;
    readonly underlay: { readonly interface: string | null; readonly ip: string };
    readonly stateDir: string;
    readonly logDir: string;
    readonly pids: HostPids;
  }[];
  readonly coordinators: readonly { readonly name: string; readonly address: string; readonly pid: number | null }[];
  readonly etcd: readonly { readonly name: string; readonly clientUrl: string; readonly pid: number | null }[];
  readonly tls: TlsFiles;
}

/** @throws FAILED_PRECONDITION when the lab is not up. */
export async function status(name: string): Promise<LabStatus> {
  const lab = labPaths(name);
  const plan = requirePlan(lab);
  const all = processes();
  const hosts = plan.hosts.map(async (host) => {
    const node = nodePaths(name, host.name);
    const ip = hostAddress(plan, host);
    return {
      name: host.name,
      netns: node.netnsFile,
      dockerSocket: `${node.hostRun}/docker.sock`,
      pluginSocket: `${node.hostRun}/docker/plugins/weft.sock`,
      agentSocket: `${node.hostRun}/weft/agent.sock`,
      underlay: { interface: await currentUnderlay(node, ip), ip },
      stateDir: node.state,
      logDir: node.log,
      pids: hostProcesses(name, host.name, all),
    };
  });
  return {
    name,
    hosts: await Promise.all(hosts),
    coordinators: plan.coordinators.map((member) => ({
      name: member.name,
      address: `${coordinatorAddress(plan, member.index)}:${COORDINATOR_PORT}`,
      pid: memberPid(name, member.name, all),
    })),
    etcd: plan.etcd.map((member) => ({
      name: member.name,
      clientUrl: etcdClientUrl(plan, member.index),
      pid: memberPid(name, member.name, all),
    })),
    tls: tlsFiles(lab, USER),
  };
}

/** The same for people. */
export function statusText(lab: LabStatus): string {
  const pid = (value: number | null): string => (value === null ? 'down' : String(value));
  const rows = [
    ['MACHINE', 'ADDRESS', 'AGENT', 'DOCKERD', 'OVS', 'DAEMON'],
    ...lab.hosts.map(({ name, underlay, pids }) => {
      return [name, underlay.ip, pid(pids.agent), pid(pids.dockerd), pid(pids.ovsVswitchd), ''];
    }),
    ...lab.coordinators.map((one) => [one.name, one.address, '', '', '', pid(one.pid)]),
    ...lab.etcd.map((one) => [one.name, one.clientUrl, '', '', '', pid(one.pid)]),
  ];
  const width = (column: number): number => Math.max(...rows.map((row) => row[column]?.length ?? 0));
  return rows
    .map((row) =>
      row
        .map((cell, column) => cell.padEnd(width(column)))
        .join('  ')
        .trimEnd(),
    )
    .join('\n');
}
