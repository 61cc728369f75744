/** Namespaces of the bench on the underlay of a lab, beside its hosts; `weft lab down` finds and removes them by their names. */

import { machines } from '../../cli/lab/down.ts';
import { type LabPaths, labPaths, type NodePaths, nodePaths } from '../../cli/lab/paths.ts';
import { hostAddress, type LabPlan, MAX_HOSTS, PREFIX } from '../../cli/lab/plan.ts';
import { powerOff } from '../../cli/lab/power.ts';
import { run } from '../../cli/lab/run.ts';
import { requirePlan } from '../../cli/lab/state.ts';
import { removeTree } from '../../cli/lab/trees.ts';

export interface Underlay {
  readonly lab: LabPaths;
  readonly plan: LabPlan;
}

export interface Node {
  readonly paths: NodePaths;
  /** On the underlay. */
  readonly address: string;
}

/** @param name of a lab that is up. */
export function underlayOf(name: string): Underlay {
  const lab = labPaths(name);
  return { lab, plan: requirePlan(lab) };
}

export const ip = (netns: string | null, lines: readonly string[]): Promise<string> =>
  run('ip', [...(netns === null ? [] : ['-n', netns]), '-batch', '-'], { input: `${lines.join('\n')}\n` });

/** A namespace alone. @param n from 1, above the numbers that hosts of a lab can have */
export async function addNamespace({ lab, plan }: Underlay, n: number): Promise<Node> {
  const index = MAX_HOSTS + n;
  const paths = nodePaths(lab.name, `h${index}`);
  await run('ip', ['netns', 'add', paths.netns]);
  const off = ['net.ipv6.conf.all.disable_ipv6=1', 'net.ipv6.conf.default.disable_ipv6=1'];
  await run('nsenter', [`--net=${paths.netnsFile}`, 'sysctl', '-qw', ...off]).catch(() => '');
  await ip(paths.netns, ['link set lo up']);
  return { paths, address: hostAddress(plan, { name: paths.name, index, bare: true, id: '' }) };
}

/** Removes what the bench added to a lab that stays. */
export async function removeNodes({ lab }: Underlay): Promise<void> {
  const mine = machines(lab.name, null).filter((name) => Number(/^h(\d+)$/.exec(name)?.[1] ?? 0) > MAX_HOSTS);
  for (const name of mine) {
    await powerOff(lab, name);
    await removeTree(nodePaths(lab.name, name).state);
  }
}

/** A namespace with eth0 on the underlay's bridge: a veth as the kernel makes it, with all its offloads. */
export async function addNode(underlay: Underlay, n: number): Promise<Node> {
  const node = await addNamespace(underlay, n);
  const { netns, name } = node.paths;
  await ip(underlay.lab.underlayNetns, [
    `link add ${name} mtu 1500 type veth peer name eth0 mtu 1500 netns ${netns}`,
    `link set ${name} master br0 up`,
  ]);
  await ip(netns, ['link set eth0 up', `address add ${node.address}/${PREFIX} dev eth0`]);
  return node;
}
