/** A real swarm of dockerds that run already. */
import { readFile, writeFile } from 'node:fs/promises';
import { until } from '../test/harness/lab.ts';
import { type BenchHost, dockerOn } from './docker.ts';

export interface Member {
  readonly host: BenchHost;
  /** Directory of its dockerd.json. */
  readonly stateDir: string;
  readonly dockerd: number | null;
  /** Where the others reach it. */
  readonly address: string;
}

/** Makes a swarm, the first one its manager. One that is there already is taken as it is. */
export async function formSwarm([manager, ...workers]: readonly Member[]): Promise<void> {
  if (manager === undefined) throw new Error('a swarm needs a manager');
  if ((await dockerOn(manager.host, 'info', '-f', '{{.Swarm.LocalNodeState}}')) === 'active') return;
  for (const member of [manager, ...workers]) await withoutLiveRestore(member);
  await dockerOn(manager.host, 'swarm', 'init', '--advertise-addr', manager.address);
  const token = await dockerOn(manager.host, 'swarm', 'join-token', '-q', 'worker');
  for (const { host, address } of workers)
    await dockerOn(host, 'swarm', 'join', '--advertise-addr', address, '--token', token, `${manager.address}:2377`);
}

/** Swarm mode refuses live-restore, which the lab sets; dockerd reads it again on SIGHUP. */
async function withoutLiveRestore({ host, stateDir, dockerd }: Member): Promise<void> {
  const file = `${stateDir}/dockerd.json`;
  const config = JSON.parse(await readFile(file, 'utf8')) as Record<string, unknown>;
  await writeFile(file, JSON.stringify({ ...config, 'live-restore': false }));
  process.kill(dockerd ?? Number.NaN, 'SIGHUP');
  await until(
    `dockerd of ${host.name} gives up live-restore`,
    async () => (await dockerOn(host, 'info', '-f', '{{.LiveRestoreEnabled}}')) === 'false',
  );
}
