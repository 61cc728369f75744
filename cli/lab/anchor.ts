import { mkdirSync, rmSync } from 'node:fs';
import { createConnection } from 'node:net';
import { WeftError } from '../../lib/errors.ts';
import { anchorPid } from './enter.ts';
import { asset, type NodePaths } from './paths.ts';
import { alive } from './procs.ts';
import { startDaemon, until } from './run.ts';

/**
 * Starts the process that holds a host's namespaces (anchor.pl); its network namespace is there already.
 * @param agent log file and command of the agent; empty on a bare host, which gets no plugin socket.
 */
export async function startAnchor(lab: string, node: NodePaths, agent: readonly string[]): Promise<void> {
  if (anchorPid(lab, node) !== null) return;
  mkdirSync(node.hostRun, { recursive: true });
  mkdirSync(node.log, { recursive: true });
  rmSync(node.anchorPid, { force: true });
  const enter = [`--net=${node.netnsFile}`, 'unshare', '--mount', '--uts', '--propagation', 'private'];
  const log = `${node.log}/anchor.log`;
  const pid = startDaemon('nsenter', [...enter, 'perl', asset('anchor.pl'), lab, node.name, ...agent], log);
  await until(
    `the namespaces of ${node.name}`,
    () => {
      if (!alive(pid)) throw new WeftError('INTERNAL', `The anchor of ${node.name} ended.`, { hint: `See ${log}.` });
      return anchorPid(lab, node) !== null;
    },
    { deadline: 10_000, every: 10, hint: `See ${log}.` },
  );
}

/** One request to the anchor: a line there, a line back. */
export function askAnchor(node: NodePaths, line: string): Promise<string> {
  return new Promise((resolve, reject) => {
    let answer = '';
    const socket = createConnection(node.anchorSocket, () => socket.write(`${line}\n`));
    socket.setEncoding('utf8').on('data', (text: string) => {
      answer += text;
    });
    socket.on('error', reject);
    socket.on('close', () => resolve(answer.trim()));
  });
}

/** True when something accepts connections on that socket. */
export function connectable(path: string): Promise<boolean> {
  return new Promise((resolve) => {
    const socket = createConnection(path, () => {
      socket.destroy();
      resolve(true);
    });
    socket.on('error', () => resolve(false));
  });
}
