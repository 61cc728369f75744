/** `swarm`: a real swarm of two dockerds of its own on the underlay, without Open vSwitch, and an attachable overlay network. */
import { startAnchor } from '../../cli/lab/anchor.ts';
import { dockerdAnswers, startDockerd } from '../../cli/lab/dockerd.ts';
import { cloneImage, ensureImage } from '../../cli/lab/image.ts';
import { until } from '../../test/harness/lab.ts';
import { type BenchHost, dockerOn, stay, whereIs } from '../docker.ts';
import { formSwarm, type Member } from '../swarm.ts';
import type { DataPath } from './plain.ts';
import { addNode, type Underlay } from './underlay.ts';

const NETWORK = 'bench-overlay';
/** A first attach may time out on a slow machine. */
const PATIENCE_MS = 300_000;

export async function swarmPath(underlay: Underlay, say: (line: string) => void): Promise<DataPath> {
  const image = await ensureImage(say);
  const members = [await member(underlay, 7, image), await member(underlay, 8, image)] as const;
  await formSwarm(members);
  const [manager, worker] = [members[0].host, members[1].host];
  await dockerOn(manager, 'network', 'create', '-d', 'overlay', '--attachable', '--subnet', '10.75.0.0/24', NETWORK);
  const client = await started(manager);
  const server = await started(worker);
  const ends = {
    client: `/proc/${client.pid}/ns/net`,
    server: `/proc/${server.pid}/ns/net`,
    address: server.ip,
  };
  return { path: 'swarm', ends };
}

const started = (host: BenchHost): ReturnType<typeof whereIs> =>
  until(
    `a container on ${NETWORK} of ${host.name}`,
    async () => whereIs(host, await stay(host, NETWORK), NETWORK),
    PATIENCE_MS,
  );

/** A host of the lab in all but its plan: `lab down` removes it too. */
async function member(underlay: Underlay, n: number, image: string): Promise<Member> {
  const { paths, address } = await addNode(underlay, n);
  await startAnchor(underlay.lab.name, paths, []);
  const dataRoot = `${paths.state}/docker`;
  await cloneImage(image, dataRoot);
  const dockerd = await startDockerd(paths, dataRoot);
  await dockerdAnswers(paths, dockerd);
  return {
    host: { name: paths.name, socket: `${paths.hostRun}/docker.sock` },
    stateDir: paths.state,
    dockerd,
    address,
  };
}
