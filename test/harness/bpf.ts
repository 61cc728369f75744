/**
 * Hosts and containers as network namespaces around the kernel side of the datapath, each host with an Open vSwitch (userspace
 * datapath) whose few flows bring frames to local ports by MAC, and to weft-to otherwise.
 */
import { type ChildProcess, execFile, spawn } from 'node:child_process';
import { existsSync, readdirSync } from 'node:fs';
import { join } from 'node:path';
import { fileURLToPath } from 'node:url';
import { promisify } from 'node:util';
import { BpfDriver } from '../../agent/bpf/driver.ts';
import { encode, SERVICE_MAPS } from '../../agent/bpf/encode.ts';
import { BpfHelper } from '../../agent/bpf/helper.ts';
import {
  type BpfAttachment,
  type BpfCounters,
  type BpfModel,
  type BpfPlaceOnLink,
  type BpfPort,
  type BpfReason,
  type BpfSide,
  hookOf,
} from '../../agent/bpf/model.ts';
import { planMaps, planPrograms } from '../../agent/plan/maps.ts';
import { parseIp } from '../../lib/ip.ts';
import { macOfIp, parseMac } from '../../lib/mac.ts';
import { startOvs, type TestOvs } from './ovs.ts';

const run = promisify(execFile);
const DATAPATH = fileURLToPath(new URL('../../dist/datapath', import.meta.url));
export const OBJECT = join(DATAPATH, 'weft.bpf.o');
export const HELPER = join(DATAPATH, 'weft-bpf');
const PREFIX = 'bpf-';
/** Of containers, as over an underlay of 1500 bytes. */
const MTU = 1450;
const BRIDGE = 'br-weft';
const TUNNEL_PORT = 1000;

/** Namespaces of this process, made and removed together. */
export class Namespaces implements AsyncDisposable {
  readonly #names: string[] = [];

  /** @returns the full name. */
  async add(name: string): Promise<string> {
    const full = `${PREFIX}${process.pid}-${name}`;
    await run('ip', ['netns', 'add', full]);
    this.#names.push(full);
    await inside(full, 'ip', 'link', 'set', 'lo', 'up');
    // Nothing but what tests send: no IPv6 of the kernel's own.
    const off = ['net.ipv6.conf.all.disable_ipv6=1', 'net.ipv6.conf.default.disable_ipv6=1'];
    await inside(full, 'sysctl', '-qw', ...off);
    return full;
  }

  async [Symbol.asyncDispose](): Promise<void> {
    for (const name of this.#names) await run('ip', ['netns', 'del', name]);
  }
}

/** A mount namespace that lasts until it is closed, or this process ends: BPF file systems mounted in it go with it. */
export class Mounts implements AsyncDisposable {
  readonly #holder: ChildProcess;

  private constructor(holder: ChildProcess) {
    this.#holder = holder;
  }

  static async make(): Promise<Mounts> {
    const held = ['--pdeathsig', 'KILL', 'unshare', '-m', 'sh', '-c', 'echo ready; exec sleep infinity'];
    const holder = spawn('setpriv', held, { stdio: ['ignore', 'pipe', 'ignore'] });
    await new Promise((ready, failed) => {
      holder.stdout?.once('data', ready);
      holder.once('error', failed);
    });
    return new Mounts(holder);
  }

  /** Arguments of nsenter(1). */
  get enter(): string {
    return `--mount=/proc/${this.#holder.pid}/ns/mnt`;
  }

