import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import type { BpfModel, BpfVtep } from '../../../agent/bpf/model.ts';
import { parseIp } from '../../../lib/ip.ts';
import { BpfHost, type Container, counted, inside, Namespaces, sweepNamespaces } from '../../harness/bpf.ts';

const NET = 3;
const VNI = 4097;
const VTEPS = { a: '192.0.2.1', b: '192.0.2.2' };

const remoteOf = (address: string): BpfVtep => ({
  vtep: { family: 4, address: parseIp(address) },
  device: null,
  key: null,
});

describe('two hosts', () => {
  const namespaces = new Namespaces();
  let a: BpfHost;
  let b: BpfHost;
  let ca: Container;
  let cb: Container;
  let cc: Container;

  /** Everything of this network as a host sees it; the other host's endpoints by their block. */
  async function model(of: BpfHost, other: BpfHost, block: string): Promise<BpfModel> {
    const remote = remoteOf(other.vtep);
    const device = await of.ifindex('weft-vxlan');
    return {
      config: {
        tunnelPort: await of.ifindex('weft-tk'),
        ttl: 64,
        dscp: 0,
        checksum: false,
        dontFragment: true,
        source4: parseIp(of.vtep),
        source6: null,
      },
      ports: of.containers.map((c) => c.port),
      nets: [{ index: NET, device, vni: VNI }],
      fdb: of.containers.map((c) => ({
        index: NET,
        mac: c.port.mac,
        place: { kind: 'local', ifindex: c.port.ifindex, rewrite: null },
        express: c.port.express,
      })),
      blocks: [
        {
          index: NET,
          mac: (0x0258n << 32n) | BigInt(parseIp(block)),
          bits: 42,
          place: { kind: 'remote', ...remote },
          express: true,
        },
      ],
      sources: [{ index: NET, vtep: remote.vtep, device, key: VNI, external: false, learn: false }],
      lists: [{ id: NET, vteps: [remote] }],
      groups: [],
    };
  }

  beforeAll(async () => {
    await sweepNamespaces();
    a = await BpfHost.start(VTEPS.a);
    b = await BpfHost.start(VTEPS.b);
    const veth = ['type', 'veth', 'peer', 'name', 'u0', 'netns', b.netns];
    await inside(a.netns, 'ip', 'link', 'add', 'u0', 'mtu', '1500', ...veth);
    for (const host of [a, b]) {
      await inside(host.netns, 'ip', 'addr', 'add', `${host.vtep}/24`, 'dev', 'u0');
      await inside(host.netns, 'ip', 'link', 'set', 'u0', 'up');
    }
    ca = await a.container(namespaces, NET, '10.128.0.7');
    cb = await b.container(namespaces, NET, '10.128.0.70');
    cc = await a.container(namespaces, NET, '10.128.0.8');
    await a.apply(await model(a, b, '10.128.0.64'));
    await b.apply(await model(b, a, '10.128.0.0'));
  });
  afterAll(async () => {
    await a?.[Symbol.asyncDispose]();
    await b?.[Symbol.asyncDispose]();
    await namespaces[Symbol.asyncDispose]();
  });

  const ping = (from: Container, to: string, ...options: string[]): Promise<string> =>
    inside(from.netns, 'ping', '-c', '3', '-i', '0.05', '-W', '1', ...options, to);

  it('a second look finds nothing to do', async () => {
    expect(await a.apply(await model(a, b, '10.128.0.64'))).toBe(0);
  });

  it('ARP goes the slow way, as a copy to the other host; ping takes the express path', async () => {
    const onA = await counted(a.driver, () => ping(ca, cb.ip));
    expect(onA).toMatchObject({ express_remote: 3, express_rx: 3, copies: 1 });
    expect(await counted(b.driver, () => ping(ca, cb.ip))).toEqual({ express_remote: 3, express_rx: 3 });
    expect(await counted(a.driver, () => ping(ca, cc.ip))).toMatchObject({ express_local: 6 });
  });
});
