import { readFileSync } from 'node:fs';
import { WeftError } from '../../lib/errors.ts';
import type { NodePaths } from './paths.ts';
import { programOf, readProc } from './procs.ts';
import { type RunOptions, run } from './run.ts';

/** Pid of the process that holds the host's namespaces, or null when the host is off. */
export function anchorPid(lab: string, node: NodePaths): number | null {
  try {
    const pid = Number(readFileSync(node.anchorPid, 'utf8'));
    const proc = readProc(pid);
    return proc?.argv[0] === `weft-lab-anchor ${lab} ${node.name}` && programOf(proc) === 'weft-lab-anchor'
      ? pid
      : null;
  } catch {
    return null;
  }
}

/** Arguments of nsenter that lead into the host. @throws UNAVAILABLE when it is off. */
export function inHost(node: NodePaths): string[] {
  const lab = node.netns.slice(0, -node.name.length - 1);
  const pid = anchorPid(lab, node);
  if (pid === null)
    throw new WeftError('UNAVAILABLE', `${node.name} is down.`, { hint: `weft lab start ${node.name}` });
  return [`--target=${pid}`, '--mount', '--uts', '--net', '--'];
}

/** Runs a program inside the host to its end. */
export const runInHost = (
  node: NodePaths,
  program: string,
  args: readonly string[],
  options: RunOptions = {},
): Promise<string> => run('nsenter', [...inHost(node), program, ...args], options);
