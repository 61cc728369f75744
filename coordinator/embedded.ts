/** `etcd: embedded`: an etcd of the coordinator's own, as a child process, for a mesh with one coordinator. */
import { type ChildProcess, spawn } from 'node:child_process';
import { once } from 'node:events';
import { mkdirSync } from 'node:fs';
import { createServer } from 'node:net';
import { join } from 'node:path';
import { WeftError } from '../lib/errors.ts';
import type { Log } from '../lib/log.ts';

const START_MS = 15_000;
const STOP_MS = 5000;
const POLL_MS = 50;
const INSTALL = 'install etcd (apt install etcd-server), or give --etcd URL of one that runs';

export interface EmbeddedOptions {
  /** Data are kept in DIR/etcd. */
  readonly stateDir: string;
  readonly log: Log;
  /** It ended without being told to. */
  readonly died: (reason: string) => void;
}

export class EmbeddedEtcd {
  readonly #options: EmbeddedOptions;
  #child: ChildProcess | null = null;
  #stopping = false;

  constructor(options: EmbeddedOptions) {
    this.#options = options;
  }

  /** Starts it on a free loopback port; resolves with its URL once it answers. @throws UNAVAILABLE */
  async start(): Promise<string> {
    const { stateDir, log, died } = this.#options;
    const data = join(stateDir, 'etcd');
    mkdirSync(data, { recursive: true, mode: 0o700 });
    const [client, peer] = await freePorts();
    const url = `http://127.0.0.1:${client}`;
    const peerUrl = `http://127.0.0.1:${peer}`;
    // A member keeps the peer URL of its first start in its data, and does not mind another one while it is alone.
    const args = ['--name', 'weft', '--data-dir', data, '--log-level', 'warn'];
    args.push('--listen-client-urls', url, '--advertise-client-urls', url, '--listen-peer-urls', peerUrl);
    args.push('--initial-advertise-peer-urls', peerUrl, '--initial-cluster', `weft=${peerUrl}`);
    args.push('--auto-compaction-mode', 'periodic', '--auto-compaction-retention', '1h');
    // The kernel ends it when the coordinator is killed (an orphan would keep its data locked); a session of its own, because a
    // Ctrl-C in the terminal is for the coordinator, which stops it after its last write.
    const child = spawn('setpriv', ['--pdeathsig', 'TERM', '--', 'etcd', ...args], {
      stdio: ['ignore', 'inherit', 'inherit'],
      env: environment(),
      detached: true,
    });
    this.#child = child;
    const failed = Promise.withResolvers<never>();
    failed.promise.catch(() => {});
    child.once('error', (error) =>
      failed.reject(
        new WeftError('UNAVAILABLE', `etcd cannot be started: ${error.message}.`, {
          hint: INSTALL,
        }),
      ),
    );
    let up = false;
    child.once('exit', (code, signal) => {
      const reason = `etcd ended (${signal ?? `status ${code}`})`;
      const hint = code === 127 ? INSTALL : `what it said is above; its data are in ${data}`;
      failed.reject(new WeftError('UNAVAILABLE', `${reason}.`, { hint }));
      if (up && !this.#stopping) died(reason);
    });
    try {
      await Promise.race([answers(url), failed.promise]);
    } catch (error) {
      await this.close();
      throw error;
    }
    up = true;
    log.info({ url, data, pid: child.pid }, 'etcd is running');
    return url;
  }

  async close(): Promise<void> {
    const child = this.#child;
    this.#stopping = true;
    this.#child = null;
    if (child?.pid === undefined || child.exitCode !== null || child.signalCode !== null) return;
    const exit = once(child, 'exit');
    child.kill('SIGTERM');
    const timer = setTimeout(() => child.kill('SIGKILL'), STOP_MS);
    await exit;
    clearTimeout(timer);
  }

  /** For an emergency exit: nothing may be left running. */
  kill(): void {
    this.#child?.kill('SIGKILL');
  }
}

/** Without ETCD_* of the caller, which would be taken for options. */
const environment = (): NodeJS.ProcessEnv =>
  Object.fromEntries(Object.entries(process.env).filter(([name]) => !name.startsWith('ETCD_')));

async function answers(url: string): Promise<void> {
  const end = Date.now() + START_MS;
  for (;;) {
    try {
      const response = await fetch(`${url}/health`, { signal: AbortSignal.timeout(1000) });
      if (response.ok) return;
    } catch {
      // Not yet.
    }
    if (Date.now() > end)
      throw new WeftError('UNAVAILABLE', `etcd did not answer on ${url} within ${START_MS / 1000} s.`);
    await new Promise((resolve) => setTimeout(resolve, POLL_MS));
  }
}

async function freePorts(): Promise<[number, number]> {
  const servers = [createServer(), createServer()];
  const ports: number[] = [];
  for (const server of servers) {
    server.listen(0, '127.0.0.1');
    await once(server, 'listening');
    const address = server.address();
    if (typeof address === 'object' && address !== null) ports.push(address.port);
  }
  await Promise.all(servers.map((server) => new Promise((resolve) => server.close(resolve))));
  return [ports[0] ?? 0, ports[1] ?? 0];
}
