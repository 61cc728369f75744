import { existsSync } from 'node:fs';
import { runInHost } from './enter.ts';
import { hostProcesses } from './inventory.ts';
import { setAddress } from './netns.ts';
import type { LabPaths, NodePaths } from './paths.ts';
import { PREFIX } from './plan.ts';
import { run, words } from './run.ts';

/** Open vSwitch of one host: own ovsdb-server and ovs-vswitchd, with the standard paths in the host's /run. */
const SCHEMA = '/usr/share/openvswitch/vswitch.ovsschema';

export interface OvsPlan {
  readonly address: string;
  readonly hostId: string;
}

/** Starts what does not run, and puts the underlay address where it belongs. Idempotent. */
export async function startOvs(lab: LabPaths, node: NodePaths, plan: OvsPlan): Promise<void> {
  await run('modprobe', ['openvswitch']).catch(() => ''); // what is not there, or built in
  const database = `${node.state}/ovs.db`;
  const have = hostProcesses(lab.name, node.name);
  if (have.ovsdbServer === null) {
    if (!existsSync(database)) await run('ovsdb-tool', ['create', database, SCHEMA]);
    await runInHost(node, 'ovsdb-server', [
      database,
      '--remote=punix:/run/openvswitch/db.sock',
      '--remote=db:Open_vSwitch,Open_vSwitch,manager_options',
      ...common(node, 'ovsdb-server'),
    ]);
  }
  if (have.ovsVswitchd === null) {
    // Few threads: a lab has many switches. TSO: segments stay whole. Both are said before vswitchd reads them.
    await runInHost(
      node,
      'ovs-vsctl',
      words(
        '--no-wait -- init -- set Open_vSwitch .',
        'other_config:n-handler-threads=1 other_config:n-revalidator-threads=1',
        'other_config:userspace-tso-enable=true',
        `external_ids:system-id=${plan.hostId} external_ids:hostname=${node.name}`,
      ),
    );
    await runInHost(node, 'ovs-vswitchd', ['unix:/run/openvswitch/db.sock', ...common(node, 'ovs-vswitchd')]);
  }
  // The host's NIC stays as it is: neither backend takes it.
  await setAddress(node, 'eth0', plan.address, PREFIX);
}

const common = (node: NodePaths, program: string): string[] => [
  '--detach',
  '--no-chdir',
  `--pidfile=/run/openvswitch/${program}.pid`,
  `--unixctl=/run/openvswitch/${program}.ctl`,
  `--log-file=${node.log}/${program}.log`,
  '-vsyslog:off',
  '-vconsole:off',
];

/** Interface that has the underlay address now: a look at the machine, not at the plan. Null when the host is off. */
export async function currentUnderlay(node: NodePaths, address: string): Promise<string | null> {
  try {
    const shown = await run('ip', ['-n', node.netns, '-j', '-4', 'address']);
    const links = JSON.parse(shown || '[]') as { ifname?: string; addr_info?: { local?: string }[] }[];
    return links.find((link) => link.addr_info?.some((info) => info.local === address))?.ifname ?? null;
  } catch {
    return null;
  }
}
