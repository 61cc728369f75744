/** One test host: a real dockerd with Weft's Docker side in this process, on a fake mesh and a fake datapath. */
import { join } from 'node:path';
import { AddressBook } from '../../agent/addresses.ts';
import { systemClock } from '../../agent/clock.ts';
import { DockerSide } from '../../agent/docker/index.ts';
import { FileJournal } from '../../agent/journal.ts';
import { type Log, makeLog } from '../../lib/log.ts';
import type { Drift } from '../../lib/model.ts';
import { TestDockerd } from './dockerd.ts';
import { FakeDatapath } from './fake-datapath.ts';
import type { FakeMesh } from './fake-mesh.ts';

/** The parts of an agent that face Docker, on given fakes: also what the agent process of the crash tests consists of. */
export interface DockerAgent {
  readonly journal: FileJournal;
  readonly addresses: AddressBook;
  readonly side: DockerSide;
  readonly datapath: FakeDatapath;
  readonly drift: Drift[];
  close(): Promise<void>;
}

export async function startAgent(options: {
  dir: string;
  netns: string;
  dockerSocket: string;
  pluginSocket: string;
  mesh: FakeMesh;
  log: Log;
  activation?: Readonly<Record<string, string | undefined>>;
}): Promise<DockerAgent> {
  const { mesh, log } = options;
  const journal = new FileJournal({ path: join(options.dir, 'journal'), log });
  await journal.start();
  const datapath = new FakeDatapath({ journal, netns: options.netns });
  await datapath.start();
  const addresses = new AddressBook({ journal, mesh, clock: systemClock, log });
  mesh.book = addresses;
  addresses.start();
  const drift: Drift[] = [];
  const side = new DockerSide({
    journal,
    mesh,
    datapath,
    addresses,
    config: {
      dockerSocket: options.dockerSocket,
      pluginSocket: options.pluginSocket,
      env: options.activation ?? {},
      pid: process.pid,
      onDrift: (item) => drift.push(item),
    },
    log,
  });
  await side.start();
  return {
    datapath,
    drift,
    journal,
    addresses,
    side,
    close: async () => {
      await side.close();
      addresses.close();
      await journal.close();
    },
  };
}

export class TestHost implements AsyncDisposable {
  readonly docker: TestDockerd;
  readonly mesh: FakeMesh;
  #agent: DockerAgent | null = null;

  private constructor(docker: TestDockerd, mesh: FakeMesh) {
    this.docker = docker;
    this.mesh = mesh;
  }

  static async create(mesh: FakeMesh): Promise<TestHost> {
    const host = new TestHost(await TestDockerd.create(mesh.hostName), mesh);
    try {
      await host.startAgent();
    } catch (error) {
      await host[Symbol.asyncDispose]();
      throw error;
    }
    return host;
  }

  get agent(): DockerAgent {
    if (this.#agent === null) throw new Error('the agent is not running');
    return this.#agent;
  }

  get logPath(): string {
    return join(this.docker.dir, 'agent.log');
  }

  async startAgent(): Promise<void> {
    this.#agent = await startAgent({
      dir: this.docker.dir,
      netns: this.docker.netns,
      dockerSocket: this.docker.socket,
      pluginSocket: join(this.docker.plugins, 'weft.sock'),
      mesh: this.mesh,
      log: makeLog('agent', { level: 'debug', file: this.logPath }),
    });
  }

  async stopAgent(): Promise<void> {
    const agent = this.#agent;
    this.#agent = null;
    await agent?.close();
  }

  async [Symbol.asyncDispose](): Promise<void> {
    // Containers go while the plugin still answers: dockerd would wait for it.
    await this.docker.removeContainers();
    await this.stopAgent();
    await this.docker[Symbol.asyncDispose]();
  }
}
