/** The weft command. */
import { enableCompileCache } from 'node:module';
import { homedir } from 'node:os';
import { text } from 'node:stream/consumers';
import { run } from './program.ts';

enableCompileCache();

const interrupted = new AbortController();
let caught = false;
function signal(): AbortSignal {
  if (caught) return interrupted.signal;
  caught = true;
  // Once: a second one is for whoever cannot wait.
  process.once('SIGINT', () => interrupted.abort());
  process.once('SIGTERM', () => interrupted.abort());
  return interrupted.signal;
}

// The reader has gone (weft events | head): nothing is left to do.
process.stdout.on('error', () => process.exit(0));

const code = await run(process.argv.slice(2), {
  env: process.env,
  home: homedir(),
  out: (line) => void process.stdout.write(line),
  err: (line) => void process.stderr.write(line),
  stdin: () => text(process.stdin),
  signal,
  setExit: () => {},
});
if (code !== 0) process.exitCode = code;
