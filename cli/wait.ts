/** weft wait: every connected host has applied a revision, or those that have not are named (exit 1). */
import type { Command } from 'commander';
import type { Revision } from '../gen/weft/v1/types.ts';
import { WeftError } from '../lib/errors.ts';
import type { Mesh } from './client.ts';
import { flagsOf, print, remote, withMesh } from './command.ts';
import type { Io } from './io.ts';
import { clean } from './output.ts';
import { laggardJson, revisionJson } from './shapes.ts';
import { nonEmpty, revision, seconds } from './values.ts';

const DEFAULT_TIMEOUT_MS = 30_000;
/** What the coordinator may need on top of what it was told to wait. */
const GRACE_MS = 10_000;

interface WaitFlags {
  readonly revision?: string;
  readonly network?: string;
  readonly timeout?: string;
}

export function register(program: Command, io: Io): void {
  remote(program, 'wait', 'wait until every connected host has applied a revision')
    .optionsGroup('What:')
    .option('--revision <revision>', 'N or EPOCH:N (default: the newest)')
    .option('--network <network>', 'only hosts that have to do with it')
    .option('--timeout <seconds>', 'how long (default: 30)')
    .action(async (_options: unknown, command: Command) => {
      const flags = flagsOf<WaitFlags>(command);
      const wanted = flags.revision === undefined ? null : revision('--revision', flags.revision);
      const timeoutMs = flags.timeout === undefined ? DEFAULT_TIMEOUT_MS : seconds('--timeout', flags.timeout);
      const network = flags.network === undefined ? '' : nonEmpty('--network', flags.network);
      const answer = await withMesh(io, command, async (mesh) => {
        const request = { network, project: '', timeoutMs, localOnly: false, exceptHostIds: [] };
        return mesh.call(
          'waitApplied',
          { ...request, revision: wanted === null ? undefined : await inEpoch(mesh, wanted) },
          { timeoutMs: timeoutMs + GRACE_MS },
        );
      });
      const result = {
        revision: revisionJson(answer.revision),
        applied: answer.applied,
        laggards: answer.laggards.map(laggardJson),
      };
      print(io, command, result, () => {
        if (result.applied) return `Every connected host has applied revision ${result.revision ?? '-'}.\n`;
        const lines = result.laggards.map(
          (l) =>
            `  ${clean(l.host)} is at ${l.appliedRevision ?? 'none'}${l.reason === null ? '' : `: ${clean(l.reason)}`}\n`,
        );
        return `Not every host has applied revision ${result.revision ?? '-'}:\n${lines.join('')}`;
      });
      if (!result.applied) io.setExit(1);
    });
}

/** A revision without epoch is one of the present epoch. */
async function inEpoch(mesh: Mesh, wanted: { epoch: bigint | null; number: bigint }): Promise<Revision> {
  if (wanted.epoch !== null) return { epoch: wanted.epoch, number: wanted.number };
  const { revision: now } = await mesh.call('getStatus', {});
  if (now === undefined) throw new WeftError('UNAVAILABLE', 'The coordinator knows no revision yet.');
  return { epoch: now.epoch, number: wanted.number };
}
