import { describe, expect, test } from 'vitest';
import { type Echo, probeMtu } from '../../../agent/probe-mtu.ts';

/** An underlay where each VTEP carries so much; `told`: a router says so. Counts packets, each of which takes a second if lost. */
class Underlay {
  readonly carries: Readonly<Record<string, number>>;
  readonly told: ReadonlySet<string>;
  sent = 0;
  under = 0;
  most = 0;
  now = 0;

  constructor(carries: Readonly<Record<string, number>>, told: readonly string[] = []) {
    this.carries = carries;
    this.told = new Set(told);
  }

  ping = async (vtep: string, size: number): Promise<Echo> => {
    this.sent++;
    this.most = Math.max(this.most, ++this.under);
    await Promise.resolve();
    this.under--;
    const mtu = this.carries[vtep] ?? 0;
    if (size <= mtu) return { kind: 'reply' };
    if (this.told.has(vtep)) return { kind: 'limit', mtu };
    this.now += 1000;
    return { kind: 'silence' };
  };

  probe(largest: number, more: { parallel?: number } = {}) {
    return probeMtu({ vteps: Object.keys(this.carries), largest, ping: this.ping, now: () => this.now, ...more });
  }
}

describe('sizes that get through', () => {
  test('a good path takes one packet', async () => {
    const underlay = new Underlay({ a: 1500, b: 9000 });
    expect(await underlay.probe(1500)).toEqual([
      { vtep: 'a', largest: 1500, problem: '' },
      { vtep: 'b', largest: 1500, problem: '' },
    ]);
    expect(underlay.sent).toBe(2);
  });

  test('a black hole is found to the byte, an unreachable VTEP at once', async () => {
    const underlay = new Underlay({ a: 1400, b: 0, 'fd00::1': 1373 });
    expect(await underlay.probe(1500)).toEqual([
      { vtep: 'a', largest: 1400, problem: 'black hole above 1400 bytes' },
      { vtep: 'b', largest: 0, problem: 'unreachable' },
      { vtep: 'fd00::1', largest: 1373, problem: 'black hole above 1373 bytes' },
    ]);
  });

  test('what a router says is believed after it was tried', async () => {
    const underlay = new Underlay({ a: 1400 }, ['a']);
    expect(await underlay.probe(9000)).toEqual([{ vtep: 'a', largest: 1400, problem: 'carries 1400 bytes' }]);
    expect(underlay.sent).toBeLessThanOrEqual(4);
  });

  test('paths of one size are found quickly, a bounded number at a time', async () => {
    const many = Object.fromEntries(Array.from({ length: 30 }, (_, i) => [`v${i}`, 1422]));
    const underlay = new Underlay(many);
    const found = await underlay.probe(1500, { parallel: 1 });
    expect(found.every(({ largest, problem }) => largest === 1422 || problem.startsWith('not finished'))).toBe(true);
    expect(found.filter(({ largest }) => largest === 1422).length).toBeGreaterThan(5);
    const wide = new Underlay(Object.fromEntries(Array.from({ length: 30 }, (_, i) => [`v${i}`, 1500])));
    await wide.probe(1500, { parallel: 4 });
    expect(wide.most).toBeLessThanOrEqual(4);
  });

  test('at the deadline those that are not finished say so', async () => {
    const underlay = new Underlay(Object.fromEntries(Array.from({ length: 40 }, (_, i) => [`v${i}`, 70 + i])));
    const found = await underlay.probe(9000, { parallel: 2 });
    expect(found).toHaveLength(40);
    expect(found.at(-1)?.problem).toMatch(/^not finished in time/);
    expect(underlay.now).toBeLessThan(30_000);
  });
});
