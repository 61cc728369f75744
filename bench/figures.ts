/** Of lists of measurements, what is worth reading; and tables of it. Pure. */

export interface Summary {
  readonly n: number;
  readonly min: number;
  readonly median: number;
  readonly p90: number;
  readonly max: number;
}

/** Milliseconds in, milliseconds out, rounded to tenths. Quantiles by nearest rank. @throws for an empty list */
export function summarize(values: readonly number[]): Summary {
  const sorted = values.toSorted((a, b) => a - b);
  const at = (q: number): number => tenth(sorted[Math.max(0, Math.ceil(q * sorted.length) - 1)] ?? Number.NaN);
  if (sorted.length === 0) throw new Error('nothing was measured');
  return { n: sorted.length, min: at(0), median: at(0.5), p90: at(0.9), max: at(1) };
}

export const tenth = (value: number): number => Math.round(value * 10) / 10;
export const hundredth = (value: number): number => Math.round(value * 100) / 100;

/** Rows as aligned columns: the first to the left, the others to the right. */
export function table(head: readonly string[], rows: readonly (readonly (string | number)[])[]): string {
  const cells = [head, ...rows].map((row) => row.map(String));
  const widths = head.map((_, column) => Math.max(...cells.map((row) => (row[column] ?? '').length)));
  const line = (row: readonly string[]): string =>
    row
      .map((cell, column) => (column === 0 ? cell.padEnd(widths[column] ?? 0) : cell.padStart(widths[column] ?? 0)))
      .join('  ')
      .trimEnd();
  return cells.map(line).join('\n');
}
