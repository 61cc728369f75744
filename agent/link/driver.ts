/** Makes links as steps say, by ip(8) and ethtool(8); no decisions. */
import { type ChildProcess, spawn } from 'node:child_process';
import { WeftError } from '../../lib/errors.ts';
import { exec } from '../../lib/exec.ts';
import type { Log } from '../../lib/log.ts';
import { IpBatch } from './ipbatch.ts';
import { GATEWAY, isOurLink, isSingle, TUNNEL_KERNEL } from './names.ts';
import {
  hostCommands,
  type Link,
  type LinkChange,
  type LinkStep,
  moveCommand,
  parseLinks,
  parseNotice,
  sandboxCommands,
} from './steps.ts';
import { batchLine, type Command } from './words.ts';

const MONITOR_RESTART_MS = 500;
/** Of some thousand links, 2 ms each. */
const ADOPT_MS = 60_000;

/** What frames need before Open vSwitch reads them from a packet socket. */
export interface Completion {
  /** In the container, on the kernel's side of the pair, or nowhere: the kernel's datapath takes frames as they are. */
  readonly at: 'container' | 'kernel' | 'both' | 'none';
  /** TCP segments stay whole, and checksums open (userspace-tso-enable); else frames get their checksums and their final size. */
  readonly tcp: boolean;
  /** Open checksums stay right where Open vSwitch rewrites addresses; else such frames are completed all the same. */
  readonly rewritten: boolean;
}

/**
 * What the kernel must cut even where Open vSwitch takes TCP whole: it knows no other segments, UDP's and those inside tunnels
 * included, and loses them (ethtool(8); names in net/ethtool/common.c).
 */
const NOT_TCP = ['udp', 'sctp', 'udp_tnl', 'udp_tnl-csum', 'gre', 'gre-csum', 'ipxip4', 'ipxip6'].map(
  (what) => `tx-${what}-segmentation`,
);
const offloadsOff = (tcp: boolean): string[] => (tcp ? [...NOT_TCP, 'tx-gso-list'] : ['tx']).flatMap((f) => [f, 'off']);

/** Steps that failed, and what with. */
export type Failed = ReadonlyMap<LinkStep, string>;

