/** When endpoints are asked, on a clock that moves only when told. */
import { describe, expect, it } from 'vitest';
import { type Job, nextTurn, Schedule } from '../../../../agent/services/schedule.ts';
import { FakeClock } from '../../../../lib/clock.ts';

function setup(atOnce = 64) {
  const clock = new FakeClock();
  const schedule = new Schedule({ clock, atOnce });
  const turns: { key: string; at: number }[] = [];
  const ends: (() => void)[] = [];
  const job = (key: string, intervalMs: number, lasts = false): [string, Job] => {
    const run = (): Promise<void> => {
      turns.push({ key, at: clock.monotonic() });
      return lasts ? new Promise((resolve) => ends.push(resolve)) : Promise.resolve();
    };
    return [key, { intervalMs, run }];
  };
  const of = (key: string): number[] => turns.filter((t) => t.key === key).map((t) => t.at);
  return { clock, schedule, turns, ends, job, of };
}

describe('the schedule', () => {
  it('gives the first turn soon, and then one in each interval, at the same place', async () => {
    const { clock, schedule, job, of } = setup();
    schedule.set(new Map([job('a', 10_000)]));
    await clock.advance(1_000);
    expect(of('a')).toHaveLength(1);
    await clock.advance(60_000);
    const [, second = 0, ...later] = of('a');
    expect(later.map((at, i) => at - second - i * 10_000)).toEqual(later.map(() => 10_000));
  });

  it('spreads many evenly over their interval', async () => {
    const { clock, schedule, job, turns } = setup(10_000);
    schedule.set(new Map(Array.from({ length: 1_000 }, (_, i) => job(`service-${i}`, 10_000))));
    await clock.advance(20_000);
    turns.length = 0;
    await clock.advance(10_000);
    expect(turns).toHaveLength(1_000);
    const tenths = Map.groupBy(turns, (t) => Math.floor((t.at - 20_000) / 1_000));
    for (const some of tenths.values()) {
      expect(some.length).toBeGreaterThan(50);
      expect(some.length).toBeLessThan(150);
    }
  });

  it('has no more under way than it may; the others wait for their turn', async () => {
    const { clock, schedule, job, turns, ends } = setup(2);
    schedule.set(new Map(['a', 'b', 'c'].map((key) => job(key, 1_000, true))));
    await clock.advance(5_000);
    expect(turns).toHaveLength(2);
    ends[0]?.();
    await clock.advance(0);
    expect(turns).toHaveLength(3);
  });

  it('leaves out the turns of one that is still under way', async () => {
    const { clock, schedule, job, of, ends } = setup();
    schedule.set(new Map([job('a', 1_000, true)]));
    await clock.advance(3_500);
    expect(of('a')).toHaveLength(1);
    ends[0]?.();
    await clock.advance(1_000);
    expect(of('a')).toHaveLength(2);
  });

  it('goes on with what stays, ends what goes, begins anew with another interval', async () => {
    const { clock, schedule, job, of, turns } = setup();
    schedule.set(new Map([job('a', 1_000), job('b', 1_000)]));
    await clock.advance(3_000);
    const before = of('a').at(-1) ?? 0;
    schedule.set(new Map([job('a', 1_000)]));
    turns.length = 0;
    await clock.advance(3_000);
    expect(of('b')).toEqual([]);
    expect(of('a')[0]).toBe(before + 1_000);
    schedule.set(new Map([job('a', 100)]));
    turns.length = 0;
    await clock.advance(1_000);
    expect(of('a').length).toBeGreaterThan(8);
    schedule.close();
    turns.length = 0;
    await clock.advance(10_000);
    expect(turns).toEqual([]);
  });
});

it('a turn is at its place, half an interval away at least', () => {
  expect(nextTurn(0, 0.25, 1_000)).toBe(1_250);
  expect(nextTurn(700, 0.25, 1_000)).toBe(1_250);
  expect(nextTurn(800, 0.25, 1_000)).toBe(2_250);
  expect(nextTurn(1_250, 0.25, 1_000)).toBe(2_250);
  expect(nextTurn(1_260, 0.25, 1_000)).toBe(2_250);
});
