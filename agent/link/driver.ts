/** Makes links as steps say, by ip(8) and ethtool(8); no decisions. */
import { type ChildProcess, spawn } from 'node:child_process';
import { WeftError } from '../../lib/errors.ts';
import { exec } from '../../lib/exec.ts';
import type { Log } from '../../lib/log.ts';
import { hostBatch, isOurLink, type Link, type LinkStep, parseLinks, sandboxBatch } from './steps.ts';

const MONITOR_RESTART_MS = 500;

export class LinkDriver {
  readonly #log: Log;
  readonly #txChecksum: boolean;
  #monitor: ChildProcess | null = null;
  #timer: NodeJS.Timeout | null = null;
  #closed = false;

  /** @param options.txChecksum false: the datapath reads frames from a socket and needs complete checksums (netdev without TSO). */
  constructor(options: { txChecksum: boolean; log: Log }) {
    this.#txChecksum = options.txChecksum;
    this.#log = options.log;
  }

  /** Links of ours in the host's namespace. */
  async observe(): Promise<Map<string, Link>> {
    const r = await exec('ip', ['-j', 'link', 'show']);
    if (r.code !== 0) throw new WeftError('UNAVAILABLE', `ip link show failed: ${r.stderr.trim()}`);
    return parseLinks(r.stdout);
  }

  /** @throws the first failure; the other steps have been tried all the same. Deleting what is gone is no failure. */
  async apply(steps: readonly LinkStep[]): Promise<void> {
    const lines = steps.flatMap(hostBatch);
    if (lines.length > 0) throwFirst(await this.#batch(lines, null));
  }

  /** What new links still need after `apply`: their place in the sandbox, complete checksums. @throws the first failure. */
  async finish(steps: readonly LinkStep[]): Promise<void> {
    const errors = await Promise.all(
      steps.map(async (step) => {
        if (step.kind === 'restoreVeth')
          return [
            ...(await this.#batch(sandboxBatch(step), step.sandbox)),
            ...(await this.#checksumsComplete(step.interfaceName, step.sandbox)),
          ];
        return step.kind === 'addVeth' ? this.#checksumsComplete(step.container, null) : [];
      }),
    );
    throwFirst(errors.flat());
  }

  /** Calls back with the names of links of ours that somebody changed, made or removed (rtnetlink, by ip-monitor(8)). */
  watch(callback: (name: string) => void): void {
    if (this.#closed) return;
    const child = spawn('ip', ['-o', 'monitor', 'link'], { stdio: ['ignore', 'pipe', 'ignore'] });
    this.#monitor = child;
    let rest = '';
    child.stdout.on('data', (chunk: Buffer) => {
      const lines = (rest + chunk.toString()).split('\n');
      rest = (lines.pop() ?? '').slice(-4096);
      for (const line of lines) {
        const name = /^(?:Deleted )?\d+: ([^:@\s]+)/.exec(line)?.[1];
        if (name !== undefined && isOurLink(name)) callback(name);
      }
    });
    const again = () => {
      if (this.#closed || this.#monitor !== child) return;
      this.#monitor = null;
      this.#timer = setTimeout(() => this.watch(callback), MONITOR_RESTART_MS);
    };
    child.on('error', again);
    child.on('close', again);
  }

  close(): void {
    this.#closed = true;
    if (this.#timer !== null) clearTimeout(this.#timer);
    this.#monitor?.kill();
  }

  async #batch(lines: readonly string[], sandbox: string | null): Promise<string[]> {
    const ip = ['ip', '-force', '-batch', '-'];
    const [file, ...args] = sandbox === null ? ip : ['nsenter', `--net=${sandbox}`, ...ip];
    const r = await exec(file ?? 'ip', args, { input: `${lines.join('\n')}\n` });
    if (r.code === 0) return [];
    const real = r.stderr
      .split('\n')
      .filter((l) => l.trim() !== '' && !l.startsWith('Command failed ') && !/Cannot find device|File exists/.test(l));
    if (real.length > 0) this.#log.warn({ errors: real, lines }, 'ip -batch failed');
    return real.map((l) => `ip: ${l.trim()}`);
  }

  async #checksumsComplete(link: string, sandbox: string | null): Promise<string[]> {
    if (this.#txChecksum) return [];
    const command = ['ethtool', '-K', link, 'tx', 'off'];
    const [file, ...args] = sandbox === null ? command : ['nsenter', `--net=${sandbox}`, ...command];
    const r = await exec(file ?? 'ethtool', args);
    return r.code === 0 ? [] : [`ethtool -K ${link} tx off: ${r.stderr.trim()}`];
  }
}

function throwFirst(errors: readonly string[]): void {
  const [first] = errors;
  if (first !== undefined) throw new WeftError('UNAVAILABLE', first);
}
