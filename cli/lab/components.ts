import { mkdirSync } from 'node:fs';
import { WeftError } from '../../lib/errors.ts';
import { tlsFiles } from './certs.ts';
import { startCoordinator, startEtcd } from './control.ts';
import { type HostContext, startAgent, startHost, startHostDockerd, startHostOvs } from './host.ts';
import { ensureImage } from './image.ts';
import { allPids, cgroupProcesses, hostProcesses } from './inventory.ts';
import { setUplink } from './netns.ts';
import { takeLock } from './packages.ts';
import { type LabPaths, labPaths, nodePaths } from './paths.ts';
import type { HostPlan, LabPlan } from './plan.ts';
import { powerOff } from './power.ts';
import { alive, netnsInode, signalAll, waitGone } from './procs.ts';
import { until } from './run.ts';
import { requirePlan } from './state.ts';

/** `lab start|stop|kill TARGET [COMPONENT]`: a machine, or one part of it, on and off. Nothing comes back by itself. */
export type Action = 'start' | 'stop' | 'kill';
export const COMPONENTS = ['agent', 'dockerd', 'ovs', 'underlay'] as const;
export type Component = (typeof COMPONENTS)[number];

/** A graceful end may take this long, then SIGKILL. Containers get less: they are asked all at once. */
const GRACE = 30_000;
const CONTAINER_GRACE = 1500;

export interface Target {
  readonly lab: LabPaths;
  readonly plan: LabPlan;
  readonly name: string;
  readonly host: HostPlan | null;
  readonly component: Component | null;
}

/** @throws INVALID_ARGUMENT with the list of what there is; FAILED_PRECONDITION when the lab is not up. */
export function findTarget(labName: string, name: string, component: string | undefined): Target {
  const lab = labPaths(labName);
  const plan = requirePlan(lab);
  const names = [...plan.hosts, ...plan.coordinators, ...plan.etcd].map((machine) => machine.name);
  if (!names.includes(name)) {
    throw new WeftError('INVALID_ARGUMENT', `There is no “${name}” in the lab.`, {
      hint: `Targets: ${names.join(' ')}`,
    });
  }
  const host = plan.hosts.find((one) => one.name === name) ?? null;
  const allowed = COMPONENTS.filter((one) => (host === null ? one === 'underlay' : !(host.bare && one === 'agent')));
  const found = allowed.find((one) => one === component) ?? null;
  if (component !== undefined && found === null) {
    throw new WeftError('INVALID_ARGUMENT', `${name} has no component “${component}”.`, {
      hint: `Components: ${allowed.join(' ')}`,
    });
  }
  return { lab, plan, name, host, component: found };
}

export async function act(action: Action, target: Target): Promise<void> {
  mkdirSync(target.lab.run, { recursive: true });
  const lock = await takeLock(`${target.lab.run}/${target.name}.lock`);
  try {
    if (target.component === 'underlay') await uplink(action, target);
    else if (action === 'start') await start(target);
    else await end(action, target);
  } finally {
    await lock.release();
  }
}

async function uplink(action: Action, { lab, name }: Target): Promise<void> {
  const node = nodePaths(lab.name, name);
  if (netnsInode(node.netnsFile) === null) {
    throw new WeftError('FAILED_PRECONDITION', `${name} is down.`, { hint: `weft lab start ${name}` });
  }
  await setUplink(lab, node, action === 'start');
}

async function start(target: Target): Promise<void> {
  const { lab, plan, name, host, component } = target;
  if (host === null) {
    const member = [...plan.coordinators, ...plan.etcd].filter((one) => one.name === name);
    if (name.startsWith('etcd')) return startEtcd(lab, plan, member);
    for (const one of member) await startCoordinator(lab, plan, one, tlsFiles(lab, name));
    return;
  }
  const context: HostContext = { lab, plan, image: await ensureImage(() => {}), tls: tlsFiles(lab, name) };
  if (component === null) await startHost(context, host);
  else if (component === 'ovs') await startHostOvs(context, host);
  else if (component === 'dockerd') await startHostDockerd(context, host);
  else await startAgent(context, host);
}

async function end(action: 'stop' | 'kill', target: Target): Promise<void> {
  const { lab, name, host, component } = target;
  if (host === null) {
    const stop = (): number[] => [...allPids(lab.name, name)];
    if (action === 'stop') await terminate(stop(), name, GRACE);
    return killAll(stop, name);
  }
  const pids = (part: Component): number[] => {
    const found = hostProcesses(lab.name, name);
    const of = {
      agent: [found.agent],
      dockerd: [found.dockerd, found.containerd],
      ovs: [found.ovsVswitchd, found.ovsdbServer],
      underlay: [],
    };
    return (of[part] as (number | null)[]).filter((pid): pid is number => pid !== null);
  };
  const parts: Component[] = component === null ? ['agent', 'dockerd', 'ovs'] : [component];
  if (action === 'kill' && component === null) {
    await powerOff(lab, name);
    return;
  }
  for (const part of parts) {
    if (part === 'ovs' && component === null)
      await terminate(cgroupProcesses(lab.name, name), 'containers', CONTAINER_GRACE);
    // One after the other: vswitchd before its database, dockerd before its containerd.
    for (const pid of pids(part)) if (action === 'stop') await terminate([pid], `${part} of ${name}`, GRACE);
    await killAll(() => pids(part), `${part} of ${name}`);
  }
  if (component === null) await powerOff(lab, name);
}

/** SIGKILL, until there is none left, to the last thread. */
async function killAll(find: () => number[], what: string): Promise<void> {
  const killed = new Set<number>();
  const gone = (): boolean => {
    const pids = find();
    signalAll(pids, 'SIGKILL');
    for (const pid of pids) killed.add(pid);
    return pids.length === 0 && ![...killed].some(alive);
  };
  await until(`${what} is gone`, gone, { deadline: 10_000, every: 10 });
}

/** SIGTERM, then up to `grace` milliseconds; then SIGKILL. */
async function terminate(pids: readonly number[], what: string, grace: number): Promise<void> {
  signalAll(pids, 'SIGTERM');
  await waitGone(pids, `${what} ended`, grace).catch(() => signalAll(pids.filter(alive), 'SIGKILL'));
}
