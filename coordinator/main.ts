/** The coordinator daemon: reads its configuration and puts everything together. Nothing is decided here. */
import { randomBytes } from 'node:crypto';
import { readFile } from 'node:fs/promises';
import { parseArgs } from 'node:util';
import { COORDINATOR_CONFIG, type CoordinatorConfig, loadCoordinatorConfig } from '../lib/config.ts';
import { WeftError } from '../lib/errors.ts';
import { type Log, makeLog } from '../lib/log.ts';
import { addProcessMetrics, MetricsServer } from '../lib/metrics.ts';
import { Scope } from '../lib/scope.ts';
import { VERSION } from '../lib/version.ts';
import { Coordinator } from './coordinator.ts';
import { EmbeddedEtcd } from './embedded.ts';
import { Reaper } from './reaper.ts';
import { openStore } from './store/index.ts';
import { fromStore } from './wiring.ts';

const USAGE = 'weft coordinator [--config FILE] [--etcd URL,…|embedded] [--listen HOST:PORT]… [--name NAME]';
/** One part of stopping may take this long; all of it must fit into what systemd gives. */
const STOP_MS = 8000;

/** Flags as overrides of the configuration's keys. @throws INVALID_ARGUMENT */
export function parseFlags(argv: readonly string[]): { config: string | null; overrides: Record<string, unknown> } {
  const options = {
    config: { type: 'string' },
    etcd: { type: 'string' },
    listen: { type: 'string', multiple: true },
    name: { type: 'string' },
  } as const;
  try {
    const { values } = parseArgs({ args: [...argv], options, strict: true });
    const { config, etcd, listen, name } = values;
    const store = etcd === undefined || etcd === 'embedded' ? etcd : { endpoints: etcd.split(',') };
    const overrides = {
      ...(store === undefined ? {} : { etcd: store }),
      ...(listen === undefined ? {} : { listen }),
      ...(name === undefined ? {} : { name }),
    };
    return { config: config ?? null, overrides };
  } catch (error) {
    throw new WeftError('INVALID_ARGUMENT', `${(error as Error).message}.`, { hint: USAGE, cause: error });
  }
}

/**
 * Runs until SIGTERM or SIGINT; resolves once it serves.
 * @throws INVALID_ARGUMENT, NOT_FOUND what is wrong with the configuration; UNAVAILABLE etcd, or an address that is taken
 */
export async function main(argv: readonly string[]): Promise<void> {
  const flags = parseFlags(argv);
  const config = await loadCoordinatorConfig(flags.config ?? COORDINATOR_CONFIG, flags.overrides);
  const log = makeLog('coordinator', {
    level: config.log.level,
    ...(config.log.file === null ? {} : { file: config.log.file }),
  });
  const scope = new Scope({
    stopTimeoutMs: STOP_MS,
    onError: (name, err) => log.error({ err, part: name }, 'did not stop in good order'),
  });
  const stop = (why: string, code: number): void => {
    log.info({ why }, 'stopping');
    scope.close().then(
      () => process.exit(code),
      () => process.exit(1),
    );
  };
  for (const signal of ['SIGTERM', 'SIGINT'] as const) process.once(signal, () => stop(signal, 0));
  try {
    await run(config, scope, log, stop);
  } catch (error) {
    await scope.close();
    throw error;
  }
}

async function run(
  config: CoordinatorConfig,
  scope: Scope,
  log: Log,
  stop: (why: string, code: number) => void,
): Promise<void> {
  const tls = await readTls(config.tls);
  const id = randomBytes(8).toString('hex');
  const self = { id, name: config.name, version: VERSION };
  let endpoints: readonly string[];
  if (config.etcd === 'embedded') {
    const etcd = new EmbeddedEtcd({
      stateDir: config.stateDir,
      log,
      died: (reason) => {
        log.error({ reason }, 'etcd is gone');
        stop(reason, 1);
      },
    });
    scope.defer('etcd', () => etcd.close());
    process.once('exit', () => etcd.kill());
    endpoints = [await etcd.start()];
  } else endpoints = config.etcd.endpoints;
  const etcdTls = config.etcd === 'embedded' ? null : config.etcd.tls;
  const opened = scope.use(
    'store',
    await openStore({
      endpoints,
      ...(etcdTls === null ? {} : { tls: await readEtcdTls(etcdTls) }),
      coordinator: { ...self, address: config.advertise },
      heal: config.heal,
      log,
    }),
  );
  const reaper = new Reaper(opened.deps);
  reaper.start();
  scope.defer('reaper', () => reaper.close());
  const coordinator = new Coordinator({
    self,
    ...fromStore(opened, log),
    tls,
    vxlanPort: config.vxlanPort,
    heal: config.heal,
    log,
  });
  scope.defer('server', () => coordinator.close());
  await coordinator.listen(config.listen);
  if (config.metrics !== null) {
    addProcessMetrics(coordinator.registry);
    const metrics = new MetricsServer({
      listen: config.metrics,
      registry: coordinator.registry,
      ready: () => (scope.signal.aborted ? 'stopping' : opened.lease.held ? null : 'etcd cannot be reached'),
    });
    scope.defer('metrics', () => metrics.close());
    await metrics.start();
  }
  log.info(
    { name: config.name, id, listen: config.listen, advertise: config.advertise, revision: `${opened.state.revision}` },
    'coordinator is serving',
  );
}

async function readTls(files: CoordinatorConfig['tls']) {
  const [ca, cert, key] = await Promise.all([readPem(files.ca), readPem(files.cert), readPem(files.key)]);
  return { ca: ca.toString(), cert: cert.toString(), key: key.toString() };
}

async function readEtcdTls(files: { ca: string; cert: string; key: string }) {
  const [ca, cert, key] = await Promise.all([readPem(files.ca), readPem(files.cert), readPem(files.key)]);
  return { ca, cert, key };
}

async function readPem(file: string): Promise<Buffer> {
  try {
    return await readFile(file);
  } catch (error) {
    throw new WeftError('NOT_FOUND', `The certificate file ${file} cannot be read: ${(error as Error).message}.`, {
      hint: '"weft ca init" makes an authority and certificates',
      cause: error,
    });
  }
}

if (import.meta.main)
  main(process.argv.slice(2)).catch((error: unknown) => {
    const weft = WeftError.from(error);
    process.stderr.write(`weft coordinator: ${weft.details}\n`);
    process.exit(weft.code === 'INVALID_ARGUMENT' ? 2 : 1);
  });
