/**
 * `install` of the package: puts Weft on a machine. Copies, never starts: starting is systemd's. Running it again upgrades the
 * programs and the units; configuration that is there stays. Everything it writes is named in `PLACES`, for `--remove`.
 */
import {
  chmodSync,
  cpSync,
  existsSync,
  mkdirSync,
  readdirSync,
  readFileSync,
  renameSync,
  rmSync,
  symlinkSync,
  writeFileSync,
} from 'node:fs';
import { basename, dirname, join } from 'node:path';
import { parseArgs } from 'node:util';
import { parseIp } from '../lib/addr.ts';
import { parseAgentConfig, parseCoordinatorConfig, underlayOf } from '../lib/config.ts';
import { WeftError } from '../lib/errors.ts';
import { RESOLVER_ADDRESS } from '../lib/resolver-address.ts';
import { agentConfig, coordinatorConfig, dockerConfig, reachableResolvers } from './samples.ts';

export const PLACES = {
  programs: '/opt/weft',
  link: '/usr/local/bin/weft',
  units: '/etc/systemd/system',
  config: '/etc/weft',
  tls: '/etc/weft/tls',
  docker: '/etc/docker/daemon.json',
} as const;

export const UNITS = {
  agent: ['weft-agent.socket', 'weft-agent.service'],
  coordinator: ['weft-coordinator.service'],
} as const;
export type Role = keyof typeof UNITS;

export const USAGE = `Usage: install agent --coordinator HOST[:PORT][,…] --vtep ADDRESS [--name NAME] --certs DIR
       install agent --coordinator HOST[:PORT][,…] --underlay CIDR|INTERFACE [--name NAME] --certs DIR
       install coordinator [--etcd embedded|URL[,URL…]] [--name NAME] [--advertise HOST[:PORT]] --certs DIR
       install programs

  --certs DIR   ca.crt and one more certificate with its key, as weft ca writes them
  --root DIR    install below DIR instead of / (images, tests)
`;

/** @param packageDir directory of the unpacked package. @returns lines that say what was done. */
export function install(packageDir: string, argv: readonly string[]): string[] {
  const { values, positionals } = parseArgs({
    args: [...argv],
    allowPositionals: true,
    options: {
      coordinator: { type: 'string' },
      vtep: { type: 'string' },
      underlay: { type: 'string' },
      name: { type: 'string' },
      etcd: { type: 'string' },
      advertise: { type: 'string' },
      certs: { type: 'string' },
      root: { type: 'string', default: '/' },
    },
  });
  const [role, ...more] = positionals;
  if ((role !== 'agent' && role !== 'coordinator' && role !== 'programs') || more.length > 0)
    throw new WeftError('INVALID_ARGUMENT', 'Say what to install: agent, coordinator or programs.', { hint: USAGE });
  const at = (path: string): string => join(values.root, path);
  const said: string[] = [];

  const samples = join(packageDir, 'etc');
  const config = role === 'programs' ? null : { file: `${PLACES.config}/${role}.yaml`, text: '' };
  if (config !== null && !existsSync(at(config.file))) {
    // Checked before anything is copied: a wrong word leaves the machine as it was.
    const sample = readFileSync(join(samples, `${role}.yaml`), 'utf8');
    if (role === 'agent') {
      const { coordinator, vtep, underlay } = values;
      if (coordinator === undefined || (vtep === undefined) === (underlay === undefined))
        throw new WeftError('INVALID_ARGUMENT', 'An agent needs --coordinator, and --vtep or --underlay.', {
          hint: USAGE,
        });
      if (vtep !== undefined) parseIp(vtep);
      config.text = agentConfig(sample, coordinator.split(','), underlayOf(vtep ?? underlay ?? ''), values.name);
      parseAgentConfig(config.text, config.file);
    } else {
      config.text = coordinatorConfig(sample, values.etcd ?? 'embedded', values.name, values.advertise);
      parseCoordinatorConfig(config.text, config.file);
    }
  }

  if (role !== 'programs' && values.certs !== undefined) said.push(...certificates(values.certs, role, at(PLACES.tls)));
  said.push(programs(packageDir, at(PLACES.programs)));
  link(at(PLACES.link), `${PLACES.programs}/bin/weft`);
  if (role === 'programs' || config === null) return said;

  mkdirSync(at(PLACES.units), { recursive: true });
  for (const unit of UNITS[role]) cpSync(join(packageDir, 'systemd', unit), at(`${PLACES.units}/${unit}`));
  said.push(`units ${UNITS[role].join(', ')}`);
  if (config.text !== '') {
    replace(at(config.file), config.text, 0o644);
    said.push(`wrote ${config.file}`);
  } else said.push(`kept ${config.file}`);
  if (role === 'agent') said.push(...docker(at(PLACES.docker), hostResolvers(at)));
  return said;
}

