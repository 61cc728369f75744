/** A switch of metal, as far as hosts of the lab can tell: a bridge in a namespace of its own, cables to hosts, taps for other machines. */
import { execFile } from 'node:child_process';
import { readdir } from 'node:fs/promises';
import { promisify } from 'node:util';
import type { LabStatus } from './lab-direct.ts';

const execute = promisify(execFile);
const ip = async (...args: string[]): Promise<string> => (await execute('ip', args)).stdout;

export class PhysicalSwitch implements AsyncDisposable {
  /** Name of its namespace. */
  readonly netns: string;

  private constructor(netns: string) {
    this.netns = netns;
  }

  /** @param hosts get an interface `name` without an address that is plugged into it */
  static async open(lab: LabStatus, hosts: readonly string[], name: string): Promise<PhysicalSwitch> {
    await sweep();
    const made = new PhysicalSwitch(`wphy-${process.pid}`);
    const { netns } = made;
    try {
      await ip('netns', 'add', netns);
      await ip('-n', netns, 'link', 'add', 'br0', 'type', 'bridge', 'mcast_snooping', '0');
      await ip('-n', netns, 'link', 'set', 'br0', 'addrgenmode', 'none', 'up');
      for (const host of lab.hosts.filter((h) => hosts.includes(h.name))) {
        const there = host.netns.replace(/.*\//, '');
        await ip('-n', there, 'link', 'add', name, 'type', 'veth', 'peer', 'name', host.name, 'netns', netns);
        await ip('-n', there, 'link', 'set', name, 'addrgenmode', 'none', 'up');
        await ip('-n', netns, 'link', 'set', host.name, 'addrgenmode', 'none', 'master', 'br0', 'up');
      }
    } catch (error) {
      await made[Symbol.asyncDispose]();
      throw error;
    }
    return made;
  }

  /** A tap that is plugged into it. */
  async tap(name: string): Promise<void> {
    await ip('-n', this.netns, 'tuntap', 'add', name, 'mode', 'tap');
    await ip('-n', this.netns, 'link', 'set', name, 'addrgenmode', 'none', 'master', 'br0', 'up');
  }

  /** The hosts' interfaces go with it. */
  async [Symbol.asyncDispose](): Promise<void> {
    await ip('netns', 'del', this.netns).catch(() => '');
  }
}

/** Those of test processes that are gone. */
async function sweep(): Promise<void> {
  for (const name of await readdir('/run/netns')) {
    const pid = /^wphy-(\d+)$/.exec(name)?.[1];
    if (pid === undefined) continue;
    const alive = await execute('kill', ['-0', pid]).then(
      () => true,
      () => false,
    );
    if (!alive) await ip('netns', 'del', name).catch(() => '');
  }
}
