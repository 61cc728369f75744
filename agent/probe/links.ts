/** What the host's network is made of: asked of ip(8) and ovs-vswitchd once, at start. */
import { exec } from '../../lib/exec.ts';

export interface HostAddress {
  readonly address: string;
  readonly prefix: number;
}

export interface HostInterface {
  readonly name: string;
  readonly mtu: number;
  /** Kind of a virtual device ("veth", "bridge", …); empty for hardware. */
  readonly kind: string;
  /** Bridge, bond or switch that it is part of; empty = none. */
  readonly master: string;
  /** Global ones. */
  readonly addresses: readonly HostAddress[];
}

interface Shown {
  ifname?: string;
  mtu?: number;
  master?: string;
  linkinfo?: { info_kind?: string };
  addr_info?: { local?: string; prefixlen?: number; scope?: string }[];
}

/** Interfaces of this network namespace, without loopback; none when ip cannot say. */
export async function hostInterfaces(): Promise<HostInterface[]> {
  const r = await exec('ip', ['-d', '-j', 'address', 'show']);
  if (r.code !== 0 || r.stdout.trim() === '') return [];
  return (JSON.parse(r.stdout) as Shown[])
    .filter((i) => i.ifname !== undefined && i.ifname !== 'lo')
    .map((i) => ({
      name: i.ifname ?? '',
      mtu: i.mtu ?? 0,
      kind: i.linkinfo?.info_kind ?? '',
      master: i.master ?? '',
      addresses: (i.addr_info ?? []).flatMap((a) =>
        a.local === undefined || a.scope !== 'global' ? [] : [{ address: a.local, prefix: a.prefixlen ?? 0 }],
      ),
    }));
}

/** The first line of what ip says, as part of a sentence. */
const reasonOf = (stderr: string): string => {
  const [line = ''] = stderr.trim().split('\n');
  return line.replace(/^Error: /, '').replace(/\.+$/, '') || 'refused';
};

/**
 * Can the kernel make such a device? It is made under a name of its own, down, and removed.
 * @returns empty = yes, else what ip says.
 */
export async function deviceProblem(type: readonly string[]): Promise<string> {
  // Several are tried at once.
  const name = `wp${process.pid}${type[0]?.slice(0, 3) ?? ''}`.slice(0, 15);
  const made = await exec('ip', ['link', 'add', name, 'type', ...type]);
  if (made.code !== 0) return reasonOf(made.stderr);
  await exec('ip', ['link', 'del', name]);
  return '';
}
