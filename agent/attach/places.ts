/** Looks at what is to be attached: a device of the host, or a namespace. Changes nothing. */
import { basename } from 'node:path';
import { middleCut, WeftError } from '../../lib/errors.ts';
import { exec } from '../../lib/exec.ts';
import type { OvsState } from '../ovs/steps.ts';
import { type Device, isLinkName, judgeDevice, parseDevice } from './judge.ts';
import { isProcessPath, namespaceInode } from './namespaces.ts';

/** What is on the host, as attaching needs it. */
export interface Places {
  device(name: string): Promise<Device>;
  namespace(path: string, interfaceName: string): Promise<Namespace>;
  giveBack(device: { link: string; mtu: number; up: boolean }): Promise<void>;
}

export const placesOf = (ovs: () => OvsState): Places => ({
  device: (name) => findDevice(name, ovs()),
  namespace: findNamespace,
  giveBack,
});

/** A device that may become a port. @throws NOT_FOUND, INVALID_ARGUMENT, FAILED_PRECONDITION */
async function findDevice(name: string, ovs: OvsState): Promise<Device> {
  if (!isLinkName(name))
    throw new WeftError('INVALID_ARGUMENT', `"${middleCut(name)}" is not a name of an interface`, {
      hint: 'see ip link',
    });
  const [shown, four, six] = await Promise.all([
    exec('ip', ['-j', '-d', 'addr', 'show', 'dev', name]),
    exec('ip', ['-j', 'route', 'show', 'table', 'all', 'dev', name]),
    exec('ip', ['-j', '-6', 'route', 'show', 'table', 'all', 'dev', name]),
  ]);
  const device = shown.code === 0 ? parseDevice(shown.stdout) : null;
  // `ip` finds a device by its other names too.
  if (device?.name !== name)
    throw new WeftError('NOT_FOUND', `this host has no interface ${name}`, {
      hint: `make it first, e.g. ip tuntap add dev ${name} mode tap`,
    });
  const bridge = [...ovs.bridges].find(([bridgeName, b]) => bridgeName === name || b.ports.has(name));
  judgeDevice(device, {
    defaultRoute: hasDefault(four.stdout) || hasDefault(six.stdout),
    bridge: bridge?.[0] ?? null,
  });
  return device;
}

const hasDefault = (json: string): boolean => /"dst":"default"/.test(json);

export interface Namespace {
  readonly path: string;
  readonly inode: string;
  /** By which people know it: "web" for /run/netns/web, "pid-7" for /proc/7/ns/net. */
  readonly name: string;
}

/**
 * A namespace that is not the host's own, with room for a link of that name.
 * @throws NOT_FOUND, INVALID_ARGUMENT, FAILED_PRECONDITION, ALREADY_EXISTS
 */
async function findNamespace(path: string, interfaceName: string): Promise<Namespace> {
  if (!path.startsWith('/') || path.includes('\0'))
    throw new WeftError('INVALID_ARGUMENT', `"${middleCut(path)}" is not an absolute path`, {
      hint: 'write /run/netns/NAME or /proc/PID/ns/net',
    });
  if (!isLinkName(interfaceName))
    throw new WeftError('INVALID_ARGUMENT', `"${middleCut(interfaceName)}" cannot be the name of an interface`, {
      hint: 'up to 15 bytes, without blanks, "/", ":" and "%"',
    });
  const inode = namespaceInode(path);
  if (inode === null)
    throw new WeftError('NOT_FOUND', `there is no network namespace at ${middleCut(path)}`, {
      hint: 'ip netns shows those with a name; of a process give the PID',
    });
  if (inode === namespaceInode('/proc/self/ns/net'))
    throw new WeftError('FAILED_PRECONDITION', `${path} is the host's own network namespace`, {
      hint: "give one of a process's own, or make one: ip netns add NAME",
    });
  const seen = await exec('nsenter', [`--net=${path}`, 'ip', '-j', 'link', 'show']);
  if (seen.code !== 0) throw new WeftError('FAILED_PRECONDITION', `${path} cannot be entered: ${seen.stderr.trim()}`);
  const links = JSON.parse(seen.stdout.trim() === '' ? '[]' : seen.stdout) as { ifname?: string }[];
  if (links.some((link) => link.ifname === interfaceName))
    throw new WeftError('ALREADY_EXISTS', `there is an interface ${interfaceName} in ${path} already`, {
      hint: 'choose another name with --ifname',
    });
  return { path, inode, name: isProcessPath(path) ? `pid-${path.split('/')[2] ?? ''}` : basename(path) };
}

/** The user's device as it was. It may be gone. */
async function giveBack(device: { link: string; mtu: number; up: boolean }): Promise<void> {
  const { link, mtu, up } = device;
  await exec('ip', ['link', 'set', 'dev', link, 'mtu', String(mtu), up ? 'up' : 'down']);
}
