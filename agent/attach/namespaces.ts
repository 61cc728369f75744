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

/** The endpoint's namespace is not there any more; false for what is in none. */
export function isNamespaceGone(e: LocalEndpoint): boolean {
  if (e.attached?.kind !== 'netns' || e.sandbox === null) return false;
  const inode = namespaceInode(e.sandbox);
  return inode === null || (e.attached.inode !== null && e.attached.inode !== inode);
}
