/** What the kernel does alone: two namespaces on the underlay's bridge, and two hosts with a bridge and a VXLAN device each. */
import { run } from '../../cli/lab/run.ts';
import type { Ends } from './measure.ts';
import type { PathName } from './shape.ts';
import { addNamespace, addNode, ip, type Node, type Underlay } from './underlay.ts';

/** A path that is up. */
export interface DataPath {
  readonly path: PathName;
  readonly ends: Ends;
  /** Bytes that Open vSwitch has received on the client's host so far; absent where there is none. */
  readonly ovsBytes?: () => Promise<number>;
}

/** `raw`: the containers sit on the underlay itself. */
export async function rawPath(underlay: Underlay): Promise<DataPath> {
  const [client, server] = [await addNode(underlay, 1), await addNode(underlay, 2)];
  const ends = { client: client.paths.netnsFile, server: server.paths.netnsFile, address: server.address };
  return { path: 'raw', ends };
}

const MTU = 1450;
const VNI = 100;

/** `bridge-vxlan`: as Flannel does it, with entries for the other host and nothing learned. */
export async function bridgePath(underlay: Underlay): Promise<DataPath> {
  const hosts = [await addNode(underlay, 3), await addNode(underlay, 4)] as const;
  const containers = [await addNamespace(underlay, 5), await addNamespace(underlay, 6)] as const;
  for (const [at, other] of [
    [0, 1],
    [1, 0],
  ] as const) {
    await connect(hosts[at], hosts[other], containers[at], at, other);
  }
  const ends = { client: containers[0].paths.netnsFile, server: containers[1].paths.netnsFile, address: inner(1) };
  return { path: 'bridge-vxlan', ends };
}

const inner = (at: number): string => `10.74.0.${at + 2}`;
const mac = (at: number): string => `02:77:74:00:00:0${at + 2}`;

async function connect(host: Node, peer: Node, container: Node, at: number, other: number): Promise<void> {
  await ip(host.paths.netns, [
    `link add br-c mtu ${MTU} type bridge mcast_snooping 0 nf_call_iptables 0`,
    `link add vx0 mtu ${MTU} type vxlan id ${VNI} dstport 4789 local ${host.address} dev eth0 nolearning`,
    `link add c0 mtu ${MTU} type veth peer name eth0 mtu ${MTU} address ${mac(at)} netns ${container.paths.netns}`,
    'link set vx0 master br-c up',
    'link set c0 master br-c up',
    'link set br-c up',
  ]);
  for (const to of ['00:00:00:00:00:00', mac(other)]) {
    await run('bridge', ['-n', host.paths.netns, 'fdb', 'append', to, 'dev', 'vx0', 'dst', peer.address]);
  }
  await ip(container.paths.netns, ['link set eth0 up', `address add ${inner(at)}/24 dev eth0`]);
}
