import { existsSync, mkdirSync, readFileSync, rmSync } from 'node:fs';
import { WeftError } from '../../lib/errors.ts';
import type { TlsFiles } from '../../lib/tls.ts';
import { connectable, startAgentProcess, startAnchor } from './anchor.ts';
import { agentConfig, writeConfig } from './config.ts';
import { enterDockerRoot } from './docker-root.ts';
import { dockerdAnswers, startDockerd } from './dockerd.ts';
import { anchorPid } from './enter.ts';
import { cloneImage } from './image.ts';
import { hostProcesses } from './inventory.ts';
import { ensureNode } from './netns.ts';
import { startOvs } from './ovs.ts';
import { daemonBuilt, type LabPaths, nodePaths, weftProgram } from './paths.ts';
import { type HostPlan, hostAddress, type LabPlan } from './plan.ts';
import { powerOff } from './power.ts';
import { alive } from './procs.ts';
import { until } from './run.ts';

/** One simulated host: switched on, switched off. Each step does what is missing, so that all of it may be repeated. */
export interface HostContext {
  readonly lab: LabPaths;
  readonly plan: LabPlan;
  /** Directory of the image's golden data root. */
  readonly image: string;
  readonly tls: TlsFiles;
}

/** Switches a host on: namespaces, then OVS and dockerd, then the agent. */
export async function startHost(context: HostContext, host: HostPlan): Promise<void> {
  await startMachine(context, host);
  await finishHost(context, host);
}

/** The agent, and what may have waited for it. */
export async function finishHost(context: HostContext, host: HostPlan): Promise<void> {
  await startAgent(context, host);
  const { dockerd } = hostProcesses(context.lab.name, host.name);
  if (dockerd !== null) await dockerdAnswers(nodePaths(context.lab.name, host.name), dockerd);
}

/** All of it but the agent. A dockerd that was there before may not answer yet: it asks the agent for its networks. */
export async function startMachine(context: HostContext, host: HostPlan): Promise<void> {
  const node = nodePaths(context.lab.name, host.name);
  mkdirSync(node.log, { recursive: true });
  // Without its anchor a host is half dead: what is left of it shares nothing with what would be started now.
  if (anchorPid(context.lab.name, node) === null) await powerOff(context.lab, host.name);
  await ensureNode(context.lab, node, hostAddress(context.plan, host));
  const agent = [`${node.log}/agent.out`, weftProgram(), 'agent', '--config', `${node.state}/agent.yaml`];
  await startAnchor(context.lab.name, node, host.bare ? [] : agent);
  const disk = existsSync(`${node.state}/docker`);
  await Promise.all([startHostOvs(context, host), startHostDockerd(context, host, disk && !host.bare)]);
}

export async function startHostOvs(context: HostContext, host: HostPlan): Promise<void> {
  const node = nodePaths(context.lab.name, host.name);
  await startOvs(context.lab, node, { address: hostAddress(context.plan, host), hostId: host.id });
}

/** @param unready true: it is started, and not waited for. */
export async function startHostDockerd(context: HostContext, host: HostPlan, unready = false): Promise<void> {
  const node = nodePaths(context.lab.name, host.name);
  const have = hostProcesses(context.lab.name, host.name);
  if (have.dockerd !== null) return;
  // Pid files of before a crash may name a process of somebody else, which dockerd would take for its own.
  rmSync(`${node.hostRun}/docker.pid`, { force: true });
  if (have.containerd === null) rmSync(`${node.hostRun}/docker/containerd/containerd.pid`, { force: true });
  const dataRoot = `${node.state}/docker`;
  if (!existsSync(dataRoot)) await cloneImage(context.image, dataRoot);
  const root = context.plan.dockerRoot ?? null;
  const enter = root === null ? [] : ['nsenter', ...(await enterDockerRoot(context.lab.name, node, root))];
  const pid = await startDockerd(node, dataRoot, enter);
  if (!unready) await dockerdAnswers(node, pid);
}

/** Of a log, shortened; empty: there is none. */
function lastLine(file: string): string {
  const lines = existsSync(file) ? readFileSync(file, 'utf8').trimEnd().split('\n') : [];
  return (lines.at(-1) ?? '').slice(0, 2000);
}

/** Asks the anchor for the agent; it holds the plugin socket and passes it on. */
export async function startAgent(context: HostContext, host: HostPlan): Promise<void> {
  const node = nodePaths(context.lab.name, host.name);
  if (host.bare || !daemonBuilt('agent')) return;
  writeConfig(`${node.state}/agent.yaml`, agentConfig(context.plan, host, node, context.tls), 'coordinators');
  const pid = await startAgentProcess(node);
  const socket = `${node.hostRun}/weft/agent.sock`;
  await until(`the agent of ${host.name} answers`, async () => !alive(pid) || (await connectable(socket)), {
    deadline: 30_000,
    every: 40,
    hint: `See ${node.log}.`,
  });
  if (!alive(pid)) {
    const said = [`${node.log}/agent.out`, `${node.log}/agent.log`].map(lastLine).filter((line) => line !== '');
    throw new WeftError('INTERNAL', [`The agent of ${host.name} ended at once.`, ...said].join('\n'), {
      hint: `See ${node.log}/agent.out and agent.log.`,
    });
  }
}
