import { createHash } from 'node:crypto';
import { existsSync, readdirSync, realpathSync, statSync } from 'node:fs';
import { chmod, copyFile, mkdir, mkdtemp, rename, rm, symlink, writeFile } from 'node:fs/promises';
import { dirname } from 'node:path';
import { WeftError } from '../../lib/errors.ts';
import { startAnchor } from './anchor.ts';
import { dockerdAnswers, startDockerd } from './dockerd.ts';
import { deleteNetns } from './netns.ts';
import { takeLock, which } from './packages.ts';
import { CACHE_ROOT, labPaths, nodePaths } from './paths.ts';
import { powerOff } from './power.ts';
import { signalAll, waitGone } from './procs.ts';
import { run } from './run.ts';

/**
 * The image `weft/lab:1`, made without a registry from programs of this machine, imported once into a golden dockerd and
 * cloned to each host by hard links before its dockerd starts (0.2 s and no space, where an import takes seconds).
 */
export const IMAGE = 'weft/lab:1';
const RECIPE = 3;

/** Real programs in /usr/bin; busybox's applets fill /bin. dash is sh: busybox's own shell prefers its applets over PATH. */
const PROGRAMS = ['ping', 'arping', 'iperf3', 'nc.openbsd', 'dash', 'bash'] as const;
const REPLACED = new Set(['ping', 'ping6', 'arping', 'nc', 'sh', 'ash', 'bash', 'hush', 'busybox', 'init', 'linuxrc']);

/** netcat of OpenBSD has no -e, busybox's has hardly anything else: one name for both. */
const NC = `#!/bin/sh
for option; do
  case $option in -e | -le | -lle | -ll) exec busybox nc "$@" ;; esac
done
exec nc.openbsd "$@"
`;

/** Directory of the golden data root; builds it when there is none for these programs and this dockerd. */
export async function ensureImage(say: (line: string) => void): Promise<string> {
  const golden = `${CACHE_ROOT}/golden-${imageKey()}`;
  if (existsSync(golden)) return golden;
  await mkdir(CACHE_ROOT, { recursive: true });
  const lock = await takeLock(`${CACHE_ROOT}/lock`);
  try {
    if (existsSync(golden)) return golden;
    say(`building the image ${IMAGE} (once)`);
    for (const old of readdirSync(CACHE_ROOT)) {
      if (/^(golden|build)-/.test(old)) await rm(`${CACHE_ROOT}/${old}`, { recursive: true, force: true });
    }
    const work = await mkdtemp(`${CACHE_ROOT}/build-`);
    try {
      const tar = await makeRootfs(work);
      await importInto(`${work}/docker`, tar);
      await rename(await keepLayers(work), golden);
    } finally {
      await rm(work, { recursive: true, force: true });
    }
    return golden;
  } finally {
    await lock.release();
  }
}

function imageKey(): string {
  const hash = createHash('sha256').update(`${RECIPE}`);
  for (const program of ['dockerd', 'busybox', ...PROGRAMS]) {
    const { size, mtimeMs } = statSync(programPath(program));
    hash.update(`${program} ${size} ${mtimeMs}\n`);
  }
  return hash.digest('hex').slice(0, 12);
}

function programPath(program: string): string {
  const path = which(program);
  if (path === null) {
    throw new WeftError('FAILED_PRECONDITION', `The program ${program} is missing.`, {
      hint: 'node scripts/install.ts',
    });
  }
  return realpathSync(path);
}

