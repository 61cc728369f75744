import fc from 'fast-check';
import { expect, test } from 'vitest';
import { diff, isEmpty } from '../../../lib/delta.ts';

const equal = (a: number, b: number): boolean => a === b;

test('missing, extra, differs', () => {
  const desired = new Map([
    ['a', 1],
    ['b', 2],
    ['c', 3],
  ]);
  const actual = new Map([
    ['b', 2],
    ['c', 4],
    ['d', 5],
  ]);
  const delta = diff(desired, actual, equal);
  expect(delta.missing).toEqual(new Map([['a', 1]]));
  expect(delta.extra).toEqual(new Map([['d', 5]]));
  expect(delta.differs).toEqual(new Map([['c', { want: 3, have: 4 }]]));
  expect(isEmpty(delta)).toBe(false);
});

test('applying the delta makes both alike', () => {
  const maps = fc.array(fc.tuple(fc.nat(8), fc.nat(2))).map((pairs) => new Map(pairs));
  fc.assert(
    fc.property(maps, maps, (desired, actual) => {
      const { missing, extra, differs } = diff(desired, actual, equal);
      const result = new Map(actual);
      for (const key of extra.keys()) expect(result.delete(key)).toBe(true);
      for (const [key, value] of missing) result.set(key, value);
      for (const [key, { want, have }] of differs) {
        expect(result.get(key)).toBe(have);
        result.set(key, want);
      }
      expect(result).toEqual(desired);
      expect(isEmpty(diff(desired, result, equal))).toBe(true);
    }),
  );
});
