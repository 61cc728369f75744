/** Queues by tc(8); it decides nothing. */
import { WeftError } from '../../lib/errors.ts';
import { exec } from '../../lib/exec.ts';
import { isOurLink } from '../link/names.ts';
import { type FoundQueue, lines, parseQueues, type QueueStep } from './steps.ts';

export class TcDriver {
  /** What is at the root of each of our links, in the host's namespace. @throws UNAVAILABLE */
  async observe(): Promise<Map<string, FoundQueue>> {
    const r = await exec('tc', ['-j', '-r', 'qdisc', 'show']);
    if (r.code !== 0) throw new WeftError('UNAVAILABLE', `tc qdisc show failed: ${r.stderr.trim()}`);
    return parseQueues(r.stdout, isOurLink);
  }

  /** All are tried. @throws UNAVAILABLE with what tc said of the first that failed */
  async apply(steps: readonly QueueStep[]): Promise<void> {
    const input = `${steps.flatMap(lines).join('\n')}\n`;
    const r = await exec('tc', ['-force', '-batch', '-'], { input });
    if (r.code === 0 && r.stderr.trim() === '') return;
    throw new WeftError('UNAVAILABLE', `a rate cannot be set: tc: ${r.stderr.trim().replaceAll('\n', '; ')}`, {
      hint: 'does the kernel have the token bucket filter (CONFIG_NET_SCH_TBF)?',
    });
  }
}
