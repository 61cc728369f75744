/** Asks the host what it can do, once at start. */
import { access } from 'node:fs/promises';
import { setTimeout as pause } from 'node:timers/promises';
import type { AgentConfig } from '../../lib/config.ts';
import { WeftError } from '../../lib/errors.ts';
import type { Log } from '../../lib/log.ts';
import type { Probe } from '../../lib/model.ts';
import type { BpfSide } from '../bpf/model.ts';
import type { TunnelEncap } from '../link/names.ts';
import type { OvsDriver } from '../ovs/driver.ts';
import type { Ovsdb } from '../ovs/ovsdb.ts';
import type { Wiring } from '../wiring.ts';
import { bpfSide, type Checksums, decide, type Findings } from './decide.ts';
import { deviceProblem, hostInterfaces } from './links.ts';
import { ownUnderlay } from './own.ts';

export interface Asked {
  /** Why the kernel side (eBPF) cannot be used; empty = it can. */
  readonly bpf: () => Promise<string>;
  /** Is userspace-tso-enable set in Open vSwitch? Null: it does not answer. */
  readonly tso: () => Promise<boolean | null>;
  /** What is wrong with checksums behind Open vSwitch; null = could not be tried. */
  readonly checksums: () => Promise<Checksums | null>;
  readonly log: Log;
}

/** What of the kernel side this host could use. */
export const probedSide = async (config: AgentConfig): Promise<BpfSide> => bpfSide(await hasModule(), config);

/** @throws FAILED_PRECONDITION when the configured underlay address is not of this host. */
export async function probeHost(config: AgentConfig, asked: Asked): Promise<{ wiring: Wiring; probes: Probe[] }> {
  return decide(await findings(config, asked), {
    datapath: config.datapath,
    backend: config.backend,
    express: config.express,
    udpPorts: { vxlan: config.vxlanPort, geneve: config.genevePort },
    outer: config.tunnel,
  });
}

/** @throws FAILED_PRECONDITION when the configured underlay address is not of this host. */
async function findings(config: AgentConfig, asked: Asked): Promise<Findings> {
  const [underlay, module, bpf, vxlan, geneve, gre] = await Promise.all([
    ownUnderlay(config.underlay, {
      look: hostInterfaces,
      file: `${config.stateDir}/underlay.json`,
      log: asked.log,
    }),
    hasModule(),
    asked.bpf(),
    ...(['vxlan', 'geneve', 'gre'] as const).map((encap) => deviceProblem(DEVICE[encap])),
  ]);
  const userspace = config.datapath === 'netdev' || (config.datapath === 'auto' && !module);
  const tso = userspace ? await asked.tso() : null;
  return {
    vtep: underlay.vtep,
    underlayInterface: underlay.interface,
    underlayProblem: underlay.problem,
    underlayMtu: config.underlay.mtu ?? underlay.mtu,
    module,
    bpf,
    devices: { vxlan: vxlan ?? '', geneve: geneve ?? '', gre: gre ?? '' },
    tso,
    checksums: tso === true ? await asked.checksums() : null,
  };
}

const DEVICE: Readonly<Record<TunnelEncap, readonly string[]>> = {
  vxlan: ['vxlan', 'external', 'dstport', '4789'],
  geneve: ['geneve', 'external'],
  gre: ['gretap', 'external'],
};

/** The reason, when something cannot be done; empty when it can. */
export const problemOf = (attempt: Promise<unknown>): Promise<string> =>
  attempt.then(
    () => '',
    (error: unknown) => WeftError.from(error).message.replace(/\.$/, ''),
  );

/** How long Open vSwitch may take to say what it is; without an answer frames are made complete, which is always right. */
const OVS_MS = 3_000;

/** Is userspace-tso-enable set (ovs-vswitchd.conf.db(5))? Null: the database does not answer. */
export async function userspaceTso(db: Ovsdb, ovs: OvsDriver): Promise<boolean | null> {
  const up = await Promise.race([db.ready().then(() => true), pause(OVS_MS, false, { ref: false })]);
  return up ? ovs.observe().otherConfig['userspace-tso-enable'] === 'true' : null;
}

/** The kernel's own datapath is there. */
const hasModule = (): Promise<boolean> =>
  access('/sys/module/openvswitch').then(
    () => true,
    () => false,
  );
