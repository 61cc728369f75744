import type { LabPaths } from './paths.ts';
import type { LabPlan } from './plan.ts';

/** Waits until every host with an agent is connected and in sync. */
export async function waitForMesh(_lab: LabPaths, _plan: LabPlan): Promise<void> {}
