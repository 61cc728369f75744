/**
 * A container that probes: one long-running shell reads targets from stdin, so that a probe costs one ping and no docker exec. And the
 * host's Docker API, for what a test must know at once.
 */
import { type ChildProcessWithoutNullStreams, spawn } from 'node:child_process';
import { request } from 'node:http';
import { fileURLToPath } from 'node:url';
import { IMAGE, type Result, run } from './lab.ts';

const WEFT = fileURLToPath(new URL('../../bin/weft', import.meta.url));

/** Reads "TAG ADDRESS" lines; one packet to each, all at once; answers "TAG ok" or "TAG lost". */
const SCRIPT = `echo ready
while read -r tag ip; do
  ( if ping -n -q -c 1 -W 1 "$ip" >/dev/null 2>&1; then echo "$tag ok"; else echo "$tag lost"; fi ) &
done`;

export class Prober {
  readonly host: string;
  readonly name: string;
  readonly #child: ChildProcessWithoutNullStreams;
  readonly #waiting = new Map<string, (ok: boolean) => void>();
  readonly #ready = Promise.withResolvers<void>();
  #tag = 0;
  #rest = '';
  #errors = '';

  /** `docker run -i` on the host; options as for docker run. */
  constructor(host: string, name: string, network: string, ...options: string[]) {
    this.host = host;
    this.name = name;
    const args = ['run', '-i', '--rm', '--name', name, '--network', network, ...options, IMAGE, 'sh', '-c', SCRIPT];
    this.#child = spawn(WEFT, ['lab', 'exec', host, 'docker', ...args], { stdio: ['pipe', 'pipe', 'pipe'] });
    this.#child.stdout.setEncoding('utf8').on('data', (text: string) => this.#read(text));
    this.#child.stderr.setEncoding('utf8').on('data', (text: string) => {
      this.#errors += text;
    });
    this.#child.stdin.on('error', () => undefined);
    this.#child.on('close', () => {
      this.#ready.reject(new Error(`prober ${name} on ${host}: ${this.#errors}`));
      for (const answer of this.#waiting.values()) answer(false);
    });
    this.#ready.promise.catch(() => undefined);
  }

  /** Resolves when it can probe; rejects with what docker run said. */
  ready(): Promise<void> {
    return this.#ready.promise;
  }

  /** One packet now: is it answered within a second? */
  probe(ip: string): Promise<boolean> {
    const tag = `p${++this.#tag}`;
    return new Promise((resolve) => {
      this.#waiting.set(tag, resolve);
      this.#child.stdin.write(`${tag} ${ip}\n`);
    });
  }

  async close(): Promise<void> {
    const closed = this.#child.exitCode === null ? new Promise((resolve) => this.#child.once('close', resolve)) : null;
    this.#child.stdin.end();
    await run(WEFT, ['lab', 'exec', this.host, 'docker', 'rm', '-f', this.name]);
    await closed;
  }

  #read(text: string): void {
    const lines = `${this.#rest}${text}`.split('\n');
    this.#rest = lines.pop() ?? '';
    for (const line of lines) {
      if (line === 'ready') this.#ready.resolve();
      const [tag = '', outcome] = line.split(' ');
      this.#waiting.get(tag)?.(outcome === 'ok');
      this.#waiting.delete(tag);
    }
  }
}

/** GET on a host's Docker API, over its socket's path outside the host: 3 ms where a docker command takes 50. */
export const dockerGet = async <T>(socketPath: string, path: string): Promise<T> =>
  JSON.parse(await dockerCall(socketPath, 'GET', path)) as T;

/** Any call on a host's Docker API; resolves with the answer's text. */
export function dockerCall(socketPath: string, method: string, path: string, body?: object): Promise<string> {
  return new Promise((resolve, reject) => {
    const headers = body === undefined ? {} : { 'content-type': 'application/json' };
    const call = request({ socketPath, path, method, headers, agent: false }, (response) => {
      let text = '';
      response.setEncoding('utf8').on('data', (part: string) => {
        text += part;
      });
      response.on('end', () => {
        if ((response.statusCode ?? 500) < 300) resolve(text);
        else reject(new Error(`${method} ${path}: ${response.statusCode} ${text}`));
      });
    });
    call.on('error', reject);
    call.end(body === undefined ? undefined : JSON.stringify(body));
  });
}

