/**
 * The two places where each workload runs, by the command lines of deploy/examples: three hosts of the lab with Weft's network, and
 * one host with a plain bridge of Docker's. Containers find each other by their names alone.
 */
import { spawn } from 'node:child_process';
import { fileURLToPath } from 'node:url';
import { docker, onOk, run, WEFT } from '../harness/lab.ts';

export const IMAGE = 'weft/workloads:1';
export const NETWORK = 'data';

export interface Site {
  readonly name: 'weft' | 'bridge';
  /** Hosts of the lab; on the bridge all three are the same. */
  readonly hosts: readonly [string, string, string];
}

export const WEFT_SITE: Site = { name: 'weft', hosts: ['h1', 'h2', 'h3'] };
export const BRIDGE_SITE: Site = { name: 'bridge', hosts: ['h4', 'h4', 'h4'] };
/** In the order of each round. WEFT_WORKLOADS_COMPARE=no leaves the bridge, and the figures, out: half the time. */
export const COMPARED = process.env['WEFT_WORKLOADS_COMPARE'] !== 'no';
export const SITES: readonly Site[] = COMPARED ? [WEFT_SITE, BRIDGE_SITE] : [WEFT_SITE];

const EXAMPLES = fileURLToPath(new URL('../../deploy/examples', import.meta.url));
const JOBS = fileURLToPath(new URL('./jobs', import.meta.url));

/** Options of `docker run` by which a container finds the programs of test/workloads/jobs in /jobs. */
export const WITH_JOBS = `-v ${JOBS}:/jobs:ro`;

/** Numbers of the rounds of what is measured; one is enough to see that it works. */
export const rounds = (count: number): number[] => Array.from({ length: COMPARED ? count : 1 }, (_, i) => i + 1);

/** Thirty times what a step takes on an idle machine. */
export const STEP_MS = 840_000;

export interface Started {
  readonly stdout: string;
  /** Wall clock, as who types the command sees it. */
  readonly seconds: number;
}

/**
 * Runs a command line of deploy/examples on a host.
 * @param settings its variables (MEMORY, DOCKER_OPTIONS, …)
 * @throws with what it said, unless it succeeded
 */
export async function example(
  host: string,
  script: string,
  args: readonly string[],
  settings: Readonly<Record<string, string>> = {},
  timeoutMs = STEP_MS,
): Promise<Started> {
  const env = { IMAGE, NETWORK, ...settings };
  const began = performance.now();
  const r = await run(WEFT, ['lab', 'exec', host, 'sh', `${EXAMPLES}/${script}`, ...args], { env, timeoutMs });
  const seconds = (performance.now() - began) / 1000;
  if (r.code === 0) return { stdout: r.stdout, seconds };
  throw new Error(`${host}: ${script} ${args.join(' ')}: exit ${r.code}\n${tail(r.stdout)}\n${tail(r.stderr)}`);
}

const tail = (text: string): string => text.split('\n').slice(-30).join('\n');

/** What a job says: its last line. */
export const lastJson = <T>({ stdout }: Started): T => JSON.parse(stdout.trim().split('\n').at(-1) ?? '') as T;

/** Follows the container's log until it has the text so many times. @throws with its end when the container ends, or is too late */
export function logged(host: string, container: string, text: string, times = 1): Promise<void> {
  return new Promise((resolve, reject) => {
    const command = ['lab', 'exec', host, 'docker', 'logs', '-f', container];
    const child = spawn(WEFT, command, { stdio: ['ignore', 'pipe', 'pipe'] });
    const timer = setTimeout(() => child.kill(), STEP_MS);
    const streams = [child.stdout, child.stderr].map((stream) => ({ stream, said: '' }));
    const count = (): number => streams.reduce((sum, { said }) => sum + said.split(text).length - 1, 0);
    for (const each of streams) {
      each.stream.setEncoding('utf8').on('data', (more: string) => {
        each.said += more;
        if (count() >= times) child.kill();
      });
    }
    child.on('error', reject);
    child.on('close', () => {
      clearTimeout(timer);
      if (count() >= times) return resolve();
      const end = streams.map(({ said }) => tail(said)).join('\n');
      reject(
        new Error(`${container} on ${host} has not said “${text}” × ${times}, in time or before its end:\n${end}`),
      );
    });
  });
}

/** Removes all containers of the site that have the workloads' image, and their volumes. */
export async function clear(site: Site): Promise<void> {
  for (const host of new Set(site.hosts)) {
    const ids = await onOk(host, 'docker', 'ps', '-aq', '--filter', `ancestor=${IMAGE}`);
    if (ids !== '') await docker(host, 'rm', '-f', '-v', ...ids.split('\n'));
    const volumes = await onOk(host, 'docker', 'volume', 'ls', '-q');
    if (volumes !== '') await docker(host, 'volume', 'rm', ...volumes.split('\n'));
  }
}