/** The whole directory is put in place by two renames: a running daemon keeps the files that it has open. */
function programs(packageDir: string, target: string): string {
  const [fresh, old] = [`${target}.new`, `${target}.old`];
  rmSync(fresh, { recursive: true, force: true });
  rmSync(old, { recursive: true, force: true });
  mkdirSync(dirname(target), { recursive: true });
  cpSync(packageDir, fresh, { recursive: true, preserveTimestamps: true });
  if (existsSync(target)) renameSync(target, old);
  renameSync(fresh, target);
  rmSync(old, { recursive: true, force: true });
  return `programs in ${PLACES.programs}`;
}

function link(path: string, to: string): void {
  mkdirSync(dirname(path), { recursive: true });
  symlinkSync(to, `${path}.weft-new`);
  renameSync(`${path}.weft-new`, path);
}

/** ca.crt and the role's own pair in `dir`, or the one other pair there, under the names that the daemons look for. */
function certificates(dir: string, role: Role, target: string): string[] {
  const names = existsSync(dir) ? readdirSync(dir).filter((f) => f.endsWith('.crt') && f !== 'ca.crt') : [];
  const name = names.includes(`${role}.crt`) ? `${role}.crt` : names[0];
  const clear = names.includes(`${role}.crt`) || names.length === 1;
  if (name === undefined || !clear || !existsSync(join(dir, 'ca.crt')))
    throw new WeftError('FAILED_PRECONDITION', `${dir} must hold ca.crt, ${role}.crt and ${role}.key.`, {
      hint: 'copy the directory that weft ca wrote for this machine',
    });
  const key = join(dir, `${basename(name, '.crt')}.key`);
  if (!existsSync(key)) throw new WeftError('FAILED_PRECONDITION', `The key ${key} is not there.`);
  mkdirSync(target, { recursive: true, mode: 0o755 });
  replace(join(target, `${role}.key`), readFileSync(key), 0o600);
  replace(join(target, `${role}.crt`), readFileSync(join(dir, name)), 0o644);
  replace(join(target, 'ca.crt'), readFileSync(join(dir, 'ca.crt')), 0o644);
  return [`certificate ${name} in ${PLACES.tls}`];
}

/**
 * Sets live-restore, so that containers outlive dockerd, and the agent's resolver; the other keys stay. dockerd reads the one again at
 * `reload`, without a stop, and the other when it starts.
 */
function docker(file: string, resolvers: readonly string[]): string[] {
  const old = existsSync(file) ? readFileSync(file, 'utf8') : null;
  const { text, liveRestore, dns } = dockerConfig(old, PLACES.docker, resolvers);
  if (text !== null) replace(file, text, 0o644);
  const said = [
    liveRestore === 'set' ? `set live-restore in ${PLACES.docker}` : `live-restore was set in ${PLACES.docker}`,
  ];
  if (dns === 'set') said.push(`set dns in ${PLACES.docker}: containers resolve names once dockerd has been restarted`);
  if (dns === 'users')
    said.push(
      `kept dns in ${PLACES.docker}: put "${RESOLVER_ADDRESS}" before it, and containers find each other by name`,
    );
  return said;
}

/** Of this machine; where systemd-resolved stands before them, those behind it. */
function hostResolvers(at: (path: string) => string): string[] {
  for (const path of ['/etc/resolv.conf', '/run/systemd/resolve/resolv.conf']) {
    const found = existsSync(at(path)) ? reachableResolvers(readFileSync(at(path), 'utf8')) : [];
    if (found.length > 0) return found;
  }
  return [];
}

function replace(file: string, content: string | Uint8Array, mode: number): void {
  mkdirSync(dirname(file), { recursive: true });
  writeFileSync(`${file}.weft-new`, content, { mode });
  chmodSync(`${file}.weft-new`, mode);
  renameSync(`${file}.weft-new`, file);
}
