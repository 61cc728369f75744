import { existsSync } from 'node:fs';
import type { LabPaths, NodePaths } from './paths.ts';
import { netnsInode } from './procs.ts';
import { run, until } from './run.ts';

/**
 * Network namespaces and the underlay: one bridge in a namespace of its own, one veth per machine of the lab, one veth
 * into the machine's namespace for the CLI. Nothing else of the machine's network is touched.
 */
const UNDERLAY_MTU = 1500;

const ip = (netns: string | null, lines: readonly string[]): Promise<string> =>
  run('ip', [...(netns === null ? [] : ['-n', netns]), '-batch', '-'], { input: `${lines.join('\n')}\n` });

async function addNetns(name: string): Promise<void> {
  const file = `/run/netns/${name}`;
  if (netnsInode(file) !== null) return;
  if (existsSync(file)) await deleteNetns(name); // half an `ip netns add`
  await run('ip', ['netns', 'add', name]);
}

export async function deleteNetns(name: string): Promise<void> {
  if (existsSync(`/run/netns/${name}`)) await run('ip', ['netns', 'delete', name]);
}

export async function linkExists(netns: string | null, link: string): Promise<boolean> {
  const links = JSON.parse((await run('ip', [...(netns === null ? [] : ['-n', netns]), '-j', 'link'])) || '[]') as {
    ifname: string;
  }[];
  return links.some((one) => one.ifname === link);
}

/** A veth goes with the namespace of its other end, some time after that: between a look and the deletion too. */
export async function deleteLink(netns: string | null, link: string): Promise<void> {
  if (!(await linkExists(netns, link))) return;
  try {
    await run('ip', [...(netns === null ? [] : ['-n', netns]), 'link', 'delete', link]);
  } catch (error) {
    if (await linkExists(netns, link)) throw error;
  }
}

/** Makes the underlay bridge and the way in from the machine. Idempotent. */
export async function ensureUnderlay(lab: LabPaths, address: string, prefix: number): Promise<void> {
  await addNetns(lab.underlayNetns);
  if (!(await linkExists(lab.underlayNetns, 'br0'))) {
    const off = ['net.ipv6.conf.all.disable_ipv6=1', 'net.ipv6.conf.default.disable_ipv6=1'];
    // Nothing to switch off where the kernel has no IPv6.
    await run('nsenter', [`--net=/run/netns/${lab.underlayNetns}`, 'sysctl', '-qw', ...off]).catch(() => '');
    await ip(lab.underlayNetns, [
      'link set lo up',
      `link add br0 mtu ${UNDERLAY_MTU} type bridge mcast_snooping 0 nf_call_iptables 0`,
      'link set br0 up',
    ]);
  }
  if (!(await linkExists(null, lab.rootLink))) {
    await ip(null, [
      `link add ${lab.rootLink} mtu ${UNDERLAY_MTU} type veth peer name root netns ${lab.underlayNetns}`,
      `link set ${lab.rootLink} addrgenmode none`,
    ]);
  }
  await ip(lab.underlayNetns, ['link set root master br0 up']);
  await ip(null, [`link set ${lab.rootLink} up`, `address replace ${address}/${prefix} dev ${lab.rootLink}`]);
}

/** Makes a machine's namespace with eth0 on the underlay. The MAC follows the address, so that it survives a power cycle. */
export async function ensureNode(lab: LabPaths, node: NodePaths, address: string): Promise<void> {
  await addNetns(node.netns);
  if (await linkExists(node.netns, 'eth0')) return;
  await removeUplink(lab, node);
  await ip(lab.underlayNetns, [
    `link add ${node.name} mtu ${UNDERLAY_MTU} type veth peer name eth0 address ${macOf(address)} mtu ${UNDERLAY_MTU} netns ${node.netns}`,
    `link set ${node.name} master br0 up`,
  ]);
  await ip(node.netns, ['link set lo up', 'link set eth0 up']);
}

/** MAC of the machine that has this underlay address. */
export const macOf = (address: string): string =>
  `02:77:${address
    .split('.')
    .map((part) => Number(part).toString(16).padStart(2, '0'))
    .join(':')}`;

/** A namespace goes away some time after its name; its veth must not stand in the way of the next one. */
export async function removeUplink(lab: LabPaths, node: NodePaths): Promise<void> {
  if (netnsInode(`/run/netns/${lab.underlayNetns}`) === null) return;
  await deleteLink(lab.underlayNetns, node.name);
}

export async function setAddress(node: NodePaths, link: string, address: string, prefix: number): Promise<void> {
  await ip(node.netns, [`link set ${link} up`, `address replace ${address}/${prefix} dev ${link}`]);
}

/** Cuts or mends the cable: the bridge's end goes down, so the machine sees its carrier go. */
export async function setUplink(lab: LabPaths, node: NodePaths, up: boolean): Promise<void> {
  await run('ip', ['-n', lab.underlayNetns, 'link', 'set', node.name, up ? 'up' : 'down']);
  // The kernel says so some time later, at most once a second, and the bridge sends only then.
  if (up) await until(`the cable of ${node.name}`, () => sends(lab, node), { deadline: 10_000, every: 20 });
}

/** Both ends know of the carrier, and the bridge forwards. */
async function sends(lab: LabPaths, node: NodePaths): Promise<boolean> {
  if (!existsSync(`/run/netns/${node.netns}`)) return true;
  const show = async (netns: string, link: string): Promise<Shown | undefined> =>
    (JSON.parse((await run('ip', ['-n', netns, '-d', '-j', 'link', 'show', link])) || '[]') as Shown[])[0];
  const [host, port] = [await show(node.netns, 'eth0'), await show(lab.underlayNetns, node.name)];
  return host?.operstate === 'UP' && port?.linkinfo?.info_slave_data?.state === 'forwarding';
}

interface Shown {
  readonly operstate?: string;
  readonly linkinfo?: { readonly info_slave_data?: { readonly state?: string } };
}
