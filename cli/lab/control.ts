import { existsSync, mkdirSync } from 'node:fs';
import { WeftError } from '../../lib/errors.ts';
import type { TlsFiles } from '../../lib/tls.ts';
import { coordinatorConfig, writeConfig } from './config.ts';
import { memberPid } from './inventory.ts';
import { ensureNode, setAddress } from './netns.ts';
import { daemonBuilt, type LabPaths, type NodePaths, nodePaths, weftProgram } from './paths.ts';
import {
  coordinatorAddress,
  etcdAddress,
  etcdClientUrl,
  etcdPeerUrl,
  type LabPlan,
  type MemberPlan,
  PREFIX,
} from './plan.ts';
import { alive } from './procs.ts';
import { run, startDaemon, until, words } from './run.ts';

/** The lab's control plane: each etcd member and coordinator has a network namespace and an underlay address of its own. */
async function ensureMember(lab: LabPaths, node: NodePaths, address: string): Promise<void> {
  mkdirSync(node.log, { recursive: true });
  await ensureNode(lab, node, address);
  await setAddress(node, 'eth0', address, PREFIX);
}

const inNetns = (node: NodePaths): string[] => [`--net=${node.netnsFile}`, '--'];

/**
 * Starts the etcd members that do not run. Those that have data are started first; a new one is announced to a cluster
 * that exists, else all of them found one together.
 */
export async function startEtcd(lab: LabPaths, plan: LabPlan, only: readonly MemberPlan[] = plan.etcd): Promise<void> {
  const hasData = (member: MemberPlan): boolean => existsSync(`${nodePaths(lab.name, member.name).state}/data/member`);
  const old = only.filter(hasData);
  const fresh = only.filter((member) => !hasData(member));
  const founded = plan.etcd.filter(hasData);
  await Promise.all(old.map((member) => startMember(lab, plan, member, 'existing', plan.etcd)));
  if (founded.length === 0) {
    await Promise.all(fresh.map((member) => startMember(lab, plan, member, 'new', fresh)));
    return;
  }
  const endpoints = founded.map((member) => etcdClientUrl(plan, member.index)).join(',');
  for (const member of fresh) {
    const joined = plan.etcd.filter((one) => one.index < member.index || one.name === member.name);
    await announce(endpoints, member.name, etcdPeerUrl(plan, member.index));
    await startMember(lab, plan, member, 'existing', joined);
  }
}

/** Adds a member to the cluster. A cluster that has just grown refuses another one until the last has joined. */
async function announce(endpoints: string, name: string, peerUrl: string): Promise<void> {
  const etcdctl = (args: string[]): Promise<string> =>
    run('etcdctl', [`--endpoints=${endpoints}`, ...args], { env: { ETCDCTL_API: '3' } });
  await until(
    `${name} is announced to etcd`,
    async () => {
      if ((await etcdctl(['member', 'list'])).includes(peerUrl)) return true;
      return etcdctl(['member', 'add', name, `--peer-urls=${peerUrl}`]).then(
        () => true,
        () => false,
      );
    },
    { deadline: 30_000, every: 300 },
  );
}

async function startMember(
  lab: LabPaths,
  plan: LabPlan,
  member: MemberPlan,
  cluster: 'new' | 'existing',
  together: readonly MemberPlan[],
): Promise<void> {
  const node = nodePaths(lab.name, member.name);
  await ensureMember(lab, node, etcdAddress(plan, member.index));
  const client = etcdClientUrl(plan, member.index);
  if (memberPid(lab.name, member.name) === null) {
    const peer = etcdPeerUrl(plan, member.index);
    const log = `${node.log}/etcd.log`;
    const peers = together.map((one) => `${one.name}=${etcdPeerUrl(plan, one.index)}`).join(',');
    const args = words(
      `--name=${member.name} --data-dir=${node.state}/data`,
      `--listen-client-urls=${client} --advertise-client-urls=${client}`,
      `--listen-peer-urls=${peer} --initial-advertise-peer-urls=${peer}`,
      `--initial-cluster=${peers} --initial-cluster-state=${cluster} --initial-cluster-token=${lab.name}`,
      // A lab may grow as fast as it likes.
      '--strict-reconfig-check=false',
      '--auto-compaction-mode=periodic --auto-compaction-retention=1h --quota-backend-bytes=2147483648',
    );
    const pid = startDaemon('nsenter', [...inNetns(node), 'etcd', ...args], log);
    // A member that has nobody yet cannot be healthy: only the port is waited for here.
    await answers(`${client}/version`, member.name, pid, log);
  }
}

/** Waits until the cluster has a leader. */
export async function waitForEtcd(plan: LabPlan): Promise<void> {
  await Promise.any(
    plan.etcd.map((member) =>
      until(`${member.name} is healthy`, () => httpOk(`${etcdClientUrl(plan, member.index)}/health`), {
        deadline: 60_000,
      }),
    ),
  ).catch(() => {
    throw new WeftError('DEADLINE_EXCEEDED', 'No etcd member became healthy within 60 s.');
  });
}

export async function startCoordinator(lab: LabPaths, plan: LabPlan, member: MemberPlan, tls: TlsFiles): Promise<void> {
  const node = nodePaths(lab.name, member.name);
  await ensureMember(lab, node, coordinatorAddress(plan, member.index));
  if (!daemonBuilt('coordinator') || memberPid(lab.name, member.name) !== null) return;
  const config = writeConfig(
    `${node.state}/coordinator.yaml`,
    coordinatorConfig(plan, member.index, node, tls),
    'etcd',
  );
  const log = `${node.log}/coordinator.out`;
  const pid = startDaemon('nsenter', [...inNetns(node), weftProgram(), 'coordinator', '--config', config], log);
  await answers(`http://${coordinatorAddress(plan, member.index)}:7471/metrics`, member.name, pid, log);
}

async function answers(url: string, name: string, pid: number, log: string): Promise<void> {
  await until(
    `${name} answers`,
    async () => {
      if (!alive(pid)) throw new WeftError('INTERNAL', `${name} ended at once.`, { hint: `See ${log}.` });
      return httpOk(url);
    },
    { deadline: 30_000, every: 40, hint: `See ${log}.` },
  );
}

async function httpOk(url: string): Promise<boolean> {
  try {
    const response = await fetch(url, { signal: AbortSignal.timeout(2000) });
    await response.text();
    return response.ok;
  } catch {
    return false;
  }
}
