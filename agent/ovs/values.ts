/** OVSDB's notation of values in JSON (RFC 7047 section 5.1), both ways. Pure. */

export type Uuid = string;
export type Atom = string | number | boolean;
/** What stands in an operation: an atom, a set, a map, or a reference. */
export type Value = Atom | readonly ['set', readonly unknown[]] | readonly ['map', readonly unknown[]] | Ref;
export type Ref = readonly ['uuid', Uuid] | readonly ['named-uuid', string];

/** A reference to a row that exists. */
export const uuidRef = (uuid: Uuid): Ref => ['uuid', uuid];
/** A reference to a row inserted by the same transaction under that `uuid-name`. */
export const namedRef = (name: string): Ref => ['named-uuid', name];
/** A set of atoms or references. */
export const setOf = (items: readonly (Atom | Ref)[]): Value => ['set', items];
/** An optional scalar: null is the empty set. */
export const optional = (item: Atom | null): Value => (item === null ? ['set', []] : item);
/** A map of strings. */
export const mapOf = (entries: Readonly<Record<string, string>>): Value => ['map', Object.entries(entries)];

const isTagged = (value: unknown, tag: string): value is [string, unknown] =>
  Array.isArray(value) && value.length === 2 && value[0] === tag;

/** The members of a set column; a set of one member may be written as the member alone. */
export function readSet(value: unknown): unknown[] {
  if (value === undefined || value === null) return [];
  if (isTagged(value, 'set') && Array.isArray(value[1])) return value[1] as unknown[];
  return [value];
}

/** The uuids of a set of references. */
export const readRefs = (value: unknown): Uuid[] =>
  readSet(value).flatMap((item) => (isTagged(item, 'uuid') && typeof item[1] === 'string' ? [item[1]] : []));

/** A map column of strings. */
export function readMap(value: unknown): Record<string, string> {
  if (!isTagged(value, 'map') || !Array.isArray(value[1])) return {};
  const pairs = (value[1] as unknown[]).filter(
    (pair): pair is [unknown, unknown] => Array.isArray(pair) && pair.length === 2,
  );
  return Object.fromEntries(pairs.map(([key, item]) => [String(key), String(item)]));
}

export const readString = (value: unknown): string => (typeof value === 'string' ? value : '');
export const readNumber = (value: unknown): number => (typeof value === 'number' ? value : 0);

/** An optional scalar column, null when empty. */
export function readOptional<T extends 'string' | 'number'>(
  value: unknown,
  type: T,
): (T extends 'string' ? string : number) | null {
  const [item] = readSet(value);
  const matches = type === 'string' ? typeof item === 'string' : typeof item === 'number';
  return matches ? (item as T extends 'string' ? string : number) : null;
}
