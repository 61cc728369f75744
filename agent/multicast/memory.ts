/**
 * Memberships on disk, so that a restarted agent goes on where the last one was. They count only for as long as the flows of the last
 * one do; after that everything is flooded, and whoever wants what has to be asked first.
 */
import { readFile, rename, writeFile } from 'node:fs/promises';
import type { Log } from '../../lib/log.ts';
import type { LocalGroups } from './membership.ts';

/** Network → endpoint → groups; null: every group. */
export type Remembered = ReadonlyMap<string, ReadonlyMap<string, readonly string[] | null>>;

export interface Recalled {
  readonly networks: Remembered;
  /** How long ago a coordinator was heard, milliseconds. */
  readonly heardAgoMs: number;
}

const NOTHING: Recalled = { networks: new Map(), heardAgoMs: Number.POSITIVE_INFINITY };

export class MembershipMemory {
  readonly #path: string;
  readonly #log: Log;
  #writing: Promise<void> = Promise.resolve();

  constructor(path: string, log: Log) {
    this.#path = path;
    this.#log = log;
  }

  /** @param now epoch milliseconds. @returns nothing where it is older, or not to be read. */
  async load(now: number, maxAgeMs: number): Promise<Recalled> {
    try {
      const text = await readFile(this.#path, 'utf8');
      const o = JSON.parse(text) as {
        at: number;
        heardAgoMs?: number | null;
        networks: Record<string, Record<string, string[] | null>>;
      };
      const age = now - o.at;
      if (!(age >= 0 && age <= maxAgeMs)) return NOTHING;
      const networks = new Map(Object.entries(o.networks).map(([id, each]) => [id, new Map(Object.entries(each))]));
      // Infinity is null in JSON.
      return { networks, heardAgoMs: age + (o.heardAgoMs ?? Number.POSITIVE_INFINITY) };
    } catch {
      return NOTHING; // the first start, or half a file: everybody is asked
    }
  }

  /** @param known networks whose memberships are known. @param now epoch milliseconds */
  save(
    known: ReadonlyMap<string, { groups: LocalGroups; endpoints: ReadonlySet<string> }>,
    now: number,
    heardAgoMs: number,
  ): void {
    const networks = Object.fromEntries(
      [...known].map(([id, { groups, endpoints }]) => [id, Object.fromEntries(byEndpoint(groups, endpoints))]),
    );
    const text = JSON.stringify({ at: now, heardAgoMs, networks });
    this.#writing = this.#writing
      .then(async () => {
        await writeFile(`${this.#path}.new`, text, { mode: 0o600 });
        await rename(`${this.#path}.new`, this.#path);
      })
      .catch((error: unknown) => this.#log.warn({ err: error }, 'memberships not saved'));
  }

  flush(): Promise<void> {
    return this.#writing;
  }
}

function byEndpoint(local: LocalGroups, endpoints: ReadonlySet<string>): Map<string, string[] | null> {
  const out = new Map<string, string[] | null>([...endpoints].map((id) => [id, []]));
  for (const [group, members] of local.groups) for (const id of members) out.get(id)?.push(group);
  for (const id of local.everything) out.set(id, null);
  return out;
}
