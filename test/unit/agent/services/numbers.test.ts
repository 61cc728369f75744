import { describe, expect, it } from 'vitest';
import { keyOf, numbered, preferred } from '../../../../agent/services/numbers.ts';

describe('numbers of services’ ports', () => {
  it('depend on service, family, protocol and port', () => {
    const keys = [
      keyOf('a', 4, 6, 80),
      keyOf('b', 4, 6, 80),
      keyOf('a', 6, 6, 80),
      keyOf('a', 4, 17, 80),
      keyOf('a', 4, 6, 81),
    ];
    const ids = keys.map(preferred);
    expect(new Set(ids).size).toBe(5);
    expect(keys.map(preferred)).toEqual(ids);
    for (const id of ids) expect(id).toBeGreaterThan(0);
  });

  it('are unique, in an order that decides, and never zero', () => {
    const used = new Set<number>();
    const first = numbered([{ id: 7 }, { id: 7 }, { id: 8 }], used);
    expect(first.map((x) => x.id)).toEqual([7, 8, 9]);
    expect(numbered([{ id: 9 }, { id: 0xffff_ffff }, { id: 0xffff_ffff }], used).map((x) => x.id)).toEqual([
      10, 0xffff_ffff, 1,
    ]);
  });
});
