/**
 * Cassandra over three hosts, beside Cassandra on one bridge: rows at QUORUM; then a host is cut off the underlay, QUORUM goes on,
 * and what its node missed is handed to it when it is back.
 */
import { afterAll, beforeAll, describe, expect, test } from 'vitest';
import { until, weftOk } from '../harness/lab.ts';
import { allSee, cql, keepsHints, racksAt, startCassandra } from './cassandra.ts';
import { clear, rounds, SITES, type Site, WEFT_SITE } from './sites.ts';
import { Times } from './times.ts';

/** The first round warms Java up and is not counted. */
const ROUNDS = rounds(4);
const ROWS = 4000;
const MISSED = { from: 100_000, rows: 500 };

interface Written {
  readonly seconds: number;
  readonly errors: number;
}

interface Read extends Written {
  readonly right: number;
}

interface Latency {
  readonly p50Ms: number;
  readonly p99Ms: number;
}

describe('Cassandra', () => {
  const times = new Times('cassandra');

  beforeAll(async () => {
    for (const site of SITES) await clear(site);
  });
  afterAll(async () => {
    await weftOk('lab', 'start', 'h3', 'underlay');
    times.write();
    for (const site of SITES) await clear(site);
  });

  test.each(SITES)('three nodes, seeded by name, see each other: $name', async (site) => {
    const began = performance.now();
    await startCassandra(site);
    times.add(site, 'cluster up', (performance.now() - began) / 1000);
    const racks = site.name === 'weft' ? ['r1', 'r2', 'r3'] : ['rack1', 'rack1', 'rack1'];
    expect(await racksAt(site, 0)).toEqual(racks);
    await cql(site, 0, {}, 'schema');
  });

  const load = async (site: Site, round: number): Promise<void> => {
    const written = await cql<Written>(site, 0, {}, 'write', 0, ROWS);
    const read = await cql<Read>(site, 0, {}, 'read', 0, ROWS);
    const { p50Ms, p99Ms } = await cql<Latency>(site, 0, {}, 'latency', 500);
    expect(written).toMatchObject({ errors: 0 });
    expect(read).toMatchObject({ errors: 0, right: ROWS });
    if (round === 1) return;
    times.add(site, `${ROWS} writes at QUORUM`, written.seconds);
    times.add(site, `${ROWS} reads at QUORUM`, read.seconds);
    times.add(site, 'one write, p50 ms', p50Ms);
    times.add(site, 'one write, p99 ms', p99Ms);
  };

  test.each(ROUNDS)('rows are written and read at QUORUM: round %i', async (round) => {
    for (const site of SITES) await load(site, round);
  });

  /** Of the two nodes that were not cut off. */
  const hints = (what: string, right: (kept: readonly boolean[]) => boolean): Promise<boolean> =>
    until(
      `hints are ${what}`,
      async () => right([await keepsHints(WEFT_SITE, 0), await keepsHints(WEFT_SITE, 1)]),
      120_000,
    );

  test('QUORUM goes on with one host cut off, and its node gets what it missed', async () => {
    await weftOk('lab', 'stop', 'h3', 'underlay');
    await allSee(WEFT_SITE, ['UN', 'UN', 'DN'], [0, 1]);
    const survivors = { nodes: [0, 1], only: true };
    const written = await cql<Written>(WEFT_SITE, 0, survivors, 'write', MISSED.from, MISSED.rows);
    expect(written).toMatchObject({ errors: 0 });
    const read = await cql<Read>(WEFT_SITE, 1, survivors, 'read', MISSED.from, MISSED.rows);
    expect(read).toMatchObject({ errors: 0, right: MISSED.rows });

    await hints('kept', (kept) => kept.some(Boolean));

    await weftOk('lab', 'start', 'h3', 'underlay');
    await allSee(WEFT_SITE, ['UN', 'UN', 'UN']);
    await hints('handed over', (kept) => !kept.some(Boolean));

    // Alone once more, it has only its own rows to answer with.
    await weftOk('lab', 'stop', 'h3', 'underlay');
    await allSee(WEFT_SITE, ['UN', 'DN', 'DN'], [2]);
    const alone = { nodes: [2], only: true, consistency: 'ONE' } as const;
    const own = await cql<Read>(WEFT_SITE, 2, alone, 'read', MISSED.from, MISSED.rows);
    expect(own).toMatchObject({ errors: 0, right: MISSED.rows });
    await weftOk('lab', 'start', 'h3', 'underlay');
    await allSee(WEFT_SITE, ['UN', 'UN', 'UN']);
  });
});
