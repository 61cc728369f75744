/** Drift is told once, soon, and as healed only when it is; what is remembered of it is bounded. */
import { afterEach, beforeEach, describe, expect, it, vi } from 'vitest';
import { DriftLog } from '../../../agent/drift-log.ts';
import type { Planned } from '../../../agent/plan/planned.ts';
import { Settled } from '../../../agent/plan/settled.ts';

const NAMES = Array.from({ length: 200 }, (_, i) => `tap${i}`);
const WANTED = new Map(NAMES.map((name) => [Settled.key('link', name), 'up']));
const planned = (id: string, have = 'down'): Planned<null> => ({
  kind: 'link',
  id,
  object: id,
  change: 'differs',
  want: 'up',
  have,
  step: null,
});

describe('drift', () => {
  let log: DriftLog;
  let told: string[];
  beforeEach(() => {
    vi.useFakeTimers({ now: 0 });
    told = [];
    log = new DriftLog({
      mayRemove: () => true,
      onDrift: (drift, at, healed, again) => told.push(`${drift.object} ${at} ${healed}${again ? ' again' : ''}`),
      now: () => Date.now(),
    });
    log.settled.settle(WANTED, new Map());
  });
  afterEach(() => {
    log.close();
    vi.useRealTimers();
  });
  /** @param names drift that it meets; failed: it does not come to its end */
  const pass = (names: readonly string[], o: { refused?: string; failed?: boolean; heal?: boolean } = {}): void => {
    log.begin();
    log.select(
      names.map((name) => planned(name)),
      o.heal ?? true,
    );
    if (o.failed === true) return;
    const refused = o.refused === undefined ? [] : [Settled.key('link', o.refused)];
    log.settled.settle(WANTED, new Map(), refused);
    log.tell((p) => p.id === o.refused);
  };

  it('that a pass heals is told once, as healed', () => {
    pass(['tap0']);
    pass([]);
    vi.advanceTimersByTime(5_000);
    expect(told).toEqual(['tap0 0 0']);
  });

  it('that cannot be healed is told once, as not healed; then when it is', () => {
    for (let n = 0; n < 5; n++) {
      pass(['tap0', 'tap1'], { refused: 'tap0' });
      vi.advanceTimersByTime(500);
      if (n === 0) expect(told.splice(0)).toEqual(['tap1 0 0', 'tap0 0 null']);
      told = told.filter((line) => !line.startsWith('tap1'));
    }
    expect(told).toEqual([]);
    pass(['tap0']);
    expect(told).toEqual(['tap0 0 2500 again']);
  });

  it('is told within a second while passes fail, once, and what is kept of it is bounded', () => {
    for (let n = 0; n < 20; n++) {
      pass(NAMES, { failed: true });
      vi.advanceTimersByTime(500);
    }
    expect(told.length).toBe(51);
    expect(told[0]).toBe('tap0 0 null');
    expect(told.at(-1)).toBe('and 150 more 0 null');
    told.length = 0;
    pass([]);
    expect(told.length).toBe(51);
    expect(told[0]).toBe('tap0 0 10000 again');
    pass([]);
    expect(told.length).toBe(51);
  });

  it('that a failed pass has healed in part is told as healed by the next', () => {
    pass(['tap0'], { failed: true });
    vi.advanceTimersByTime(500);
    pass([]);
    expect(told).toEqual(['tap0 0 500']);
  });

  it('that is to be left is told once; not at all when it ends by itself', () => {
    pass(['tap0'], { heal: false });
    pass(['tap0'], { heal: false });
    pass([], { heal: false });
    expect(told).toEqual(['tap0 0 null']);
    pass(['tap0'], { heal: false });
    expect(told.length).toBe(2);
  });
});

it('what was refused is not taken for settled', () => {
  const settled = new Settled();
  const key = Settled.key('link', 'new');
  settled.settle(new Map([[key, 'up']]), new Map(), [key]);
  expect(settled.isDrift(planned('new'))).toBe(false);
  settled.settle(new Map([[key, 'up']]), new Map());
  settled.settle(new Map([[key, 'up']]), new Map(), [key]);
  expect(settled.isDrift(planned('new'))).toBe(true);
});
