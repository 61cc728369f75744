/** weft ca: the mesh's certificates, kept as files by whoever runs the mesh. */
import { existsSync } from 'node:fs';
import { mkdir, rename, writeFile } from 'node:fs/promises';
import { dirname, join, resolve } from 'node:path';
import type { Command } from 'commander';
import { WeftError } from '../lib/errors.ts';
import { formatHostPort, parseHostPort } from '../lib/hostport.ts';
import { flagsOf, jsonFlag, print } from './command.ts';
import { contextPath, type Io } from './io.ts';
import { toJson } from './output.ts';
import { UsageError } from './usage.ts';
import { collect, list } from './values.ts';

const NAME = /^[a-zA-Z0-9][a-zA-Z0-9_.-]{0,62}$/;

interface CaFlags {
  readonly dir?: string;
  readonly out?: string;
  readonly force?: boolean;
  readonly id?: string;
  readonly coordinatorAddress?: string[];
}

const defaultDir = (io: Io): string => (process.getuid?.() === 0 ? '/etc/weft/tls' : `${io.home}/.config/weft/tls`);

export function register(program: Command, io: Io): void {
  const noun = program.command('ca').description('certificates of the mesh');
  const common = (spec: string, summary: string): Command =>
    jsonFlag(noun.command(spec).description(summary))
      .option('--dir <dir>', 'where the authority is kept (default: /etc/weft/tls, or ~/.config/weft/tls)')
      .option('--force', 'replace what is there');
  common('init', 'make an authority, a coordinator’s certificate and an administrator’s')
    .option(
      '--coordinator-address <address>',
      'HOST:PORT for context.json (may be repeated; default: 127.0.0.1:7470)',
      collect,
    )
    .action((_options: unknown, command: Command) => init(io, command));
  common('host <name>', 'make the certificate of a host’s agent')
    .option('--out <dir>', 'where to (default: DIR/hosts/NAME)')
    .option('--id <id>', '16 hex digits, to keep the id of a host that had one')
    .action((name: string, _options: unknown, command: Command) => host(io, command, name));
  common('user <name>', 'make the certificate of a user')
    .option('--out <dir>', 'where to (default: DIR/users/NAME)')
    .action((name: string, _options: unknown, command: Command) => user(io, command, name));
}

async function init(io: Io, command: Command): Promise<void> {
  const flags = flagsOf<CaFlags>(command);
  const dir = dirOf(io, flags);
  const given = (flags.coordinatorAddress ?? []).flatMap(list);
  const coordinators = (given.length === 0 ? ['127.0.0.1'] : given).map((text) =>
    formatHostPort(parseHostPort(text, 7470)),
  );
  refuseToReplace(join(dir, 'ca.key'), flags, 'every certificate that it signed would be worthless; --force does it');
  const { createCa, issueCoordinator, issueUser, writeKeyPair } = await import('../lib/tls.ts');
  const ca = await createCa({ name: 'weft' });
  const { cert } = await writeKeyPair(dir, 'ca', ca);
  await writeKeyPair(dir, 'coordinator', await issueCoordinator(ca, 'coordinator'));
  const admin = await writeKeyPair(dir, 'admin', await issueUser(ca, 'admin'));
  const context = contextPath(io);
  await writeContext(context, { coordinators, tls: { ca: cert, ...admin } });
  print(io, command, { dir, context, coordinators }, () =>
    [
      `Certificates are in ${dir}; keep ca.key safe.`,
      `${context} names ${coordinators.join(', ')} and the administrator’s certificate.`,
      'Next: copy ca.crt, coordinator.crt and coordinator.key to /etc/weft/tls of each coordinator; weft ca host NAME for each host.\n',
    ].join('\n'),
  );
}

async function host(io: Io, command: Command, name: string): Promise<void> {
  const flags = flagsOf<CaFlags>(command);
  checkName('host', name);
  if (flags.id !== undefined && !/^[0-9a-f]{16}$/.test(flags.id))
    throw new UsageError('--id takes 16 lower-case hex digits.');
  const dir = dirOf(io, flags);
  const out = resolve(flags.out ?? join(dir, 'hosts', name));
  refuseToReplace(join(out, 'agent.key'), flags, '--force replaces it');
  const { issueHost, newHostId, readCa, writeKeyPair } = await import('../lib/tls.ts');
  const ca = await readCa(dir);
  const id = flags.id ?? newHostId();
  const files = await writeKeyPair(out, 'agent', await issueHost(ca, id, name));
  await writeFile(join(out, 'ca.crt'), ca.cert);
  print(io, command, { name, id, ca: join(out, 'ca.crt'), ...files }, () =>
    [`Host ${name} has id ${id}.`, `Copy the files of ${out} to /etc/weft/tls on ${name}.\n`].join('\n'),
  );
}

async function user(io: Io, command: Command, name: string): Promise<void> {
  const flags = flagsOf<CaFlags>(command);
  checkName('user', name);
  const dir = dirOf(io, flags);
  const out = resolve(flags.out ?? join(dir, 'users', name));
  refuseToReplace(join(out, `${name}.key`), flags, '--force replaces it');
  const { issueUser, readCa, writeKeyPair } = await import('../lib/tls.ts');
  const ca = await readCa(dir);
  const files = await writeKeyPair(out, name, await issueUser(ca, name));
  await writeFile(join(out, 'ca.crt'), ca.cert);
  print(io, command, { name, ca: join(out, 'ca.crt'), ...files }, () => `The certificate of ${name} is in ${out}.\n`);
}

function dirOf(io: Io, flags: CaFlags): string {
  if (flags.dir === '') throw new UsageError('--dir takes a directory.');
  return resolve(flags.dir ?? defaultDir(io));
}

function checkName(what: string, name: string): void {
  if (!NAME.test(name))
    throw new WeftError('INVALID_ARGUMENT', `“${name}” cannot be the name of a ${what}.`, {
      hint: 'letters, digits, "_", "." and "-", at most 63, the first a letter or digit',
    });
}

function refuseToReplace(file: string, flags: CaFlags, hint: string): void {
  if (flags.force !== true && existsSync(file))
    throw new WeftError('ALREADY_EXISTS', `${file} is there already.`, { hint });
}

async function writeContext(path: string, context: object): Promise<void> {
  await mkdir(dirname(path), { recursive: true, mode: 0o700 });
  await writeFile(`${path}.new`, `${toJson(context)}\n`, { mode: 0o600 });
  await rename(`${path}.new`, path);
}
