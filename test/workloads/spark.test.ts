/** Spark over three hosts, beside Spark on one bridge: a sort of 300 MB and a groupBy, whose results the job itself checks. */
import { afterAll, beforeAll, describe, expect, test } from 'vitest';
import { clear, rounds, SITES, type Site } from './sites.ts';
import { startSpark, submit } from './spark.ts';
import { Times } from './times.ts';

const MEGABYTES = 300;
const ROUNDS = rounds(2);

interface Shuffled {
  readonly sortSeconds: number;
  readonly groupSeconds: number;
  readonly rows: number;
  readonly sorted: boolean;
  readonly groups: number;
  readonly groupsEven: boolean;
  readonly idsRight: boolean;
}

describe('Spark', () => {
  const times = new Times('spark');

  beforeAll(async () => {
    for (const site of SITES) await clear(site);
  });
  afterAll(async () => {
    times.write();
    for (const site of SITES) await clear(site);
  });

  const shuffle = async (site: Site): Promise<void> => {
    const { result, seconds } = await submit<Shuffled>(site.hosts[0], 'shuffle.py', String(MEGABYTES));
    expect(result).toMatchObject({
      rows: MEGABYTES * 10_000,
      sorted: true,
      groups: 100_000,
      groupsEven: true,
      idsRight: true,
    });
    times.add(site, 'sort 300 MB', result.sortSeconds);
    times.add(site, 'groupBy 300 MB', result.groupSeconds);
    times.add(site, 'whole job', seconds);
  };

  test.each(SITES)('a master and two workers find each other by name: $name', async (site) => {
    const began = performance.now();
    await startSpark(site);
    times.add(site, 'cluster up', (performance.now() - began) / 1000);
  });

  test.each(ROUNDS)('a sort and a groupBy come out right: round %i', async () => {
    for (const site of SITES) await shuffle(site);
  });
});
