/** Network namespaces by path (namespaces(7), ip-netns(8)): there or not, and which. Quick enough to be asked in every pass. */
import { statfsSync, statSync } from 'node:fs';
import type { LocalEndpoint } from '../contract.ts';

/** Type of the file system that namespaces' files belong to (linux/magic.h, NSFS_MAGIC). */
const NSFS = 0x6e73_6673;

/** Inode of the namespace at a path; null when there is none: nothing, a plain file that `ip netns` left, another kind of file. */
export function namespaceInode(path: string): string | null {
  try {
    return statfsSync(path).type === NSFS ? statSync(path, { bigint: true }).ino.toString() : null;
  } catch {
    return null;
  }
}

/** The path is a process's: another process may get its number, so that only the inode tells the namespace. */
export const isProcessPath = (path: string): boolean => path.startsWith('/proc/');

/** The endpoint's namespace is not there any more, though another one may be in its place; false for what is in none. */
export const isNamespaceGone = (e: LocalEndpoint): boolean =>
  e.attached?.kind === 'netns' && e.sandbox !== null && namespaceInode(e.sandbox) !== e.attached.inode;

/** The namespace that has taken the place of the endpoint's own, by inode; null = none has. */
export function successorOf(e: LocalEndpoint): string | null {
  if (!isNamespaceGone(e) || e.sandbox === null || isProcessPath(e.sandbox)) return null;
  return namespaceInode(e.sandbox);
}
