/**
 * From a fresh clone to three Docker hosts whose containers work together: installs what is missing, builds, brings the mesh up,
 * starts a container on each host by plain `docker run`, and moves real data between all of them. May be run again; leaves it up.
 */
import { spawn } from 'node:child_process';
import { fileURLToPath } from 'node:url';
import { installPackages } from '../cli/lab/packages.ts';
import { WeftError } from '../lib/errors.ts';

const ROOT = fileURLToPath(new URL('..', import.meta.url));
const WEFT = `${ROOT}bin/weft`;
const NETWORK = 'quickstart';
const IMAGE = 'weft/lab:1';
const HOSTS = ['h1', 'h2', 'h3'];
const MEGABYTES = 200;

interface Box {
  readonly host: string;
  readonly container: string;
  readonly ip: string;
}

const say = (line: string): void => {
  process.stdout.write(`${line}\n`);
};

/** Runs a program to its end. @throws with what it said when it fails. */
function run(program: string, args: readonly string[], show = false): Promise<string> {
  return new Promise((resolve, reject) => {
    const child = spawn(program, args, { cwd: ROOT, stdio: ['ignore', 'pipe', show ? 'inherit' : 'pipe'] });
    let out = '';
    let errors = '';
    child.stdout?.on('data', (part: Buffer) => {
      out += part.toString();
    });
    child.stderr?.on('data', (part: Buffer) => {
      errors += part.toString();
    });
    child.on('error', reject);
    child.on('close', (code) => {
      if (code === 0) resolve(out.trim());
      else
        reject(
          new WeftError(
            'INTERNAL',
            `${program} ${args.join(' ')} ended with status ${code}: ${errors.trim() || out.trim()}`,
          ),
        );
    });
  });
}

const weft = (...args: string[]): Promise<string> => run(WEFT, args);
const docker = (host: string, ...args: string[]): Promise<string> => weft('lab', 'exec', host, 'docker', ...args);

/** Names what is being done, and how long it took. */
async function phase<T>(name: string, work: () => Promise<T>): Promise<T> {
  const started = performance.now();
  const result = await work();
  say(`${name.padEnd(52)} ${((performance.now() - started) / 1000).toFixed(1).padStart(6)} s`);
  return result;
}

const attempt = (work: Promise<unknown>): Promise<boolean> =>
  work.then(
    () => true,
    () => false,
  );

/** A container that serves 200 MB of random bytes over HTTP, as anybody would start it. */
async function start(host: string): Promise<Box> {
  const container = `quick-${host}`;
  await attempt(docker(host, 'rm', '-f', container));
  const serve = `mkdir /www && head -c ${MEGABYTES * 1024 * 1024} /dev/urandom > /www/data && exec httpd -f -h /www`;
  await docker(host, 'run', '-d', '--name', container, '--network', NETWORK, IMAGE, 'sh', '-c', serve);
  const ip = await docker(host, 'inspect', '-f', `{{.NetworkSettings.Networks.${NETWORK}.IPAddress}}`, container);
  return { host, container, ip };
}

/** Fetches the other's bytes. @returns megabits per second. @throws when the checksums differ. */
async function transfer(to: Box, from: Box): Promise<number> {
  const served = 'test -s /www/data && wget -q --spider http://127.0.0.1/data && sha256sum < /www/data';
  const want = await docker(from.host, 'exec', from.container, 'sh', '-c', `until ${served}; do sleep 0.1; done`);
  const started = performance.now();
  await docker(to.host, 'exec', to.container, 'wget', '-q', '-O', '/got', `http://${from.ip}/data`);
  const seconds = (performance.now() - started) / 1000;
  const got = await docker(to.host, 'exec', to.container, 'sh', '-c', 'sha256sum < /got && rm /got');
  if (got !== want)
    throw new WeftError('INTERNAL', `${to.container} received other bytes than ${from.container} sent.`);
  return (MEGABYTES * 8 * 1.048576) / seconds;
}

function table(rows: readonly (readonly string[])[]): void {
  const widths = (rows[0] ?? []).map((_, i) => Math.max(...rows.map((r) => (r[i] ?? '').length)));
  for (const row of rows)
    say(
      row
        .map((cell, i) => cell.padEnd(widths[i] ?? 0))
        .join('   ')
        .trimEnd(),
    );
}

async function tour(): Promise<void> {
  await phase('Debian packages', () => installPackages((line) => process.stderr.write(`  ${line}\n`)));
  await phase('build', () => run(process.execPath, [`${ROOT}scripts/build.ts`], true));
  await phase('etcd, a coordinator, three Docker hosts', () => run(WEFT, ['lab', 'up', '--hosts', '3'], true));
  if (!(await attempt(weft('network', 'inspect', NETWORK))))
    await phase(`weft network create ${NETWORK}`, () => weft('network', 'create', NETWORK));
  const boxes = await phase('docker run --network quickstart, on each host', () => Promise.all(HOSTS.map(start)));
  const reached = await phase('ping between all of them', () =>
    Promise.all(
      boxes.map(async (a) => {
        const others = boxes.filter((b) => b !== a);
        const ping = (b: Box) => docker(a.host, 'exec', a.container, 'ping', '-c', '2', '-i', '0.2', '-W', '1', b.ip);
        const ok = await Promise.all(others.map((b) => attempt(ping(b))));
        return others.filter((_, i) => ok[i]).map((b) => b.container);
      }),
    ),
  );
  const rates = await phase(`${MEGABYTES} MB over TCP, with checksums`, async () => {
    const out: number[] = [];
    for (const [i, to] of boxes.entries()) out.push(await transfer(to, boxes[(i + 1) % boxes.length] ?? to));
    return out;
  });
  say('');
  table([
    ['HOST', 'CONTAINER', 'ADDRESS', 'REACHES', 'RECEIVED'],
    ...boxes.map((b, i) => [
      b.host,
      b.container,
      b.ip,
      reached[i]?.join(', ') ?? '',
      `${MEGABYTES} MB from ${boxes[(i + 1) % boxes.length]?.container} at ${Math.round(rates[i] ?? 0)} Mbit/s, checksum right`,
    ]),
  ]);
  if (reached.some((r) => r.length !== boxes.length - 1))
    throw new WeftError('INTERNAL', 'Not every container reaches every other.');
  say(`
The mesh stays up. Go on:
  bin/weft network ls                     the networks, on every host also in \`docker network ls\`
  bin/weft endpoint ls                    every container of the mesh
  bin/weft lab exec h1 docker run --rm --network ${NETWORK} ${IMAGE} ping -c 3 ${boxes[2]?.ip}
  bin/weft audit                          is everything as it should be?
  bin/weft lab down                       remove everything again`);
}

try {
  await tour();
} catch (thrown) {
  const error = WeftError.from(thrown);
  process.stderr.write(`\nquickstart: ${error.message}\n${error.hint === null ? '' : `${error.hint}\n`}`);
  process.exitCode = 1;
}