async function makeRootfs(work: string): Promise<string> {
  const root = `${work}/rootfs`;
  for (const dir of ['bin', 'usr/bin', 'etc', 'root', 'proc', 'sys', 'dev', 'var/run', 'var/log', 'var/www', 'srv']) {
    await mkdir(`${root}/${dir}`, { recursive: true });
  }
  await mkdir(`${root}/tmp`);
  await chmod(`${root}/tmp`, 0o1777);
  const copy = async (from: string, to: string): Promise<void> => {
    await mkdir(dirname(`${root}${to}`), { recursive: true });
    await copyFile(from, `${root}${to}`);
  };
  await copy(programPath('busybox'), '/bin/busybox');
  for (const applet of (await run('busybox', ['--list'])).split('\n').filter(Boolean)) {
    if (!REPLACED.has(applet)) await symlink('/bin/busybox', `${root}/bin/${applet}`);
  }
  for (const program of PROGRAMS) {
    const path = programPath(program);
    await copy(path, `/usr/bin/${program}`);
    for (const library of await libraries(path)) await copy(library, library);
  }
  await writeFile(`${root}/usr/bin/nc`, NC, { mode: 0o755 });
  await symlink('/usr/bin/dash', `${root}/bin/sh`);
  await symlink('/usr/bin/bash', `${root}/bin/bash`);
  await writeFile(`${root}/etc/passwd`, 'root:x:0:0:root:/root:/bin/sh\nnobody:x:65534:65534:nobody:/:/bin/false\n');
  await writeFile(`${root}/etc/group`, 'root:x:0:\nnogroup:x:65534:\n');
  await writeFile(`${root}/etc/nsswitch.conf`, 'hosts: files dns\n');
  await run('tar', ['-C', root, '--owner=0', '--group=0', '--numeric-owner', '-cf', `${work}/rootfs.tar`, '.']);
  return `${work}/rootfs.tar`;
}

/** Shared libraries and the loader, by the paths that the program looks them up at. */
async function libraries(program: string): Promise<string[]> {
  const listed = await run('ldd', [program]);
  return [...listed.matchAll(/^\s*(?:\S+ => )?(\/\S+) \(0x/gm)].map((match) => match[1] as string);
}

/** A dockerd that runs for this only, in a namespace without a network. */
async function importInto(dataRoot: string, tar: string): Promise<void> {
  const lab = labPaths('_image');
  const node = { ...nodePaths('_image', 'golden'), state: dirname(dataRoot), log: dirname(dataRoot) };
  await powerOff(lab, 'golden');
  try {
    await run('ip', ['netns', 'add', node.netns]);
    await startAnchor('_image', node, []);
    const pid = await startDockerd(node, dataRoot);
    await dockerdAnswers(node, pid);
    const socket = `unix://${node.hostRun}/docker.sock`;
    await run('docker', ['-H', socket, 'import', '--change', 'CMD ["sh"]', tar, IMAGE], { timeout: 120_000 });
    signalAll([pid], 'SIGTERM');
    await waitGone([pid], 'the golden dockerd has ended', 30_000);
  } finally {
    await powerOff(lab, 'golden');
    await deleteNetns(node.netns);
    await rm(lab.run, { recursive: true, force: true });
  }
}

/** Of a data root, the image's records and layers; the rest is per daemon. */
async function keepLayers(work: string): Promise<string> {
  const drivers = readdirSync(`${work}/docker/image`);
  await mkdir(`${work}/golden`);
  for (const dir of ['image', ...drivers]) await rename(`${work}/docker/${dir}`, `${work}/golden/${dir}`);
  return `${work}/golden`;
}

/** Makes a host's data root with the image in it. Layers are only ever read, so they can be shared. */
export async function cloneImage(golden: string, dataRoot: string): Promise<void> {
  const part = `${dataRoot}.part`;
  await rm(part, { recursive: true, force: true });
  await mkdir(part, { recursive: true, mode: 0o711 });
  for (const dir of readdirSync(golden)) {
    const to = `${part}/${dir}`;
    if (dir === 'image') await run('cp', ['-a', `${golden}/${dir}`, to]);
    else await run('cp', ['-al', `${golden}/${dir}`, to]).catch(() => copyInstead(`${golden}/${dir}`, to));
  }
  await rename(part, dataRoot);
}

/** The cache is on another file system. */
async function copyInstead(from: string, to: string): Promise<void> {
  await rm(to, { recursive: true, force: true });
  await run('cp', ['-a', from, to], { timeout: 120_000 });
}
