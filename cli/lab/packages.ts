import { execFile, spawn } from 'node:child_process';
import { accessSync, constants, existsSync, readFileSync, renameSync, rmSync, writeFileSync } from 'node:fs';
import { promisify } from 'node:util';
import { WeftError } from '../../lib/errors.ts';

/**
 * A Debian package. It is missing when one of its files is: a machine that has another dockerd (docker-ce, say) keeps it.
 * Names without a slash are looked up in PATH.
 */
export interface Need {
  readonly name: string;
  readonly files: readonly string[];
}

/** What the lab needs. */
const NEEDS: readonly Need[] = [
  { name: 'docker.io', files: ['dockerd', 'containerd', 'runc'] },
  // A package of its own since Debian 13; before, docker.io has it.
  { name: 'docker-cli', files: ['docker'] },
  { name: 'docker-compose', files: ['docker-compose'] },
  { name: 'openvswitch-switch', files: ['ovs-vswitchd', 'ovsdb-server', 'ovs-vsctl', 'ovs-ofctl'] },
  { name: 'etcd-server', files: ['etcd'] },
  { name: 'etcd-client', files: ['etcdctl'] },
  { name: 'iproute2', files: ['ip', 'tc'] },
  { name: 'iptables', files: ['iptables'] },
  { name: 'nftables', files: ['nft'] },
  { name: 'conntrack', files: ['conntrack'] },
  { name: 'ethtool', files: ['ethtool'] },
  { name: 'util-linux', files: ['nsenter', 'unshare', 'flock'] },
  { name: 'procps', files: ['sysctl'] },
  { name: 'perl-base', files: ['perl'] },
  { name: 'kmod', files: ['modprobe'] },
  { name: 'tcpdump', files: ['tcpdump'] },
  { name: 'keepalived', files: ['keepalived'] },
  { name: 'busybox-static', files: ['/usr/share/doc/busybox-static', 'busybox'] },
  { name: 'iperf3', files: ['iperf3'] },
  { name: 'iputils-ping', files: ['ping'] },
  { name: 'iputils-arping', files: ['arping'] },
  { name: 'netcat-openbsd', files: ['nc.openbsd'] },
  // To compile the kernel side of the datapath (scripts/build-datapath.ts).
  { name: 'clang', files: ['clang'] },
  { name: 'libbpf-dev', files: ['/usr/include/bpf/bpf_helpers.h'] },
  { name: 'libelf-dev', files: ['/usr/include/libelf.h'] },
  { name: 'zlib1g-dev', files: ['/usr/include/zlib.h'] },
  { name: 'libc6-dev', files: ['/usr/include/stdio.h'] },
  { name: 'linux-libc-dev', files: ['/usr/include/linux/bpf.h'] },
  { name: 'ca-certificates', files: ['/etc/ssl/certs/ca-certificates.crt'] },
];

const POLICY = '/usr/sbin/policy-rc.d';
const SAVED = '/usr/sbin/policy-rc.d.weft-saved';
const MARK = '# weft: no service is started while the lab installs packages';
const LOCK_TIMEOUT = ['-o', 'DPkg::Lock::Timeout=600'];
const LOCK = '/var/lock/weft-install.lock';

/** Directories that daemons live in; a user's PATH may lack sbin. */
export const SYSTEM_PATH = '/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin';

/** Full path of a program on the system PATH, or null. */
export function which(program: string): string | null {
  for (const dir of SYSTEM_PATH.split(':')) {
    try {
      accessSync(`${dir}/${program}`, constants.X_OK);
      return `${dir}/${program}`;
    } catch {}
  }
  return null;
}

/** Names of the packages of which something is missing on this machine. */
export function missingPackages(needs: readonly Need[] = NEEDS): string[] {
  const present = (file: string): boolean => (file.startsWith('/') ? existsSync(file) : which(file) !== null);
  return needs.filter((need) => !need.files.every(present)).map((need) => need.name);
}

/**
 * Installs what is missing with apt, no service started, nothing removed. Safe when several run at once: the second
 * waits, and finds nothing to do.
 * @throws FAILED_PRECONDITION when not root or without apt, UNAVAILABLE when apt fails.
 */
