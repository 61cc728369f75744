import fc from 'fast-check';
import { describe, expect, it } from 'vitest';
import { type Ask, faultText, judge, type Life } from '../../harness/name-history.ts';

const BOUND = 1000;
const life = (more: Partial<Life> = {}): Life => ({
  name: 'a',
  host: 'h1',
  ip: '10.0.0.2',
  asked: 9_000,
  known: 10_000,
  ended: 20_000,
  left: 20_100,
  ...more,
});
const ask = (sent: number, ips: Ask['ips'], more: Partial<Ask> = {}): Ask => ({
  host: 'h2',
  name: 'a',
  sent,
  received: sent + 5,
  ips,
  ...more,
});
const faults = (lives: readonly Life[], ...asks: Ask[]): (string | number)[][] =>
  judge(lives, asks, BOUND).faults.map((f) => (f.kind === 'wrong' ? [f.kind] : [f.kind, f.late]));

describe('a history of names', () => {
  it('is well while the right address is told, from the start’s asking until a bound after the end', () => {
    for (const at of [9_000, 10_000, 15_000, 20_000, 21_000])
      expect(faults([life()], ask(at, ['10.0.0.2']))).toEqual([]);
    // What is on its way when the bound has passed was right when it was asked for.
    expect(faults([life()], ask(21_000, ['10.0.0.2'], { received: 30_000 }))).toEqual([]);
  });

  it('is stale when an address outlives its container by more than the bound', () => {
    expect(faults([life()], ask(21_001, ['10.0.0.2']))).toEqual([['stale', 1]]);
    const moved = life({ ip: '10.0.0.9', host: 'h3', asked: 20_500, known: 20_600, ended: Infinity, left: Infinity });
    expect(faults([life(), moved], ask(21_500, ['10.0.0.2']))).toEqual([['stale', 500]]);
    expect(faults([life(), moved], ask(22_500, ['10.0.0.2', '10.0.0.9']))).toEqual([['stale', 1500]]);
    // The same address again is another life.
    expect(faults([life(), { ...moved, ip: '10.0.0.2' }], ask(25_000, ['10.0.0.2']))).toEqual([]);
  });

  it('is not stale while Docker itself has not taken the container off its network, nor right after', () => {
    const slow = life({ left: 22_000 });
    expect(faults([slow], ask(22_250, ['10.0.0.2']))).toEqual([]);
    expect(faults([slow], ask(22_251, ['10.0.0.2']))).toEqual([['stale', 1]]);
  });

  it('is wrong when an address is nobody’s of that name, or not yet', () => {
    expect(faults([life(), life({ name: 'b', ip: '10.0.0.3' })], ask(12_000, ['10.0.0.2', '10.0.0.3']))).toEqual([
      ['wrong'],
    ]);
    expect(faults([life()], ask(8_000, ['10.0.0.2']))).toEqual([['wrong']]);
    expect(faults([], ask(8_000, ['10.0.0.2']))).toEqual([['wrong']]);
  });

  it('misses a container that is known for longer than the bound and still runs', () => {
    expect(faults([life()], ask(11_000, []))).toEqual([]);
    expect(faults([life()], ask(11_001, []))).toEqual([['missing', 1]]);
    expect(faults([life()], ask(12_000, null))).toEqual([['missing', 1000]]);
    expect(faults([life()], ask(19_994, []))).toEqual([['missing', 8994]]);
    // It ended while the question was on its way: either answer is right.
    expect(faults([life()], ask(19_995, []))).toEqual([]);
    const second = life({ ip: '10.0.0.9', host: 'h3' });
    expect(faults([life(), second], ask(15_000, ['10.0.0.9']))).toEqual([['missing', 4000]]);
    expect(faults([life({ ended: Infinity, left: Infinity })], ask(90_000, []))).toEqual([['missing', 79_000]]);
  });

  it('says how long it took, and what could have failed at all', () => {
    const asks = [
      ask(8_000, []),
      ask(10_100, []),
      ask(10_200, ['10.0.0.2']),
      ask(10_100, ['10.0.0.2'], { host: 'h3' }),
      ask(20_300, ['10.0.0.2']),
      ask(20_400, []),
      ask(22_000, []),
    ];
    expect(judge([life()], asks, BOUND)).toEqual({ faults: [], goneMs: [300], foundMs: [205, 0], judged: 1 });
    const [fault] = judge([life()], [ask(21_500, ['10.0.0.2'])], BOUND).faults;
    expect(faultText(fault!)).toBe('stale by 500 ms: a asked on h2 at 21500, answered after 5 ms: 10.0.0.2');
  });

  it('finds no fault in whoever knows all, and does in whoever is a bound late', () => {
    const spans = fc.array(fc.tuple(fc.integer({ min: 1, max: 4000 }), fc.integer({ min: 0, max: 4000 })), {
      maxLength: 8,
    });
    fc.assert(
      fc.property(spans, fc.integer({ min: 0, max: 3000 }), (gaps, lag) => {
        const lives: Life[] = [];
        let at = 10_000;
        for (const [i, [pause, length]] of gaps.entries()) {
          const known = at + pause;
          lives.push(life({ ip: `10.0.0.${i + 2}`, asked: at, known, ended: known + length, left: known + length }));
          at = known + length;
        }
        const knowing =
          (late: number) =>
          (t: number): string[] =>
            lives.filter((l) => l.known + late <= t && t < l.ended + late).map((l) => l.ip);
        const asks = Array.from({ length: 400 }, (_, i) => 10_000 + 100 * i).map((t) =>
          ask(t, knowing(lag)(t), { received: t }),
        );
        const { faults: found } = judge(lives, asks, BOUND);
        if (lag <= BOUND) expect(found.map(faultText)).toEqual([]);
        const late = asks.some((a) => a.ips!.some((ip) => a.sent > lives.find((l) => l.ip === ip)!.ended + BOUND));
        if (late) expect(found.some((f) => f.kind === 'stale')).toBe(true);
      }),
    );
  });
});
