/** Whom a link that could not be made or set concerns: one endpoint, or the host and all on it. Pure. */
import { deviceOf, ipsOf, type LocalEndpoint, nameOf } from '../contract.ts';
import { beside, gateLink, hostLink, isSingle, slowLink } from '../link/names.ts';

export interface Blame {
  /** Endpoint's id to why it has no working link, in a sentence that names it. */
  readonly endpoints: ReadonlyMap<string, string>;
  /** What fails of the host's own links; empty: nothing. */
  readonly host: string;
}

const NOBODY: Blame = { endpoints: new Map(), host: '' };

/** @param failures link's name to what failed */
export function blameOf(failures: ReadonlyMap<string, string>, endpoints: Iterable<LocalEndpoint>): Blame {
  if (failures.size === 0) return NOBODY;
  const blamed = new Map<string, string>();
  const left = new Map(failures);
  for (const e of endpoints)
    for (const link of [deviceOf(e) ?? hostLink(e.id), slowLink(e.id), gateLink(e.id), beside(e.id)]) {
      const message = left.get(link);
      if (message === undefined) continue;
      left.delete(link);
      blamed.set(e.id, `endpoint ${whoIs(e)} is cut off: ${message}`);
    }
  // Of an endpoint that has just left: its link goes with it.
  const own = [...left].find(([link]) => isSingle(link));
  return { endpoints: blamed, host: own?.[1] ?? '' };
}

function whoIs(e: LocalEndpoint): string {
  const [ip = ''] = ipsOf(e);
  const name = nameOf(e);
  if (name === '') return ip === '' ? e.id.slice(0, 12) : ip;
  return ip === '' ? name : `${name} (${ip})`;
}
