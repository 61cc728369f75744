import { accessSync, constants, readFileSync, rmSync } from 'node:fs';
import { WeftError } from '../../lib/errors.ts';
import { startInHost } from './anchor.ts';
import { runInHost } from './enter.ts';
import { asset, type NodePaths } from './paths.ts';
import { alive, programOf, readProc } from './procs.ts';
import { until } from './run.ts';

/**
 * Docker of another system than the machine's: `lab up --docker-root DIR` takes dockerd, containerd and runc of the Debian
 * below DIR. A process of the host holds a mount namespace with that root (docker-root.pl), and dockerd is started in it.
 */
const DAEMONS = ['dockerd', 'containerd', 'runc'] as const;

function hasProgram(dir: string, program: string): boolean {
  return ['usr/sbin', 'usr/bin'].some((place) => {
    try {
      accessSync(`${dir}/${place}/${program}`, constants.X_OK);
      return true;
    } catch {
      return false;
    }
  });
}

/** @throws INVALID_ARGUMENT when there is no Docker below the directory. */
export function checkDockerRoot(dir: string): void {
  const missing = DAEMONS.filter((program) => !hasProgram(dir, program));
  if (missing.length === 0) return;
  throw new WeftError('INVALID_ARGUMENT', `There is no ${missing.join(', ')} below ${dir}.`, {
    hint: 'Name the root of a system with Docker in it: npm run docker-root makes one of Debian 13.',
  });
}

/**
 * Arguments of nsenter that lead from inside the host into the root; starts the process that holds it, if there is none.
 * @throws DEADLINE_EXCEEDED, INTERNAL when the root cannot be made up.
 */
export async function enterDockerRoot(lab: string, node: NodePaths, root: string): Promise<string[]> {
  const pid = rootHolder(lab, node) ?? (await startHolder(lab, node, root));
  return [`--mount=/proc/${pid}/ns/mnt`, '--'];
}

/** Pid of the process that holds the root of this host's Docker, or null. */
function rootHolder(lab: string, node: NodePaths): number | null {
  try {
    const pid = Number(readFileSync(pidFile(node), 'utf8'));
    const proc = readProc(pid);
    return proc?.argv[0] === `weft-lab-docker-root ${lab} ${node.name}` && programOf(proc) === 'weft-lab-docker-root'
      ? pid
      : null;
  } catch {
    return null;
  }
}

const pidFile = (node: NodePaths): string => `${node.run}/docker-root.pid`;

async function startHolder(lab: string, node: NodePaths, root: string): Promise<number> {
  rmSync(pidFile(node), { force: true });
  // What dockerd mounts below /run, the containers' network namespaces, is seen on the host too.
  await runInHost(node, 'mount', ['--make-shared', '/run']);
  const log = `${node.log}/docker-root.log`;
  const unshare = ['unshare', '--mount', '--propagation', 'unchanged', 'perl'];
  const pid = await startInHost(node, log, [...unshare, asset('docker-root.pl'), lab, node.name, root]);
  const held = (): number | null => {
    if (alive(pid)) return rootHolder(lab, node);
    throw new WeftError('INTERNAL', `The file system of Docker on ${node.name} could not be made up of ${root}.`, {
      hint: `See ${log}.`,
    });
  };
  return until(`the root of Docker on ${node.name}`, held, { deadline: 10_000, every: 10, hint: `See ${log}.` });
}
