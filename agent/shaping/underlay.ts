/** Queues of the underlay's interface by tc(8), and what kernel and tc can; it decides nothing. */
import { readFile } from 'node:fs/promises';
import { isDeepStrictEqual } from 'node:util';
import { WeftError } from '../../lib/errors.ts';
import { type ExecResult, exec } from '../../lib/exec.ts';
import { argsOf, type FoundInterface, type FoundRoot, rootOf } from '../plan/underlay.ts';
import {
  classTree,
  type FoundQdisc,
  type FoundTree,
  isOurRoot,
  type LeafKind,
  parseClasses,
  parseFilters,
  parseQdiscs,
  treeLines,
} from './classes.ts';

export class UnderlayQueues {
  readonly #enter: readonly string[];

  /** @param enter what runs a command where the interfaces are; nothing: here */
  constructor(enter: readonly string[] = []) {
    this.#enter = enter;
  }

  /** Of one boot of the kernel. */
  async boot(): Promise<string> {
    return (await readFile('/proc/sys/kernel/random/boot_id', 'utf8')).trim();
  }

  /**
   * Interfaces of this network namespace that have a tree of ours, and `name`, if it is there.
   * @throws UNAVAILABLE
   */
  async observe(name: string | null): Promise<Map<string, FoundInterface>> {
    const qdiscs = parseQdiscs(await this.#said('tc', '-j', '-r', 'qdisc', 'show'));
    const links = JSON.parse((await this.#said('ip', '-j', 'link', 'show')) || '[]') as {
      ifname: string;
      ifindex: number;
    }[];
    const out = new Map<string, FoundInterface>();
    for (const { ifname, ifindex } of links) {
      const have = qdiscs.get(ifname) ?? [];
      const isOurs = have.some((q) => q.parent === null && isOurRoot(q));
      if (ifname !== name && !isOurs) continue;
      const tree: FoundTree = {
        ifindex,
        qdiscs: have,
        classes: isOurs ? parseClasses(await this.#said('tc', 'class', 'show', 'dev', ifname)) : [],
        filters: parseFilters(await this.#said('tc', 'filter', 'show', 'dev', ifname)),
      };
      out.set(ifname, { ...tree, root: await this.#root(ifname, tree) });
    }
    return out;
  }

  /** One after the other; the first that fails ends it. @throws UNAVAILABLE with what tc said */
  async apply(lines: readonly string[]): Promise<void> {
    const r = await this.#exec(['tc', '-batch', '-'], { input: `${lines.join('\n')}\n` });
    if (r.code !== 0) throw new WeftError('UNAVAILABLE', `tc: ${firstLine(r.stderr)}`);
  }

  /**
   * Tried in a network namespace that nobody else has, which ends with the attempt.
   * @throws FAILED_PRECONDITION the kernel has no such classes
   */
  async leafKind(): Promise<LeafKind> {
    const fair = await tried(treeLines('lo', classTree(1e9, 'fq_codel'), false));
    if (fair.code === 0) return 'fq_codel';
    const plain = await tried(treeLines('lo', classTree(1e9, 'bfifo'), false));
    if (plain.code === 0) return 'bfifo';
    throw new WeftError(
      'FAILED_PRECONDITION',
      `this host's kernel takes no classes with filters: tc: ${firstLine(plain.stderr)}`,
      { hint: 'it needs CONFIG_NET_SCH_HTB and CONFIG_NET_CLS_U32' },
    );
  }

  /** A queue is somebody else's for good unless tc makes the very same again of what it shows. */
  async #root(name: string, tree: FoundTree): Promise<FoundRoot> {
    const root = rootOf(tree);
    if (root.kind !== 'try') return root;
    const text = await this.#said('tc', '-r', 'qdisc', 'show', 'dev', name);
    const have = tree.qdiscs.find((q) => q.parent === null);
    for (const args of argsOf(text)) {
      const r = await tried(
        [`qdisc replace dev lo root handle ${root.handle} ${args}`, 'qdisc show dev lo'],
        '-j',
        '-r',
      );
      if (r.code === 0 && isDeepStrictEqual(optionsOf(r.stdout, have), have?.options))
        return { kind: 'set', queue: { handle: root.handle, args } };
    }
    return { kind: 'foreign', text: firstLine(text) };
  }

  #exec(command: readonly string[], options: { input?: string } = {}): Promise<ExecResult> {
    const [file = '', ...args] = [...this.#enter, ...command];
    return exec(file, args, options);
  }

  async #said(...command: string[]): Promise<string> {
    const r = await this.#exec(command);
    if (r.code !== 0) throw new WeftError('UNAVAILABLE', `${command.join(' ')}: ${firstLine(r.stderr)}`);
    return r.stdout;
  }
}

const tried = (lines: readonly string[], ...flags: string[]) =>
  exec('unshare', ['--net', 'tc', ...flags, '-batch', '-'], { input: `${lines.join('\n')}\n` });

function optionsOf(json: string, like: FoundQdisc | undefined): unknown {
  const items = JSON.parse(json.trim() || '[]') as { kind?: string; root?: boolean; options?: unknown }[];
  return items.find((one) => one.root === true && one.kind === like?.kind)?.options;
}

const firstLine = (text: string): string => text.trim().split('\n')[0] ?? '';
