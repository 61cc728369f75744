/** A machine on the lab's underlay that is none of the mesh: its own network namespace with an address that no lab host has. */
import { execFile } from 'node:child_process';
import { readdir } from 'node:fs/promises';
import { promisify } from 'node:util';
import type { LabStatus } from './lab-direct.ts';

const execute = promisify(execFile);
const ip = async (...args: string[]): Promise<string> => (await execute('ip', args)).stdout;

let counter = 0;

export class Stranger implements AsyncDisposable {
  /** Name of its namespace, as `ip -n` takes it. */
  readonly netns: string;
  readonly ip: string;

  private constructor(netns: string, address: string) {
    this.netns = netns;
    this.ip = address;
  }

  /** @param nth 0…, tells several strangers of one lab apart */
  static async open(lab: LabStatus, nth = 0): Promise<Stranger> {
    await sweep();
    const host = lab.hosts[0];
    if (host === undefined) throw new Error('the lab has no hosts');
    // Hosts are numbered from the bottom of the lab's /20, the control plane has the last /24 of it.
    const parts = host.underlay.ip.split('.').map(Number);
    const address = `${parts[0]}.${parts[1]}.${((parts[2] ?? 0) & 0xf0) + 14}.${10 + nth}`;
    const stranger = new Stranger(`wstr-${process.pid}-${counter++}`, address);
    const { netns } = stranger;
    const link = `s${process.pid}-${nth}`.slice(0, 15);
    try {
      await ip('netns', 'add', netns);
      await ip('-n', netns, 'link', 'set', 'lo', 'up');
      await ip('-n', netns, 'link', 'add', 'eth0', 'type', 'veth', 'peer', 'name', link, 'netns', `${lab.name}-ul`);
      await ip('-n', `${lab.name}-ul`, 'link', 'set', link, 'master', 'br0', 'up');
      await ip('-n', netns, 'addr', 'add', `${address}/20`, 'dev', 'eth0');
      await ip('-n', netns, 'link', 'set', 'eth0', 'addrgenmode', 'none', 'up');
      // An earlier stranger had the address, with another MAC: the hosts learn of this one (RFC 826), those that run.
      await Promise.allSettled(lab.hosts.map((h) => stranger.run('ping', '-c', '1', '-W', '1', h.underlay.ip)));
    } catch (error) {
      await stranger[Symbol.asyncDispose]();
      throw error;
    }
    return stranger;
  }

  /** A command in its namespace. @throws when it fails */
  async run(...command: string[]): Promise<string> {
    return (await execute('nsenter', [`--net=/run/netns/${this.netns}`, ...command])).stdout;
  }

  async [Symbol.asyncDispose](): Promise<void> {
    await ip('netns', 'del', this.netns).catch(() => '');
  }
}

/** Those of test processes that are gone. */
async function sweep(): Promise<void> {
  for (const name of await readdir('/run/netns')) {
    const pid = /^wstr-(\d+)-/.exec(name)?.[1];
    if (pid === undefined) continue;
    const alive = await promisify(execFile)('kill', ['-0', pid]).then(
      () => true,
      () => false,
    );
    if (!alive) await ip('netns', 'del', name).catch(() => '');
  }
}
