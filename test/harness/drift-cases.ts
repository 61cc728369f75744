/** Drift of every kind, made with other people's tools on host h1 of the lab: what is done, and what is to be told of it. */
import { fileURLToPath } from 'node:url';
import { etcdAll, etcdctl, etcdGet } from './drift.ts';
import { on, onOk, pings, run, until, WEFT } from './lab.ts';

export const HOSTS = ['h1', 'h2', 'h3'] as const;
/** What heals by notification takes milliseconds, the rest waits for an audit (10 s). */
export const HEALED_MS = 15_000;
export const OF = ['-O', 'OpenFlow14'];

/** Two containers of one network, on h1 and h2, and what stands for the one on h1. */
export const seen = {
  ip1: '',
  ip2: '',
  /** Port of br-weft. */
  port: '',
  /** The host's side of the container's veth pair. */
  link: '',
  id: '',
  networkId: '',
  vni: 0,
  hostId: '',
};

/** The container on h1 is another endpoint now. */
export async function see(endpointId: string): Promise<void> {
  seen.id = endpointId;
  seen.link = `wft${endpointId.slice(0, 12)}`;
  seen.port = await vsctl('--bare', '--columns=name', 'find', 'interface', `external_ids:iface-id=${endpointId}`);
}
export const key = {
  record: () => `/weft/v1/default/networks/${seen.networkId}`,
  name: () => '/weft/v1/default/names/drift-a',
  vni: () => `/weft/v1/vnis/${seen.vni}`,
  endpoint: () => `/weft/v1/default/endpoints/${seen.networkId}/${seen.id}`,
  host: () => `/weft/v1/hosts/${seen.hostId}`,
  presence: () => `/weft/v1/presence/${seen.hostId}`,
};
export const block = async (): Promise<string> => {
  const blocks = await etcdAll(`/weft/v1/default/blocks/${seen.networkId}/`);
  const found = [...blocks].find(([, value]) => value.includes(seen.hostId))?.[0];
  if (found === undefined) throw new Error('h1 has no block');
  return found;
};

export const ofctl = (...args: string[]): Promise<string> => onOk('h1', 'ovs-ofctl', ...OF, ...args);
export const vsctl = (...args: string[]): Promise<string> => onOk('h1', 'ovs-vsctl', ...args);
export const ip = (...args: string[]): Promise<string> => onOk('h1', 'ip', ...args);
export const JUNK_LINK = ['wft0123456789ab', 'wfc0123456789ab'] as const;

export async function reach(): Promise<void> {
  await until('both containers reach each other', async () => {
    const both = await Promise.all([pings('h1', 'drift-1', seen.ip2), pings('h2', 'drift-2', seen.ip1)]);
    return both.every((ok) => ok);
  });
}

export interface Case {
  readonly name: string;
  readonly kind: string;
  readonly change: 'missing' | 'extra' | 'differs';
  readonly object: () => string | RegExp;
  readonly make: () => Promise<unknown>;
  /** Host that tells of it; h1. */
  readonly host?: string;
}

export const FLOWS: readonly Case[] = [
  {
    name: 'a flow more (ovs-ofctl add-flow)',
    kind: 'flow',
    change: 'extra',
    object: () => /priority=7777/,
    make: () => ofctl('add-flow', 'br-weft', 'table=0,priority=7777,ip,actions=drop'),
  },
  {
    name: 'a flow fewer (ovs-ofctl --strict del-flows)',
    kind: 'flow',
    change: 'missing',
    object: () => /table=44/,
    make: () => ofctl('--strict', 'del-flows', 'br-weft', 'table=44,priority=400'),
  },
  {
    name: 'a flow that does something else (ovs-ofctl mod-flows)',
    kind: 'flow',
    change: 'differs',
    object: () => /table=44/,
    make: () => ofctl('mod-flows', 'br-weft', 'table=44,actions=drop'),
  },
  {
    name: 'no flow at all (ovs-ofctl del-flows)',
    kind: 'flow',
    change: 'missing',
    object: () => /table=44/,
    make: () => ofctl('del-flows', 'br-weft'),
  },
];

/** Port of br-weft that leads to the tunnels. */
export const TUNNEL = 'weft-to';
/** A bridge that is not Weft's; removed by the test's end. */
export const OTHER = 'drift-other';

