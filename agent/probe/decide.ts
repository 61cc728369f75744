/** What follows from what was found: how this host carries frames, and the sentences that say why. Pure. */
import type { Probe } from '../../lib/model.ts';
import type { BpfSide } from '../bpf/model.ts';
import type { TunnelEncap } from '../link/names.ts';
import type { OuterHeaders, Wiring } from '../wiring.ts';

/** What was asked of the host. */
export interface Findings {
  readonly vtep: string;
  readonly underlayInterface: string;
  /** Empty, or that the host does not have its VTEP (yet). */
  readonly underlayProblem: string;
  readonly underlayMtu: number;
  /** The kernel has the openvswitch module. */
  readonly module: boolean;
  /** Empty = the kernel side (eBPF) can be used, else why not. */
  readonly bpf: string;
  /** Empty = the kernel can make such a device, else what it says. */
  readonly devices: Readonly<Record<TunnelEncap, string>>;
  /** Open vSwitch's userspace datapath takes segments as the kernel has them (userspace-tso-enable); null = not asked. */
  readonly tso: boolean | null;
  /** Of segments that the kernel left unfinished, behind Open vSwitch's userspace datapath. Null = not tried. */
  readonly checksums: Checksums | null;
}

/** What does not arrive intact ("TCP over IPv6"): frames that pass as they are, and those with an address and a port rewritten. */
export interface Checksums {
  readonly plain: string[];
  readonly rewritten: string[];
}

/** What the configuration says. */
export interface Choices {
  readonly datapath: 'auto' | 'system' | 'netdev';
  readonly backend: 'auto' | 'ovs-tunnel' | 'kernel-tunnel';
  readonly express: boolean;
  readonly udpPorts: Wiring['udpPorts'];
  readonly outer: OuterHeaders;
}

const ENCAPS = ['vxlan', 'geneve', 'gre'] as const;

export function decide(f: Findings, c: Choices): { wiring: Wiring; probes: Probe[] } {
  const probes: Probe[] = [];
  const say = (name: string, result: string, reason: string): void => {
    probes.push({ name, result, reason });
  };
  const datapathType = datapathOf(f.module, c);
  say(
    'datapath',
    datapathType,
    c.datapath !== 'auto'
      ? 'agent.yaml says so.'
      : f.module
        ? 'The kernel has the openvswitch module.'
        : 'The kernel has no openvswitch module: Open vSwitch runs in user space.',
  );
  const backend = backendOf(f, c, datapathType);
  say('backend', backend.name, backend.reason);
  const express = c.express && backend.name === 'kernel-tunnel';
  say(
    'express',
    express ? 'yes' : 'no',
    express
      ? 'Frames between endpoints that only need forwarding go past Open vSwitch.'
      : backend.name === 'ovs-tunnel'
        ? 'Open vSwitch carries every frame: the express path belongs to the kernel-tunnel backend.'
        : 'agent.yaml says so: Open vSwitch carries every frame.',
  );
  const services = servicesOf(f, datapathType, backend.name, express);
  say('services', services.has ? 'yes' : 'no', services.reason);
  const encaps: TunnelEncap[] = [];
  for (const encap of ENCAPS) {
    // Open vSwitch brings its own in user space; in the kernel it uses the kernel's.
    const own = backend.name === 'ovs-tunnel' && datapathType === 'netdev';
    const problem = own ? '' : f.devices[encap];
    if (problem === '') encaps.push(encap);
    say(
      `encap/${encap}`,
      problem === '' ? 'yes' : 'no',
      problem === ''
        ? own
          ? 'Open vSwitch has it.'
          : 'The kernel has it.'
        : `The kernel has no ${encap}: ${problem}.`,
    );
  }
  const takesSegments = datapathType === 'system' || (f.tso === true && f.checksums?.plain.length === 0);
  const complete = {
    at: completeAt(datapathType, backend.name, express),
    tcp: takesSegments,
    rewritten: datapathType === 'system' || f.checksums?.rewritten.length === 0,
  };
  say('offload', takesSegments ? 'on' : 'off', offloadReason(f, datapathType, takesSegments));
  if (f.underlayProblem !== '') say('underlay', 'no', f.underlayProblem);
  else say('underlay', 'yes', `${f.vtep} on ${f.underlayInterface}, MTU ${f.underlayMtu}.`);
  const wiring: Wiring = {
    datapathType,
    backend: backend.name,
    express,
    services: services.has,
    vtep: f.vtep,
    encaps,
    udpPorts: c.udpPorts,
    underlayMtu: f.underlayMtu,
    complete,
    outer: c.outer,
  };
  return { wiring, probes };
}

