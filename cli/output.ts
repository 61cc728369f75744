/** What people and programs read: aligned tables, key lists, JSON, errors. */
import { WeftError } from '../lib/errors.ts';
import type { Io } from './io.ts';
import { UsageError } from './usage.ts';

/** One JSON document. bigint = decimal string; undefined is a bug, and shows as null. */
export const toJson = (value: unknown, indent = 2): string =>
  JSON.stringify(
    value,
    (_key, item: unknown) => (typeof item === 'bigint' ? item.toString() : item === undefined ? null : item),
    indent,
  );

/** Names and messages come from others: no control character of theirs reaches the terminal. */
export const clean = (text: string): string => text.replaceAll(/[\p{Cc}\p{Bidi_Control}\u2028\u2029]+/gu, ' ');

/** Docker's kind of table: headers in capitals, columns three blanks apart. */
export function table(headers: readonly string[], rows: readonly (readonly string[])[]): string {
  const all = [headers, ...rows].map((row) => row.map((cell) => clean(cell)));
  const widths = headers.map((_header, column) => Math.max(...all.map((row) => (row[column] ?? '').length)));
  const line = (row: readonly string[]): string =>
    row
      .map((cell, column) => cell.padEnd(widths[column] ?? 0))
      .join('   ')
      .trimEnd();
  return `${all.map(line).join('\n')}\n`;
}

/** "Key:   value" lines; maps on one line, of a list of maps each. */
export function keyValues(value: Readonly<Record<string, unknown>>): string {
  const rows = Object.entries(value).flatMap(([key, item]): [string, string][] => {
    const [first = '-', ...more] = isListOfMaps(item) ? item.map(plain) : [plain(item)];
    return [[`${title(key)}:`, first], ...more.map((text): [string, string] => ['', text])];
  });
  const width = Math.max(...rows.map(([key]) => key.length));
  return rows
    .map(([key, text]) => `${key.padEnd(width)}   ${clean(text)}`.trimEnd())
    .join('\n')
    .concat('\n');
}

const isListOfMaps = (value: unknown): value is readonly unknown[] =>
  Array.isArray(value) && value.length > 1 && value.every((item) => typeof item === 'object' && item !== null);

const title = (key: string): string =>
  key.length <= 3
    ? key.toUpperCase()
    : key.charAt(0).toUpperCase() + key.slice(1).replaceAll(/[A-Z]/g, (c) => ` ${c.toLowerCase()}`);

function plain(value: unknown): string {
  if (value === null || value === undefined) return '-';
  if (Array.isArray(value)) return value.length === 0 ? '-' : value.map(plain).join(', ');
  if (typeof value === 'object') {
    const parts = Object.entries(value).map(([key, item]) => `${key}=${plain(item)}`);
    return parts.length === 0 ? '-' : parts.join(' ');
  }
  if (typeof value === 'boolean') return value ? 'yes' : 'no';
  return typeof value === 'string' ? value : toJson(value, 0);
}

/** Shows a failure and gives its exit status. */
export function showError(io: Io, error: unknown, json: boolean): number {
  const usage = error instanceof UsageError;
  const weft = usage ? null : WeftError.from(error);
  const code = weft === null ? 'INVALID_ARGUMENT' : weft.code;
  const message = weft === null ? (error as UsageError).message : weft.message;
  const hint = weft === null ? (error as UsageError).hint : weft.hint;
  if (json) io.err(`${toJson({ error: { code, message, hint } }, 0)}\n`);
  else io.err(`weft: ${multiline(message)}\n${hint === null ? '' : `hint: ${multiline(hint)}\n`}`);
  return usage ? 2 : 1;
}

/** What does not change the exit status. */
export function showWarning(io: Io, message: string, hint: string, json: boolean): void {
  if (json) io.err(`${toJson({ warning: { message, hint } }, 0)}\n`);
  else io.err(`weft: ${multiline(message)}\nhint: ${multiline(hint)}\n`);
}

const multiline = (text: string): string => text.split('\n').map(clean).join('\n  ');
