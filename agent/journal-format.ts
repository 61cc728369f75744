/**
 * The journal's text (pure): JSON lines. The first line names the format; each further line is one atomic group of writes,
 * `[[table, key, value | null], …]`. A last line without its newline was torn by a crash, and never acknowledged: dropped.
 */
import { Network } from '../gen/weft/v1/types.ts';
import type { JournalWrite, TableName, Tables } from './contract.ts';

export const HEADER = '{"weft":"journal","version":1}\n';

const TABLES: readonly TableName[] = ['endpoint', 'address', 'block', 'network'];

export type Rows = { readonly [T in TableName]: Map<string, Tables[T]> };

export const emptyRows = (): Rows => ({
  endpoint: new Map(),
  address: new Map(),
  block: new Map(),
  network: new Map(),
});

/** One group as its line, newline included. */
export function encodeGroup(writes: readonly JournalWrite[]): string {
  const rows = writes.map((w) => [
    w.table,
    w.key,
    w.table === 'network' && w.value !== null ? { ...w.value, network: networkToJson(w.value.network) } : w.value,
  ]);
  return `${JSON.stringify(rows)}\n`;
}

/** The whole state as a file, one row a line. */
export function encodeSnapshot(rows: Rows): string {
  const lines = [HEADER];
  for (const write of allRows(rows)) lines.push(encodeGroup([write]));
  return lines.join('');
}

function* allRows(rows: Rows): Generator<JournalWrite> {
  for (const [key, value] of rows.network) yield { table: 'network', key, value };
  for (const [key, value] of rows.block) yield { table: 'block', key, value };
  for (const [key, value] of rows.address) yield { table: 'address', key, value };
  for (const [key, value] of rows.endpoint) yield { table: 'endpoint', key, value };
}

/**
 * @param text a journal file
 * @returns its rows, and sentences about lines that could not be read (they are skipped). A torn last line is only counted.
 */
export function decode(text: string): { rows: Rows; problems: readonly string[]; torn: boolean } {
  const rows = emptyRows();
  const problems: string[] = [];
  const lines = text.split('\n');
  const torn = lines.pop() !== '';
  const header = lines.shift();
  if (header !== undefined && `${header}\n` !== HEADER)
    problems.push(`line 1: not a journal of this version: ${excerpt(header)}`);
  lines.forEach((line, index) => {
    const group = decodeGroup(line);
    if (group === null) problems.push(`line ${index + 2}: not a group of writes: ${excerpt(line)}`);
    else for (const write of group) applyWrite(rows, write);
  });
  return { rows, problems, torn };
}

const excerpt = (line: string): string => JSON.stringify(line.slice(0, 60));

function decodeGroup(line: string): JournalWrite[] | null {
  let parsed: unknown;
  try {
    parsed = JSON.parse(line);
  } catch {
    return null;
  }
  if (!Array.isArray(parsed)) return null;
  const group: JournalWrite[] = [];
  for (const row of parsed) {
    if (!Array.isArray(row) || row.length !== 3) return null;
    const [table, key, value] = row as [TableName, unknown, unknown];
    if (!TABLES.includes(table) || typeof key !== 'string' || typeof value !== 'object') return null;
    group.push({ table, key, value: value === null ? null : decodeValue(table, value) } as JournalWrite);
  }
  return group;
}

function decodeValue(table: TableName, value: object): unknown {
  // Rows of before there was IPv6.
  if (table === 'endpoint') return { ip6: '', prefix6: 0, ...value };
  if (table !== 'network') return value;
  return { ...value, network: networkFromJson((value as { network?: unknown }).network) };
}

/** `revision` is never in the store's form of a network, but the journal must keep it: how new its copy is. */
const networkToJson = (network: Network): unknown => Network.toJSON(network);
const networkFromJson = (json: unknown): Network => Network.fromJSON(json ?? {});

export function applyWrite(rows: Rows, write: JournalWrite): void {
  const table = rows[write.table] as Map<string, unknown>;
  if (write.value === null) table.delete(write.key);
  else table.set(write.key, write.value);
}
