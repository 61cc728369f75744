/** The lab as tests use it: `bin/weft` and what runs on its hosts, as child processes. One lab for all files of a run. */
import { spawn } from 'node:child_process';
import { fileURLToPath } from 'node:url';

export const WEFT = fileURLToPath(new URL('../../bin/weft', import.meta.url));

export interface Result {
  readonly code: number;
  readonly stdout: string;
  readonly stderr: string;
}

export interface RunOptions {
  readonly input?: string;
  readonly timeoutMs?: number;
  readonly env?: Readonly<Record<string, string>>;
}

/** Runs a program to its end; never throws for its status. */
export function run(file: string, args: readonly string[], options: RunOptions = {}): Promise<Result> {
  return new Promise((resolve, reject) => {
    const child = spawn(file, args, { env: { ...process.env, ...options.env }, stdio: ['pipe', 'pipe', 'pipe'] });
    let stdout = '';
    let stderr = '';
    child.stdout.setEncoding('utf8').on('data', (s: string) => {
      stdout += s;
    });
    child.stderr.setEncoding('utf8').on('data', (s: string) => {
      stderr += s;
    });
    const timer = setTimeout(() => child.kill('SIGKILL'), options.timeoutMs ?? 120_000);
    child.on('error', reject);
    child.on('close', (code, signal) => {
      clearTimeout(timer);
      resolve({ code: code ?? (signal === 'SIGKILL' ? 137 : 143), stdout, stderr });
    });
    child.stdin.on('error', () => undefined);
    child.stdin.end(options.input ?? '');
  });
}

/** `weft ARGS`; the lab's context is in HOME, set by the run's setup. */
export const weft = (...args: string[]): Promise<Result> => run(WEFT, args);

/** Like weft, and fails the test with what it said unless it succeeded. */
export async function weftOk(...args: string[]): Promise<string> {
  const r = await weft(...args);
  if (r.code !== 0) throw new Error(`weft ${args.join(' ')}: exit ${r.code}\n${r.stdout}${r.stderr}`);
  return r.stdout;
}

export async function weftJson<T = Record<string, unknown>>(...args: string[]): Promise<T> {
  return JSON.parse(await weftOk(...args, '--json')) as T;
}

/** A command on a host of the lab. */
export const on = (host: string, ...command: string[]): Promise<Result> => run(WEFT, ['lab', 'exec', host, ...command]);

export async function onOk(host: string, ...command: string[]): Promise<string> {
  const r = await on(host, ...command);
  if (r.code !== 0) throw new Error(`${host}: ${command.join(' ')}: exit ${r.code}\n${r.stdout}${r.stderr}`);
  return r.stdout.trim();
}

export const docker = (host: string, ...args: string[]): Promise<string> => onOk(host, 'docker', ...args);

export const IMAGE = 'weft/lab:1';

/** How often a test does what it is to do without fail: often in `npm run test:all` (WEFT_TEST_FULL=1), less in `npm test`. */
export const times = (full: number, short: number): number => (process.env['WEFT_TEST_FULL'] === '1' ? full : short);

/** A container that stays, on a host; its name is the return value. */
export async function sleeper(host: string, name: string, network: string, ...options: string[]): Promise<string> {
  await docker(host, 'run', '-d', '--name', name, '--network', network, ...options, IMAGE, 'sleep', '100000');
  return name;
}

/** Address of a container in a network, as its Docker says. */
export const addressOf = (host: string, container: string, network: string): Promise<string> =>
  docker(host, 'inspect', '-f', `{{(index .NetworkSettings.Networks "${network}").IPAddress}}`, container);

/** One ping from a container: true when it is answered within a second. */
export async function pings(host: string, container: string, ip: string, count = 1): Promise<boolean> {
  const r = await on(host, 'docker', 'exec', container, 'ping', '-c', String(count), '-i', '0.2', '-W', '1', ip);
  return r.code === 0 && !/ [1-9]\d*% packet loss|100% packet loss/.test(r.stdout);
}

/** Waits for a condition, looking again every 100 ms; fails with the last thing seen. */
export async function until<T>(
  what: string,
  look: () => Promise<T | null | undefined | false>,
  timeoutMs = 30_000,
): Promise<T> {
  const deadline = Date.now() + timeoutMs;
  let last: unknown = null;
  for (;;) {
    try {
      const seen = await look();
      if (seen !== null && seen !== undefined && seen !== false) return seen;
      last = seen;
    } catch (error) {
      last = error;
    }
    if (Date.now() > deadline) throw new Error(`not within ${timeoutMs} ms: ${what}; last: ${String(last)}`);
    await new Promise((resolve) => setTimeout(resolve, 100));
  }
}

/** Removes every container of the hosts and every network of the mesh: what a test file leaves behind. */
export async function clean(hosts: readonly string[]): Promise<void> {
  await Promise.all(
    hosts.map(async (host) => {
      const ids = (await docker(host, 'ps', '-aq')).split('\n').filter((id) => id !== '');
      if (ids.length > 0) await docker(host, 'rm', '-f', ...ids);
    }),
  );
  for (const r of await weftJson<{ name: string }[]>('router', 'ls')) await weftOk('router', 'rm', r.name);
  const networks = await weftJson<{ name: string }[]>('network', 'ls');
  for (const n of networks) await weftOk('network', 'rm', n.name);
}

/** What every lab test ends with: recomputing changes nothing, and nothing differs from what it should be. */
export async function auditClean(): Promise<void> {
  const r = await weft('audit', '--json', '--no-heal');
  if (r.code !== 0) throw new Error(`audit: exit ${r.code}\n${r.stdout}${r.stderr}`);
}
