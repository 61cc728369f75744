import { readdirSync, readFileSync, readlinkSync, statSync } from 'node:fs';
import { basename } from 'node:path';
import { until } from './run.ts';

/** Processes as /proc shows them. A lab's processes are known by their namespaces, never by a pid that was written down. */
export interface Proc {
  readonly pid: number;
  readonly ppid: number;
  /** Inode numbers of the namespaces. */
  readonly netns: number;
  readonly mntns: number;
  readonly argv: readonly string[];
}

const inode = (link: string): number => Number(/\[(\d+)\]/.exec(link)?.[1] ?? 0);

/** Everything that runs now, without zombies and kernel threads; what goes away meanwhile is left out. */
export function processes(): Proc[] {
  const list: Proc[] = [];
  for (const entry of readdirSync('/proc')) {
    if (!/^\d+$/.test(entry)) continue;
    const proc = readProc(Number(entry));
    if (proc !== null) list.push(proc);
  }
  return list;
}

export function readProc(pid: number): Proc | null {
  try {
    const argv = readFileSync(`/proc/${pid}/cmdline`, 'utf8');
    if (argv === '') return null;
    const stat = readFileSync(`/proc/${pid}/stat`, 'utf8');
    const ppid = Number(stat.slice(stat.lastIndexOf(')') + 2).split(' ')[1]);
    return {
      pid,
      ppid,
      netns: inode(readlinkSync(`/proc/${pid}/ns/net`)),
      mntns: inode(readlinkSync(`/proc/${pid}/ns/mnt`)),
      argv: argv.replace(/\0+$/, '').split('\0'),
    };
  } catch {
    return null; // gone, or a zombie
  }
}

/** Inode of a network namespace file, or null when there is none (an unmounted leftover is a plain file). */
export function netnsInode(file: string): number | null {
  try {
    const stat = statSync(file);
    return stat.dev === statSync('/proc/self/ns/net').dev ? stat.ino : null;
  } catch {
    return null;
  }
}

/** Name of the program: of `perl weft-lab-anchor …` as it calls itself. */
export const programOf = (proc: Proc): string => basename(proc.argv[0] ?? '').split(' ')[0] ?? '';

/** True for `weft agent --config …` and `weft coordinator …`, which run as `node …/weft.mjs agent …`. */
export function isWeft(proc: Proc, daemon: 'agent' | 'coordinator'): boolean {
  return /^(node|sh|weft)/.test(programOf(proc)) && proc.argv.includes(daemon) && proc.argv.includes('--config');
}

/** Sends a signal to each; those gone already are no error. */
export function signalAll(pids: Iterable<number>, signal: NodeJS.Signals): void {
  for (const pid of pids) {
    try {
      process.kill(pid, signal);
    } catch {}
  }
}

/**
 * True while any of its threads runs: only then are its sockets and files free. (The first thread of a killed process is a
 * zombie before the others have ended; a command line is empty for a moment during exec.)
 */
export function alive(pid: number): boolean {
  try {
    const stat = readFileSync(`/proc/${pid}/stat`, 'utf8');
    const dead = /^[ZX]/.test(stat.slice(stat.lastIndexOf(')') + 2));
    return !dead || readdirSync(`/proc/${pid}/task`).length > 1;
  } catch {
    return false;
  }
}

/** Waits until none of them is left. @throws DEADLINE_EXCEEDED */
export async function waitGone(pids: readonly number[], what: string, deadline: number): Promise<void> {
  await until(what, () => !pids.some(alive), { deadline, every: 10 });
}

/** The pids and everything below them. */
export function withDescendants(pids: ReadonlySet<number>, all: readonly Proc[]): Set<number> {
  const found = new Set(pids);
  for (let grew = true; grew; ) {
    grew = false;
    for (const proc of all) {
      if (found.has(proc.ppid) && !found.has(proc.pid)) {
        found.add(proc.pid);
        grew = true;
      }
    }
  }
  return found;
}
