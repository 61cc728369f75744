import { existsSync } from 'node:fs';
import { runInHost } from './enter.ts';
import { hostProcesses } from './inventory.ts';
import { linkExists, macOf, setAddress } from './netns.ts';
import type { LabPaths, NodePaths } from './paths.ts';
import { PREFIX } from './plan.ts';
import { run, until, words } from './run.ts';

/** Open vSwitch of one host: own ovsdb-server and ovs-vswitchd, with the standard paths in the host's /run. */
const SCHEMA = '/usr/share/openvswitch/vswitch.ovsschema';

export interface OvsPlan {
  readonly address: string;
  readonly hostId: string;
}

/** Starts what does not run, and puts the underlay address where it belongs. Idempotent. */
export async function startOvs(lab: LabPaths, node: NodePaths, plan: OvsPlan): Promise<void> {
  const kernel = await kernelDatapath();
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
    // Few threads: a lab has many switches, and this is said before vswitchd reads it.
    await runInHost(
      node,
      'ovs-vsctl',
      words(
        '--no-wait -- init -- set Open_vSwitch .',
        'other_config:n-handler-threads=1 other_config:n-revalidator-threads=1',
        `external_ids:system-id=${plan.hostId} external_ids:hostname=${node.name}`,
      ),
    );
    const options = kernel ? [] : ['--disable-system-route'];
    const daemon = ['unix:/run/openvswitch/db.sock', ...options, ...common(node, 'ovs-vswitchd')];
    await runInHost(node, 'ovs-vswitchd', daemon);
  }
  const underlay = kernel ? 'eth0' : await underlayBridge(node, plan.address);
  await setAddress(node, underlay, plan.address, PREFIX);
  if (!kernel) await addRoute(node, plan.address, underlay);
}

/**
 * The route of the userspace datapath's tunnels. It would follow the kernel's by itself, but it empties its table with every change
 * to any link of the host (a container's veth) and reads it anew: packets are lost meanwhile.
 */
async function addRoute(node: NodePaths, address: string, device: string): Promise<void> {
  const control = ['-t', '/run/openvswitch/ovs-vswitchd.ctl', 'ovs/route/add'];
  await until(
    `the route through ${device} on ${node.name}`,
    () =>
      runInHost(node, 'ovs-appctl', [...control, `${address}/${PREFIX}`, device]).then(
        () => true,
        () => false, // its bridge has no address yet, as far as vswitchd knows
      ),
    { deadline: 10_000 },
  );
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

/**
 * Where the kernel has no openvswitch, OVS's userspace datapath does the tunnels, and it sends and receives only through
 * interfaces of its own: eth0 becomes a port of br-phy, which has the address.
 */
async function underlayBridge(node: NodePaths, address: string): Promise<string> {
  await runInHost(
    node,
    'ovs-vsctl',
    words(
      '-- --may-exist add-br br-phy',
      `-- set bridge br-phy datapath_type=netdev fail-mode=standalone other_config:hwaddr="${macOf(address)}"`,
      '-- --may-exist add-port br-phy eth0',
    ),
  );
  await until(`br-phy on ${node.name}`, () => linkExists(node.netns, 'br-phy'), { deadline: 10_000 });
  return 'br-phy';
}

/** True when the kernel has openvswitch. It is a module on most, and loaded by whoever starts Open vSwitch. */
async function kernelDatapath(): Promise<boolean> {
  await run('modprobe', ['openvswitch']).catch(() => '');
  return run('ovs-dpctl', ['dump-dps']).then(
    () => true,
    () => false,
  );
}

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
