/** A real dockerd of a test's own: network and mount namespace, data, sockets and plugin folder of its own; one small image. */
import { type ChildProcess, execFile, spawn } from 'node:child_process';
import { closeSync, existsSync, openSync, readdirSync, readFileSync, readlinkSync } from 'node:fs';
import { chmod, copyFile, mkdir, mkdtemp, rm, symlink, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { promisify } from 'node:util';
import { until } from './ovs.ts';

const run = promisify(execFile);
const CONTAINERD = '/run/docker/containerd.sock';
export const IMAGE = 'weft/test:1';
const APPLETS = ['sh', 'sleep', 'ping', 'ip', 'nc', 'cat', 'true', 'ls', 'hostname'];

export interface DockerResult {
  readonly code: number;
  readonly stdout: string;
  readonly stderr: string;
}

export class TestDockerd implements AsyncDisposable {
  readonly dir: string;
  readonly netns: string;
  readonly socket: string;
  /** Where plugins listen, seen from outside; inside it is /run/docker/plugins. */
  readonly plugins: string;
  #anchor: ChildProcess | null = null;
  #containerd: ChildProcess | null = null;
  #daemon: ChildProcess | null = null;

  private constructor(dir: string, netns: string) {
    this.dir = dir;
    this.netns = netns;
    this.socket = join(dir, 'docker.sock');
    this.plugins = join(dir, 'plugins');
  }

  static async create(name: string): Promise<TestDockerd> {
    await sweep();
    const dir = await mkdtemp(join(tmpdir(), `wdkr-${name}-`));
    const docker = new TestDockerd(dir, `wdkr-${process.pid}-${name}`);
    try {
      await docker.#prepare();
      await docker.start();
      await docker.#image();
    } catch (error) {
      await docker[Symbol.asyncDispose]();
      throw error;
    }
    return docker;
  }

  async #prepare(): Promise<void> {
    await mkdir(this.plugins);
    await writeFile(join(this.dir, 'daemon.json'), '{}');
    await run('ip', ['netns', 'add', this.netns]);
    await run('ip', ['-n', this.netns, 'link', 'set', 'lo', 'up']);
    this.#anchor = spawn(
      'nsenter',
      [`--net=/run/netns/${this.netns}`, 'unshare', '-m', '--propagation', 'private', 'sleep', '100000'],
      { stdio: 'ignore' },
    );
    const pid = this.#anchor.pid!;
    const own = readMountNs(process.pid);
    await until(
      'the mount namespace',
      () => readMountNs(pid) !== own && readFileSync(`/proc/${pid}/comm`, 'utf8') === 'sleep\n',
    );
    await mkdir('/run/docker', { recursive: true });
    await this.enter('mount', '-t', 'tmpfs', 'tmpfs', '/run/docker');
    await this.enter('mkdir', '/run/docker/plugins');
    await this.enter('mount', '--bind', this.plugins, '/run/docker/plugins');
  }

  /** Runs a command in the host's mount and network namespace. */
  async enter(command: string, ...args: string[]): Promise<string> {
    return (await run('nsenter', ['-t', String(this.#anchor!.pid), '-m', '-n', command, ...args])).stdout;
  }

  get enterArgs(): string[] {
    return ['-t', String(this.#anchor!.pid), '-m', '-n'];
  }

  async start(): Promise<void> {
    const log = openSync(join(this.dir, 'dockerd.log'), 'a');
    // Its own process: containers outlive a killed dockerd's children.
    if (this.#containerd === null) {
      const places = ['--root', join(this.dir, 'containerd'), '--state', '/run/docker/containerd-state'];
      const command = ['containerd', ...places, '--address', CONTAINERD, '--log-level', 'warn'];
      this.#containerd = spawn('nsenter', [...this.enterArgs, ...command], { stdio: ['ignore', log, log] });
    }
    const flags = ['--data-root', join(this.dir, 'data'), '--exec-root', '/run/docker/exec'];
    flags.push('--containerd', CONTAINERD, '--pidfile', join(this.dir, 'docker.pid'), '-H', `unix://${this.socket}`);
    flags.push(
      '--config-file',
      join(this.dir, 'daemon.json'),
      '--cgroup-parent',
      `/${this.netns}`,
      '--log-level',
      'info',
    );
    this.#daemon = spawn('nsenter', [...this.enterArgs, 'dockerd', ...flags], { stdio: ['ignore', log, log] });
    closeSync(log);
    await until('dockerd answers', async () => (await this.docker('version')).code === 0, 60_000);
  }

  async stop(signal: NodeJS.Signals = 'SIGTERM'): Promise<void> {
    const daemon = this.#daemon;
    this.#daemon = null;
    if (daemon === null || daemon.exitCode !== null || daemon.signalCode !== null) return;
    const exited = new Promise((resolve) => daemon.once('exit', resolve));
    daemon.kill(signal);
    await exited;
  }

  /** The docker CLI, against this daemon. Never throws for an exit status. */
  async docker(...args: string[]): Promise<DockerResult> {
    const options = {
      env: { ...process.env, DOCKER_HOST: `unix://${this.socket}`, DOCKER_CONFIG: this.dir },
      timeout: 60_000,
    };
    try {
      const { stdout, stderr } = await run('/usr/bin/docker', args, options);
      return { code: 0, stdout: stdout.trim(), stderr };
    } catch (error) {
      const e = error as { code?: unknown; stdout?: string; stderr?: string };
      return {
        code: typeof e.code === 'number' ? e.code : 1,
        stdout: e.stdout ?? '',
        stderr: e.stderr ?? String(error),
      };
    }
  }

  log(): string {
    return readFileSync(join(this.dir, 'dockerd.log'), 'utf8');
  }

  async #image(): Promise<void> {
    const root = join(this.dir, 'image');
    await mkdir(join(root, 'bin'), { recursive: true });
    await copyFile('/usr/bin/busybox', join(root, 'bin', 'busybox'));
    await chmod(join(root, 'bin', 'busybox'), 0o755);
    for (const applet of APPLETS) await symlink('busybox', join(root, 'bin', applet));
    const tar = join(this.dir, 'image.tar');
    await run('tar', ['-C', root, '-cf', tar, '.']);
    const imported = await this.docker('import', tar, IMAGE);
    if (imported.code !== 0) throw new Error(imported.stderr);
  }

  async removeContainers(): Promise<void> {
    if (this.#daemon === null) return;
    const all = (await this.docker('ps', '-aq')).stdout.split('\n').filter(Boolean);
    if (all.length > 0) await this.docker('rm', '-f', ...all);
  }

  async [Symbol.asyncDispose](): Promise<void> {
    await this.removeContainers();
    await this.stop();
    this.#containerd?.kill('SIGTERM');
    killInside(this.#anchor?.pid);
    this.#anchor?.kill('SIGKILL');
    await run('ip', ['netns', 'del', this.netns]).catch(() => undefined);
    await rm(this.dir, { recursive: true, force: true });
  }
}

function readMountNs(pid: number): string | null {
  try {
    return readlinkSync(`/proc/${pid}/ns/mnt`);
  } catch {
    return null;
  }
}

/** What still runs in a test host's mount namespace (containerd, shims) ends with it. */
function killInside(anchor: number | undefined): void {
  if (anchor === undefined) return;
  const own = readMountNs(anchor);
  if (own === null || own === readMountNs(process.pid)) return;
  for (const name of readdirSync('/proc').filter((entry) => /^\d+$/.test(entry))) {
    const pid = Number(name);
    if (pid !== anchor && readMountNs(pid) === own) process.kill(pid, 'SIGKILL');
  }
}

/** Namespaces of test processes that are gone. */
async function sweep(): Promise<void> {
  for (const name of existsSync('/run/netns') ? readdirSync('/run/netns') : []) {
    const pid = /^wdkr-(\d+)-/.exec(name)?.[1];
    if (pid !== undefined && !existsSync(`/proc/${pid}`))
      await run('ip', ['netns', 'del', name]).catch(() => undefined);
  }
}
