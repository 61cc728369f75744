/** Cassandra: a node on each host of a site, and a client in a container of its own. */
import { docker, until } from '../harness/lab.ts';
import { example, IMAGE, lastJson, logged, NETWORK, type Site, STEP_MS, type Started, WITH_JOBS } from './sites.ts';

export const NODES = ['cassandra-1', 'cassandra-2', 'cassandra-3'] as const;

/** A node that joins waits a tenth of the usual time for what others know: they are three, and near. */
const SETTINGS = {
  MEMORY: '1g',
  HEAP: '320m',
  NEW_HEAP: '80m',
  DOCKER_OPTIONS: '-e JVM_EXTRA_OPTS=-Dcassandra.ring_delay_ms=3000 -e CASSANDRA_NUM_TOKENS=4',
};

/** Returns when all three are up and know it of each other. */
export async function startCassandra(site: Site): Promise<void> {
  for (const [i, node] of NODES.entries()) {
    const host = site.hosts[i] ?? site.hosts[0];
    const rack = site.name === 'weft' ? { RACK: `r${i + 1}` } : {};
    await example(host, 'cassandra/node.sh', [node], { ...SETTINGS, ...rack });
    await logged(host, node, 'Starting listening for CQL clients');
  }
  await allSee(site, ['UN', 'UN', 'UN']);
}

/** What a node says of each: UN, DN, … @param at number of the node that is asked */
export async function statusAt(site: Site, at: number): Promise<string[]> {
  const listed = await nodetoolStatus(site, at);
  return [...listed.matchAll(/^([UD][NLJM]) /gm)].map(([, state = '']) => state).toSorted();
}

/** Racks of the nodes, as one of them lists them. */
export async function racksAt(site: Site, at: number): Promise<string[]> {
  const listed = await nodetoolStatus(site, at);
  return [...listed.matchAll(/^[UD][NLJM] .* (\S+) *$/gm)].map(([, rack = '']) => rack).toSorted();
}

const nodetoolStatus = (site: Site, at: number): Promise<string> =>
  docker(site.hosts[at] ?? site.hosts[0], 'exec', NODES[at] ?? NODES[0], 'nodetool', 'status');

/** Waits until these nodes see the others so. */
export async function allSee(
  site: Site,
  states: readonly string[],
  nodes: readonly number[] = [0, 1, 2],
): Promise<void> {
  const wanted = states.toSorted().join();
  for (const at of nodes) {
    const seen = async (): Promise<boolean> => {
      const listed = (await statusAt(site, at)).join();
      if (listed === wanted) return true;
      throw new Error(`${NODES[at]} lists ${listed}`);
    };
    await until(`${NODES[at]} of ${site.name} sees ${wanted}`, seen, STEP_MS);
  }
}

/**
 * True while a node keeps rows for another that was away: it has a file of them, which it removes when all are handed over. (Its
 * `listpendinghints` leaves out the file that is being written, so all of them while the other is away.)
 */
export async function keepsHints(site: Site, at: number): Promise<boolean> {
  const [host, node] = [site.hosts[at] ?? site.hosts[0], NODES[at] ?? NODES[0]];
  return (await docker(host, 'exec', node, 'ls', '/var/lib/cassandra/hints')).includes('.hints');
}

interface Asked {
  /** Numbers of the nodes to ask first, or, with `only`, alone. */
  readonly nodes?: readonly number[];
  readonly only?: boolean;
  readonly consistency?: 'QUORUM' | 'ONE';
}

/** Runs jobs/cql.py in a new container on one of the site's hosts. @param at number of the host */
export async function cql<T>(site: Site, at: number, asked: Asked, ...args: (string | number)[]): Promise<T> {
  const hosts = (asked.nodes ?? [0, 1, 2]).map((i) => NODES[i]).join(',');
  const env = [`HOSTS=${hosts}`, `ONLY=${asked.only === true ? 1 : 0}`, `CONSISTENCY=${asked.consistency ?? 'QUORUM'}`];
  const flags = ['--rm', '--network', NETWORK, '--memory', '512m', ...env.flatMap((e) => ['-e', e])];
  const command = ['python3', '/jobs/cql.py', ...args.map(String)];
  const host = site.hosts[at] ?? site.hosts[0];
  const stdout = await docker(host, 'run', ...flags, ...WITH_JOBS.split(' '), IMAGE, ...command);
  const ended: Started = { stdout, seconds: 0 };
  return lastJson<T>(ended);
}
