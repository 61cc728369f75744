/** Compiles the kernel side (datapath/) into dist/datapath: the programs, and the helper that loads them. Needs clang and headers. */
import { existsSync, mkdirSync, mkdtempSync, readdirSync, renameSync, rmSync, statSync } from 'node:fs';
import { join } from 'node:path';
import { missingPackages, type Need } from '../cli/lab/packages.ts';
import { ROOT, runProgram } from './steps.ts';

const SOURCES = join(ROOT, 'datapath');
const OUT = join(ROOT, 'dist/datapath');
/** What is built, of sources of the same names. */
const OBJECTS = ['weft.bpf.o', 'services.bpf.o'];
const HELPER = 'weft-bpf';
/** Debian's multiarch folder: kernel headers and static libraries are in it. */
const TRIPLET = process.arch === 'arm64' ? 'aarch64-linux-gnu' : 'x86_64-linux-gnu';
const LIBRARIES = `/usr/lib/${TRIPLET}`;

const NEEDS: readonly Need[] = [
  { name: 'clang', files: ['clang'] },
  { name: 'libbpf-dev', files: ['/usr/include/bpf/bpf_helpers.h', `${LIBRARIES}/libbpf.a`] },
  { name: 'libelf-dev', files: [`${LIBRARIES}/libelf.a`] },
  { name: 'zlib1g-dev', files: [`${LIBRARIES}/libz.a`] },
  { name: 'libc6-dev', files: ['/usr/include/stdio.h', `${LIBRARIES}/libc.a`] },
  { name: 'linux-libc-dev', files: ['/usr/include/linux/bpf.h'] },
];

const WARNINGS = ['-O2', '-Wall', '-Wextra', '-Wno-unused-parameter'];

/** Arguments of clang for an object of eBPF programs. */
function programArguments(source: string, out: string): string[] {
  const target = ['-g', '-target', 'bpf', '-mcpu=v3', `-I/usr/include/${TRIPLET}`];
  return [...WARNINGS, ...target, '-c', source, '-o', out];
}

/** Debian 13's libelf reads compressed sections by zstd. */
function helperArguments(out: string): string[] {
  const zstd = existsSync(`${LIBRARIES}/libzstd.a`) ? ['-lzstd'] : [];
  const sources = readdirSync(SOURCES)
    .filter((file) => file.endsWith('.c') && !file.endsWith('.bpf.c'))
    .map((file) => join(SOURCES, file));
  return [...WARNINGS, '-static', ...sources, '-o', out, '-lbpf', '-lelf', '-lz', ...zstd];
}

/**
 * @param require without clang: an error, and not just a line that says so.
 * @throws when it does not compile, or cannot be compiled though it is required.
 */
export async function buildDatapath(require: boolean): Promise<void> {
  const changed = Math.max(...readdirSync(SOURCES).map((file) => statSync(join(SOURCES, file)).mtimeMs));
  const current = (file: string): boolean => existsSync(join(OUT, file)) && statSync(join(OUT, file)).mtimeMs > changed;
  if ([...OBJECTS, HELPER].every(current)) return;
  const missing = missingPackages(NEEDS);
  if (missing.length > 0) {
    const what = `the kernel side is not built: packages are missing, install them by: apt-get install ${missing.join(' ')}`;
    if (require) throw new Error(what);
    process.stderr.write(`build: ${what}\n`);
    return;
  }
  mkdirSync(OUT, { recursive: true });
  const work = mkdtempSync(join(OUT, '.build-'));
  try {
    const ended = await Promise.all([
      ...OBJECTS.map((object) => {
        const source = join(SOURCES, object.replace(/o$/, 'c'));
        return runProgram('clang', programArguments(source, join(work, object)), { show: false });
      }),
      runProgram('clang', helperArguments(join(work, HELPER)), { show: false }),
    ]);
    for (const { status, output } of ended) if (status !== 0) throw new Error(`clang failed: ${output}`);
    for (const file of [...OBJECTS, HELPER]) renameSync(join(work, file), join(OUT, file));
  } finally {
    rmSync(work, { recursive: true, force: true });
  }
}
