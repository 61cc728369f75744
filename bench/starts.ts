/** From the start of a daemon's process to its first answer. */
import { type ChildProcess, spawn } from 'node:child_process';
import { setTimeout as pause } from 'node:timers/promises';
import { startAgentProcess } from '../cli/lab/anchor.ts';
import { nodePaths } from '../cli/lab/paths.ts';
import { weftOk } from '../test/harness/lab.ts';
import { labStatus, pluginCall } from '../test/harness/lab-direct.ts';

const EVERY_MS = 5;

/** Polls until ready in another network namespace, then prints the epoch milliseconds. */
const POLL = `const url = process.argv[1];
for (;;) {
  const ok = await fetch(url).then((r) => r.ok, () => false);
  if (ok) break;
  await new Promise((resolve) => setTimeout(resolve, ${EVERY_MS}));
}
console.log(Date.now());`;

/** Readiness seen by a process that already waits when the daemon is started. */
function watchReady(netnsFile: string, url: string): Promise<{ at: Promise<number> }> {
  const args = [`--net=${netnsFile}`, process.execPath, '--input-type=module', '-e', POLL, url];
  const child = spawn('nsenter', args, { stdio: ['ignore', 'pipe', 'inherit'] });
  const at = new Promise<number>((resolve, reject) => {
    child.stdout.setEncoding('utf8').on('data', (text: string) => resolve(Number(text.trim())));
    child.on('error', reject);
    child.on('close', () => reject(new Error(`nobody waits for ${url} any more`)));
  });
  at.catch(() => undefined);
  // It has started long before: what it costs to start is not the daemon's.
  return pause(500).then(() => ({ at }));
}

/** @returns ms until the plugin has answered Docker's first question, and until the agent is in sync */
export async function agentStarts(lab: string, times: number): Promise<{ plugin: number; inSync: number }[]> {
  const [host] = (await labStatus()).hosts;
  if (host === undefined) throw new Error('the lab has no host');
  const node = nodePaths(lab, host.name);
  const out: { plugin: number; inSync: number }[] = [];
  for (let i = 0; i < times; i++) {
    await weftOk('lab', 'stop', host.name, 'agent');
    const ready = await watchReady(node.netnsFile, 'http://127.0.0.1:7472/readyz');
    const began = Date.now();
    await startAgentProcess(node);
    // The socket is held for the agent: the call waits in it.
    await pluginCall(host.pluginSocket, 'Plugin.Activate', {});
    out.push({ plugin: Date.now() - began, inSync: (await ready.at) - began });
  }
  return out;
}

/** @returns ms until /readyz */
export async function coordinatorStarts(lab: string, times: number): Promise<number[]> {
  const [coordinator] = (await labStatus()).coordinators;
  if (coordinator === undefined) throw new Error('the lab has no coordinator');
  const node = nodePaths(lab, coordinator.name);
  const url = `http://${coordinator.address.replace(/:\d+$/, '')}:7471/readyz`;
  const out: number[] = [];
  await weftOk('lab', 'stop', coordinator.name);
  for (let i = 0; i < times; i++) {
    const ready = await watchReady(node.netnsFile, url);
    const began = Date.now();
    const args = [`--net=${node.netnsFile}`, 'bin/weft', 'coordinator', '--config', `${node.state}/coordinator.yaml`];
    const child = spawn('nsenter', args, { stdio: 'ignore' });
    try {
      out.push((await ready.at) - began);
    } finally {
      await stop(child);
    }
  }
  await weftOk('lab', 'start', coordinator.name);
  return out;
}

async function stop(child: ChildProcess): Promise<void> {
  const ended = new Promise((resolve) => child.once('exit', resolve));
  child.kill('SIGTERM');
  await ended;
}