  async [Symbol.asyncDispose](): Promise<void> {
    const gone = new Promise((resolve) => this.#holder.once('close', resolve));
    this.#holder.kill('SIGKILL');
    await gone;
  }
}

/** A driver whose helper runs in these namespaces. */
export function driverIn(
  netns: string,
  mounts: Mounts,
  side: BpfSide = 'forward',
): { driver: BpfDriver; helper: BpfHelper } {
  const helper = new BpfHelper(['nsenter', `--net=/run/netns/${netns}`, mounts.enter, HELPER]);
  const pins = '/mnt/bpf/weft';
  if (side === 'forward') return { helper, driver: new BpfDriver({ helper, object: OBJECT, pins }) };
  const object = join(DATAPATH, 'services.bpf.o');
  return { helper, driver: new BpfDriver({ helper, object, pins, maps: SERVICE_MAPS }) };
}

/** Namespaces of test processes that are gone. */
export async function sweepNamespaces(): Promise<void> {
  for (const name of existsSync('/run/netns') ? readdirSync('/run/netns') : []) {
    const pid = /^bpf-(\d+)-/.exec(name)?.[1];
    if (pid !== undefined && !existsSync(`/proc/${pid}`))
      await run('ip', ['netns', 'del', name]).catch(() => undefined);
  }
}

/** Neighbours of that link, once found, are not asked again before a test is over. */
export async function askOnce(netns: string, link: string): Promise<void> {
  const settings = ['delay_first_probe_time=3600', 'base_reachable_time_ms=3600000'];
  await inside(netns, 'sysctl', '-qw', ...settings.map((setting) => `net.ipv4.neigh.${link}.${setting}`));
}

/** Runs a command in a namespace. @returns what it printed. @throws with what it said, when it fails. */
export async function inside(netns: string, command: string, ...args: string[]): Promise<string> {
  return (await run('nsenter', [`--net=/run/netns/${netns}`, command, ...args])).stdout;
}

export interface Container {
  readonly netns: string;
  readonly ip: string;
  readonly mac: string;
  readonly port: BpfPort;
  readonly ofport: number;
}

export class BpfHost implements AsyncDisposable {
  readonly ovs: TestOvs;
  readonly netns: string;
  readonly vtep: string;
  readonly mounts: Mounts;
  readonly driver: BpfDriver;
  readonly helper: BpfHelper;
  readonly containers: Container[] = [];
  readonly attachments: BpfAttachment[] = [];

  private constructor(ovs: TestOvs, mounts: Mounts, vtep: string) {
    this.ovs = ovs;
    this.netns = ovs.netns;
    this.vtep = vtep;
    this.mounts = mounts;
    const { driver, helper } = driverIn(this.netns, mounts);
    this.driver = driver;
    this.helper = helper;
  }

  static async start(vtep: string): Promise<BpfHost> {
    const host = new BpfHost(await startOvs(), await Mounts.make(), vtep);
    await host.#links();
    await host.driver.start();
    return host;
  }

  async #links(): Promise<void> {
    const ip = (...args: string[]) => inside(this.netns, 'ip', ...args);
    const vxlan = ['type', 'vxlan', 'external', 'dstport', '4789', 'nolearning', 'udp6zerocsumrx'];
    await ip('link', 'add', 'weft-vxlan', 'mtu', String(MTU), ...vxlan);
    await ip('link', 'add', 'weft-tk', 'type', 'veth', 'peer', 'name', 'weft-to');
    for (const link of ['weft-vxlan', 'weft-tk', 'weft-to']) await ip('link', 'set', link, 'addrgenmode', 'none', 'up');
    await this.#complete('weft-tk');
    await this.ovs.vsctl(
      'set',
      'open',
      '.',
      'other_config:vlan-limit=2',
      '--',
      'add-br',
      BRIDGE,
      '--',
      'set',
      'bridge',
      BRIDGE,
      'datapath_type=netdev',
      'fail_mode=secure',
    );
    await this.#port('weft-to', TUNNEL_PORT);
    await this.#attach('weft-vxlan', 'from_tunnel');
    await this.#attach('weft-tk', 'to_tunnel');
    await this.#attach('weft-to', 'sink');
  }

  /** Open vSwitch reads whole frames with whole checksums when it has no segmentation offload. */
  async #complete(link: string): Promise<void> {
    await inside(this.netns, 'ethtool', '-K', link, 'tx', 'off');
  }

