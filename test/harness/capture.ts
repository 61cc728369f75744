/** Frames seen by tcpdump(8) on a device of a lab host. */
import { spawn } from 'node:child_process';
import { createInterface } from 'node:readline';
import { fileURLToPath } from 'node:url';

const WEFT = fileURLToPath(new URL('../../bin/weft', import.meta.url));

export interface Capture {
  /** Once it sees frames; rejects with what tcpdump says. */
  readonly ready: Promise<void>;
  /** Frames so far. */
  seen(): number;
  /** @returns how many frames there were. */
  stop(): Promise<number>;
}

export function capture(host: string, device: string, filter: string): Capture {
  const options = ['-nn', '-l', '-q', '--immediate-mode'];
  const child = spawn(WEFT, ['lab', 'exec', host, 'tcpdump', '-i', device, ...options, filter], {
    stdio: ['ignore', 'pipe', 'pipe'],
  });
  let lines = 0;
  let errors = '';
  const ready = new Promise<void>((resolve, reject) => {
    child.stderr.setEncoding('utf8').on('data', (text: string) => {
      errors += text;
      if (errors.includes('listening on')) resolve();
    });
    child.on('close', () => reject(new Error(`tcpdump: ${errors}`)));
  });
  ready.catch(() => undefined);
  // It ends with an empty line.
  createInterface({ input: child.stdout }).on('line', (line) => {
    if (line !== '') lines++;
  });
  return {
    ready,
    seen: () => lines,
    stop: () =>
      new Promise((resolve) => {
        child.on('close', () => resolve(lines));
        child.kill('SIGINT');
      }),
  };
}
