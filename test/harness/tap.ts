/** A virtual machine's end of a tap, on a host of the lab or elsewhere (tap.pl); and ICMP echo requests as frames. */
import { spawn } from 'node:child_process';
import { fileURLToPath } from 'node:url';
import { ethernet } from './frames.ts';
import { until } from './lab.ts';

const WEFT = fileURLToPath(new URL('../../bin/weft', import.meta.url));
const PROGRAM = fileURLToPath(new URL('./tap.pl', import.meta.url));

export interface Machine extends AsyncDisposable {
  /** "ready", "request SRC" (answered), "reply SRC", "arp SRC MAC" (a reply). */
  readonly said: readonly string[];
  /** Sends frames given as hex. */
  send(...frames: string[]): void;
}

/** Switches it on; off when disposed. */
export const machine = (host: string, device: string, mac: string, ip: string): Promise<Machine> =>
  start([WEFT, 'lab', 'exec', host], [device, mac, ip]);

/** The same in a namespace of the machine's, behind an 802.1Q tag. */
export const taggedMachine = (netns: string, device: string, mac: string, ip: string, tag: number): Promise<Machine> =>
  start(['nsenter', `--net=/run/netns/${netns}`], [device, mac, ip, String(tag)]);

async function start(enter: readonly string[], words: readonly string[]): Promise<Machine> {
  const [file = '', ...args] = [...enter, 'perl', PROGRAM, ...words];
  const child = spawn(file, args, { stdio: 'pipe' });
  const ended = new Promise<void>((resolve) => child.on('close', () => resolve()));
  const said: string[] = [];
  let rest = '';
  let complaint = '';
  child.stdout.setEncoding('utf8').on('data', (text: string) => {
    const lines = (rest + text).split('\n');
    rest = lines.pop() ?? '';
    said.push(...lines);
  });
  child.stderr.setEncoding('utf8').on('data', (text: string) => {
    complaint += text;
  });
  child.stdin.on('error', () => undefined);
  await until(`a machine at ${words[0]}`, async () => {
    if (child.exitCode !== null) throw new Error(complaint);
    return said.includes('ready');
  });
  return {
    said,
    send: (...frames) => void child.stdin.write(frames.map((frame) => `${frame}\n`).join('')),
    [Symbol.asyncDispose]: async () => {
      child.stdin.end();
      await ended;
    },
  };
}

const bytes = (ip: string): number[] => ip.split('.').map(Number);

function checksum(data: readonly number[]): number[] {
  let sum = 0;
  for (let i = 0; i < data.length; i += 2) sum += ((data[i] ?? 0) << 8) | (data[i + 1] ?? 0);
  while (sum > 0xffff) sum = (sum & 0xffff) + (sum >>> 16);
  return [(~sum >>> 8) & 0xff, ~sum & 0xff];
}

/** An ICMP echo request (RFC 792) from one address to another, as hex. */
export function echoRequest(from: { mac: string; ip: string }, to: { mac: string; ip: string }): string {
  const icmp = [8, 0, 0, 0, 7, 7, 0, 1, ...Array<number>(24).fill(0)];
  icmp.splice(2, 2, ...checksum(icmp));
  const header = [0x45, 0, 0, 20 + icmp.length, 0, 1, 0, 0, 64, 1, 0, 0, ...bytes(from.ip), ...bytes(to.ip)];
  header.splice(10, 2, ...checksum(header));
  return ethernet(to.mac, from.mac, 0x0800, Buffer.from([...header, ...icmp]).toString('hex'));
}
