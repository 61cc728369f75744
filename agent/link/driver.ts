/** Makes links as steps say, by ip(8) and ethtool(8); no decisions. */
import { type ChildProcess, spawn } from 'node:child_process';
import { WeftError } from '../../lib/errors.ts';
import { exec } from '../../lib/exec.ts';
import type { Log } from '../../lib/log.ts';
import { IpBatch } from './ipbatch.ts';
import { GATEWAY, isOurLink, TUNNEL_KERNEL } from './names.ts';
import {
  hostBatch,
  type Link,
  type LinkChange,
  type LinkStep,
  parseLinks,
  parseNotice,
  sandboxBatch,
} from './steps.ts';

const MONITOR_RESTART_MS = 500;
/** Of some thousand links, 2 ms each. */
const ADOPT_MS = 60_000;

/** What frames need before Open vSwitch reads them from a packet socket. */
export interface Completion {
  /** In the container, on the kernel's side of the pair, or nowhere: the kernel's datapath takes frames as they are. */
  readonly at: 'container' | 'kernel' | 'both' | 'none';
  /** TCP segments stay whole, and checksums open (userspace-tso-enable); else frames get their checksums and their final size. */
  readonly tcp: boolean;
}

/**
 * What the kernel must cut even where Open vSwitch takes TCP whole: it knows no other segments, UDP's and those inside tunnels
 * included, and loses them (ethtool(8); names in net/ethtool/common.c).
 */
const NOT_TCP = ['udp', 'sctp', 'udp_tnl', 'udp_tnl-csum', 'gre', 'gre-csum', 'ipxip4', 'ipxip6'].map(
  (what) => `tx-${what}-segmentation`,
);
const offloadsOff = (tcp: boolean): string[] => (tcp ? [...NOT_TCP, 'tx-gso-list'] : ['tx']).flatMap((f) => [f, 'off']);

export class LinkDriver {
  readonly #log: Log;
  readonly #complete: Completion;
  readonly #devices: () => ReadonlySet<string>;
  readonly #work = new IpBatch();
  /** Apart: the kernel takes 20 ms to delete a pair, most of it without a lock that others need. */
  readonly #deletions = new IpBatch();
  #monitor: ChildProcess | null = null;
  #timer: NodeJS.Timeout | null = null;
  #closed = false;
  #adopted = false;

  /** @param options.devices devices of the user's that are to be watched too */
  constructor(options: { complete: Completion; devices?: () => ReadonlySet<string>; log: Log }) {
    this.#complete = options.complete;
    this.#devices = options.devices ?? (() => new Set());
    this.#log = options.log;
  }

  /** Links of ours in the host's namespace, and the user's devices that concern us. */
  async observe(): Promise<Map<string, Link>> {
    const r = await exec('ip', ['-j', 'addr', 'show']);
    if (r.code !== 0) throw new WeftError('UNAVAILABLE', `ip addr show failed: ${r.stderr.trim()}`);
    const links = parseLinks(r.stdout, this.#concerns());
    if (!this.#adopted) void this.#adopt([...links.keys()]);
    this.#adopted = true;
    return links;
  }

  /** Pairs that an earlier agent has made, perhaps one that knew less of segments, get what new ones get. Never rejects. */
  async #adopt(names: readonly string[]): Promise<void> {
    const { at, tcp } = this.#complete;
    const pairs = names.filter((name) =>
      at === 'kernel' || at === 'both'
        ? name === GATEWAY || name === TUNNEL_KERNEL || name.startsWith('wfk')
        : name === GATEWAY && at !== 'none',
    );
    if (pairs.length === 0) return;
    const each = ['-I', '{}', 'ethtool', '-K', '{}', ...offloadsOff(tcp)];
    const options = { input: pairs.map((name) => `${name}\n`).join(''), timeoutMs: ADOPT_MS };
    const failed = await exec('xargs', each, options).then(
      (r) => (r.code === 0 ? null : r.stderr.trim()),
      (error: unknown) => WeftError.from(error).message,
    );
    // One that is gone by now is no failure, and cannot be told from others here.
    if (failed !== null) this.#log.info({ failed }, 'not every link that was there could be set');
  }

  #concerns(): (name: string) => boolean {
    const devices = this.#devices();
    return (name) => isOurLink(name) || devices.has(name);
  }

