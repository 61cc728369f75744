/** The lab's wire: frames sent from inside a container's namespace, and what another container receives, byte for byte. */
import { type ChildProcess, spawn } from 'node:child_process';
import { fileURLToPath } from 'node:url';
import { SEND_RAW } from './frames.ts';
import { docker, on, onOk } from './lab.ts';

const WEFT = fileURLToPath(new URL('../../bin/weft', import.meta.url));

/** A container's end in one network. */
export interface Box {
  readonly host: string;
  readonly name: string;
  readonly ip: string;
  /** Empty = none. */
  readonly ip6: string;
  readonly mac: string;
  /** Its link on the host. */
  readonly link: string;
  /** Path of its network namespace, on its host. */
  readonly sandbox: string;
  /** Number of its eth0. */
  readonly ifindex: number;
}

export async function boxOf(host: string, name: string, network: string): Promise<Box> {
  const format = `{{json (index .NetworkSettings.Networks "${network}")}}`;
  const end = JSON.parse(await docker(host, 'inspect', '-f', format, name)) as Record<string, string>;
  const sandbox = await docker(host, 'inspect', '-f', '{{.NetworkSettings.SandboxKey}}', name);
  const [eth0] = JSON.parse(await onOk(host, 'nsenter', `--net=${sandbox}`, 'ip', '-j', 'link', 'show', 'eth0')) as [
    { ifindex: number },
  ];
  const { IPAddress: ip = '', GlobalIPv6Address: ip6 = '', MacAddress: mac = '', EndpointID: id = '' } = end;
  return { host, name, ip, ip6, mac, link: `wft${id.slice(0, 12)}`, sandbox, ifindex: eth0.ifindex };
}

/** Frames as they are out of a container's eth0, past its network stack. @throws when the kernel refuses one. */
export async function sendFrom(box: Box, frames: readonly string[]): Promise<void> {
  const perl = ['perl', '-e', SEND_RAW, String(box.ifindex), ...frames];
  const r = await on(box.host, 'nsenter', `--net=${box.sandbox}`, ...perl);
  if (r.code !== 0) throw new Error(`${frames.length} frames from ${box.name}: ${r.stderr.slice(-200)}`);
}

const FILE_HEADER = 24;
const RECORD_HEADER = 16;

/** Everything that arrives at a container, by tcpdump(8) in its namespace: what goes past Open vSwitch is seen too. */
export class Ear implements AsyncDisposable {
  readonly #child: ChildProcess;
  readonly #ready: Promise<void>;
  readonly #closed: Promise<void>;
  #bytes: Buffer = Buffer.alloc(0);
  #begun = false;
  readonly #frames: string[] = [];

  private constructor(box: Box) {
    const dump = ['tcpdump', '-i', 'eth0', '-Q', 'in', '-U', '-s', '0', '--immediate-mode', '-w', '-'];
    const child = spawn(WEFT, ['lab', 'exec', box.host, 'nsenter', `--net=${box.sandbox}`, ...dump], {
      stdio: ['ignore', 'pipe', 'pipe'],
    });
    let said = '';
    this.#child = child;
    this.#closed = new Promise((resolve) => child.once('close', () => resolve()));
    this.#ready = new Promise((resolve, reject) => {
      child.stderr.setEncoding('utf8').on('data', (text: string) => {
        said += text;
        if (said.includes('listening on')) resolve();
      });
      child.once('close', () => reject(new Error(`tcpdump: ${said}`)));
    });
    this.#ready.catch(() => undefined);
    child.stdout.on('data', (chunk: Buffer) => this.#read(chunk));
  }

  static async open(box: Box): Promise<Ear> {
    const ear = new Ear(box);
    await ear.#ready;
    return ear;
  }

  /** How many of the frames so far hold these bytes. @param mark hex */
  heard(mark: string): number {
    return this.#frames.filter((frame) => frame.includes(mark)).length;
  }

  /** Frames so far that hold these bytes, hex. */
  frames(mark: string): string[] {
    return this.#frames.filter((frame) => frame.includes(mark));
  }

  async [Symbol.asyncDispose](): Promise<void> {
    this.#child.kill('SIGINT');
    await this.#closed;
  }

  /** pcap-savefile(5), little-endian as on all that the lab runs on. */
  #read(chunk: Buffer): void {
    let bytes = Buffer.concat([this.#bytes, chunk]);
    if (!this.#begun && bytes.length >= FILE_HEADER) {
      this.#begun = true;
      bytes = bytes.subarray(FILE_HEADER);
    }
    while (this.#begun && bytes.length >= RECORD_HEADER) {
      const end = RECORD_HEADER + bytes.readUInt32LE(8);
      if (bytes.length < end) break;
      this.#frames.push(bytes.subarray(RECORD_HEADER, end).toString('hex'));
      bytes = bytes.subarray(end);
    }
    this.#bytes = bytes;
  }
}
