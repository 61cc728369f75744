/** `swarm`: a real swarm of two dockerds of its own on the underlay, without Open vSwitch, and an attachable overlay network. */
import { startAnchor } from '../../cli/lab/anchor.ts';
import { dockerdAnswers, startDockerd } from '../../cli/lab/dockerd.ts';
import { cloneImage, ensureImage } from '../../cli/lab/image.ts';
import { IMAGE, until } from '../../test/harness/lab.ts';
import { type BenchHost, dockerOn, stay, whereIs } from '../docker.ts';
import { formSwarm, type Member } from '../swarm.ts';
import type { DataPath } from './plain.ts';
import { addNode, type Underlay } from './underlay.ts';

const NETWORK = 'bench-overlay';
/** An attach may time out on a slow machine. */
const PATIENCE_MS = 300_000;
const PRIMER = 'bench-primer';

export async function swarmPath(underlay: Underlay, say: (line: string) => void): Promise<DataPath> {
  const image = await ensureImage(say);
  const members = [await member(underlay, 7, image), await member(underlay, 8, image)] as const;
  await formSwarm(members);
  const [manager, worker] = [members[0].host, members[1].host];
  await dockerOn(manager, 'network', 'create', '-d', 'overlay', '--attachable', '--subnet', '10.75.0.0/24', NETWORK);
  const first = await attempt(manager).catch(() => null);
  if (first === null) await prime(manager);
  const client = first ?? (await started(manager));
  const server = await started(worker);
  const ends = {
    client: `/proc/${client.pid}/ns/net`,
    server: `/proc/${server.pid}/ns/net`,
    address: server.ip,
  };
  return { path: 'swarm', ends };
}

/**
 * `docker run` gives an attachment 20 seconds, in which a slow machine does not get its first use of the network done, and starts anew each
 * time. Tasks of a service have all the time they need; with one on each node what is left to do is little.
 */
async function prime(manager: BenchHost): Promise<void> {
  const service = ['--detach', '--no-resolve-image', '--mode', 'global', '--name', PRIMER, '--network', NETWORK];
  await dockerOn(manager, 'service', 'create', ...service, IMAGE, 'sleep', '100000');
  const states = (): Promise<string> => dockerOn(manager, 'service', 'ps', PRIMER, '--format', '{{.CurrentState}}');
  await until(
    `${PRIMER} runs on both nodes`,
    async () => (await states()).split('\n').filter((state) => state.startsWith('Running')).length === 2,
    PATIENCE_MS,
  );
}

const attempt = async (host: BenchHost): ReturnType<typeof whereIs> =>
  whereIs(host, await stay(host, NETWORK), NETWORK);

const started = (host: BenchHost): ReturnType<typeof whereIs> =>
  until(`a container on ${NETWORK} of ${host.name}`, () => attempt(host), PATIENCE_MS);

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
