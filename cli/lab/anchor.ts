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

/** Asks the anchor for the agent, which gets the plugin socket. @returns its pid, also when it runs already. */
export const startAgentProcess = (node: NodePaths): Promise<number> => ask(node, ['agent']);

/** Starts a daemon as a child of the anchor, its output appended to a file. @returns its pid. */
export const startInHost = (node: NodePaths, log: string, command: readonly string[]): Promise<number> =>
  ask(node, ['run', log, ...command]);

async function ask(node: NodePaths, request: readonly string[]): Promise<number> {
  const answer = await new Promise<string>((resolve, reject) => {
    let text = '';
    const socket = createConnection(node.anchorSocket, () => socket.write(`${request.join('\t')}\n`));
    socket.setEncoding('utf8').on('data', (part: string) => {
      text += part;
    });
    socket.on('error', (cause) => reject(new WeftError('UNAVAILABLE', `${node.name} is down.`, { cause })));
    socket.on('close', () => resolve(text.trim()));
  });
  if (/^\d+$/.test(answer)) return Number(answer);
  throw new WeftError('INTERNAL', `${node.name} could not start ${request.slice(0, 3).join(' ')}: ${answer}`);
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
