import { createHash } from 'node:crypto';
import { existsSync, mkdirSync, readdirSync, readFileSync, renameSync, rmSync, writeFileSync } from 'node:fs';
import { chmod, cp, mkdir, mkdtemp, rename, rm, symlink } from 'node:fs/promises';
import { join } from 'node:path';
import { fileURLToPath } from 'node:url';
import { installPackages, type Need, takeLock } from '../cli/lab/packages.ts';
import { run } from '../cli/lab/run.ts';
import { removeTree } from '../cli/lab/trees.ts';
import { DEBOOTSTRAP_NEEDS, makeDebian, mirror } from './debootstrap.ts';
import { ROOT } from './steps.ts';

/**
 * The image weft/workloads:1: Spark of PyPI, HDFS and Cassandra of Maven's archive, on a Debian 12 with Java; no registry of
 * images has a part in it. Made once, as a tar for `docker import`; what was loaded is kept beside it for the next time.
 */
export const WORKLOADS_IMAGE = 'weft/workloads:1';
const CACHE = '/var/cache/weft-workloads';
const FILES = join(ROOT, 'test/workloads/image');
const SUITE = 'bookworm';
const PACKAGES = ['openjdk-17-jre-headless', 'python3', 'iproute2', 'iputils-ping', 'procps'] as const;
const SPARK = '3.5.9';
const DRIVER = 'cassandra-driver==3.30.1';
const LOAD_MS = 15 * 60_000;

const NEEDS: readonly Need[] = [
  ...DEBOOTSTRAP_NEEDS,
  { name: 'maven', files: ['mvn'] },
  { name: 'openjdk-17-jre-headless', files: ['java'] },
  { name: 'python3-pip', files: ['/usr/lib/python3/dist-packages/pip'] },
];

/** Not needed by what the tests run: 200 MB. */
const LEFT_OUT = {
  spark:
    /^(rocksdbjni|breeze|spire|mesos|kubernetes|spark-(kubernetes|mesos|mllib|graphx|hive|connect)|hive-|datanucleus|derby|JTransforms|algebra|cats|tink|okhttp|lapack|blas|arpack|netlib)/,
  cassandra: /(osx|windows|aarch_64|riscv64).*\.jar$/,
  hadoop: /^(junit|hamcrest)/,
} as const;
const LEFT_OUT_OF_DEBIAN = ['usr/share/doc', 'usr/share/man', 'usr/share/locale', 'usr/share/info', 'var/log'] as const;

/** What `docker import` is told of the image. */
export const IMPORT_CHANGES: readonly string[] = [
  'ENTRYPOINT ["/opt/bin/start"]',
  'ENV PATH=/opt/spark/bin:/opt/bin:/usr/bin:/bin SPARK_HOME=/opt/spark PYTHONPATH=/opt/python',
  'WORKDIR /tmp',
];

/** Makes the image unless there is one of this recipe. @returns the tar. @throws UNAVAILABLE, INTERNAL when a part of it fails */
export async function ensureWorkloadsImage(say: (line: string) => void): Promise<string> {
  const tar = `${CACHE}/image-${imageKey()}.tar`;
  if (existsSync(tar)) return tar;
  await installPackages(say, NEEDS);
  mkdirSync(CACHE, { recursive: true });
  const lock = await takeLock(`${CACHE}/lock`);
  try {
    if (existsSync(tar)) return tar;
    for (const old of readdirSync(CACHE)) {
      if (/^(image|work)-/.test(old)) rmSync(`${CACHE}/${old}`, { recursive: true });
    }
    const work = await mkdtemp(`${CACHE}/work-`);
    try {
      const base = await ensureDebian(say);
      await addSpark(work, say);
      await addCassandra(work, say);
      await addHadoop(work, say);
      await addPrograms(work);
      say('packing');
      await pack(base, work, tar);
    } finally {
      await rm(work, { recursive: true, force: true });
    }
    return tar;
  } finally {
    await lock.release();
  }
}

/** Of what the image is made by: this file, and those that go into it. */
function imageKey(): string {
  const hash = createHash('sha256').update(readFileSync(fileURLToPath(import.meta.url)));
  for (const name of readdirSync(FILES, { recursive: true, encoding: 'utf8' }).toSorted()) {
    if (/\.\w+$/.test(name)) hash.update(`${name}\n`).update(readFileSync(join(FILES, name)));
  }
  return hash.digest('hex').slice(0, 12);
}

async function ensureDebian(say: (line: string) => void): Promise<string> {
  const dir = `${CACHE}/${SUITE}`;
  const marker = `${dir}.complete`;
  const wanted = PACKAGES.join(' ');
  if (existsSync(marker) && readFileSync(marker, 'utf8') === wanted) return dir;
  say(`Debian ${SUITE} with Java, from ${mirror()}`);
  rmSync(marker, { force: true });
  mkdirSync(`${CACHE}/debs`, { recursive: true });
  const part = `${dir}.part`;
  try {
    await makeDebian(part, { suite: SUITE, packages: PACKAGES, cache: `${CACHE}/debs` });
    await removeTree(dir);
    renameSync(part, dir);
  } finally {
    await removeTree(part);
  }
  writeFileSync(marker, wanted);
  return dir;
}

