import { createHash } from 'node:crypto';
import { existsSync } from 'node:fs';
import { fileURLToPath } from 'node:url';
import { WeftError } from '../../lib/errors.ts';

/** Where a lab keeps what. Everything of a lab is below two directories and carries its name, so that `down` finds it all. */
export const RUN_ROOT = '/run/weft-lab';
export const STATE_ROOT = '/var/lib/weft-lab';
export const CACHE_ROOT = '/var/cache/weft-lab';
export const CGROUP_ROOT = '/sys/fs/cgroup';
export const DEFAULT_LAB = 'weft';

/** The lab meant by `--name`, else WEFT_LAB, else `weft`. @throws INVALID_ARGUMENT */
export function labName(flag: string | undefined, env: NodeJS.ProcessEnv = process.env): string {
  const name = flag ?? (env.WEFT_LAB || DEFAULT_LAB);
  if (!/^[a-z0-9][a-z0-9-]{0,23}$/.test(name)) {
    throw new WeftError('INVALID_ARGUMENT', `“${name}” is not a lab name.`, {
      hint: 'Use up to 24 lower-case letters, digits and dashes.',
    });
  }
  return name;
}

/** Paths and names of one lab. */
export interface LabPaths {
  readonly name: string;
  readonly run: string;
  readonly state: string;
  readonly stateFile: string;
  readonly lock: string;
  readonly tls: string;
  /** Network namespace that holds the underlay bridge. */
  readonly underlayNetns: string;
  /** The lab's only interface in the machine's own namespace: how the CLI reaches the coordinators. */
  readonly rootLink: string;
}

export function labPaths(name: string): LabPaths {
  const link = `wl-${name}`;
  return {
    name,
    run: `${RUN_ROOT}/${name}`,
    state: `${STATE_ROOT}/${name}`,
    stateFile: `${STATE_ROOT}/${name}/lab.json`,
    lock: `/var/lock/weft-lab-${name}.lock`,
    tls: `${STATE_ROOT}/${name}/tls`,
    underlayNetns: `${name}-ul`,
    rootLink: link.length <= 15 ? link : `wl-${createHash('sha256').update(name).digest('hex').slice(0, 12)}`,
  };
}

/** Paths and names of one machine of the lab: a host, a coordinator or an etcd member. */
export interface NodePaths {
  readonly name: string;
  readonly netns: string;
  readonly netnsFile: string;
  readonly run: string;
  /** What the host itself sees as /run. */
  readonly hostRun: string;
  readonly anchorPid: string;
  readonly anchorSocket: string;
  readonly state: string;
  readonly log: string;
  readonly cgroup: string;
}

export function nodePaths(lab: string, node: string): NodePaths {
  const { run, state } = labPaths(lab);
  return {
    name: node,
    netns: `${lab}-${node}`,
    netnsFile: `/run/netns/${lab}-${node}`,
    run: `${run}/${node}`,
    hostRun: `${run}/${node}/run`,
    anchorPid: `${run}/${node}/anchor.pid`,
    anchorSocket: `${run}/${node}/anchor.sock`,
    state: `${state}/${node}`,
    log: `${state}/${node}/log`,
    cgroup: `weft-lab-${lab}-${node}`,
  };
}

/** A file beside these sources, or where the build copies it (dist/lab/). */
export function asset(name: string): string {
  for (const place of [`./${name}`, `./lab/${name}`]) {
    const path = fileURLToPath(new URL(place, import.meta.url));
    if (existsSync(path)) return path;
  }
  throw new WeftError('INTERNAL', `The lab’s file ${name} is not where it should be.`, { hint: 'Run npm run build.' });
}

/** The `weft` program that belongs to this code: bin/weft of the tree that we run from. */
export function weftProgram(): string {
  for (const place of ['../bin/weft', '../../bin/weft']) {
    const path = fileURLToPath(new URL(place, import.meta.url));
    if (existsSync(path)) return path;
  }
  throw new WeftError('INTERNAL', 'bin/weft is not where it should be.');
}

/** True when the bundle of that daemon has been built. */
export function daemonBuilt(daemon: 'agent' | 'coordinator'): boolean {
  return existsSync(fileURLToPath(new URL(`../dist/weft-${daemon}.mjs`, `file://${weftProgram()}`)));
}
