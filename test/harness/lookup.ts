/** What a container finds by name, asked with its own nslookup (busybox). */
import { on } from './lab.ts';

/** What nslookup says, without the server's own lines; by Docker's resolver, or by the one named. */
export async function lookup(host: string, container: string, ...args: string[]): Promise<string> {
  const r = await on(host, 'docker', 'exec', container, 'nslookup', ...args);
  return r.stdout.split('\n').slice(2).join('\n');
}

/** Sorted. */
export const addresses = (text: string): string[] =>
  [...text.matchAll(/^Address: (\S+)$/gm)].map((m) => m[1] ?? '').toSorted();

/** Sorted; empty when the name is not found. */
export const find = async (host: string, container: string, name: string): Promise<string[]> =>
  addresses(await lookup(host, container, name));
