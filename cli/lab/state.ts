import {
  existsSync,
  mkdirSync,
  readFileSync,
  readlinkSync,
  renameSync,
  symlinkSync,
  unlinkSync,
  writeFileSync,
} from 'node:fs';
import { WeftError } from '../../lib/errors.ts';
import { type LabPaths, STATE_ROOT } from './paths.ts';
import { emptyPlan, type LabPlan, networkOf, SUBNETS } from './plan.ts';
import { run } from './run.ts';

/** The plan on disk: written before anything of it is made, so that `down` knows also what was made halfway. */
export function loadPlan(lab: LabPaths): LabPlan | null {
  if (!existsSync(lab.stateFile)) return null;
  try {
    const plan = JSON.parse(readFileSync(lab.stateFile, 'utf8')) as LabPlan;
    if (plan.version === 1 && plan.name === lab.name) return plan;
  } catch {}
  throw new WeftError('FAILED_PRECONDITION', `${lab.stateFile} cannot be read.`, {
    hint: `weft lab down --name ${lab.name}`,
  });
}

/** @throws FAILED_PRECONDITION when there is no such lab. */
export function requirePlan(lab: LabPaths): LabPlan {
  const plan = loadPlan(lab);
  if (plan === null) {
    throw new WeftError('FAILED_PRECONDITION', `The lab “${lab.name}” is not up.`, { hint: 'weft lab up' });
  }
  return plan;
}

export function savePlan(lab: LabPaths, plan: LabPlan): void {
  mkdirSync(lab.state, { recursive: true, mode: 0o755 });
  writeFileSync(`${lab.stateFile}.new`, `${JSON.stringify(plan, null, 2)}\n`);
  renameSync(`${lab.stateFile}.new`, lab.stateFile);
}

/** The lab's plan, or an empty one with a subnet that no other lab has and that the machine has no route to. */
export async function openPlan(lab: LabPaths): Promise<LabPlan> {
  const old = loadPlan(lab);
  if (old !== null) return old;
  const routes = JSON.parse((await run('ip', ['-j', '-4', 'route', 'show', 'table', 'all'])) || '[]') as {
    dst: string;
    dev?: string;
  }[];
  const taken = new Set(routes.filter((route) => route.dev !== lab.rootLink).map((route) => route.dst));
  mkdirSync(`${STATE_ROOT}/.subnets`, { recursive: true });
  for (let subnet = 0; subnet < SUBNETS; subnet++) {
    const network = networkOf(subnet);
    const prefix = network.split('.').slice(0, 2).join('.');
    const block = Number(network.split('.')[2]) >> 4;
    const used = [...taken].some((dst) => dst.startsWith(`${prefix}.`) && Number(dst.split('.')[2]) >> 4 === block);
    if (used || !claim(subnet, lab.name)) continue;
    const plan = emptyPlan(lab.name, subnet);
    savePlan(lab, plan);
    return plan;
  }
  throw new WeftError('RESOURCE_EXHAUSTED', `There is no free underlay subnet: ${SUBNETS} labs are up.`, {
    hint: 'weft lab down',
  });
}

/** A symbolic link is made whole or not at all: the claim needs no lock. */
function claim(subnet: number, name: string): boolean {
  const link = `${STATE_ROOT}/.subnets/${subnet}`;
  try {
    symlinkSync(name, link);
    return true;
  } catch {
    return claimedBy(link) === name;
  }
}

function claimedBy(link: string): string | null {
  try {
    return readlinkSync(link);
  } catch {
    return null;
  }
}

/** Gives back every subnet that the lab claimed. */
export function releaseSubnets(name: string): void {
  for (let subnet = 0; subnet < SUBNETS; subnet++) {
    const link = `${STATE_ROOT}/.subnets/${subnet}`;
    if (claimedBy(link) === name) unlinkSync(link); // rmSync looks for what it points to
  }
}
