/**
 * What sizes get through the tunnel, one way: VXLAN frames that this host sends to others, and those of others that come out of its
 * tunnel device. Who asks (the coordinator) puts both together. The work is done by tunnel.pl, which lives as long as a run.
 */
import { type ChildProcessWithoutNullStreams, spawn } from 'node:child_process';
import { createInterface, type Interface } from 'node:readline';
import { fileURLToPath } from 'node:url';
import type { ProbeTunnelAnswer, ProbeTunnelQuery, TunnelProbe, TunnelSizes } from '../../gen/weft/v1/session.ts';
import { WeftError } from '../../lib/errors.ts';
import { TUNNEL_DEVICE } from '../link/names.ts';
import type { Wiring } from '../wiring.ts';

/** After the last question of a run. */
const IDLE_MS = 15_000;
const ANSWER_MS = 4_000;

export interface TunnelProbes {
  readonly wiring: Pick<Wiring, 'backend' | 'vtep' | 'encaps' | 'udpPorts'>;
  /** Of a link by name; null when it is not there. */
  readonly ifindex: (link: string) => Promise<number | null>;
}

export class TunnelProber {
  readonly #o: TunnelProbes;
  #ear: Ear | null = null;
  #run = '';
  #timer: NodeJS.Timeout | null = null;
  /** Questions follow one another. */
  #queue: Promise<unknown> = Promise.resolve();

  constructor(options: TunnelProbes) {
    this.#o = options;
  }

  /**
   * Sends what is asked for, and says what has come so far in this run.
   * @throws FAILED_PRECONDITION where this host cannot probe that way, saying why; INVALID_ARGUMENT; UNAVAILABLE
   */
  answer(query: ProbeTunnelQuery): Promise<ProbeTunnelAnswer> {
    const next = this.#queue.then(() => this.#answer(query));
    this.#queue = next.catch(() => undefined);
    return next;
  }

  close(): void {
    if (this.#timer !== null) clearTimeout(this.#timer);
    this.#timer = null;
    this.#ear?.close();
    this.#ear = null;
  }

  async #answer({ run, probes }: ProbeTunnelQuery): Promise<ProbeTunnelAnswer> {
    const { wiring } = this.#o;
    if (wiring.backend !== 'kernel-tunnel' || !wiring.encaps.includes('vxlan'))
      throw new WeftError('FAILED_PRECONDITION', 'its tunnel is not a VXLAN device of the kernel');
    if (!/^[0-9a-f]{16}$/.test(run)) throw new WeftError('INVALID_ARGUMENT', `"${run}" does not name a run`);
    if (this.#ear === null || this.#run !== run || !this.#ear.alive) {
      this.close();
      this.#run = run;
      this.#ear = await this.#open(run);
    }
    if (this.#timer !== null) clearTimeout(this.#timer);
    this.#timer = setTimeout(() => this.close(), IDLE_MS);
    const refused: TunnelSizes[] = [];
    for (const probe of probes.filter((p) => p.vtep.includes(':') === wiring.vtep.includes(':')))
      refused.push({ path: probe.path, sizes: await this.#ear.send(probe) });
    return { heard: await this.#ear.heard(), refused: refused.filter(({ sizes }) => sizes.length > 0) };
  }

  async #open(run: string): Promise<Ear> {
    const device = TUNNEL_DEVICE.vxlan;
    const ifindex = await this.#o.ifindex(device);
    if (ifindex === null) throw new WeftError('FAILED_PRECONDITION', `it has no ${device}`);
    const { vtep, udpPorts } = this.#o.wiring;
    return Ear.open([device, `${ifindex}`, vtep, `${udpPorts.vxlan}`, run]);
  }
}

/** tunnel.pl, talked to in lines. */
class Ear {
  readonly #child: ChildProcessWithoutNullStreams;
  readonly #lines: Interface;
  readonly #iterator: AsyncIterator<string>;
  #said = '';
  alive = true;

  private constructor(args: readonly string[]) {
    const child = spawn('perl', [scriptPath(), ...args], { stdio: 'pipe' });
    this.#child = child;
    this.#lines = createInterface({ input: child.stdout });
    this.#iterator = this.#lines[Symbol.asyncIterator]();
    child.stderr.on('data', (chunk: Buffer) => {
      this.#said = (this.#said + chunk.toString()).slice(-500);
    });
    child.stdin.on('error', () => undefined); // it is gone: the next read says so
    child.once('error', (error) => {
      this.#said = error.message;
      this.alive = false;
    });
    child.once('close', () => {
      this.alive = false;
    });
  }

  static async open(args: readonly string[]): Promise<Ear> {
    const ear = new Ear(args);
    await ear.#read('ready');
    return ear;
  }

  async send({ path, vtep, sizes }: TunnelProbe): Promise<number[]> {
    if (!/^[0-9a-f.:]+$/i.test(vtep)) throw new WeftError('INVALID_ARGUMENT', `"${vtep}" is not an address`);
    return (await this.#ask(['send', path, vtep, ...sizes].join(' '), 'refused')).map(Number);
  }

  async heard(): Promise<TunnelSizes[]> {
    const words = (await this.#ask('heard', 'heard')).map((word) => word.split(':').map(Number));
    return [...Map.groupBy(words, ([path = 0]) => path)].map(([path, all]) => ({
      path,
      sizes: all.map(([, size = 0]) => size),
    }));
  }

  close(): void {
    this.alive = false;
    this.#child.kill('SIGTERM');
    this.#lines.close();
  }

  #ask(line: string, answer: string): Promise<string[]> {
    this.#child.stdin.write(`${line}\n`);
    return this.#read(answer);
  }

  /** The words of the next line after its first. @throws UNAVAILABLE with its last words when it has ended, or says nothing. */
  async #read(first: string): Promise<string[]> {
    const timer = setTimeout(() => this.close(), ANSWER_MS);
    try {
      const next = await this.#iterator.next();
      const [word, ...words] = next.done === true ? [] : next.value.split(' ');
      if (word === first) return words;
    } finally {
      clearTimeout(timer);
    }
    this.close();
    throw new WeftError('UNAVAILABLE', `tunnel.pl: ${this.#said.trim() || 'it has ended'}`, {
      hint: 'is perl installed?',
    });
  }
}

/** From a clone the sources are run; a bundle has it beside itself. */
const scriptPath = (): string =>
  fileURLToPath(new URL(import.meta.url.endsWith('.ts') ? './tunnel.pl' : './probe/tunnel.pl', import.meta.url));
