/** A real etcd of the test's own: free loopback ports, a directory under the system's temporary one, nothing left behind. */
import { type ChildProcess, spawn } from 'node:child_process';
import { once } from 'node:events';
import { mkdtemp, rm } from 'node:fs/promises';
import net from 'node:net';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { setTimeout as delay } from 'node:timers/promises';
import { type ExecResult, exec } from '../../lib/exec.ts';

export interface TestEtcdOptions {
  /** More arguments of etcd, and of every etcdctl. */
  readonly args?: readonly string[];
  readonly ctlArgs?: readonly string[];
  readonly scheme?: 'http' | 'https';
}

interface Member {
  readonly name: string;
  /** Of its peer side. */
  readonly url: string;
  readonly clientPort: number;
  readonly cluster: string;
}

export class TestEtcd implements AsyncDisposable {
  readonly endpoint: string;
  readonly #dir: string;
  readonly #member: Member;
  readonly #options: TestEtcdOptions;
  #child: ChildProcess | null = null;

  private constructor(dir: string, member: Member, options: TestEtcdOptions) {
    this.#dir = dir;
    this.endpoint = `127.0.0.1:${member.clientPort}`;
    this.#member = member;
    this.#options = options;
  }

  static async start(options: TestEtcdOptions = {}): Promise<TestEtcd> {
    const [etcd] = await TestEtcd.startCluster(1, options);
    return etcd!;
  }

  /** Several members of one cluster. */
  static async startCluster(size: number, options: TestEtcdOptions = {}): Promise<TestEtcd[]> {
    const ports = await freePorts(2 * size);
    const peers = Array.from({ length: size }, (_, i) => ({
      name: `m${i}`,
      url: `http://127.0.0.1:${ports[2 * i + 1]}`,
    }));
    const cluster = peers.map((peer) => `${peer.name}=${peer.url}`).join(',');
    const members: TestEtcd[] = [];
    for (const [i, peer] of peers.entries()) {
      const dir = await mkdtemp(join(tmpdir(), 'weft-etcd-'));
      members.push(new TestEtcd(dir, { ...peer, clientPort: ports[2 * i]!, cluster }, options));
    }
    await Promise.all(members.map((member) => member.run()));
    return members;
  }

  /** Starts it (again) on its data, or on those of a restored backup. */
  async run(dataDir = 'data'): Promise<void> {
    const client = `${this.#options.scheme ?? 'http'}://${this.endpoint}`;
    const { name, url, cluster } = this.#member;
    const args = ['--name', name, '--data-dir', join(this.#dir, dataDir), '--log-level', 'error'];
    args.push('--listen-client-urls', client, '--advertise-client-urls', client);
    args.push('--listen-peer-urls', url, '--initial-advertise-peer-urls', url, '--initial-cluster', cluster);
    args.push(...(this.#options.args ?? []));
    this.#child = spawn('etcd', args, { stdio: 'ignore', env });
    const end = Date.now() + 20_000;
    while ((await this.#ctl('endpoint', 'health')).code !== 0) {
      if (Date.now() > end || this.#child.exitCode !== null) throw new Error('etcd did not start');
      await delay(50);
    }
  }

  /** etcdctl's standard output. @throws when its status is not 0 */
  async ctl(...args: string[]): Promise<string> {
    const result = await this.#ctl(...args);
    if (result.code !== 0) throw new Error(`etcdctl ${args.join(' ')}: ${result.stderr}`);
    return result.stdout;
  }

  #ctl(...args: string[]): Promise<ExecResult> {
    const { scheme, ctlArgs } = this.#options;
    const endpoint = `${scheme ?? 'http'}://${this.endpoint}`;
    return exec('etcdctl', ['--endpoints', endpoint, ...(ctlArgs ?? []), ...args], { env });
  }

  /** A path in its directory. */
  path(name: string): string {
    return join(this.#dir, name);
  }

  /** Restores a snapshot into `dataDir`, as `run` then takes it. */
  async restore(snapshot: string, dataDir: string): Promise<void> {
    const { name, url, cluster } = this.#member;
    const args = ['snapshot', 'restore', snapshot, '--name', name, '--data-dir', join(this.#dir, dataDir)];
    args.push('--initial-cluster', cluster, '--initial-advertise-peer-urls', url);
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
