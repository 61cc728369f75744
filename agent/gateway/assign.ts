/** Which transit address an endpoint gets. Pure but for the journal's write. */
import type { Journal, JournalWrite, LocalEndpoint } from '../contract.ts';
import { pickTransit } from './addresses.ts';

type Held = Pick<Journal, 'endpoints'>;

/** For a new row; empty when none is free. A row that is written again keeps what it had. */
export function transitOf(journal: Held, e: Pick<LocalEndpoint, 'id'>): Pick<LocalEndpoint, 'transit'> {
  const known = journal.endpoints.get(e.id)?.transit;
  if (known !== undefined) return { transit: known };
  const used = new Set<string>();
  for (const other of journal.endpoints.values()) if (other.transit !== undefined) used.add(other.transit);
  const transit = pickTransit(e.id, used);
  return transit === null ? {} : { transit };
}

/** Rows of before there were transit addresses get one. */
export async function assignTransit(journal: Journal): Promise<void> {
  for (const e of journal.endpoints.values()) {
    if (e.transit !== undefined) continue;
    const given = transitOf(journal, e);
    const write: JournalWrite = { table: 'endpoint', key: e.id, value: { ...e, ...given } };
    if (given.transit !== undefined) await journal.write([write]);
  }
}
