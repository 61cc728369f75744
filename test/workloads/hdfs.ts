/** HDFS: the NameNode on the first host of a site, a DataNode on each of the other two; and commands with it. */
import { docker } from '../harness/lab.ts';
import { example, lastJson, logged, type Site, type Started, WITH_JOBS } from './sites.ts';

/** Small blocks, so that a file of 200 MB has several; the NameNode does not wait for more blocks to be reported. */
const OPTIONS = [
  '-e HADOOP_HEAPSIZE_MAX=256m',
  '-e HDFS-SITE.XML_dfs.blocksize=33554432',
  '-e HDFS-SITE.XML_dfs.namenode.safemode.extension=0',
].join(' ');
const DAEMON = { MEMORY: '512m', DOCKER_OPTIONS: OPTIONS };

/** Returns when the NameNode has taken both DataNodes. */
export async function startHdfs({ name, hosts: [first, second, third] }: Site): Promise<void> {
  // Racks are told apart by Weft's names: the bridge goes without.
  const racks = name === 'weft' ? { RACKS: 'r1,r2,r3' } : {};
  const rack = (of: string) => (name === 'weft' ? { RACK: of } : {});
  await example(first, 'hdfs/namenode.sh', [], { ...DAEMON, ...racks });
  await example(second, 'hdfs/datanode.sh', ['datanode-1'], { ...DAEMON, ...rack('r2') });
  await example(third, 'hdfs/datanode.sh', ['datanode-2'], { ...DAEMON, ...rack('r3') });
  await logged(first, 'namenode', 'Adding a new node: /', 2);
}

export const hdfs = (site: Site, ...command: string[]): Promise<string> =>
  docker(site.hosts[0], 'exec', 'namenode', 'hdfs', ...command);

/** Runs a program of jobs/ as a client, in a container of its own on the site's first host. */
export async function client<T>(site: Site, job: string, ...args: string[]): Promise<Started & { result: T }> {
  const settings = { MEMORY: '1g', DOCKER_OPTIONS: `${OPTIONS} ${WITH_JOBS}` };
  const ended = await example(site.hosts[0], 'hdfs/client.sh', ['python3', `/jobs/${job}`, ...args], settings);
  return { ...ended, result: lastJson<T>(ended) };
}
