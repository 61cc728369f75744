/** Two hosts on one underlay link, one network, three containers: two on host a, one on host b. */
import type { BpfAddress, BpfModel, BpfVtep } from '../../agent/bpf/model.ts';
import { parseIp } from '../../lib/ip.ts';
import { BpfHost, type Container, inside, Namespaces, sweepNamespaces } from './bpf.ts';

export const NET = 3;
export const VNI = 4097;
const VTEPS = { a: '192.0.2.1', b: '192.0.2.2' };
const VTEPS6 = { a: (0xfd00n << 112n) | 1n, b: (0xfd00n << 112n) | 2n };
/** On host b's underlay link, but no VTEP. */
export const STRANGER = '192.0.2.9';

export const v4 = (address: string): BpfAddress => ({ family: 4, address: parseIp(address) });
export const vtep = (address: BpfAddress): BpfVtep => ({ vtep: address, device: null, key: null });

export class Pair implements AsyncDisposable {
  readonly namespaces = new Namespaces();
  readonly a: BpfHost;
  readonly b: BpfHost;
  ca!: Container;
  cb!: Container;
  cc!: Container;
  modelA!: BpfModel;
  modelB!: BpfModel;

  private constructor(a: BpfHost, b: BpfHost) {
    this.a = a;
    this.b = b;
  }

  static async start(): Promise<Pair> {
    await sweepNamespaces();
    const pair = new Pair(await BpfHost.start(VTEPS.a), await BpfHost.start(VTEPS.b));
    await pair.#wire();
    return pair;
  }

  async #wire(): Promise<void> {
    const { a, b, namespaces } = this;
    const veth = ['type', 'veth', 'peer', 'name', 'u0', 'netns', b.netns];
    await inside(a.netns, 'ip', 'link', 'add', 'u0', 'mtu', '1500', ...veth);
    for (const [host, n] of [
      [a, 1],
      [b, 2],
    ] as const) {
      await inside(host.netns, 'ip', 'addr', 'add', `${host.vtep}/24`, 'dev', 'u0');
      await inside(host.netns, 'ip', 'addr', 'add', `fd00::${n}/64`, 'dev', 'u0', 'nodad');
      await inside(host.netns, 'ip', 'link', 'set', 'u0', 'addrgenmode', 'none', 'up');
    }
    await inside(b.netns, 'ip', 'addr', 'add', `${STRANGER}/24`, 'dev', 'u0');
    this.ca = await a.container(namespaces, NET, '10.128.0.7');
    this.cb = await b.container(namespaces, NET, '10.128.0.70');
    this.cc = await a.container(namespaces, NET, '10.128.0.8');
    this.modelA = await modelOf(a, { own: v4(a.vtep), other: v4(b.vtep), block: '10.128.0.64' });
    this.modelB = await modelOf(b, { own: v4(b.vtep), other: v4(a.vtep), block: '10.128.0.0' });
    await this.reset();
  }

  /** Both hosts as they were at the start. */
  async reset(): Promise<void> {
    await this.a.apply(this.modelA);
    await this.b.apply(this.modelB);
  }

  /** The same over IPv6. */
  async overIp6(): Promise<void> {
    const own: BpfAddress = { family: 6, address: VTEPS6.a };
    const other: BpfAddress = { family: 6, address: VTEPS6.b };
    await this.a.apply(await modelOf(this.a, { own, other, block: '10.128.0.64' }));
    await this.b.apply(await modelOf(this.b, { own: other, other: own, block: '10.128.0.0' }));
  }

  async [Symbol.asyncDispose](): Promise<void> {
    await this.a[Symbol.asyncDispose]();
    await this.b[Symbol.asyncDispose]();
    await this.namespaces[Symbol.asyncDispose]();
  }
}

/** Everything of the network as a host sees it; the other host's endpoints by their block, a /26. */
async function modelOf(of: BpfHost, at: { own: BpfAddress; other: BpfAddress; block: string }): Promise<BpfModel> {
  const remote = vtep(at.other);
  const device = await of.ifindex('weft-vxlan');
  const mac = (0x0258n << 32n) | BigInt(parseIp(at.block));
  return {
    config: {
      tunnelPort: await of.ifindex('weft-tk'),
      ttl: 64,
      dscp: 0,
      checksum: false,
      dontFragment: true,
      source4: at.own.family === 4 ? at.own.address : null,
      source6: at.own.family === 6 ? at.own.address : null,
      entry: 0n,
    },
    ports: of.containers.map((c) => c.port),
    nets: [{ index: NET, device, vni: VNI, mtu: 1450 }],
    fdb: of.containers.map((c) => ({
      index: NET,
      mac: c.port.mac,
      place: { kind: 'local', ifindex: c.port.ifindex, rewrite: null },
      express: c.port.express,
    })),
    blocks: [{ index: NET, mac, bits: 42, place: { kind: 'remote', ...remote }, express: true }],
    sources: [{ index: NET, vtep: remote.vtep, device, key: VNI, external: false, learn: false }],
    lists: [{ id: NET, vteps: [remote] }],
    groups: [],
    services: [],
  };
}

/** Three pings. @throws when one is lost. */
export const ping = (from: Container, to: string, ...options: string[]): Promise<string> =>
  inside(from.netns, 'ping', '-c', '3', '-i', '0.05', '-W', '3', ...options, to);
