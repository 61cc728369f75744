import fc from 'fast-check';
import { describe, expect, it } from 'vitest';
import { portMasks } from '../../../../agent/flows/port-masks.ts';
import { priorityOf } from '../../../../agent/policies/rank.ts';
import { levelsOf, MAX_LEVEL, ORDERS } from '../../../../lib/policy-order.ts';

describe('priorities of rules', () => {
  it('go by tier, then order, then level, then action', () => {
    const all = ['platform', 'application', 'baseline'].flatMap((tier) =>
      [0, 1, ORDERS - 1].flatMap((order) =>
        [0, 1, MAX_LEVEL].flatMap((level) =>
          ['drop', 'reject', 'allow'].map((action) => priorityOf(tier, order, level, action)),
        ),
      ),
    );
    expect(all).toEqual(all.toSorted((a, b) => b! - a!));
    expect(new Set(all).size).toBe(all.length);
    expect([all[0], all.at(-1)]).toEqual([60_000, 501]);
  });

  it('are none for what this agent does not know', () => {
    expect(priorityOf('later', 0, 0, 'allow')).toBeNull();
    expect(priorityOf('platform', 0, 0, 'mirror')).toBeNull();
    expect(priorityOf('platform', ORDERS, 0, 'allow')).toBeNull();
    expect(priorityOf('platform', 0, MAX_LEVEL + 1, 'allow')).toBeNull();
  });

  it('rules of one list that follow each other with one action are of one level', () => {
    expect(levelsOf(['allow', 'allow', 'drop', 'drop', 'allow'].map((action) => ({ action })))).toEqual([
      0, 0, 1, 1, 2,
    ]);
  });
});

describe('a range of ports', () => {
  it('is made of disjoint masks, at most thirty', () => {
    const port = fc.integer({ min: 0, max: 65_535 });
    fc.assert(
      fc.property(port, port, port, (a, b, probe) => {
        const [first, last] = [Math.min(a, b), Math.max(a, b)];
        const masks = portMasks(first, last);
        expect(masks.length).toBeLessThanOrEqual(30);
        const hits = (p: number): number => masks.filter((m) => (p & m.mask) === m.value).length;
        for (const p of [probe, first, last]) expect(hits(p)).toBe(p >= first && p <= last ? 1 : 0);
        expect([first === 0 ? 0 : hits(first - 1), last === 65_535 ? 0 : hits(last + 1)]).toEqual([0, 0]);
      }),
    );
    expect(portMasks(0, 65_535)).toEqual([{ value: 0, mask: 0 }]);
  });
});
