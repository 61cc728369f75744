import { existsSync, rmdirSync } from 'node:fs';
import { allPids, cgroupDirs, cgroupTree } from './inventory.ts';
import { deleteNetns, removeUplink } from './netns.ts';
import { type LabPaths, nodePaths } from './paths.ts';
import { alive, signalAll } from './procs.ts';
import { until } from './run.ts';
import { removeTree } from './trees.ts';

/**
 * Switches a machine off at once: processes, containers, namespaces, cgroups and /run are gone; its disk stays.
 * With no processes left it only sweeps what an earlier try left behind. @returns pids of what was killed.
 */
export async function powerOff(lab: LabPaths, name: string): Promise<number[]> {
  const killed = new Set<number>();
  const node = nodePaths(lab.name, name);
  await until(
    `the processes of ${name} are gone`,
    () => {
      const pids = allPids(lab.name, name);
      signalAll(pids, 'SIGKILL');
      for (const pid of pids) killed.add(pid);
      return pids.size === 0 && ![...killed].some(alive);
    },
    { deadline: 20_000, every: 15 },
  );
  await removeUplink(lab, node);
  await deleteNetns(node.netns);
  for (const dir of cgroupDirs(lab.name, name)) {
    await until(`the cgroup ${dir} is gone`, () => removeCgroup(dir), { deadline: 10_000 });
  }
  await removeTree(node.run);
  return [...killed];
}

function removeCgroup(dir: string): boolean {
  if (!existsSync(dir)) return true;
  try {
    for (const one of cgroupTree(dir)) rmdirSync(one);
    return true;
  } catch {
    return false; // its last process is still being taken down
  }
}
