/** A Spark cluster: the master on the first host of a site, a worker on each of the other two. */
import { docker } from '../harness/lab.ts';
import { example, lastJson, logged, type Site, type Started, WITH_JOBS } from './sites.ts';

/** For two cores and some 2 GB: an executor of one core on each worker. */
const MASTER = { MEMORY: '512m', DOCKER_OPTIONS: '-e SPARK_DAEMON_MEMORY=256m' };
const WORKER = { MEMORY: '2g', CORES: '1', WORKER_MEMORY: '768m', DOCKER_OPTIONS: '-e SPARK_DAEMON_MEMORY=192m' };
const SUBMIT = [
  '--driver-memory=512m --executor-memory=700m --executor-cores=1 --total-executor-cores=2',
  '--conf spark.ui.enabled=false --conf spark.sql.shuffle.partitions=8 --conf spark.sql.adaptive.enabled=false',
].flatMap((line) => line.split(' '));

/** Returns when both workers are registered. */
export async function startSpark({ hosts: [first, second, third], name }: Site): Promise<void> {
  await example(first, 'spark/master.sh', [], MASTER);
  await example(second, 'spark/worker.sh', ['spark-worker-1'], WORKER);
  await example(third, 'spark/worker.sh', ['spark-worker-2'], WORKER);
  await logged(first, 'spark-master', 'Registering worker', 2);
  if (name === 'weft') await noSecondInterface(second, 'spark-worker-1');
}

async function noSecondInterface(host: string, container: string): Promise<void> {
  const addresses = await docker(host, 'exec', container, 'hostname', '-I');
  if (addresses.split(' ').length !== 1) throw new Error(`${container} has several addresses: ${addresses}`);
}

/** Runs a program of jobs/ with the driver on one of the site's hosts, until it ends. */
export async function submit<T>(host: string, job: string, ...args: string[]): Promise<Started & { result: T }> {
  const settings = { MEMORY: '1200m', DOCKER_OPTIONS: WITH_JOBS };
  const ended = await example(host, 'spark/submit.sh', ['spark-driver', ...SUBMIT, `/jobs/${job}`, ...args], settings);
  return { ...ended, result: lastJson<T>(ended) };
}
