import { execFileSync } from 'node:child_process';
import { chmodSync, copyFileSync, cpSync, mkdirSync, mkdtempSync, readFileSync, renameSync, rmSync } from 'node:fs';
import { join } from 'node:path';
import { fileURLToPath } from 'node:url';
import { build } from 'esbuild';

/**
 * dist/weft-VERSION-linux-ARCH.tar.gz: all that a real host needs, built anew. One self-contained file per
 * program, Node itself, units, sample configuration, `install`. Nothing of it needs npm, or the internet, on the host.
 */
const ROOT = fileURLToPath(new URL('..', import.meta.url));
const DIST = join(ROOT, 'dist');
const { version } = JSON.parse(readFileSync(join(ROOT, 'package.json'), 'utf8')) as { version: string };
const name = `weft-${version}-linux-${process.arch}`;

/** Bundled CommonJS packages still call require() for node's modules. */
const BANNER = `import { createRequire } from 'node:module';const require = createRequire(import.meta.url);`;

// A package without the kernel side would leave hosts without the openvswitch module with the slow way, and say so only there.
execFileSync(process.execPath, [join(ROOT, 'scripts/build.ts')], {
  stdio: 'inherit',
  env: { ...process.env, WEFT_REQUIRE_BPF: '1' },
});
const work = mkdtempSync(join(DIST, '.package-'));
try {
  const out = join(work, name);
  for (const dir of ['bin', 'dist', 'etc', 'systemd', 'doc']) mkdirSync(join(out, dir), { recursive: true });
  const bundle = (entry: string, file: string, banner = ''): Promise<unknown> =>
    build({
      absWorkingDir: ROOT,
      entryPoints: [entry],
      outfile: join(out, file),
      bundle: true,
      platform: 'node',
      target: 'node24',
      format: 'esm',
      external: ['*.node', 'cpu-features', './weft-agent.mjs', './weft-coordinator.mjs'],
      banner: { js: banner },
      legalComments: 'none',
      logLevel: 'error',
    });
  // The CLI is built in chunks for a fast start from a clone; here its chunks become one file again.
  await Promise.all([bundle(join(DIST, 'weft.mjs'), 'dist/weft.mjs'), bundle('deploy/main.ts', 'install.mjs', BANNER)]);
  for (const daemon of ['weft-agent.mjs', 'weft-coordinator.mjs'])
    copyFileSync(join(DIST, daemon), join(out, 'dist', daemon));
  for (const scripts of ['lab', 'probe']) cpSync(join(DIST, scripts), join(out, 'dist', scripts), { recursive: true });
  mkdirSync(join(out, 'dist/datapath'));
  for (const file of ['weft-bpf', 'weft.bpf.o', 'services.bpf.o'])
    copyFileSync(join(DIST, 'datapath', file), join(out, 'dist/datapath', file));
  copyFileSync(join(ROOT, 'node_modules/node/bin/node'), join(out, 'bin/node'));
  copyFileSync(join(ROOT, 'deploy/launcher'), join(out, 'bin/weft'));
  for (const script of ['install', 'uninstall']) copyFileSync(join(ROOT, 'deploy', script), join(out, script));
  for (const file of ['bin/node', 'bin/weft', 'dist/datapath/weft-bpf', 'install', 'uninstall'])
    chmodSync(join(out, file), 0o755);
  for (const sample of ['agent.yaml', 'coordinator.yaml', 'daemon.json'])
    copyFileSync(join(ROOT, 'deploy', sample), join(out, 'etc', sample));
  cpSync(join(ROOT, 'deploy/systemd'), join(out, 'systemd'), { recursive: true });
  for (const file of ['LICENSE', 'README.md']) copyFileSync(join(ROOT, file), join(out, 'doc', file));
  cpSync(join(ROOT, 'docs'), join(out, 'doc'), { recursive: true });

  const archive = join(work, `${name}.tar.gz`);
  const owner = ['--owner=0', '--group=0', '--numeric-owner', '--sort=name'];
  execFileSync('tar', ['-C', work, ...owner, '-czf', archive, name], { stdio: 'inherit' });
  renameSync(archive, join(DIST, `${name}.tar.gz`));
  process.stdout.write(`dist/${name}.tar.gz\n`);
} finally {
  rmSync(work, { recursive: true, force: true });
}
