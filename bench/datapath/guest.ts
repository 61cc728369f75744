/** The same bench inside a guest whose kernel has openvswitch, and what it says. */
import { prepareGuest } from '../../scripts/guest/prepare.ts';
import { runInGuest } from '../../scripts/guest/run.ts';
import type { Machine } from '../machine.ts';
import type { Outcome } from './run.ts';

/** Marks the guest's answer among whatever else is printed there. */
const MARK = 'datapath-samples: ';

export interface GuestOutcome extends Outcome {
  readonly machine: Machine;
}

/** Of the bench in the guest: its answer, a line. */
export const answerLine = (outcome: GuestOutcome): string => `${MARK}${JSON.stringify(outcome)}`;

/**
 * Boots a guest, runs `bench/datapath.ts --where guest ARGS` in it, and takes its answer.
 * @throws when there can be no guest here, or when the bench in it fails: with the last of what it said
 */
export async function benchInGuest(
  args: readonly string[],
  timeoutMs: number,
  say: (line: string) => void,
): Promise<GuestOutcome> {
  await prepareGuest(say);
  let text = '';
  let errors = '';
  let shown = 0;
  const { status } = await runInGuest([process.execPath, 'bench/datapath.ts', '--where', 'guest', ...args], {
    timeoutMs,
    onStdout: (chunk) => {
      text += chunk.toString();
      for (let end = text.indexOf('\n', shown); end >= 0; end = text.indexOf('\n', shown)) {
        const line = text.slice(shown, end);
        shown = end + 1;
        if (!line.startsWith(MARK)) say(`guest: ${line}`);
      }
    },
    onStderr: (chunk) => {
      errors = `${errors}${chunk.toString()}`.slice(-2000);
    },
  });
  const answer = text.split('\n').find((line) => line.startsWith(MARK));
  if (answer === undefined) throw new Error(`the bench in the guest ended with status ${status}: ${errors.trim()}`);
  return JSON.parse(answer.slice(MARK.length)) as GuestOutcome;
}
