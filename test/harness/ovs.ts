/** A real Open vSwitch of a test's own: own directory, own network namespace, userspace datapath, own two daemons. */
import { type ChildProcess, execFile, spawn } from 'node:child_process';
import { closeSync, existsSync, openSync, readdirSync, readFileSync } from 'node:fs';
import { mkdtemp, rm } from 'node:fs/promises';
import net from 'node:net';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { setTimeout as delay } from 'node:timers/promises';
import { promisify } from 'node:util';

const run = promisify(execFile);

export interface TestOvs extends AsyncDisposable {
  readonly dir: string;
  /** Path of ovsdb-server's socket. */
  readonly dbSock: string;
  /** Path of a bridge's OpenFlow management socket. */
  mgmtSock(bridge: string): string;
  /** Path of ovs-vswitchd's control socket, for ovs-appctl. */
  readonly ctlSock: string;
  /** Name of the network namespace, as `ip -n` takes it. */
  readonly netns: string;
  /** Runs a command inside the namespace, with the environment that makes ovs-* tools speak to these daemons. */
  exec(command: string, ...args: string[]): Promise<string>;
  vsctl(...args: string[]): Promise<string>;
  /** `ovs-ofctl -O OpenFlow14 COMMAND BRIDGE ARGS…`, bridge by its socket. */
  ofctl(command: string, bridge: string, ...args: string[]): Promise<string>;
  kill(daemon: Daemon): Promise<void>;
  start(daemon: Daemon): Promise<void>;
  pid(daemon: Daemon): number;
  /** Lines of WARN, ERR and EMER in both daemons' logs. */
  warnings(): string[];
}
export type Daemon = 'ovsdb-server' | 'ovs-vswitchd';

/** Waits until `check` holds (true, or does not throw when it returns nothing). Throws after `timeoutMs`, saying what. */
export async function until(what: string, check: () => boolean | Promise<boolean>, timeoutMs = 10_000): Promise<void> {
  const deadline = performance.now() + timeoutMs;
  for (;;) {
    if (await check()) return;
    if (performance.now() > deadline) throw new Error(`not within ${timeoutMs} ms: ${what}`);
    await delay(10);
  }
}

const connects = (path: string): Promise<boolean> =>
  new Promise((resolve) => {
    const socket = net.connect(path, () => {
      socket.destroy();
      resolve(true);
    });
    socket.on('error', () => resolve(false));
  });

let counter = 0;

/** Namespaces of test processes that are gone (a killed run cannot clean up after itself). */
async function sweep(): Promise<void> {
  for (const name of existsSync('/run/netns') ? readdirSync('/run/netns') : []) {
    const pid = /^wovs-(\d+)-/.exec(name)?.[1];
    if (pid !== undefined && !existsSync(`/proc/${pid}`))
      await run('ip', ['netns', 'del', name]).catch(() => undefined);
  }
}

/** @param options.vswitchd false: only the database runs, start ovs-vswitchd later. */
export async function startOvs(options: { vswitchd?: boolean } = {}): Promise<TestOvs> {
  await sweep();
  const dir = await mkdtemp(join(tmpdir(), 'wovs-'));
  const netns = `wovs-${process.pid}-${counter++}`;
  const dbSock = join(dir, 'db.sock');
  const children = new Map<Daemon, ChildProcess>();
  const env = { ...process.env, OVS_RUNDIR: dir, OVS_LOGDIR: dir, OVS_DBDIR: dir };
  const inside = [`--net=/run/netns/${netns}`];
  const exec = async (command: string, ...args: string[]): Promise<string> =>
    (await run('nsenter', [...inside, command, ...args], { env, maxBuffer: 256 << 20 })).stdout;
  const files = (daemon: Daemon): string[] => [
    `--pidfile=${join(dir, `${daemon}.pid`)}`,
    `--unixctl=${join(dir, `${daemon}.ctl`)}`,
    `--log-file=${join(dir, `${daemon}.log`)}`,
  ];
  const argv: Record<Daemon, string[]> = {
    'ovsdb-server': [join(dir, 'conf.db'), `--remote=punix:${dbSock}`, ...files('ovsdb-server')],
    'ovs-vswitchd': [`unix:${dbSock}`, ...files('ovs-vswitchd')],
  };
  const ready: Record<Daemon, () => Promise<boolean>> = {
    'ovsdb-server': () => connects(dbSock),
    'ovs-vswitchd': () => connects(join(dir, 'ovs-vswitchd.ctl')),
  };

  const start = async (daemon: Daemon): Promise<void> => {
    if (children.has(daemon)) return;
    // The daemon dies with this process, however this process dies; nsenter executes it in its own place, so the pid is its pid.
    const line = ['--pdeathsig', 'KILL', 'nsenter', ...inside, daemon, ...argv[daemon]];
    const out = openSync(join(dir, `${daemon}.out`), 'a');
    const child = spawn('setpriv', line, { env, stdio: ['ignore', out, out] });
    closeSync(out);
    children.set(daemon, child);
    await until(`${daemon} listens`, async () => {
      if (child.exitCode !== null) {
        throw new Error(`${daemon} exited: ${readFileSync(join(dir, `${daemon}.out`), 'utf8')}`);
      }
      return ready[daemon]();
    });
  };
  const kill = async (daemon: Daemon): Promise<void> => {
    const child = children.get(daemon);
    if (child === undefined) return;
    children.delete(daemon);
    if (child.exitCode !== null || child.signalCode !== null) return;
    const gone = new Promise((resolve) => child.once('exit', resolve));
    child.kill('SIGKILL');
    await gone;
  };
  const dispose = async (): Promise<void> => {
    await kill('ovs-vswitchd');
    await kill('ovsdb-server');
    await run('ip', ['netns', 'del', netns]).catch(() => undefined);
    await rm(dir, { recursive: true, force: true });
  };

  try {
    await run('ip', ['netns', 'add', netns]);
    await run('ip', ['-n', netns, 'link', 'set', 'lo', 'up']);
    await run('ovsdb-tool', ['create', join(dir, 'conf.db'), '/usr/share/openvswitch/vswitch.ovsschema']);
    await start('ovsdb-server');
    await run('ovs-vsctl', [`--db=unix:${dbSock}`, '--no-wait', 'init']);
    if (options.vswitchd !== false) await start('ovs-vswitchd');
  } catch (error) {
    await dispose();
    throw error;
  }
  return {
    dir,
    dbSock,
    ctlSock: join(dir, 'ovs-vswitchd.ctl'),
    netns,
    mgmtSock: (bridge) => join(dir, `${bridge}.mgmt`),
    exec,
    vsctl: (...args) => exec('ovs-vsctl', `--db=unix:${dbSock}`, '--timeout=10', ...args),
    ofctl: (command, bridge, ...args) =>
      exec('ovs-ofctl', '-O', 'OpenFlow14', command, `unix:${join(dir, `${bridge}.mgmt`)}`, ...args),
    kill,
    start,
    pid: (daemon) => children.get(daemon)?.pid ?? -1,
    warnings: () =>
      ['ovsdb-server', 'ovs-vswitchd'].flatMap((daemon) => {
        const log = join(dir, `${daemon}.log`);
        const lines = existsSync(log) ? readFileSync(log, 'utf8').split('\n') : [];
        return lines.filter((line) => /\|(WARN|ERR|EMER)\|/.test(line));
      }),
    [Symbol.asyncDispose]: dispose,
  };
}
