import { randomBytes } from 'node:crypto';
import { ensureCerts, tlsFiles } from './certs.ts';
import { contextFile, writeContext } from './context.ts';
import { startCoordinator, startEtcd, waitForEtcd } from './control.ts';
import { checkDockerRoot } from './docker-root.ts';
import { finishHost, startMachine } from './host.ts';
import { ensureImage } from './image.ts';
import { raiseLimits } from './limits.ts';
import { waitForMesh } from './mesh.ts';
import { ensureUnderlay, setUplink } from './netns.ts';
import { installPackages, takeLock } from './packages.ts';
import { type LabPaths, labPaths, nodePaths } from './paths.ts';
import { grow, type HostPlan, type LabPlan, PREFIX, rootAddress, type Wanted } from './plan.ts';
import { openPlan, savePlan } from './state.ts';

/** How many hosts are switched on at a time: more only contend for the processors. */
const PARALLEL = 4;

export type Say = (line: string) => void;

/** Brings a lab up, or to the wanted size. Idempotent; resolves when every host is connected and in sync. */
export async function up(name: string, wanted: Wanted, say: Say): Promise<LabPlan> {
  const lab = labPaths(name);
  await installPackages(say);
  if (wanted.dockerRoot !== undefined) checkDockerRoot(wanted.dockerRoot);
  const lock = await takeLock(lab.lock);
  try {
    const plan = grow(await openPlan(lab), wanted, () => randomBytes(8).toString('hex'));
    const withContext = { ...plan, contextFiles: [...new Set([...(plan.contextFiles ?? []), contextFile()])] };
    savePlan(lab, withContext);
    await bringUp(lab, withContext, say);
    return withContext;
  } finally {
    await lock.release();
  }
}

async function bringUp(lab: LabPaths, plan: LabPlan, say: Say): Promise<void> {
  const phase = timer(say);
  raiseLimits();
  const [image] = await phase('underlay, certificates, image', () =>
    Promise.all([ensureImage(say), ensureUnderlay(lab, rootAddress(plan), PREFIX), ensureCerts(lab, plan)]),
  );
  const control = async (): Promise<void> => {
    await phase(`etcd × ${plan.etcd.length}`, async () => {
      await startEtcd(lab, plan);
      await waitForEtcd(plan);
    });
    await phase(`coordinator × ${plan.coordinators.length}`, () =>
      Promise.all(plan.coordinators.map((member) => startCoordinator(lab, plan, member, tlsFiles(lab, member.name)))),
    );
  };
  const context = (host: HostPlan) => ({ lab, plan, image, tls: tlsFiles(lab, host.name) });
  const hosts = (): Promise<void> =>
    phase(`host × ${plan.hosts.length}`, () => pool(plan.hosts, PARALLEL, (host) => startMachine(context(host), host)));
  await all([control(), hosts()]);
  for (const { name } of [...plan.hosts, ...plan.coordinators, ...plan.etcd]) {
    await setUplink(lab, nodePaths(lab.name, name), true);
  }
  // Not before there is a coordinator: an agent would complain of it, and only try again later.
  await phase('agents', () => pool(plan.hosts, PARALLEL, (host) => finishHost(context(host), host)));
  writeContext(contextFile(), lab, plan);
  await phase('mesh', () => waitForMesh(lab, plan));
}

/** Both to the end, then the first error: nothing goes on behind the back of who reads it. */
async function all(work: Promise<unknown>[]): Promise<void> {
  await Promise.allSettled(work);
  await Promise.all(work);
}

async function pool<T>(items: readonly T[], width: number, each: (item: T) => Promise<void>): Promise<void> {
  const rest = [...items];
  const worker = async (): Promise<void> => {
    for (let item = rest.shift(); item !== undefined; item = rest.shift()) await each(item);
  };
  await all(Array.from({ length: width }, worker));
}

/** Runs a phase and says what it took. */
function timer(say: Say): <T>(what: string, work: () => Promise<T>) => Promise<T> {
  return async (what, work) => {
    const start = performance.now();
    const result = await work();
    say(`${what}: ${((performance.now() - start) / 1000).toFixed(1)} s`);
    return result;
  };
}