export async function installPackages(say: (line: string) => void, needs: readonly Need[] = NEEDS): Promise<string[]> {
  const names = missingPackages(needs).join(' ');
  if (names === '') return [];
  if (process.getuid?.() !== 0) {
    throw new WeftError('FAILED_PRECONDITION', `Packages are missing: ${names}.`, {
      hint: 'Run this as root, or install them yourself.',
    });
  }
  if (which('apt-get') === null) {
    throw new WeftError('FAILED_PRECONDITION', `Packages are missing: ${names}, and there is no apt-get.`, {
      hint: 'Weft’s lab is made for Debian and Ubuntu; elsewhere install the same programs by hand.',
    });
  }
  const lock = await takeLock(LOCK);
  try {
    const missing = missingPackages(needs);
    if (missing.length === 0) return [];
    say(`installing ${missing.join(' ')}`);
    forbidServices();
    // apt gets Ctrl-C too, and ends: then so do we, in good order.
    const ignore = (): void => {};
    process.on('SIGINT', ignore).on('SIGTERM', ignore);
    try {
      await install(missing, say);
    } finally {
      process.off('SIGINT', ignore).off('SIGTERM', ignore);
      restorePolicy();
    }
    const still = missingPackages(needs);
    if (still.length > 0) {
      throw new WeftError('UNAVAILABLE', `apt-get succeeded, but these are still missing: ${still.join(' ')}.`, {
        hint: 'Install them by hand: apt-get install --no-install-recommends …',
      });
    }
    return missing;
  } finally {
    await lock.release();
  }
}

async function install(packages: string[], say: (line: string) => void): Promise<void> {
  const update = async (): Promise<void> => {
    say('apt-get update');
    await apt(['update', '-q', ...LOCK_TIMEOUT]);
  };
  const attempt = async (): Promise<void> => {
    const known = await knownOf(packages);
    await apt(['install', '-y', '-q', '--no-install-recommends', '--no-remove', ...LOCK_TIMEOUT, ...known]);
  };
  const known = await knownOf(packages);
  const fresh = packages.some((name) => !known.includes(name) && name !== 'docker-cli');
  if (fresh) await update();
  try {
    await attempt();
  } catch (error) {
    if (fresh) throw error;
    // Lists that are known but old name files that the mirror has dropped.
    await update();
    await attempt();
  }
}

/** Those of the packages that apt's lists have a candidate for. */
async function knownOf(packages: string[]): Promise<string[]> {
  const env = { ...process.env, LC_ALL: 'C' };
  const { stdout } = await promisify(execFile)('apt-cache', ['policy', ...packages], { env });
  return [...stdout.matchAll(/^(\S+):\n.*\n {2}Candidate: (.*)$/gm)]
    .filter((match) => match[2] !== '(none)')
    .map((match) => match[1] as string);
}

function apt(args: string[]): Promise<void> {
  const env = { ...process.env, PATH: SYSTEM_PATH, DEBIAN_FRONTEND: 'noninteractive', LC_ALL: 'C' };
  return new Promise((resolve, reject) => {
    const child = spawn('apt-get', args, { stdio: ['ignore', 'pipe', 'pipe'], env });
    let tail = '';
    const keep = (chunk: Buffer): void => {
      tail = (tail + chunk.toString()).slice(-2000);
    };
    child.stdout.on('data', keep);
    child.stderr.on('data', keep);
    child.on('error', reject);
    child.on('close', (code) => {
      if (code === 0) return resolve();
      reject(new WeftError('UNAVAILABLE', `apt-get ${args[0]} failed with status ${code}: ${tail.trim()}`));
    });
  });
}

/** Puts our policy in place; a policy that is there already is kept aside. Leftovers of a killed run are put right first. */
function forbidServices(): void {
  restorePolicy();
  if (existsSync(POLICY)) renameSync(POLICY, SAVED);
  writeFileSync(POLICY, `#!/bin/sh\n${MARK}\nexit 101\n`, { mode: 0o755 });
}

function restorePolicy(): void {
  if (existsSync(POLICY) && readFileSync(POLICY, 'utf8').includes(MARK)) rmSync(POLICY);
  if (existsSync(SAVED) && !existsSync(POLICY)) renameSync(SAVED, POLICY);
}

/**
 * An exclusive lock on a file, freed by the kernel should we die: `flock FILE cat` holds it as long as our end of its
 * stdin is open, and echoes a line once it has it.
 */
export function takeLock(file: string): Promise<{ release: () => Promise<void> }> {
  return new Promise((resolve, reject) => {
    const child = spawn('flock', [file, 'cat'], { stdio: ['pipe', 'pipe', 'inherit'] });
    const gone = new Promise<void>((ended) => child.once('close', () => ended()));
    const release = (): Promise<void> => {
      child.stdin.end();
      return gone;
    };
    child.on('error', reject);
    child.stdout.once('data', () => resolve({ release }));
    child.on('close', (code) => reject(new WeftError('INTERNAL', `flock ${file} ended with status ${code}.`)));
    child.stdin.write('\n');
  });
}