  /** @throws the first failure; the other steps have been tried all the same. Deleting what is gone is no failure. */
  async apply(steps: readonly LinkStep[]): Promise<void> {
    const of = (deletes: boolean): string[] =>
      steps.filter((s) => (s.kind === 'delLink') === deletes).flatMap(hostBatch);
    const [made, deleted] = [of(false), of(true)];
    const errors = await Promise.all([
      made.length === 0 ? [] : this.#work.run(made),
      deleted.length === 0 ? [] : this.#deletions.run(deleted),
    ]);
    throwFirst(this.#real(errors.flat(), [...made, ...deleted]));
  }

  /** What new links still need after `apply`: their place in the sandbox, complete checksums. @throws the first failure. */
  async finish(steps: readonly LinkStep[]): Promise<void> {
    const { at } = this.#complete;
    const inContainer = at === 'container' || at === 'both';
    const errors = await Promise.all(
      steps.map(async (step) => {
        if (step.kind === 'restoreVeth') {
          const { sandbox, interfaceName } = step.joined;
          if (step.joined.addresses.some((a) => a.includes(':'))) await enableIpv6(step.container, sandbox);
          const errors = await this.#inSandbox(sandboxBatch(step), sandbox);
          return inContainer ? [...errors, ...(await this.#offloadsOff(interfaceName, sandbox))] : errors;
        }
        if (step.kind === 'addVeth' && inContainer) return this.#offloadsOff(step.container, null);
        if (step.kind !== 'addPair' || at === 'none') return [];
        return step.host === undefined && at === 'container' ? [] : this.#offloadsOff(step.name, null);
      }),
    );
    throwFirst(errors.flat());
  }

  /**
   * Calls back with what happens to links of ours, our own steps too (rtnetlink, by ip-monitor(8)); with null when something may have
   * been missed.
   */
  watch(callback: (change: LinkChange | null) => void): void {
    if (this.#closed) return;
    const child = spawn('ip', ['-o', 'monitor', 'link'], { stdio: ['ignore', 'pipe', 'ignore'] });
    this.#monitor = child;
    let rest = '';
    child.stdout.on('data', (chunk: Buffer) => {
      const lines = (rest + chunk.toString()).split('\n');
      rest = (lines.pop() ?? '').slice(-4096);
      const concerns = this.#concerns();
      for (const line of lines) {
        const change = parseNotice(line, concerns);
        if (change !== null) callback(change);
      }
    });
    const again = () => {
      if (this.#closed || this.#monitor !== child) return;
      this.#monitor = null;
      this.#timer = setTimeout(() => {
        this.watch(callback);
        callback(null);
      }, MONITOR_RESTART_MS);
    };
    child.on('error', again);
    child.on('close', again);
  }

  close(): void {
    this.#closed = true;
    if (this.#timer !== null) clearTimeout(this.#timer);
    this.#monitor?.kill();
    this.#work.close();
    this.#deletions.close();
  }

  async #inSandbox(lines: readonly string[], sandbox: string): Promise<string[]> {
    const r = await exec('nsenter', [`--net=${sandbox}`, 'ip', '-force', '-batch', '-'], {
      input: `${lines.join('\n')}\n`,
    });
    return r.code === 0 ? [] : this.#real(r.stderr.split('\n'), lines);
  }

  /** What ip complains of, without what is no failure. */
  #real(errors: readonly string[], lines: readonly string[]): string[] {
    const real = errors.filter(
      (l) => l.trim() !== '' && !l.startsWith('Command failed ') && !/Cannot find device|File exists/.test(l),
    );
    if (real.length > 0) this.#log.warn({ errors: real, lines }, 'ip -batch failed');
    return real.map((l) => `ip: ${l.trim()}`);
  }

  async #offloadsOff(link: string, sandbox: string | null): Promise<string[]> {
    const command = ['ethtool', '-K', link, ...offloadsOff(this.#complete.tcp)];
    const [file, ...args] = sandbox === null ? command : ['nsenter', `--net=${sandbox}`, ...command];
    const r = await exec(file ?? 'ethtool', args);
    return r.code === 0 ? [] : [`${command.join(' ')}: ${r.stderr.trim()}`];
  }
}

function throwFirst(errors: readonly string[]): void {
  const [first] = errors;
  if (first !== undefined) throw new WeftError('UNAVAILABLE', first);
}

/**
 * Docker switches IPv6 off for every new interface of a container, and on for those that it gives an IPv6 address. Where it cannot be
 * written, adding the address tells.
 */
async function enableIpv6(link: string, sandbox: string): Promise<void> {
  // /proc/sys/net is that of the reader's namespace.
  await exec('nsenter', [`--net=${sandbox}`, 'tee', `/proc/sys/net/ipv6/conf/${link}/disable_ipv6`], { input: '0\n' });
}
