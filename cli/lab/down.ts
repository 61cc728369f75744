import { existsSync, readdirSync, rmSync } from 'node:fs';
import { contextFile, removeContext } from './context.ts';
import { deleteLink, deleteNetns } from './netns.ts';
import { takeLock } from './packages.ts';
import { CGROUP_ROOT, labPaths, RUN_ROOT, STATE_ROOT } from './paths.ts';
import type { LabPlan } from './plan.ts';
import { powerOff } from './power.ts';
import { processes } from './procs.ts';
import { until } from './run.ts';
import { loadPlan, releaseSubnets } from './state.ts';
import { removeTree } from './trees.ts';

/**
 * Removes everything of a lab. What there is, is found by name in the places where it can be, not only in the plan: so it
 * works after a crash, after half an `up`, and twice.
 */
export async function down(name: string): Promise<void> {
  const lab = labPaths(name);
  const lock = await takeLock(lab.lock);
  try {
    const plan = readablePlan(name);
    const killed = await Promise.all(machines(name, plan).map((machine) => powerOff(lab, machine)));
    await deleteNetns(lab.underlayNetns);
    await deleteLink(null, lab.rootLink);
    for (const file of new Set([...(plan?.contextFiles ?? []), contextFile()])) removeContext(file, name);
    await removeTree(lab.run);
    await removeTree(lab.state);
    releaseSubnets(name);
    for (const root of [RUN_ROOT, STATE_ROOT]) removeIfEmpty(root);
    await waitReaped(killed.flat());
  } finally {
    rmSync(lab.lock, { force: true });
    await lock.release();
  }
}

/** Init collects the dead in its own time; who looks for leftovers right after us should not see them as zombies. */
async function waitReaped(pids: readonly number[]): Promise<void> {
  const gone = (): boolean => !pids.some((pid) => existsSync(`/proc/${pid}`));
  await until('zombies are gone', gone, { deadline: 3000 }).catch(() => {});
}

function readablePlan(name: string): LabPlan | null {
  try {
    return loadPlan(labPaths(name));
  } catch {
    return null;
  }
}

/** Names of the lab's machines, from wherever one has left a trace. */
export function machines(name: string, plan: LabPlan | null): string[] {
  const lab = labPaths(name);
  const list = (dir: string): string[] => (existsSync(dir) ? readdirSync(dir) : []);
  const cut = (names: string[], prefix: string): string[] =>
    names.filter((one) => one.startsWith(prefix)).map((one) => one.slice(prefix.length));
  const cgroups = [CGROUP_ROOT, ...list(CGROUP_ROOT).map((dir) => `${CGROUP_ROOT}/${dir}`)].flatMap((dir) => {
    try {
      return readdirSync(dir);
    } catch {
      return [];
    }
  });
  const anchors = processes().flatMap((proc) => cut([proc.argv[0] ?? ''], `weft-lab-anchor ${name} `));
  const found = [
    ...(plan === null ? [] : [...plan.hosts, ...plan.coordinators, ...plan.etcd].map((machine) => machine.name)),
    ...cut(list('/run/netns'), `${name}-`),
    ...list(lab.run),
    ...list(lab.state),
    ...cut(cgroups, `weft-lab-${name}-`),
    ...anchors,
  ];
  return [...new Set(found)].filter((machine) => /^(h|coord|etcd)\d+$/.test(machine));
}

function removeIfEmpty(root: string): void {
  if (!existsSync(root)) return;
  const left = readdirSync(root).filter((entry) => entry !== '.subnets' || readdirSync(`${root}/.subnets`).length > 0);
  if (left.length === 0) rmSync(root, { recursive: true });
}