/** Places of the commands that failed, and what ip said of each. */
type Complaints = ReadonlyMap<number, string>;

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
    // Which of the endpoints' networks lead out is not known here: taken for all of them.
    const slow = (name: string): boolean => name.startsWith('wfk') && !this.#complete.rewritten;
    await this.#setAll(pairs.filter(slow), false);
    await this.#setAll(
      pairs.filter((name) => !slow(name)),
      tcp,
    );
  }

  async #setAll(pairs: readonly string[], tcp: boolean): Promise<void> {
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

  /**
   * All steps are tried; what one has made in part is taken away again. Whether a step that failed is needed after all (what was to be
   * deleted is gone) is not judged here.
   * @throws UNAVAILABLE when ip cannot be run: what was done is not known
   */
  async apply(steps: readonly LinkStep[]): Promise<Failed> {
    const alone: LinkStep[] = [];
    const [made, deleted]: [LinkStep[], LinkStep[]] = [[], []];
    for (const step of steps)
      if (isAlone(step)) alone.push(step);
      else (step.kind === 'delLink' ? deleted : made).push(step);
    const failed = new Map<LinkStep, string>();
    const half: LinkStep[] = [];
    const note = (step: LinkStep, complaints: Complaints): void => {
      const [first] = complaints;
      if (first === undefined) return;
      const [at, said] = first;
      failed.set(step, `ip ${hostCommands(step)[at]?.join(' ') ?? ''}: ${said}`);
      if (at > 0 && isUndone(step)) half.push(step);
    };
    await Promise.all([
      batched(this.#work, made, note),
      batched(this.#deletions, deleted, note),
      ...alone.map(async (step) => note(step, await separately(hostCommands(step)))),
    ]);
    if (failed.size > 0) this.#log.debug({ failed: [...failed.values()] }, 'ip failed');
    await this.#undo(half);
    return failed;
  }

  /** What new links still need after `apply`: their place in the sandbox, complete checksums. Those that fail are taken away again. */
  async finish(steps: readonly LinkStep[]): Promise<Failed> {
    const failed = new Map<LinkStep, string>();
    await Promise.all(
      steps.map(async (step) => {
        const error = await this.#finishOne(step).catch((e: unknown) => WeftError.from(e).message);
        if (error !== '') failed.set(step, error);
      }),
    );
    await this.#undo([...failed.keys()].filter(isUndone));
    return failed;
  }

  /** @returns what failed; empty: nothing */
  async #finishOne(step: LinkStep): Promise<string> {
    const { at } = this.#complete;
    const inContainer = at === 'container' || at === 'both';
    if (step.kind === 'restoreVeth') {
      const { sandbox, interfaceName } = step.joined;
      const moved = await separately([moveCommand(step)]);
      for (const said of moved.values()) return `${step.container} cannot be moved to ${sandbox}: ${said}`;
      if (step.joined.addresses.some((a) => a.includes(':'))) await enableIpv6(step.container, sandbox);
      const error = await inSandbox(sandboxCommands(step), sandbox);
      return error === '' && inContainer ? await this.#offloadsOff(interfaceName, sandbox) : error;
    }
    if (step.kind === 'addVeth' && inContainer) return await this.#offloadsOff(step.container, null);
    if (step.kind !== 'addPair' || step.whole === true || at === 'none') return '';
    if (step.host === undefined && at === 'container') return '';
    return await this.#offloadsOff(step.name, null, step.rewritten === true && !this.#complete.rewritten);
  }

  /** A link that is there is taken for whole by the next look at it. */
  async #undo(steps: readonly LinkStep[]): Promise<void> {
    const lines = steps.map((step) => `link del dev ${nameOf(step)}`);
    if (lines.length > 0) await this.#work.run(lines).catch(() => undefined); // gone with another, or the next look finds it
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

  async #offloadsOff(link: string, sandbox: string | null, all = false): Promise<string> {
    const command = ['ethtool', '-K', link, ...offloadsOff(this.#complete.tcp && !all)];
    const [file, ...args] = sandbox === null ? command : ['nsenter', `--net=${sandbox}`, ...command];
    const r = await exec(file ?? 'ethtool', args);
    return r.code === 0 ? '' : `${command.join(' ')}: ${r.stderr.trim()}`;
  }
}

const nameOf = (step: LinkStep): string =>
  step.kind === 'addVeth' || step.kind === 'restoreVeth' ? step.host : step.name;
/**
 * What a batch cannot be told; and what has to do with addresses and routes: ip then remembers the number of every link by its name, and
 * a batch that goes on would speak to links that are gone (ll_init_map in iproute2's lib/ll_map.c).
 */
const isAlone = (step: LinkStep): boolean =>
  ((step.kind === 'addPair' || step.kind === 'setLink') && step.host !== undefined) ||
  hostCommands(step).some((c) => batchLine(c) === null);
/** Makes a link of an endpoint's; what is missing of the host's own is seen, and those are of use even so. */
const isUndone = (step: LinkStep): boolean =>
  step.kind !== 'setLink' && step.kind !== 'delLink' && !isSingle(nameOf(step));

/** One batch for all of them. */
async function batched(
  ip: IpBatch,
  steps: readonly LinkStep[],
  note: (step: LinkStep, complaints: Complaints) => void,
): Promise<void> {
  if (steps.length === 0) return;
  const commands = steps.map(hostCommands);
  const complaints = await ip.run(commands.flat().map((c) => batchLine(c) ?? ''));
  let from = 0;
  for (const [i, step] of steps.entries()) {
    const to = from + (commands[i]?.length ?? 0);
    const own = [...complaints].filter(([at]) => at >= from && at < to);
    note(step, new Map(own.map(([at, said]) => [at - from, said])));
    from = to;
  }
}

/** One process after another, until one fails. */
async function separately(commands: readonly Command[], before: readonly string[] = []): Promise<Complaints> {
  for (const [i, words] of commands.entries()) {
    const [file = 'ip', ...args] = [...before, 'ip', ...words];
    const r = await exec(file, args);
    if (r.code !== 0) return new Map([[i, r.stderr.trim()]]);
  }
  return new Map();
}

/** Until one fails: what follows may be meant for the link that is not there. @returns what failed; empty: nothing */
async function inSandbox(commands: readonly Command[], sandbox: string): Promise<string> {
  const enter = [`--net=${sandbox}`];
  const lines = commands.map(batchLine);
  if (lines.includes(null)) {
    for (const [i, said] of await separately(commands, ['nsenter', ...enter]))
      return complaint(commands[i], sandbox, said);
    return '';
  }
  const r = await exec('nsenter', [...enter, 'ip', '-batch', '-'], { input: `${lines.join('\n')}\n` });
  if (r.code === 0) return '';
  const at = /^Command failed .*:(\d+)$/m.exec(r.stderr)?.[1];
  const said = r.stderr.replaceAll(/^Command failed .*$/gm, '').trim();
  return complaint(at === undefined ? undefined : commands[Number(at) - 1], sandbox, said);
}

const complaint = (words: Command | undefined, sandbox: string, said: string): string =>
  `ip ${words?.join(' ') ?? '-batch'} in ${sandbox}: ${said}`;

/**
 * Docker switches IPv6 off for every new interface of a container, and on for those that it gives an IPv6 address. Where it cannot be
 * written, adding the address tells.
 */
async function enableIpv6(link: string, sandbox: string): Promise<void> {
  // /proc/sys/net is that of the reader's namespace.
  await exec('nsenter', [`--net=${sandbox}`, 'tee', `/proc/sys/net/ipv6/conf/${link}/disable_ipv6`], { input: '0\n' });
}
