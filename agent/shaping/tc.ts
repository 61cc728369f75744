/** Queues and diversions by tc(8); it decides nothing. */
import { WeftError } from '../../lib/errors.ts';
import { exec } from '../../lib/exec.ts';
import { isOurLink } from '../link/names.ts';
import { type FoundShaping, lines, parseClassified, parseDiversion, parseQueues, type QueueStep } from './steps.ts';

export class TcDriver {
  /**
   * What our links have, in the host's namespace.
   * @param diverted look at filters too: where eBPF has that place there are none of ours
   * @throws UNAVAILABLE
   */
  async observe(diverted: boolean): Promise<FoundShaping> {
    const r = await exec('tc', ['-j', '-r', 'qdisc', 'show']);
    if (r.code !== 0) throw new WeftError('UNAVAILABLE', `tc qdisc show failed: ${r.stderr.trim()}`);
    const links = diverted ? parseClassified(r.stdout, isOurLink) : [];
    return { queues: parseQueues(r.stdout, isOurLink), diversions: await diversions(links) };
  }

  /** All are tried. @throws UNAVAILABLE with what tc said */
  async apply(steps: readonly QueueStep[]): Promise<void> {
    const r = await exec('tc', ['-force', '-batch', '-'], { input: `${steps.flatMap(lines).join('\n')}\n` });
    if (r.code === 0 && r.stderr.trim() === '') return;
    throw new WeftError('UNAVAILABLE', `a rate cannot be set: tc: ${r.stderr.trim().replaceAll('\n', '; ')}`, {
      hint: 'does the kernel have the token bucket filter (CONFIG_NET_SCH_TBF)?',
    });
  }
}

/** One program for all; it answers a line each, but for those that have gone meanwhile. */
async function diversions(links: readonly string[]): Promise<Map<string, string>> {
  if (links.length === 0) return new Map();
  const input = links.map((link) => `filter show dev ${link} ingress\n`).join('');
  const r = await exec('tc', ['-force', '-j', '-batch', '-'], { input });
  const gone = new Set([...r.stderr.matchAll(/^Command failed .*:(\d+)$/gm)].map((m) => Number(m[1]) - 1));
  const answers = r.stdout.split('\n').filter((line) => line.trim() !== '');
  const there = links.filter((_, i) => !gone.has(i));
  if (answers.length !== there.length) throw new WeftError('UNAVAILABLE', `tc filter show failed: ${r.stderr.trim()}`);
  return new Map(there.map((link, i) => [link, parseDiversion(answers[i] ?? '')]));
}
