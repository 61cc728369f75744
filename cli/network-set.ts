/** weft network set: live changes; no container is recreated. */
import type { Command } from 'commander';
import { Network } from '../gen/weft/v1/types.ts';
import type { Mesh } from './client.ts';
import { flagsOf, print, remote, withMesh } from './command.ts';
import type { Io } from './io.ts';
import { rateFlags } from './rates.ts';
import { ofThisEpoch, settle } from './settle.ts';
import { networkJson } from './shapes.ts';
import { UsageError } from './usage.ts';
import { collect, labels, mtu, nonEmpty, vni } from './values.ts';

interface SetFlags {
  readonly mtu?: string;
  readonly label?: string[];
  readonly labelRm?: string[];
  readonly ipRange?: string;
  readonly internal?: boolean;
  readonly encrypt?: boolean;
  readonly ipv6?: boolean;
  readonly encap?: string;
  readonly vni?: string;
  readonly subnet?: string[];
  readonly gateway?: string[];
  readonly space?: string;
  readonly egressIp?: string[];
  readonly rate?: string;
  readonly burst?: string;
  readonly policyDefault?: string;
}

export function registerSet(noun: Command, io: Io): void {
  remote(noun, 'set <network>', 'change a network while it is in use')
    .optionsGroup('Network:')
    .option('--mtu <n>', 'MTU of the containers’ interfaces')
    .option('--label <key=value>', 'add or replace a label (may be repeated)', collect)
    .option('--label-rm <key>', 'remove a label (may be repeated)', collect)
    .option('--ip-range <cidr>', 'part of the subnet that addresses are given from')
    .option('--internal', 'no way out of the mesh')
    .option('--no-internal', 'a way out of the mesh')
    .option('--encrypt', 'encrypt between hosts')
    .option('--no-encrypt', 'do not encrypt between hosts')
    .option('--ipv6', 'IPv6 too')
    .option('--encap <kind>', 'vxlan, geneve, gre or vlan')
    .option('--vni <n>', 'network identifier')
    .option('--subnet <cidr>', 'address range', collect)
    .option('--gateway <ip>', 'gateway of the subnet', collect)
    .option('--space <name>', 'address space')
    .option('--egress-ip <ip>', 'source address of what leaves the mesh (may be repeated; "none": the host’s)', collect)
    .option('--rate <rate>', 'each endpoint may send, and receive, so much unless it says otherwise: 500mbit; none')
    .option('--burst <bytes>', 'may go at once after a silence: 64kb (made from the rate)')
    .option('--policy-default <action>', 'what no policy is about: allow or drop')
    .action(async (name: string, _options: unknown, command: Command) => {
      const network = nonEmpty('network name', name);
      const flags = flagsOf<SetFlags>(command);
      const { values, fields } = changes(flags);
      const added = labels('--label', flags.label ?? []);
      const relabel = flags.label !== undefined || flags.labelRm !== undefined;
      if (fields.length === 0 && !relabel)
        throw new UsageError('Nothing to change was given.', 'see weft network set --help');
      const changed = await withMesh(io, command, async (mesh) => {
        if (relabel) {
          values.labels = await mergedLabels(mesh, network, added, flags.labelRm ?? []);
          fields.push('labels');
        }
        const request = { project: '', network, fields, values };
        const answer = await mesh.call('updateNetwork', request, { timeoutMs: 30_000 });
        await settle(io, mesh, ofThisEpoch(answer.revision), flags.json === true);
        return answer;
      });
      print(io, command, networkJson(changed), () => `${changed.name}\n`);
    });
}

/** The coordinator refuses, with UNIMPLEMENTED, the fields that it cannot change yet: all that is given is sent. */
function changes(flags: SetFlags): { values: Network; fields: string[] } {
  const values = Network.fromPartial({});
  const fields: string[] = [];
  const set = <K extends keyof Network>(field: K, value: Network[K] | undefined): void => {
    if (value === undefined) return;
    values[field] = value;
    fields.push(field);
  };
  set('mtu', flags.mtu === undefined ? undefined : mtu('--mtu', flags.mtu));
  set('vni', flags.vni === undefined ? undefined : vni('--vni', flags.vni));
  set('ipRange', flags.ipRange);
  set('internal', flags.internal);
  set('encrypted', flags.encrypt);
  set('ipv6', flags.ipv6);
  set('encap', flags.encap);
  set('subnets', flags.subnet);
  set('gateways', flags.gateway);
  set('space', flags.space);
  set('egressIps', egressIps(flags.egressIp));
  set('rate', rateFlags(flags));
  const { policyDefault } = flags;
  set('policyDefault', policyDefault === undefined ? undefined : nonEmpty('--policy-default', policyDefault));
  return { values, fields };
}

/** "none" alone takes them all away. @throws UsageError, INVALID_ARGUMENT */
export function egressIps(given: readonly string[] | undefined): string[] | undefined {
  if (given === undefined) return undefined;
  const ips = given.map((ip) => nonEmpty('--egress-ip', ip));
  if (!ips.includes('none')) return ips;
  if (ips.length === 1) return [];
  throw new UsageError('--egress-ip none goes alone.', 'leave the other addresses out');
}

/** The record's labels as a whole travel: what is there now, changed. */
async function mergedLabels(
  mesh: Mesh,
  network: string,
  added: Readonly<Record<string, string>>,
  removed: readonly string[],
): Promise<Record<string, string>> {
  const now = await mesh.call('getNetwork', { project: '', network });
  const kept = Object.entries(now.labels).filter(([key]) => !removed.includes(key));
  return { ...Object.fromEntries(kept), ...added };
}
