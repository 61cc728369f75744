/** What is compared: the same three steps on Weft and on Docker Swarm. */
import { readFile, writeFile } from 'node:fs/promises';
import { until, weftOk } from '../test/harness/lab.ts';
import { labStatus } from '../test/harness/lab-direct.ts';
import { type BenchHost, dockerOn } from './docker.ts';

export interface Fabric {
  readonly name: 'weft' | 'swarm';
  /** Three. */
  readonly hosts: readonly [BenchHost, BenchHost, BenchHost];
  /** A network on all hosts, as ready as that fabric makes it before its first use. */
  readonly create: (network: string, subnet: string) => Promise<void>;
  readonly remove: (network: string) => Promise<void>;
}

type LabHost = Awaited<ReturnType<typeof labStatus>>['hosts'][number];

const hostOf = (h: LabHost): BenchHost => ({ name: h.name, socket: h.dockerSocket });

function three(hosts: readonly BenchHost[]): readonly [BenchHost, BenchHost, BenchHost] {
  const [a, b, c] = hosts;
  if (a === undefined || b === undefined || c === undefined) throw new Error('the lab has less than three such hosts');
  return [a, b, c];
}

/** The lab's hosts with an agent. */
export async function weftFabric(): Promise<Fabric> {
  const { hosts } = await labStatus();
  return {
    name: 'weft',
    hosts: three(hosts.filter((h) => typeof h.pids['agent'] === 'number').map(hostOf)),
    create: async (network, subnet) => {
      await weftOk('network', 'create', network, '--subnet', subnet);
      await weftOk('wait');
    },
    // The mesh hears of a container's end a little after docker rm has returned.
    remove: async (network) => {
      await until(`weft removes ${network}`, async () => {
        await weftOk('network', 'rm', network);
        return true;
      });
    },
  };
}

const ADDRESS = /inet (\d+\.\d+\.\d+\.\d+)\/20 /;

/** A swarm of the lab's bare hosts: one manager, two workers; and attachable overlay networks on it. */
export async function swarmFabric(onHost: (host: string, ...command: string[]) => Promise<string>): Promise<Fabric> {
  const bare = (await labStatus()).hosts.filter((h) => typeof h.pids['agent'] !== 'number');
  const hosts = three(bare.map(hostOf));
  const [manager] = hosts;
  await formSwarm(bare, hosts, onHost);
  return {
    name: 'swarm',
    hosts,
    create: async (network, subnet) => {
      await dockerOn(manager, 'network', 'create', '-d', 'overlay', '--attachable', '--subnet', subnet, network);
    },
    // The workers let go of it a little later than their last container.
    remove: async (network) => {
      await until(`the swarm removes ${network}`, async () => {
        await dockerOn(manager, 'network', 'rm', network);
        return true;
      });
    },
  };
}

/** Swarm mode refuses live-restore, which the lab sets; dockerd reads it again on SIGHUP. */
async function withoutLiveRestore(host: LabHost): Promise<void> {
  const file = `${host.stateDir}/dockerd.json`;
  const config = JSON.parse(await readFile(file, 'utf8')) as Record<string, unknown>;
  await writeFile(file, JSON.stringify({ ...config, 'live-restore': false }));
  process.kill(host.pids['dockerd'] ?? Number.NaN, 'SIGHUP');
  await until(
    `dockerd of ${host.name} gives up live-restore`,
    async () => (await dockerOn(hostOf(host), 'info', '-f', '{{.LiveRestoreEnabled}}')) === 'false',
  );
}

/** A swarm that is there already is taken as it is. */
async function formSwarm(
  bare: readonly LabHost[],
  [manager, ...workers]: readonly [BenchHost, ...BenchHost[]],
  onHost: (host: string, ...command: string[]) => Promise<string>,
): Promise<void> {
  if ((await dockerOn(manager, 'info', '-f', '{{.Swarm.LocalNodeState}}')) === 'active') return;
  for (const host of bare) await withoutLiveRestore(host);
  const address = async (host: BenchHost): Promise<string> =>
    ADDRESS.exec(await onHost(host.name, 'ip', '-4', 'addr', 'show', 'br-phy'))?.[1] ?? '';
  await dockerOn(manager, 'swarm', 'init', '--advertise-addr', await address(manager));
  const token = await dockerOn(manager, 'swarm', 'join-token', '-q', 'worker');
  const to = `${await address(manager)}:2377`;
  for (const worker of workers)
    await dockerOn(worker, 'swarm', 'join', '--advertise-addr', await address(worker), '--token', token, to);
}
