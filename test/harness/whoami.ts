/** Servers and clients that say whom they see, in any namespace of the lab: hosts, containers, machines beside it. */
import { type ChildProcess, spawn } from 'node:child_process';
import { fileURLToPath } from 'node:url';
import { docker, run, WEFT } from './lab.ts';
import type { Stranger } from './stranger.ts';

const PROCESS = fileURLToPath(new URL('./whoami-process.ts', import.meta.url));

/** Words before a command that runs it there. */
export type Place = readonly string[];

export const atHost = (host: string): Place => [WEFT, 'lab', 'exec', host];
export const atStranger = (stranger: Stranger): Place => ['nsenter', `--net=/run/netns/${stranger.netns}`];
export async function inContainer(host: string, name: string): Promise<Place> {
  const sandbox = await docker(host, 'inspect', '-f', '{{.NetworkSettings.SandboxKey}}', name);
  return [...atHost(host), 'nsenter', `--net=${sandbox}`];
}

/** Who the server at the other end saw; null: nobody answers. @param sourcePort of UDP; 0 = any */
export async function whoAmI(
  from: Place,
  protocol: 'tcp' | 'udp',
  ip: string,
  port: number,
  sourcePort = 0,
): Promise<string | null> {
  const r = await ask(from, protocol, ip, port, sourcePort);
  return r.code === 0 ? r.stdout : null;
}

/** Why nobody answers: the error. Empty: somebody does. */
export const whyNot = async (from: Place, protocol: 'tcp' | 'udp', ip: string, port: number): Promise<string> =>
  (await ask(from, protocol, ip, port, 0)).stderr;

function ask(from: Place, protocol: string, ip: string, port: number, sourcePort: number): ReturnType<typeof run> {
  const [file, ...args] = [...from, process.execPath, PROCESS, 'ask', protocol, ip, String(port), String(sourcePort)];
  return run(file, args, { timeoutMs: 20_000 });
}

/** Answers whoAmI, TCP and UDP of both families. */
export class Server implements AsyncDisposable {
  readonly #child: ChildProcess;
  readonly #closed: Promise<void>;

  private constructor(child: ChildProcess, closed: Promise<void>) {
    this.#child = child;
    this.#closed = closed;
  }

  /** @param bytes size of answers in TCP, if they are not longer */
  static async open(at: Place, port: number, bytes = 0): Promise<Server> {
    const [file, ...args] = [...at, process.execPath, PROCESS, 'serve', String(port), String(bytes)];
    const child = spawn(file, args, { stdio: ['ignore', 'pipe', 'pipe'] });
    let said = '';
    const closed = new Promise<void>((resolve) => child.on('close', () => resolve()));
    await new Promise<void>((resolve, reject) => {
      child.stderr.setEncoding('utf8').on('data', (text: string) => {
        said += text;
      });
      child.on('error', reject);
      child.on('close', () => reject(new Error(`the server at ${at.join(' ')} ended: ${said}`)));
      child.stdout.setEncoding('utf8').on('data', () => resolve());
    });
    return new Server(child, closed);
  }

  async [Symbol.asyncDispose](): Promise<void> {
    this.#child.kill('SIGTERM');
    await this.#closed;
  }
}
