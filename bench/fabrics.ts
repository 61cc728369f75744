/** What is compared: the same three steps on Weft and on Docker Swarm. */
import { until, weftOk } from '../test/harness/lab.ts';
import { labStatus } from '../test/harness/lab-direct.ts';
import { type BenchHost, dockerOn } from './docker.ts';
import { formSwarm } from './swarm.ts';

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

/** A swarm of the lab's bare hosts: one manager, two workers; and attachable overlay networks on it. */
export async function swarmFabric(): Promise<Fabric> {
  const bare = (await labStatus()).hosts.filter((h) => typeof h.pids['agent'] !== 'number');
  const hosts = three(bare.map(hostOf));
  const [manager] = hosts;
  await formSwarm(
    bare.map((h) => ({
      host: hostOf(h),
      stateDir: h.stateDir,
      dockerd: h.pids['dockerd'] ?? null,
      address: h.underlay.ip,
    })),
  );
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
