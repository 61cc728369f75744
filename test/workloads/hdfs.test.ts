/** HDFS over three hosts, beside HDFS on one bridge: files in and out with two replicas, then Spark writes and reads there. */
import { afterAll, beforeAll, describe, expect, test } from 'vitest';
import { client, hdfs, startHdfs } from './hdfs.ts';
import { clear, rounds, SITES, type Site, WEFT_SITE } from './sites.ts';
import { startSpark, submit } from './spark.ts';
import { Times } from './times.ts';

const MEGABYTES = 200;
const ROUNDS = rounds(3);
const ROWS = 1_000_000;

interface Copied {
  readonly startSeconds: number;
  readonly putSeconds: number;
  readonly getSeconds: number;
  readonly same: boolean;
}

interface Written {
  readonly writeSeconds: number;
  readonly readSeconds: number;
  readonly right: boolean;
}

describe('HDFS', () => {
  const times = new Times('hdfs');

  beforeAll(async () => {
    for (const site of SITES) await clear(site);
  });
  afterAll(async () => {
    times.write();
    for (const site of SITES) await clear(site);
  });

  test.each(SITES)('two DataNodes are taken, their names checked by reverse DNS: $name', async (site) => {
    const began = performance.now();
    await startHdfs(site);
    times.add(site, 'cluster up', (performance.now() - began) / 1000);
    // A DataNode whose address had no name would have been refused; it is listed by its name.
    const report = await hdfs(site, 'dfsadmin', '-report');
    expect(report).toContain('Live datanodes (2)');
    expect(report).toContain('Hostname: datanode-1');
    expect(report).toContain('Hostname: datanode-2');
    expect(report).toMatch(/Name: \S+:9866 \(datanode-1\.data\b/);
  });

  test('each DataNode is in the rack of its host', async () => {
    const topology = await hdfs(WEFT_SITE, 'dfsadmin', '-printTopology');
    expect(topology).toMatch(/Rack: \/r2\s+\S+ \(datanode-1\.data\b/);
    expect(topology).toMatch(/Rack: \/r3\s+\S+ \(datanode-2\.data\b/);
  });

  const copy = async (site: Site, round: number): Promise<void> => {
    const { result } = await client<Copied>(site, 'put-get.py', String(MEGABYTES), `/file-${round}`);
    expect(result.same).toBe(true);
    times.add(site, 'put 200 MB', result.putSeconds);
    times.add(site, 'get 200 MB', result.getSeconds);
    times.add(site, 'a command that does nothing', result.startSeconds);
  };

  test.each(ROUNDS)('a file comes back as it was: round %i', async (round) => {
    for (const site of SITES) await copy(site, round);
  });

  test.each(SITES)('every block has its two replicas: $name', async (site) => {
    const health = await hdfs(site, 'fsck', '/', '-files', '-blocks', '-locations');
    expect(health).toContain("The filesystem under path '/' is HEALTHY");
    expect(health).toMatch(/Average block replication:\s+2\.0/);
    expect(health).toMatch(/Under-replicated blocks:\s+0 /);
    expect(health).toMatch(/Number of data-nodes:\s+2/);
    expect(health).toMatch(site.name === 'weft' ? /Number of racks:\s+2/ : /Number of racks:\s+1/);
  });

  test('Spark writes to HDFS and reads from it', async () => {
    for (const site of SITES) await startSpark(site);
    for (const site of SITES) {
      // From another host than the NameNode's.
      const { result } = await submit<Written>(site.hosts[1], 'files.py', String(ROWS));
      expect(result.right).toBe(true);
      times.add(site, 'Spark writes 1 M rows', result.writeSeconds);
      times.add(site, 'Spark reads 1 M rows', result.readSeconds);
    }
  });
});
