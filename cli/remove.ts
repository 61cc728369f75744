/** `weft NOUN rm NAME...`: each is tried, whatever becomes of the others, as docker does. */
import type { Command } from 'commander';
import type { Revision } from '../gen/weft/v1/types.ts';
import type { Mesh } from './client.ts';
import { flagsOf, print, withMesh } from './command.ts';
import type { Io } from './io.ts';
import { showError } from './output.ts';
import { settle } from './settle.ts';

/** Prints the names of those that are gone, then what the others failed by; the exit status says whether there are such. */
export async function removeEach(
  io: Io,
  command: Command,
  names: readonly string[],
  remove: (mesh: Mesh, name: string) => Promise<{ readonly revision?: Revision | undefined }>,
): Promise<void> {
  const removed: string[] = [];
  const failures: unknown[] = [];
  const json = flagsOf(command).json === true;
  await withMesh(io, command, async (mesh) => {
    let last: Revision | undefined;
    for (const name of names) {
      try {
        last = (await remove(mesh, name)).revision ?? last;
        removed.push(name);
      } catch (error) {
        failures.push(error);
      }
    }
    if (last !== undefined) await settle(io, mesh, last, json);
  });
  if (removed.length > 0) print(io, command, { removed }, () => removed.map((n) => `${n}\n`).join(''));
  for (const failure of failures) io.setExit(showError(io, failure, json));
}