/** Programs that load from the net do as this machine is set up (proxies, mirrors, certificates). */
const load = (program: string, ...args: string[]): Promise<string> =>
  run(program, args, { timeout: LOAD_MS, env: process.env });

const wheels = `${CACHE}/wheels`;
const pip = (...args: string[]): Promise<string> => load('/usr/bin/python3', '-m', 'pip', '-q', ...args);

/** PyPI's package holds a whole Spark, but for the scripts that start daemons in the background. */
async function addSpark(work: string, say: (line: string) => void): Promise<void> {
  const archive = `${wheels}/pyspark-${SPARK}.tar.gz`;
  if (!existsSync(archive)) {
    say(`Spark ${SPARK}, from PyPI`);
    await pip('download', '--no-deps', '-d', wheels, `pyspark==${SPARK}`);
  }
  const to = `${work}/opt/spark`;
  await mkdir(`${work}/unpacked`);
  await mkdir(`${to}/python`, { recursive: true });
  await run('tar', ['-xzf', archive, '-C', `${work}/unpacked`, '--strip-components=1'], { timeout: LOAD_MS });
  for (const part of ['bin', 'sbin', 'jars']) await rename(`${work}/unpacked/deps/${part}`, `${to}/${part}`);
  await leaveOut(`${to}/jars`, LEFT_OUT.spark);
  await rename(`${work}/unpacked/lib`, `${to}/python/lib`);
  await rename(`${work}/unpacked/pyspark`, `${to}/python/pyspark`);
  writeFileSync(`${to}/RELEASE`, `Spark ${SPARK}\n`);
  await rm(`${work}/unpacked`, { recursive: true });
}

async function addCassandra(work: string, say: (line: string) => void): Promise<void> {
  await addJars(work, 'cassandra', say);
  await mkdir(`${work}/opt/cassandra/conf`, { recursive: true });
  for (const name of ['logback.xml', 'logback-tools.xml']) {
    await cp(`${FILES}/cassandra/${name}`, `${work}/opt/cassandra/conf/${name}`);
  }
  await cp(`${FILES}/cassandra/cassandra.yaml`, `${work}/opt/cassandra/conf/cassandra.yaml.in`);
  const python = `${work}/opt/python`;
  if (!existsSync(wheels) || !readdirSync(wheels).some((name) => name.startsWith('cassandra_driver'))) {
    say(`${DRIVER}, from PyPI`);
    await pip('download', '--only-binary=:all:', '-d', wheels, DRIVER);
  }
  await pip('install', '--no-index', '--find-links', wheels, '--no-compile', '-t', python, DRIVER);
}

async function addHadoop(work: string, say: (line: string) => void): Promise<void> {
  await addJars(work, 'hadoop', say);
  await mkdir(`${work}/opt/hadoop/etc/hadoop`, { recursive: true });
  await cp(`${FILES}/hadoop/log4j.properties`, `${work}/opt/hadoop/etc/hadoop/log4j.properties`);
}

async function addJars(work: string, name: 'cassandra' | 'hadoop', say: (line: string) => void): Promise<void> {
  say(`${name} and what it needs, from Maven’s archive`);
  const lib = `${work}/opt/${name}/lib`;
  const flags = ['-B', '-q', '-f', `${FILES}/${name}/pom.xml`, `-Dmaven.repo.local=${CACHE}/m2`];
  await load('mvn', ...flags, 'dependency:copy-dependencies', `-DoutputDirectory=${lib}`, '-DincludeScope=runtime');
  await leaveOut(lib, LEFT_OUT[name]);
}

async function leaveOut(dir: string, names: RegExp): Promise<void> {
  for (const name of readdirSync(dir)) if (names.test(name)) await rm(`${dir}/${name}`);
}

async function addPrograms(work: string): Promise<void> {
  const bin = `${work}/opt/bin`;
  await mkdir(bin, { recursive: true });
  await cp(`${FILES}/programs.py`, `${bin}/programs.py`);
  await chmod(`${bin}/programs.py`, 0o755);
  for (const name of ['start', 'hdfs', 'cassandra', 'nodetool']) await symlink('programs.py', `${bin}/${name}`);
}

/** All of ours is below /opt, and Debian has nothing there: Docker takes no tar that names a directory twice. */
async function pack(base: string, work: string, tar: string): Promise<void> {
  const part = `${work}.tar`;
  const without = ['./opt', ...LEFT_OUT_OF_DEBIAN.map((path) => `./${path}/*`)].map((path) => `--exclude=${path}`);
  await run('tar', ['--numeric-owner', '-cf', part, ...without, '-C', base, '.'], { timeout: LOAD_MS });
  const owner = ['--owner=0', '--group=0', '--numeric-owner'];
  await run('tar', [...owner, '-rf', part, '-C', work, './opt'], { timeout: LOAD_MS });
  renameSync(part, tar);
}