type Datapath = Wiring['datapathType'];

const datapathOf = (module: boolean, c: Pick<Choices, 'datapath'>): Datapath =>
  c.datapath === 'auto' ? (module ? 'system' : 'netdev') : c.datapath;

/** What of the kernel side is to be tried. @param module the kernel has the openvswitch module */
export const bpfSide = (module: boolean, c: Pick<Choices, 'datapath' | 'backend'>): BpfSide =>
  datapathOf(module, c) === 'system' && c.backend !== 'kernel-tunnel' ? 'services' : 'forward';

function servicesOf(
  f: Pick<Findings, 'bpf'>,
  datapath: Datapath,
  backend: Wiring['backend'],
  express: boolean,
): { has: boolean; reason: string } {
  const no = (reason: string) => ({ has: false, reason });
  if (express)
    return { has: true, reason: 'Virtual addresses of services are translated where frames leave their container.' };
  if (backend === 'kernel-tunnel')
    return no('Virtual addresses of services are translated on the express path, and agent.yaml switches that off.');
  if (datapath === 'netdev')
    return no(
      'Open vSwitch in user space takes frames before virtual addresses of services could be translated: that belongs to the kernel-tunnel backend.',
    );
  if (f.bpf !== '') return no(`Virtual addresses of services are translated by eBPF, which cannot be used: ${f.bpf}.`);
  return { has: true, reason: 'Virtual addresses of services are translated before Open vSwitch takes frames.' };
}

/** Behind the kernel's side of a pair frames are completed there; where the container's link is the port, in the container. */
function completeAt(
  datapath: Wiring['datapathType'],
  backend: Wiring['backend'],
  express: boolean,
): Wiring['complete']['at'] {
  if (datapath === 'system') return 'none';
  if (backend === 'ovs-tunnel') return 'container';
  return express ? 'kernel' : 'both';
}

function backendOf(f: Findings, c: Choices, datapath: string): { name: Wiring['backend']; reason: string } {
  if (c.backend !== 'auto') return { name: c.backend, reason: 'agent.yaml says so.' };
  if (datapath === 'system')
    return { name: 'ovs-tunnel', reason: "Open vSwitch's kernel datapath has tunnels of its own." };
  if (f.bpf !== '') return { name: 'ovs-tunnel', reason: `eBPF cannot be used: ${f.bpf}.` };
  if (f.devices.vxlan !== '') return { name: 'ovs-tunnel', reason: `The kernel has no vxlan: ${f.devices.vxlan}.` };
  return {
    name: 'kernel-tunnel',
    reason: "Without the openvswitch module, the kernel's tunnel devices are used: no physical interface is touched.",
  };
}

function offloadReason(f: Findings, datapath: string, on: boolean): string {
  if (datapath === 'system') return 'The kernel datapath takes frames as the kernel has them.';
  if (f.tso !== true)
    return 'userspace-tso-enable is not set in Open vSwitch: frames are cut and summed before it reads them.';
  const cut = 'frames are cut and summed before Open vSwitch reads them';
  if (f.checksums === null) return `Whether Open vSwitch gets checksums right could not be tried: ${cut}.`;
  const { plain, rewritten } = f.checksums;
  if (!on) return `Open vSwitch gets checksums wrong (${plain.join(', ')}): ${cut}.`;
  if (rewritten.length === 0)
    return 'userspace-tso-enable is set, and checksums are right, also after a rewrite: segments stay whole.';
  return `userspace-tso-enable is set, and checksums are right where nothing is rewritten, as here: segments stay whole. After a rewrite they would be wrong (${rewritten.join(', ')}).`;
}
