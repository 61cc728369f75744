/** A real etcd of the test's own: free loopback ports, a directory under the system's temporary one, nothing left behind. */
import { type ChildProcess, spawn } from 'node:child_process';
import { once } from 'node:events';
import { mkdtemp, rm } from 'node:fs/promises';
import net from 'node:net';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { setTimeout as delay } from 'node:timers/promises';
import { exec } from '../../lib/exec.ts';

export class TestEtcd implements AsyncDisposable {
  readonly endpoint: string;
  readonly #dir: string;
  readonly #peerPort: number;
  #child: ChildProcess | null = null;

  private constructor(dir: string, clientPort: number, peerPort: number) {
    this.#dir = dir;
    this.endpoint = `127.0.0.1:${clientPort}`;
    this.#peerPort = peerPort;
  }

  static async start(): Promise<TestEtcd> {
    const [clientPort, peerPort] = await freePorts(2);
    const dir = await mkdtemp(join(tmpdir(), 'weft-etcd-'));
    const etcd = new TestEtcd(dir, clientPort!, peerPort!);
    await etcd.run();
    return etcd;
  }

  /** Starts it (again) on its data, or on those of a restored backup. */
  async run(dataDir = 'data'): Promise<void> {
    const client = `http://${this.endpoint}`;
    const peer = `http://127.0.0.1:${this.#peerPort}`;
    const args = ['--name', 'test', '--data-dir', join(this.#dir, dataDir), '--log-level', 'error'];
    args.push('--listen-client-urls', client, '--advertise-client-urls', client);
    args.push('--listen-peer-urls', peer, '--initial-advertise-peer-urls', peer, '--initial-cluster', `test=${peer}`);
    this.#child = spawn('etcd', args, { stdio: 'ignore', env });
    const end = Date.now() + 20_000;
    while ((await exec('etcdctl', ['--endpoints', this.endpoint, 'endpoint', 'health'], { env })).code !== 0) {
      if (Date.now() > end || this.#child.exitCode !== null) throw new Error('etcd did not start');
      await delay(50);
    }
  }

  /** etcdctl's standard output. @throws when its status is not 0 */
  async ctl(...args: string[]): Promise<string> {
    const result = await exec('etcdctl', ['--endpoints', this.endpoint, ...args], { env });
    if (result.code !== 0) throw new Error(`etcdctl ${args.join(' ')}: ${result.stderr}`);
    return result.stdout;
  }

  /** A path in its directory. */
  path(name: string): string {
    return join(this.#dir, name);
  }

  /** Restores a snapshot into `dataDir`, as `run` then takes it. */
  async restore(snapshot: string, dataDir: string): Promise<void> {
    const peer = `http://127.0.0.1:${this.#peerPort}`;
    const args = ['snapshot', 'restore', snapshot, '--name', 'test', '--data-dir', join(this.#dir, dataDir)];
    args.push('--initial-cluster', `test=${peer}`, '--initial-advertise-peer-urls', peer);
    await this.ctl(...args);
  }

  async signal(signal: NodeJS.Signals): Promise<void> {
    const child = this.#child;
    if (child === null) return;
    child.kill(signal);
    if (signal === 'SIGSTOP' || signal === 'SIGCONT') return;
    this.#child = null;
    if (child.exitCode === null && child.signalCode === null) await once(child, 'exit');
  }

  async [Symbol.asyncDispose](): Promise<void> {
    await this.signal('SIGKILL');
    await rm(this.#dir, { recursive: true, force: true, maxRetries: 5 });
  }
}

// Without ETCD_* of the caller, which would be taken for options.
const env = {
  ...Object.fromEntries(Object.entries(process.env).filter(([name]) => !name.startsWith('ETCD'))),
  ETCDCTL_API: '3',
};

/** Ports that were free a moment ago, all different. */
export async function freePorts(count: number): Promise<number[]> {
  const servers = Array.from({ length: count }, () => net.createServer().listen(0, '127.0.0.1'));
  for (const server of servers) if (!server.listening) await once(server, 'listening');
  const ports = servers.map((server) => (server.address() as net.AddressInfo).port);
  await Promise.all(servers.map((server) => new Promise((resolve) => server.close(resolve))));
  return ports;
}
