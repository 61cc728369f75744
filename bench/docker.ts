/** `docker` of a lab's host, from outside the host: what is timed is the command that users type, and nothing of the lab. */
import { performance } from 'node:perf_hooks';
import { IMAGE, run } from '../test/harness/lab.ts';
import { dockerGet, type Inspected } from '../test/harness/prober.ts';

export interface BenchHost {
  readonly name: string;
  /** dockerd's socket, as seen from outside the host. */
  readonly socket: string;
}

/** Debian's client where there are two: the daemon's own version. */
const env = { PATH: '/usr/bin:/usr/sbin:/bin:/sbin:/usr/local/bin' };

/** @returns its stdout. @throws what it said, unless it succeeded */
export async function dockerOn(host: BenchHost, ...args: string[]): Promise<string> {
  const r = await run('docker', ['-H', `unix://${host.socket}`, ...args], { env });
  if (r.code !== 0) throw new Error(`${host.name}: docker ${args.join(' ')}: exit ${r.code}\n${r.stdout}${r.stderr}`);
  return r.stdout.trim();
}

/** @returns milliseconds */
export async function timed(host: BenchHost, ...args: string[]): Promise<number> {
  const began = performance.now();
  await dockerOn(host, ...args);
  return performance.now() - began;
}

/** Starts a container that stays. @returns its id */
export const stay = (host: BenchHost, network: string, ...options: string[]): Promise<string> =>
  dockerOn(host, 'run', '-d', '--network', network, ...options, IMAGE, 'sleep', '100000');

/** A container's process and its address in a network. */
export async function whereIs(host: BenchHost, id: string, network: string): Promise<{ pid: number; ip: string }> {
  const info = await dockerGet<Inspected>(host.socket, `/containers/${id}/json`);
  return { pid: info.State.Pid, ip: info.NetworkSettings.Networks[network]?.IPAddress ?? '' };
}

export const remove = (host: BenchHost, ids: readonly string[]): Promise<string> =>
  ids.length === 0 ? Promise.resolve('') : dockerOn(host, 'rm', '-f', ...ids);
