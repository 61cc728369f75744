/** The kernel's neighbour table (ip-neighbour(8)) and routes, as far as they tell whether a VTEP can be reached. */
import { exec } from '../../lib/exec.ts';

export interface Hop {
  /** Where frames for a VTEP go: the VTEP itself, or a router. */
  readonly ip: string;
  readonly device: string;
}

export interface Neighbour {
  /** Link-layer address; null while it is not known. */
  readonly mac: string | null;
  /** The kernel has not given up on it, nor is it still looking for it. */
  readonly answers: boolean;
}

/** Null: there is no route. */
export async function nextHop(ip: string): Promise<Hop | null> {
  const r = await exec('ip', ['-j', 'route', 'get', ip]);
  if (r.code !== 0) return null;
  const [route] = JSON.parse(r.stdout.trim() === '' ? '[]' : r.stdout) as { gateway?: string; dev?: string }[];
  return route === undefined ? null : { ip: route.gateway ?? ip, device: route.dev ?? '' };
}

/** Null: the kernel does not say (so nothing follows for anybody). */
export async function neighbourTable(): Promise<Map<string, Neighbour> | null> {
  // "nud all": also those of devices without link-layer addresses, which have none to look for.
  const r = await exec('ip', ['-j', 'neigh', 'show', 'nud', 'all']);
  return r.code === 0 ? parseNeighbours(r.stdout) : null;
}

interface Shown {
  dst?: string;
  lladdr?: string;
  state?: string[];
}

export function parseNeighbours(text: string): Map<string, Neighbour> {
  const table = new Map<string, Neighbour>();
  for (const { dst = '', lladdr, state = [] } of JSON.parse(text.trim() === '' ? '[]' : text) as Shown[]) {
    const answers = state.length > 0 && !state.some((s) => s === 'FAILED' || s === 'INCOMPLETE' || s === 'NONE');
    // The same address may be on two devices: one of them is enough.
    if (table.get(dst)?.answers !== true) table.set(dst, { mac: lladdr ?? null, answers });
  }
  return table;
}