export const PORTS: readonly Case[] = [
  {
    name: 'a port fewer (ovs-vsctl del-port)',
    kind: 'port',
    change: 'missing',
    object: () => seen.port,
    make: () => vsctl('del-port', 'br-weft', seen.port),
  },
  {
    name: 'no tunnel (ovs-vsctl del-port)',
    kind: 'port',
    change: 'missing',
    object: () => TUNNEL,
    make: () => vsctl('del-port', 'br-weft', TUNNEL),
  },
  {
    name: 'a tunnel that is policed (ovs-vsctl set)',
    kind: 'port',
    change: 'differs',
    object: () => TUNNEL,
    make: () => vsctl('set', 'interface', TUNNEL, 'ingress_policing_rate=1', 'ingress_policing_burst=1'),
  },
  {
    name: 'a port that is policed (ovs-vsctl set)',
    kind: 'port',
    change: 'differs',
    object: () => seen.port,
    make: () => vsctl('set', 'interface', seen.port, 'ingress_policing_rate=1', 'ingress_policing_burst=1'),
  },
  {
    name: 'a port whose owner was forgotten (ovs-vsctl remove)',
    kind: 'port',
    change: 'differs',
    object: () => seen.port,
    make: () => vsctl('clear', 'interface', seen.port, 'external_ids'),
  },
  {
    name: 'a port more (ovs-vsctl add-port)',
    kind: 'port',
    change: 'extra',
    object: () => 'junk0',
    make: () => vsctl('add-port', 'br-weft', 'junk0', '--', 'set', 'interface', 'junk0', 'type=internal'),
  },
  {
    name: 'a port in another bridge (ovs-vsctl)',
    kind: 'port',
    change: 'missing',
    object: () => seen.port,
    make: () =>
      vsctl('del-port', 'br-weft', seen.port, '--', '--may-exist', 'add-br', OTHER, '--', 'add-port', OTHER, seen.port),
  },
  {
    name: 'a bridge that fails open (ovs-vsctl set-fail-mode)',
    kind: 'bridge',
    change: 'differs',
    object: () => 'br-weft',
    make: () => vsctl('set-fail-mode', 'br-weft', 'standalone'),
  },
  {
    name: 'a bridge that speaks another protocol (ovs-vsctl set)',
    kind: 'bridge',
    change: 'differs',
    object: () => 'br-weft',
    make: () => vsctl('set', 'bridge', 'br-weft', 'protocols=OpenFlow10'),
  },
  {
    name: 'no bridge (ovs-vsctl del-br)',
    kind: 'bridge',
    change: 'missing',
    object: () => 'br-weft',
    make: () => vsctl('del-br', 'br-weft'),
  },
];

export const LINKS: readonly Case[] = [
  {
    name: 'a link of another MTU (ip link set)',
    kind: 'link',
    change: 'differs',
    object: () => seen.link,
    make: () => ip('link', 'set', seen.link, 'mtu', '900'),
  },
  {
    name: 'a link that is down (ip link set)',
    kind: 'link',
    change: 'differs',
    object: () => seen.link,
    make: () => ip('link', 'set', seen.link, 'down'),
  },
  {
    name: "a running container's link fewer (ip link del)",
    kind: 'link',
    change: 'missing',
    object: () => seen.link,
    make: () => ip('link', 'del', seen.link),
  },
  {
    name: 'a link to Open vSwitch that is down (ip link set)',
    kind: 'link',
    change: 'differs',
    object: () => seen.port,
    make: () => ip('link', 'set', seen.port, 'down'),
  },
  {
    name: 'no tunnel device (ip link del)',
    kind: 'link',
    change: 'missing',
    object: () => 'weft-vxlan',
    make: () => ip('link', 'del', 'weft-vxlan'),
  },
  {
    name: 'a link more, under our prefix (ip link add)',
    kind: 'link',
    change: 'extra',
    object: () => JUNK_LINK[0],
    make: () => ip('link', 'add', JUNK_LINK[0], 'type', 'veth', 'peer', 'name', JUNK_LINK[1]),
  },
];