/** What the Docker API tells of a container, as far as tests look. */
export interface Inspected {
  readonly Id: string;
  readonly State: { readonly Pid: number; readonly Running: boolean };
  readonly NetworkSettings: { readonly Networks: Readonly<Record<string, { readonly IPAddress: string }>> };
}

/**
 * Of some addresses, those that do not answer a packet from a container, entered by the id of its process. Waits long: thirty
 * containers on a busy machine may take their time.
 */
export async function unreached(pid: number, ips: readonly string[]): Promise<string[]> {
  const script = 'for ip in "$@"; do ping -n -q -c 1 -W 5 "$ip" >/dev/null 2>&1 || echo "$ip"; done';
  const r: Result = await run('nsenter', ['-t', String(pid), '-n', '-m', '--', 'sh', '-c', script, 'sh', ...ips]);
  if (r.code !== 0) throw new Error(`nsenter into ${pid}: ${r.stderr}`);
  return r.stdout.split('\n').filter((line) => line !== '');
}

/** A ping every 10 ms, from a container of its own on the host; times are epoch milliseconds of answers. */
export function watch(host: string, network: string, ip: string, name = 'watcher') {
  const args = ['run', '--rm', '--name', name, '--network', network, IMAGE, 'ping', '-n', '-D', '-i', '0.01', ip];
  const child = spawn(WEFT, ['lab', 'exec', host, 'docker', ...args], { stdio: ['ignore', 'pipe', 'inherit'] });
  const times: number[] = [];
  const answered = new Set<number>();
  let highest = 0;
  let rest = '';
  let sent = 0;
  let received = 0;
  let look = (): void => undefined;
  child.stdout.setEncoding('utf8').on('data', (text: string) => {
    const lines = `${rest}${text}`.split('\n');
    rest = lines.pop() ?? '';
    for (const line of lines) {
      const sum = /^(\d+) packets transmitted, (\d+) received/.exec(line);
      if (sum !== null) [sent, received] = [Number(sum[1]), Number(sum[2])];
      const match = /^\[(\d+\.\d+)\] \d+ bytes from .*icmp_seq=(\d+)/.exec(line);
      if (match === null) continue;
      times.push(Number(match[1]) * 1000);
      answered.add(Number(match[2]));
      highest = Math.max(highest, Number(match[2]));
    }
    look();
  });
  const closed = new Promise((resolve) => child.once('close', resolve));
  return {
    /** The first answer after a moment; waits for it, at most 15 s. */
    answered: (since: number): Promise<number> =>
      new Promise((resolve, reject) => {
        const timer = setTimeout(() => reject(new Error(`${ip} did not answer again within 15 s`)), 15_000);
        look = (): void => {
          const found = times.find((t) => t > since);
          if (found === undefined) return;
          clearTimeout(timer);
          look = (): void => undefined;
          resolve(found);
        };
        look();
      }),
    /** The last answer before a moment. */
    before: (moment: number): number => times.findLast((t) => t <= moment) ?? moment,
    /**
     * Ends it. @returns packets sent and answered (the last ones may be on their way), those that were not answered though a later one
     * was, and the longest time without an answer, ms
     */
    stop: async (): Promise<{ sent: number; received: number; lost: number; maxGapMs: number }> => {
      await run(WEFT, ['lab', 'exec', host, 'docker', 'kill', '-s', 'INT', name]);
      await closed;
      const gaps = times.slice(1).map((t, i) => t - (times[i] ?? t));
      return { sent, received, lost: highest - answered.size, maxGapMs: Math.max(0, ...gaps) };
    },
  };
}