  async #port(link: string, ofport: number): Promise<void> {
    const wanted = ['set', 'interface', link, `ofport_request=${ofport}`];
    await this.ovs.vsctl('add-port', BRIDGE, link, '--', ...wanted);
  }

  /** Frames of a network to its local ports by MAC, group frames to all of them; what is not local to weft-to, with the tag. */
  async #flows(index: number): Promise<void> {
    const local = this.containers.filter((c) => c.port.index === index).map((c) => ({ mac: c.mac, out: c.ofport }));
    const all = local.map((l) => `output:${l.out}`).join(',');
    const away = `push_vlan:0x88a8,set_field:${0x1000 | index}->vlan_vid,output:${TUNNEL_PORT}`;
    const pruned = away.replace('->vlan_vid', '->vlan_vid,set_field:1->vlan_pcp');
    const flows = [
      `in_port=${TUNNEL_PORT},dl_vlan=${index},actions=pop_vlan,set_field:${index}->reg0,resubmit(,1)`,
      ...local.map((l) => `in_port=${l.out},actions=set_field:${index}->reg0,resubmit(,1)`),
      ...local.map((l) => `table=1,priority=20,reg0=${index},dl_dst=${l.mac},actions=output:${l.out}`),
      `table=1,priority=10,reg0=${index},in_port=${TUNNEL_PORT},dl_dst=01:00:00:00:00:00/01:00:00:00:00:00,actions=${all}`,
      `table=1,priority=5,reg0=${index},dl_dst=01:00:00:00:00:00/01:00:00:00:00:00,actions=${all},${away}`,
      `table=1,priority=6,reg0=${index},dl_dst=01:00:5e:00:00:00/ff:ff:ff:80:00:00,actions=${all},${pruned}`,
      `table=1,priority=7,reg0=${index},dl_dst=01:00:5e:00:00:00/ff:ff:ff:ff:ff:00,actions=${all},${away}`,
      `table=1,priority=3,reg0=${index},in_port=${TUNNEL_PORT},actions=drop`,
      `table=1,priority=1,reg0=${index},actions=${away}`,
    ];
    for (const flow of flows) await this.ovs.ofctl('add-flow', BRIDGE, flow);
  }

  async ifindex(link: string): Promise<number> {
    const [found] = JSON.parse(await inside(this.netns, 'ip', '-j', 'link', 'show', link)) as { ifindex: number }[];
    return found?.ifindex ?? 0;
  }

  async #attach(link: string, program: BpfAttachment['program']): Promise<void> {
    this.attachments.push({ ifindex: await this.ifindex(link), link, program });
  }

  /** A container with its three links; its neighbours are asked by ARP, over the slow path. */
  async container(
    namespaces: Namespaces,
    index: number,
    ip: string,
    options: { express?: boolean } = {},
  ): Promise<Container> {
    const n = this.containers.length;
    const netns = await namespaces.add(`${this.netns.split('-').at(-1)}c${n}`);
    const mac = macOfIp(ip);
    const [wft, wfk, wfo] = [`wft${n}`, `wfk${n}`, `wfo${n}`];
    const host = (...args: string[]) => inside(this.netns, ...(args as [string]));
    const veth = ['type', 'veth', 'peer', 'name'];
    await host(
      'ip',
      'link',
      'add',
      wft,
      'mtu',
      String(MTU),
      ...veth,
      'eth0',
      'mtu',
      String(MTU),
      'address',
      mac,
      'netns',
      netns,
    );
    await host('ip', 'link', 'add', wfk, 'mtu', String(MTU), ...veth, wfo, 'mtu', String(MTU));
    for (const link of [wft, wfk, wfo]) await host('ip', 'link', 'set', link, 'addrgenmode', 'none', 'up');
    await this.#complete(wfk);
    await this.#port(wfo, n + 1);
    await inside(netns, 'ip', 'addr', 'add', `${ip}/16`, 'dev', 'eth0');
    await askOnce(netns, 'eth0');
    await inside(netns, 'ip', 'link', 'set', 'eth0', 'up');
    await this.#attach(wft, 'from_container');
    await this.#attach(wfk, 'from_ovs');
    await this.#attach(wfo, 'sink');
    const port: BpfPort = {
      ifindex: await this.ifindex(wft),
      slow: await this.ifindex(wfk),
      index,
      mac: parseMac(mac),
      ip4: parseIp(ip),
      ip6: null,
      linkLocal: null,
      express: options.express ?? true,
    };
    const container = { netns, ip, mac, port, ofport: n + 1 };
    this.containers.push(container);
    await this.#flows(index);
    return container;
  }

  places(): BpfPlaceOnLink[] {
    return this.attachments.map(({ ifindex, program }) => ({ ifindex, hook: hookOf(program) }));
  }

  /** Makes maps and programs as they are to be. @returns the number of steps it took. */
  async apply(model: BpfModel): Promise<number> {
    const actual = await this.driver.attached(this.places());
    const steps = [
      ...planMaps(encode(model), await this.driver.observeFresh()),
      ...planPrograms(this.attachments, actual),
    ].map((planned) => planned.step);
    await this.driver.apply(steps);
    return steps.length;
  }

  async [Symbol.asyncDispose](): Promise<void> {
    await this.driver.close();
    await this.mounts[Symbol.asyncDispose]();
    await this.ovs[Symbol.asyncDispose]();
  }
}

/** @returns what has been counted since: only reasons that changed. To be polled: frames may still be on their way. */
export async function counting(driver: BpfDriver): Promise<() => Promise<Partial<Record<BpfReason, number>>>> {
  const before = await driver.counters();
  return async () => difference(before, await driver.counters());
}

function difference(before: BpfCounters, after: BpfCounters): Partial<Record<BpfReason, number>> {
  const changed: Partial<Record<BpfReason, number>> = {};
  for (const [reason, now] of Object.entries(after.reasons) as [BpfReason, bigint][]) {
    const more = Number(now - before.reasons[reason]);
    if (more !== 0) changed[reason] = more;
  }
  return changed;
}