/** eBPF: maps by the helper that the agent uses, programs by tc(8). */
export const KERNEL: readonly Case[] = [
  {
    name: 'a program fewer (tc filter del)',
    kind: 'program',
    change: 'missing',
    object: () => seen.link,
    make: () => onOk('h1', 'tc', 'filter', 'del', 'dev', seen.link, 'ingress'),
  },
  {
    name: 'a map entry fewer',
    kind: 'map',
    change: 'missing',
    object: () => /^ports /,
    make: async () => {
      const [first] = await bpf('dump ports');
      await bpf('batch 1', `d ports ${first?.[0]}`);
    },
  },
  {
    name: 'a map entry more',
    kind: 'map',
    change: 'extra',
    object: () => /^slow /,
    make: () => bpf('batch 1', 'u slow ffffff00 01000000'),
  },
];

const DATAPATH = fileURLToPath(new URL('../../dist/datapath/', import.meta.url));

/** @returns the answer's lines, by words, without the last. */
export async function bpf(...lines: string[]): Promise<string[][]> {
  const input = [`load ${DATAPATH}weft.bpf.o /run/weft/bpf/pins`, ...lines, ''].join('\n');
  const r = await run(WEFT, ['lab', 'exec', 'h1', `${DATAPATH}weft-bpf`], { input });
  const [loaded, ...answer] = r.stdout.trim().split('\n');
  if (loaded?.startsWith('ok') !== true || answer.at(-1)?.startsWith('ok') !== true)
    throw new Error(r.stdout + r.stderr);
  return answer.slice(0, -1).map((line) => line.split(' '));
}

export const DOCKER: readonly Case[] = [
  {
    name: "Docker's network fewer on one host (docker network rm)",
    kind: 'dockerNetwork',
    change: 'missing',
    object: () => 'drift-b',
    // Refused, since h2 has an endpoint there; Docker drops it all the same.
    make: () => on('h1', 'docker', 'network', 'rm', 'drift-b'),
  },
];

export const ETCD: readonly Case[] = [
  {
    name: 'a key that means nothing (etcdctl put)',
    host: 'etcd',
    kind: 'etcdKey',
    change: 'extra',
    object: () => '/weft/v1/junk',
    make: () => etcdctl('put', '/weft/v1/junk', 'x'),
  },
  {
    name: "a network's record fewer (etcdctl del)",
    host: 'etcd',
    kind: 'etcdKey',
    change: 'missing',
    object: key.record,
    make: () => etcdctl('del', key.record()),
  },
  {
    name: "a network's record edited (etcdctl put)",
    host: 'etcd',
    kind: 'etcdKey',
    change: 'differs',
    object: key.record,
    make: async () => {
      const record = JSON.parse((await etcdGet(key.record())) ?? '') as object;
      await etcdctl('put', key.record(), JSON.stringify({ ...record, mtu: 900 }));
    },
  },
  {
    name: 'an index key fewer (etcdctl del)',
    host: 'etcd',
    kind: 'etcdKey',
    change: 'missing',
    object: key.name,
    make: () => etcdctl('del', key.name()),
  },
  {
    name: 'an index key of another network (etcdctl put)',
    host: 'etcd',
    kind: 'etcdKey',
    change: 'differs',
    object: key.vni,
    make: () => etcdctl('put', key.vni(), 'ffffffffffffffff'),
  },
  {
    name: 'an endpoint fewer (etcdctl del)',
    kind: 'etcdKey',
    change: 'missing',
    object: key.endpoint,
    make: () => etcdctl('del', key.endpoint()),
  },
  {
    name: 'an endpoint of another address (etcdctl put)',
    kind: 'etcdKey',
    change: 'differs',
    object: key.endpoint,
    make: async () => {
      const value = (await etcdGet(key.endpoint())) ?? '';
      await etcdctl('put', key.endpoint(), value.replaceAll(seen.ip1, '10.128.0.77'));
    },
  },
  {
    name: 'a block fewer (etcdctl del)',
    kind: 'etcdKey',
    change: 'missing',
    object: () => /\/blocks\//,
    make: async () => etcdctl('del', await block()),
  },
  {
    name: "a host's record fewer (etcdctl del)",
    host: 'etcd',
    kind: 'etcdKey',
    change: 'missing',
    object: key.host,
    make: () => etcdctl('del', key.host()),
  },
];
