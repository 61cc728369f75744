import { describe, expect, it } from 'vitest';
import { GROUP_TIMEOUT_MS, LAST_MEMBER_MS, Membership, MOST_GROUPS } from '../../../agent/multicast/membership.ts';
import {
  SnoopedNetwork,
  STARTUP_INTERVAL_MS,
  STARTUP_QUERIES,
  STARTUP_RESPONSE_MS,
} from '../../../agent/multicast/network.ts';
import { QUERY_INTERVAL_S } from '../../../agent/multicast/queries.ts';

const change = (text: string, wants: boolean) => ({ group: BigInt(text.length), wants, text });
const groupsOf = (m: Membership): Record<string, string[]> =>
  Object.fromEntries([...m.snapshot().groups].map(([g, ids]) => [g, [...ids]]));

describe('memberships', () => {
  it('last until nobody has said so for 260 seconds', () => {
    const m = new Membership();
    expect(m.join('a', 'g', 0)).toBe(true);
    expect(m.join('b', 'g', 10)).toBe(true);
    expect(m.join('a', 'g', 1000)).toBe(false);
    expect(m.expire(GROUP_TIMEOUT_MS)).toBe(false);
    expect(m.expire(GROUP_TIMEOUT_MS + 10)).toBe(true);
    expect(groupsOf(m)).toEqual({ g: ['a'] });
    expect(m.expire(GROUP_TIMEOUT_MS + 1000)).toBe(true);
    expect(groupsOf(m)).toEqual({});
  });

  it('outlive a leave by two seconds, and longer when contradicted', () => {
    const m = new Membership();
    m.join('a', 'g', 0);
    m.join('a', 'h', 0);
    expect(m.leave('a', 'g', 1000)).toBe(true);
    expect(m.leave('a', 'h', 1000)).toBe(true);
    expect(m.leave('a', 'never', 1000)).toBe(false);
    expect(m.leave('nobody', 'g', 1000)).toBe(false);
    m.join('a', 'h', 1500);
    expect(m.expire(1000 + LAST_MEMBER_MS - 1)).toBe(false);
    expect(m.expire(1000 + LAST_MEMBER_MS)).toBe(true);
    expect(groupsOf(m)).toEqual({ h: ['a'] });
  });

  it('too many: the endpoint gets everything, and holds no more', () => {
    const m = new Membership();
    for (let i = 0; i < MOST_GROUPS; i++) expect(m.join('a', `g${i}`, 0)).toBe(true);
    expect(m.join('a', 'g0', 5)).toBe(false);
    expect(m.join('a', 'more', 10)).toBe(true);
    expect(m.join('a', 'even more', 20)).toBe(false);
    expect(m.snapshot().groups.size).toBe(MOST_GROUPS);
    expect([...m.snapshot().everything]).toEqual(['a']);
    expect(m.expire(GROUP_TIMEOUT_MS + 20)).toBe(true);
    expect(m.snapshot().everything.size).toBe(0);
  });

  it('go with their endpoint; the snapshot is the same until something changes', () => {
    const m = new Membership();
    m.join('a', 'g', 0);
    m.join('b', 'g', 0);
    const one = m.snapshot();
    m.join('a', 'g', 5);
    expect(m.keep(new Set(['a', 'b']))).toBe(false);
    expect(m.snapshot()).toBe(one);
    expect(m.keep(new Set(['b']))).toBe(true);
    expect(groupsOf(m)).toEqual({ g: ['b'] });
  });
});

describe('a network', () => {
  /** Ticks every half second; queries that are due are sent. @returns times of queries, seconds. */
  const run = (n: SnoopedNetwork, from: number, to: number, sends = true): number[] => {
    const asked: number[] = [];
    for (let now = from; now <= to; now += 500) {
      const { ask } = n.tick(now);
      if (ask === null) continue;
      asked.push(now / 1000);
      if (sends) n.sent(now);
    }
    return asked;
  };
  const knownAt = STARTUP_INTERVAL_MS * (STARTUP_QUERIES - 1) + STARTUP_RESPONSE_MS * 1.5;

  it('is asked thrice at first, known after that, and asked again every 125 seconds', () => {
    const n = new SnoopedNetwork(0);
    n.setEndpoints(new Set(['a']));
    expect(run(n, 0, knownAt - 500)).toEqual([0, 2, 4]);
    expect(n.known).toBe(false);
    n.report('a', 4, [change('g', true)], 100);
    expect(n.groups()).toBeNull();
    expect(n.tick(knownAt).changed).toBe(true);
    expect([...(n.groups()?.groups.keys() ?? [])]).toEqual(['g']);
    expect(run(n, knownAt, 300_000)).toEqual([4 + QUERY_INTERVAL_S, 4 + 2 * QUERY_INTERVAL_S]);
  });

  it('is not known while nothing can be sent', () => {
    const n = new SnoopedNetwork(0);
    expect(run(n, 0, 60_000, false)).toHaveLength(121);
    expect(n.known).toBe(false);
  });

  it('asks whoever leaves, and whoever comes', () => {
    const n = new SnoopedNetwork(0);
    expect(n.setEndpoints(new Set(['a'])).ask).toBeNull();
    run(n, 0, 10_000);
    n.report('a', 6, [change('g', true)], 10_000);
    const { asks, changed } = n.report('a', 6, [change('g', false), change('unknown', false)], 11_000);
    expect(changed).toBe(false);
    expect(asks).toEqual([{ to: ['a'], family: 6, group: 1n, maxResponseMs: 1000 }]);
    expect(n.tick(13_000).changed).toBe(true);
    expect(n.setEndpoints(new Set(['a', 'b'])).ask).toMatchObject({ to: ['b'], group: null });
    expect(n.setEndpoints(new Set(['b'])).ask).toBeNull();
  });

  it('goes on where the last agent was; who does not answer wants it no more', () => {
    const n = new SnoopedNetwork(0);
    n.remember(
      new Map([
        ['a', ['g', 'h']],
        ['b', null],
      ]),
      0,
    );
    expect(n.known).toBe(true);
    expect([...(n.groups()?.groups.keys() ?? [])]).toEqual(['g', 'h']);
    expect([...(n.groups()?.everything ?? [])]).toEqual(['b']);
    expect(n.setEndpoints(new Set(['a', 'b'])).changed).toBe(false);
    expect(run(n, 0, 4000)).toEqual([0, 2, 4]);
    n.report('a', 4, [change('h', true)], 4000);
    run(n, 4500, 20_000);
    expect([...(n.groups()?.groups.keys() ?? [])]).toEqual(['h']);
  });

  it('forgets nobody because the switch was away', () => {
    const n = new SnoopedNetwork(0);
    n.setEndpoints(new Set(['a']));
    run(n, 0, 10_000);
    n.report('a', 4, [change('g', true)], 10_000);
    n.restart(10_000 + GROUP_TIMEOUT_MS - 1);
    expect(n.tick(10_000 + GROUP_TIMEOUT_MS).ask).not.toBeNull();
    expect(n.groups()?.groups.has('g')).toBe(true);
  });
});
