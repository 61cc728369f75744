import { readdirSync, readFileSync } from 'node:fs';
import { CGROUP_ROOT, nodePaths } from './paths.ts';
import { isWeft, netnsInode, type Proc, processes, programOf, withDescendants } from './procs.ts';

/** What runs in a lab, found by namespace and cgroup: true also after a crash of `lab up` or of a daemon. */
export interface HostPids {
  readonly agent: number | null;
  readonly dockerd: number | null;
  readonly containerd: number | null;
  readonly ovsdbServer: number | null;
  readonly ovsVswitchd: number | null;
}

const inNetns = (lab: string, node: string, all: readonly Proc[]): Proc[] => {
  const inode = netnsInode(nodePaths(lab, node).netnsFile);
  return inode === null ? [] : all.filter((proc) => proc.netns === inode);
};

export function hostProcesses(lab: string, host: string, all: readonly Proc[] = processes()): HostPids {
  const mine = inNetns(lab, host, all);
  const named = (name: string): number | null => mine.find((proc) => programOf(proc) === name)?.pid ?? null;
  return {
    agent: mine.find((proc) => isWeft(proc, 'agent'))?.pid ?? null,
    dockerd: named('dockerd'),
    containerd: named('containerd'),
    ovsdbServer: named('ovsdb-server'),
    ovsVswitchd: named('ovs-vswitchd'),
  };
}

/** The daemon of a coordinator or etcd member, or null. */
export function memberPid(lab: string, member: string, all: readonly Proc[] = processes()): number | null {
  const mine = inNetns(lab, member, all);
  const found = member.startsWith('etcd')
    ? mine.find((proc) => programOf(proc) === 'etcd')
    : mine.find((proc) => isWeft(proc, 'coordinator'));
  return found?.pid ?? null;
}

/**
 * Every process of one machine of the lab: in its network namespace, in a mount namespace that such a process is in, in its
 * cgroups (containers), below any of those; not we ourselves, nor who called us.
 */
export function allPids(lab: string, node: string): Set<number> {
  const all = processes();
  const own = all.find((proc) => proc.pid === process.pid);
  const anchored = all.filter((proc) => proc.argv[0] === `weft-lab-anchor ${lab} ${node}`);
  const { state } = nodePaths(lab, node);
  const daemons = all.filter(
    (proc) => DAEMONS.test(programOf(proc)) && proc.argv.some((word) => word.includes(`${state}/`)),
  );
  const seeds = [...inNetns(lab, node, all), ...anchored, ...daemons];
  const mounts = new Set(
    seeds.map((proc) => proc.mntns).filter((mntns) => mntns !== own?.mntns && mntns !== rootMounts(all)),
  );
  const pids = new Set([...seeds, ...all.filter((proc) => mounts.has(proc.mntns))].map((proc) => proc.pid));
  for (const pid of cgroupProcesses(lab, node)) pids.add(pid);
  const found = withDescendants(pids, all);
  for (let pid: number | undefined = process.pid; pid !== undefined; pid = all.find((proc) => proc.pid === pid)?.ppid)
    found.delete(pid);
  return found;
}

/** Known by their files even when the namespace's name is gone. */
const DAEMONS = /^(dockerd|ovsdb-server|ovs-vswitchd|etcd|node)$/;

const rootMounts = (all: readonly Proc[]): number | undefined => all.find((proc) => proc.pid === 1)?.mntns;

/** The machine's cgroup directories, one per v1 hierarchy, or one in v2. */
export function cgroupDirs(lab: string, node: string): string[] {
  const name = nodePaths(lab, node).cgroup;
  const list = (dir: string): string[] => {
    try {
      return readdirSync(dir);
    } catch {
      return [];
    }
  };
  const hierarchies = [CGROUP_ROOT, ...list(CGROUP_ROOT).map((entry) => `${CGROUP_ROOT}/${entry}`)];
  return hierarchies.map((dir) => `${dir}/${name}`).filter((dir) => list(dir).length > 0);
}

/** The directory and all below it, deepest first. */
export function cgroupTree(dir: string): string[] {
  const below = readdirSync(dir, { withFileTypes: true })
    .filter((entry) => entry.isDirectory())
    .flatMap((entry) => cgroupTree(`${dir}/${entry.name}`));
  return [...below, dir];
}

/** Processes in the cgroups of the host: those of its containers. */
export function cgroupProcesses(lab: string, node: string): number[] {
  return cgroupDirs(lab, node).flatMap((dir) => {
    try {
      return cgroupTree(dir).flatMap((one) =>
        readFileSync(`${one}/cgroup.procs`, 'utf8').split('\n').filter(Boolean).map(Number),
      );
    } catch {
      return [];
    }
  });
}
