import { existsSync, mkdirSync, readdirSync, readFileSync, renameSync, rmSync, statSync } from 'node:fs';
import { copyFile, mkdtemp } from 'node:fs/promises';
import { basename, dirname, join } from 'node:path';
import { fileURLToPath } from 'node:url';
import { type BuildOptions, build, type Plugin } from 'esbuild';
import protobuf from 'protobufjs';
import { buildDatapath } from './build-datapath.ts';
import { genIsOld } from './gen-source.ts';

/**
 * Bundles into dist/: the CLI (weft.mjs and chunks that it loads when a command needs them), the agent and the coordinator (one
 * self-contained file each), scripts of the lab and of the agent, and the kernel side of the datapath. Files are put in place one by one by rename, entries last: a running
 * `weft` never sees half a build.
 */
const ROOT = fileURLToPath(new URL('..', import.meta.url));
const DIST = join(ROOT, 'dist');
const DAY_MS = 86_400_000;

/** Bundled CommonJS packages still call require() for node's modules. */
const BANNER = [
  `import { createRequire as __createRequire } from 'node:module';`,
  `import { fileURLToPath as __fileURLToPath } from 'node:url';`,
  `const require = __createRequire(import.meta.url);`,
  `const __filename = __fileURLToPath(import.meta.url);`,
  `const __dirname = __filename.slice(0, __filename.lastIndexOf('/'));`,
].join('');

/** Packages that read a .proto beside themselves when they are loaded: the bundle carries its content instead. */
const PROTO_READERS: readonly { file: RegExp; call: string; proto: string; keepCase: boolean }[] = [
  {
    file: /etcd3\/lib\/connection-pool\.js$/,
    call: '(0, proto_loader_1.loadSync)(`$' + '{__dirname}/../proto/rpc.proto`,',
    proto: '../proto/rpc.proto',
    keepCase: true,
  },
  {
    file: /grpc-health-check\/build\/src\/health\.js$/,
    call: `(0, proto_loader_1.loadSync)('health/v1/health.proto',`,
    proto: '../../proto/health/v1/health.proto',
    keepCase: true,
  },
  ...['v1', 'v1alpha'].map((version) => ({
    file: new RegExp(`reflection/build/src/implementations/reflection-${version}\\.js$`),
    call: 'protoLoader.loadSync(protoPath,',
    proto: `../../proto/grpc/reflection/${version}/reflection.proto`,
    keepCase: false,
  })),
];

const inlineProtos: Plugin = {
  name: 'inline-protos',
  setup(building) {
    for (const reader of PROTO_READERS) {
      building.onLoad({ filter: reader.file }, ({ path }) => {
        const source = readFileSync(path, 'utf8');
        if (!source.includes(reader.call))
          throw new Error(`${path} no longer loads its proto as scripts/build.ts knows it`);
        const root = new protobuf.Root();
        root.loadSync(join(dirname(path), reader.proto), { keepCase: reader.keepCase });
        const fromJson = reader.call
          .replace('loadSync', 'fromJSON')
          .replace(/\([^(]*$/, `(${JSON.stringify(root.toJSON())},`);
        return { contents: source.replace(reader.call, () => fromJson), loader: 'js' };
      });
    }
  },
};

/**
 * What dockerode loads at its start for uses that Weft does not make of it (ssh:// and its ciphers, attaching to containers, image
 * builds): left out, for a third of a bundle and of its start-up.
 */
const UNUSED: readonly { importer: RegExp; module: RegExp }[] = [
  { importer: /docker-modem\/lib\/modem\.js$/, module: /^\.\/(ssh|http_duplex)$/ },
  { importer: /dockerode\/lib\/docker\.js$/, module: /^\.\/(session|buildkit)$/ },
  { importer: /dockerode\/lib\/util\.js$/, module: /^(tar-fs|@balena\/dockerignore)$/ },
];

const leaveOut: Plugin = {
  name: 'leave-out',
  setup(building) {
    for (const { importer, module } of UNUSED)
      building.onResolve({ filter: module }, (asked) =>
        importer.test(asked.importer) ? { path: asked.path, namespace: 'left-out' } : undefined,
      );
    building.onLoad({ filter: /.*/, namespace: 'left-out' }, ({ path }) => ({
      contents: `module.exports = () => { throw new Error(${JSON.stringify(`${path} is not in this bundle`)}); };`,
    }));
  },
};

const COMMON: BuildOptions = {
  absWorkingDir: ROOT,
  bundle: true,
  platform: 'node',
  target: 'node24',
  format: 'esm',
  outExtension: { '.js': '.mjs' },
  banner: { js: BANNER },
  plugins: [inlineProtos, leaveOut],
  legalComments: 'none',
  sourcemap: 'linked',
  sourcesContent: false,
  minifySyntax: true,
  logLevel: 'warning',
};

const single = (entry: string, name: string, out: string): Promise<unknown>[] =>
  existsSync(join(ROOT, entry)) ? [build({ ...COMMON, entryPoints: { [name]: entry }, outdir: out })] : [];

// gen/ is made from proto/ and not in the repository.
if (genIsOld(ROOT)) await import('./gen.ts');
await buildDatapath(process.env['WEFT_REQUIRE_BPF'] === '1');
mkdirSync(DIST, { recursive: true });
const out = await mkdtemp(join(DIST, '.build-'));
try {
  await Promise.all([
    build({
      ...COMMON,
      entryPoints: { weft: 'cli/main.ts' },
      outdir: out,
      splitting: true,
      // Beside the entry: chunks find the daemons and the lab's files by relative path, as the entry does.
      chunkNames: 'chunk-[name]-[hash]',
      // Daemons are bundles of their own, which the CLI loads by path.
      external: ['./weft-agent.mjs', './weft-coordinator.mjs'],
    }),
    ...single('agent/main.ts', 'weft-agent', out),
    ...single('coordinator/main.ts', 'weft-coordinator', out),
  ]);
  mkdirSync(join(out, 'lab'));
  for (const script of ['anchor.pl', 'docker-root.pl', 'exec.pl'])
    await copyFile(join(ROOT, 'cli/lab', script), join(out, 'lab', script));
  mkdirSync(join(out, 'probe'));
  for (const program of ['checksum.pl', 'tunnel.pl'])
    await copyFile(join(ROOT, 'agent/probe', program), join(out, 'probe', program));
  publish(out);
} finally {
  rmSync(out, { recursive: true, force: true });
}

/** Moves the files into dist/, those that others name last; forgets chunks of builds that nobody can be running any more. */
function publish(from: string): void {
  const files = readdirSync(from, { recursive: true, encoding: 'utf8' }).filter((file) =>
    statSync(join(from, file)).isFile(),
  );
  const isEntry = (file: string): boolean => /^weft[^/]*\.mjs$/.test(file);
  for (const file of files.toSorted((a, b) => Number(isEntry(a)) - Number(isEntry(b)))) {
    mkdirSync(dirname(join(DIST, file)), { recursive: true });
    renameSync(join(from, file), join(DIST, file));
  }
  const fresh = new Set(files.map((file) => basename(file)));
  for (const file of readdirSync(DIST)) {
    const path = join(DIST, file);
    if (!fresh.has(file) && file.startsWith('chunk-') && Date.now() - statSync(path).mtimeMs > DAY_MS) rmSync(path);
  }
}
