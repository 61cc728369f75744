/** UDP segmentation offload between two places of the lab (segments.pl). */
import { spawn } from 'node:child_process';
import { fileURLToPath } from 'node:url';
import { onOk, WEFT } from './lab.ts';

const PROGRAM = fileURLToPath(new URL('./segments.pl', import.meta.url));
/** Buffers of ten datagrams. */
const TIMES = 20;
export const DATAGRAMS = TIMES * 10;
const PORT = 7000;

export interface End {
  readonly host: string;
  /** Path of its network namespace, on its host. */
  readonly sandbox: string;
}

/** @returns how many of DATAGRAMS arrive as they were sent. */
export async function segmentsThrough(from: End, fromIp: string, to: End, toIp: string): Promise<number> {
  const inside = ['nsenter', `--net=${to.sandbox}`, 'perl', PROGRAM];
  const args = ['lab', 'exec', to.host, ...inside, 'receive', toIp, String(PORT), String(DATAGRAMS)];
  const child = spawn(WEFT, args, { stdio: ['ignore', 'pipe', 'inherit'] });
  let said = '';
  const ended = new Promise<void>((resolve) => child.once('close', () => resolve()));
  await new Promise<void>((resolve) => {
    child.stdout.setEncoding('utf8').on('data', (text: string) => {
      said += text;
      if (said.includes('ready\n')) resolve();
    });
    child.once('close', () => resolve());
  });
  const send = ['perl', PROGRAM, 'send', toIp, String(PORT), fromIp, String(TIMES)];
  await onOk(from.host, 'nsenter', `--net=${from.sandbox}`, ...send);
  await ended;
  return Number(said.split('\n')[1]);
}
