import { spawn } from 'node:child_process';
import { fileURLToPath } from 'node:url';
import { installPackages } from '../cli/lab/packages.ts';
import { WeftError } from '../lib/errors.ts';

/**
 * From a fresh clone to two containers on two hosts that talk: installs what is missing, builds, brings a lab of three hosts
 * up, makes a network, and lets a container on h2 fetch a page from one on h1. May be run again.
 */
const ROOT = fileURLToPath(new URL('..', import.meta.url));
const WEFT = `${ROOT}bin/weft`;
const NETWORK = 'quickstart';
const IMAGE = 'weft/lab:1';

interface Ended {
  readonly code: number;
  readonly out: string;
}

/** Runs a program; its stderr goes to ours. */
function run(program: string, args: readonly string[], show = false): Promise<Ended> {
  return new Promise((resolve, reject) => {
    const child = spawn(program, args, { cwd: ROOT, stdio: ['ignore', 'pipe', show ? 'inherit' : 'ignore'] });
    let out = '';
    child.stdout.on('data', (part) => {
      out += String(part);
      if (show) process.stdout.write(part);
    });
    child.on('error', reject);
    child.on('close', (code) => resolve({ code: code ?? 1, out: out.trim() }));
  });
}

/** A step of the tour: the command as one would type it, what it prints, and an end if it fails. */
async function step(...words: string[]): Promise<string> {
  const shown = words.map((word) => (/[^\w@%+=:,./-]/.test(word) ? `'${word}'` : word)).join(' ');
  process.stdout.write(`\n$ weft ${shown}\n`);
  const { code, out } = await run(WEFT, words, true);
  if (code !== 0) throw new WeftError('INTERNAL', `weft ${shown} ended with status ${code}.`);
  return out;
}

const on = (host: string, ...words: string[]): Promise<string> => step('lab', 'exec', host, 'docker', ...words);

async function tour(): Promise<void> {
  await installPackages((line) => process.stderr.write(`install: ${line}\n`));
  const built = await run(process.execPath, [`${ROOT}scripts/build.ts`], true);
  if (built.code !== 0) throw new WeftError('INTERNAL', 'The build failed.');
  await step('lab', 'up', '--hosts', '3');
  // What an earlier run left.
  await run(WEFT, ['lab', 'exec', 'h1', 'docker', 'rm', '-f', 'web']);
  if ((await run(WEFT, ['network', 'inspect', NETWORK])).code !== 0) await step('network', 'create', NETWORK);
  await step('wait', '--network', NETWORK);
  const serve = 'mkdir -p /www; echo "Hello from $(hostname) on h1." > /www/index.html; exec httpd -f -h /www';
  await on('h1', 'run', '-d', '--name', 'web', '--network', NETWORK, IMAGE, 'sh', '-c', serve);
  const ip = await on('h1', 'inspect', '-f', `{{.NetworkSettings.Networks.${NETWORK}.IPAddress}}`, 'web');
  await on('h2', 'run', '--rm', '--network', NETWORK, IMAGE, 'ping', '-c', '3', ip);
  const page = await on('h3', 'run', '--rm', '--network', NETWORK, IMAGE, 'wget', '-qO-', `http://${ip}/`);
  if (!page.startsWith('Hello from')) throw new WeftError('INTERNAL', 'The page is not the one that is served.');
  await step('status');
  process.stdout.write(
    '\nIt works. Go on:  bin/weft lab exec h1 sh   ·   bin/weft network ls   ·   bin/weft audit\nClean up:         bin/weft lab down\n',
  );
}

try {
  await tour();
} catch (thrown) {
  const error = WeftError.from(thrown);
  process.stderr.write(`\nquickstart: ${error.message}\n${error.hint === null ? '' : `${error.hint}\n`}`);
  process.exitCode = 1;
}
