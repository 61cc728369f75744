import { WeftError } from '../../lib/errors.ts';

/**
 * The shape of a lab, without side effects: which machines there are and which underlay address each has.
 * Every lab has a /20 of 198.18.0.0/15 (RFC 2544, never routed), so that labs side by side do not meet.
 */
export interface HostPlan {
  readonly name: string;
  readonly index: number;
  /** dockerd and OVS, but no agent. */
  readonly bare: boolean;
  /** 16 hex digits; stays the same over the lab's life. */
  readonly id: string;
}
export interface MemberPlan {
  readonly name: string;
  readonly index: number;
}
export interface LabPlan {
  readonly version: 1;
  readonly name: string;
  /** Which /20 of 198.18.0.0/15. */
  readonly subnet: number;
  readonly hosts: readonly HostPlan[];
  readonly coordinators: readonly MemberPlan[];
  readonly etcd: readonly MemberPlan[];
  /** Files outside the lab's own directories that `up` wrote and `down` removes if they are still the lab's. */
  readonly contextFiles: readonly string[];
  /** Root of the file system that the hosts' Docker comes from; the machine's own when there is none. */
  readonly dockerRoot?: string | null;
}

export interface Wanted {
  readonly hosts: number;
  readonly bare: number;
  readonly coordinators: number;
  readonly etcdMembers: number;
  readonly dockerRoot?: string | undefined;
}

export const SUBNETS = 32;
export const PREFIX = 20;
export const MAX_HOSTS = 3000;

/**
 * What the lab is when it has at least what is wanted: what is there stays, and keeps its names.
 * @throws INVALID_ARGUMENT for too many hosts, FAILED_PRECONDITION for another Docker than the hosts have.
 */
export function grow(old: LabPlan, wanted: Wanted, newId: () => string): LabPlan {
  const hosts = [...old.hosts];
  const add = (count: number, bare: boolean): void => {
    for (let have = hosts.filter((host) => host.bare === bare).length; have < count; have++) {
      const index = hosts.length + 1;
      hosts.push({ name: `h${index}`, index, bare, id: newId() });
    }
  };
  add(wanted.hosts, false);
  add(wanted.bare, true);
  if (hosts.length > MAX_HOSTS) throw new WeftError('INVALID_ARGUMENT', `A lab has at most ${MAX_HOSTS} hosts.`);
  const dockerRoot = old.dockerRoot ?? null;
  if (wanted.dockerRoot !== undefined && wanted.dockerRoot !== dockerRoot && old.hosts.length > 0) {
    const has = dockerRoot === null ? 'Docker of this machine' : `Docker of ${dockerRoot}`;
    throw new WeftError('FAILED_PRECONDITION', `The lab “${old.name}” has hosts with ${has}.`, {
      hint: `weft lab down --name ${old.name}`,
    });
  }
  return {
    ...old,
    dockerRoot: wanted.dockerRoot ?? dockerRoot,
    hosts,
    coordinators: members('coord', Math.max(wanted.coordinators, old.coordinators.length)),
    etcd: members('etcd', Math.max(wanted.etcdMembers, old.etcd.length)),
  };
}

const members = (kind: string, count: number): MemberPlan[] =>
  Array.from({ length: count }, (_, i) => ({ name: `${kind}${i + 1}`, index: i + 1 }));

export const emptyPlan = (name: string, subnet: number): LabPlan => ({
  version: 1,
  name,
  subnet,
  hosts: [],
  coordinators: [],
  etcd: [],
  contextFiles: [],
});

const BASE = 0xc612_0000;

function address(subnet: number, offset: number): string {
  const value = BASE + subnet * 4096 + offset;
  return [value >>> 24, (value >>> 16) & 255, (value >>> 8) & 255, value & 255].join('.');
}

export const networkOf = (subnet: number): string => address(subnet, 0);
/** Underlay addresses: hosts from the bottom; the control plane in the last /24, so that they can be told apart at a glance. */
export const hostAddress = (plan: LabPlan, host: HostPlan): string => address(plan.subnet, host.index);
export const coordinatorAddress = (plan: LabPlan, index: number): string => address(plan.subnet, 0xf00 + index);
export const etcdAddress = (plan: LabPlan, index: number): string => address(plan.subnet, 0xf00 + 100 + index);
export const rootAddress = (plan: LabPlan): string => address(plan.subnet, 0xf00 + 254);

export const COORDINATOR_PORT = 7470;
export const coordinatorUrls = (plan: LabPlan): string[] =>
  plan.coordinators.map((member) => `${coordinatorAddress(plan, member.index)}:${COORDINATOR_PORT}`);
export const etcdClientUrl = (plan: LabPlan, index: number): string => `http://${etcdAddress(plan, index)}:2379`;
export const etcdPeerUrl = (plan: LabPlan, index: number): string => `http://${etcdAddress(plan, index)}:2380`;
export const etcdUrls = (plan: LabPlan): string[] => plan.etcd.map((member) => etcdClientUrl(plan, member.index));
