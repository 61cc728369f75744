import { existsSync, mkdirSync, readdirSync, readFileSync, renameSync, rmSync, writeFileSync } from 'node:fs';
import { homedir } from 'node:os';
import { dirname } from 'node:path';
import { tlsFiles, USER } from './certs.ts';
import { type LabPaths, labPaths, STATE_ROOT } from './paths.ts';
import { coordinatorUrls, type LabPlan } from './plan.ts';

/** The CLI's context file, which `lab up` points at the lab and `lab down` takes away again. */
export const contextFile = (): string => `${homedir()}/.config/weft/context.json`;

export function writeContext(file: string, lab: LabPaths, plan: LabPlan): void {
  const context = { coordinators: coordinatorUrls(plan), tls: tlsFiles(lab, USER), lab: lab.name };
  const text = `${JSON.stringify(context, null, 2)}\n`;
  if (existsSync(file) && readFileSync(file, 'utf8') === text) return;
  mkdirSync(dirname(file), { recursive: true, mode: 0o700 });
  writeFileSync(`${file}.new`, text, { mode: 0o600 });
  renameSync(`${file}.new`, file);
}

/**
 * Removes the file if it is this lab's; another lab's, or one by `ca init`, stays. A lab beside it, whose context this lab's
 * `up` has replaced, gets it back.
 */
export function removeContext(file: string, name: string): void {
  try {
    const context = JSON.parse(readFileSync(file, 'utf8')) as { lab?: unknown };
    if (context.lab !== name) return;
    rmSync(file, { force: true });
  } catch {
    return;
  }
  for (const other of existsSync(STATE_ROOT) ? readdirSync(STATE_ROOT) : []) {
    if (other === name || other.startsWith('.')) continue;
    try {
      const lab = labPaths(other);
      const plan = JSON.parse(readFileSync(lab.stateFile, 'utf8')) as LabPlan;
      if (plan.contextFiles.includes(file)) return writeContext(file, lab, plan);
    } catch {} // half a lab
  }
}
