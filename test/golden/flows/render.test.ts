import { describe, expect, it } from 'vitest';
import { render } from '../../../agent/flows/memo.ts';
import type { BridgeModel, LocalPort, NetworkModel, Remote } from '../../../agent/flows/model.ts';
import { formatFlow } from '../../../agent/openflow/format.ts';
import { parseCidr, parseIp } from '../../../lib/ip.ts';
import { macOfIp, parseMac } from '../../../lib/mac.ts';

const local = (ofport: number, ip: string, mac = macOfIp(ip)): LocalPort => ({
  id: `${ofport}`.repeat(64),
  ofport,
  ip: parseIp(ip),
  ip6: null,
  alias: null,
  mac: parseMac(mac),
  express: true,
  allowed: [],
  trusted: false,
});
const remote = (vtep: string, more: Partial<Remote> = {}): Remote => ({
  hostId: vtep,
  vtep,
  encap: 'vxlan',
  key: 4096,
  blocks: [],
  blocks6: [],
  entries: [],
  withheld: [],
  learn: false,
  external: false,
  ...more,
});
const network = (index: number, more: Partial<NetworkModel> = {}): NetworkModel => ({
  index,
  vni: 4095 + index,
  encap: 'vxlan',
  uplink: null,
  ipv4: true,
  ipv6: false,
  locals: [],
  mtu: 1450,
  remotes: [],
  asked: [],
  macs: [],
  multicast: null,
  ...more,
});

/** Two networks; in the first another host has a block, a given MAC, and an address out of this host's block. */
const MODEL: BridgeModel = {
  maxMeters: 65_536,
  tunnels: { kind: 'ovs', ports: { vxlan: 1 } },
  networks: [
    network(1, {
      locals: [local(2, '10.128.0.2'), local(3, '10.128.0.3', '02:42:00:00:00:03')],
      remotes: [
        remote('192.0.2.2', { blocks: [parseCidr('10.128.0.32/27')] }),
        remote('192.0.2.3', {
          entries: [{ ip: parseIp('10.128.0.9'), ip6: null, mac: parseMac(macOfIp('10.128.0.9')), express: true }],
        }),
      ],
    }),
    network(2, { locals: [local(4, '10.128.16.2')] }),
    network(3, { remotes: [remote('192.0.2.2', { key: 4098 })] }),
  ],
};

const text = (model: BridgeModel): string[] => [...render(model, new Map()).values()].map(formatFlow).sort();

describe('the pipeline', () => {
  it('renders two networks as written down', async () => {
    await expect(`${text(MODEL).join('\n')}\n`).toMatchFileSnapshot('two-networks.flows');
  });

  it('has only the base without networks, and no way in or out without a tunnel', async () => {
    await expect(`${text({ ...MODEL, networks: [] }).join('\n')}\n`).toMatchFileSnapshot('empty.flows');
    const closed = text({ ...MODEL, tunnels: { kind: 'ovs', ports: { vxlan: null } } });
    expect(closed.filter((line) => line.includes('tun_'))).toEqual([]);
  });

  it('leaves VTEPs and copies to the kernel behind one tagged port', async () => {
    const flows = text({ ...MODEL, tunnels: { kind: 'kernel', port: 1 } });
    await expect(`${flows.join('\n')}\n`).toMatchFileSnapshot('kernel-tunnel.flows');
    expect(flows.filter((line) => line.includes('tun_'))).toEqual([]);
  });

  it('lets networks of several encapsulations live together, over IPv6 as well', async () => {
    const networks = [
      network(1, {
        encap: 'geneve',
        locals: [local(2, '10.128.0.2')],
        remotes: [remote('2001:db8::2', { encap: 'geneve', blocks: [parseCidr('10.128.0.32/27')] })],
      }),
      network(2, {
        encap: 'gre',
        locals: [local(4, '10.128.16.2')],
        remotes: [remote('192.0.2.2', { encap: 'gre', key: 4097 }), remote('192.0.2.9', { external: true, key: 77 })],
      }),
    ];
    const tunnels = { kind: 'ovs', ports: { vxlan: 1, geneve: 8, gre: 9 } } as const;
    await expect(`${text({ ...MODEL, tunnels, networks }).join('\n')}\n`).toMatchFileSnapshot('encapsulations.flows');
  });

  it('judges what goes to a learned MAC where it is: at the port of its trusted endpoint', () => {
    const judged = { shut: true, pending: [], open: false, staged: false, rules: [] };
    const locals = [{ ...local(3, '10.128.0.3'), trusted: true }];
    const flows = text({ ...MODEL, networks: [network(1, { locals, remotes: [], policies: judged })] });
    const learning = flows.filter((line) => line.includes('learn('));
    expect(learning.length).toBeGreaterThan(2);
    for (const line of learning)
      expect(line).toMatch(/NXM_OF_ETH_DST\[\]=NXM_OF_ETH_SRC\[\],load:NXM_OF_IN_PORT\[\]->NXM_NX_REG2\[0\.\.15\]\),/);
    expect(flows.filter((line) => /resubmit\(,48\)|reg2=0 /.test(line))).toEqual([
      'cookie=0x576566741c000001, table=28, priority=1,reg0=0x1 actions=set_field:0->reg2,resubmit(,48),goto_table:32',
      'cookie=0x5765667420000001, table=32, priority=65100,reg0=0x1,reg2=0 actions=drop',
    ]);
  });

  it('asks for what several may have, and learns what only its sender knows', async () => {
    const vrrp = parseMac('00:00:5e:00:01:33');
    const learner = remote('192.0.2.3', { learn: true });
    const networks = [
      network(1, {
        locals: [
          { ...local(2, '10.128.0.2'), allowed: [{ ip: parseIp('10.128.0.99'), ip6: null, mac: vrrp }] },
          { ...local(3, '10.128.0.3'), trusted: true },
        ],
        remotes: [remote('192.0.2.2'), learner, remote('192.0.2.9', { external: true, learn: true, key: 77 })],
        asked: [{ ip: parseIp('10.128.0.99'), ip6: null }],
        macs: [{ mac: vrrp, locals: [2], remotes: [learner] }],
      }),
    ];
    await expect(`${text({ ...MODEL, networks }).join('\n')}\n`).toMatchFileSnapshot('shared.flows');
    const kernel = text({ ...MODEL, tunnels: { kind: 'kernel', port: 1 }, networks });
    expect(kernel.filter((line) => line.includes('table=48'))).toMatchInlineSnapshot(`
      [
        "cookie=0x5765667404000001, table=4, priority=360,in_port=3,dl_src=00:00:00:00:00:00/01:00:00:00:00:00 actions=learn(table=48,idle_timeout=300,priority=400,delete_learned,cookie=0x5765667430800003,limit=256,NXM_NX_REG0[],NXM_OF_ETH_DST[]=NXM_OF_ETH_SRC[],output:NXM_OF_IN_PORT[]),goto_table:28",
        "cookie=0x5765667404000001, table=4, priority=361,arp,in_port=3,dl_src=00:00:00:00:00:00/01:00:00:00:00:00,arp_op=1 actions=learn(table=48,idle_timeout=300,priority=400,delete_learned,cookie=0x5765667430800003,limit=256,NXM_NX_REG0[],NXM_OF_ETH_DST[]=NXM_OF_ETH_SRC[],output:NXM_OF_IN_PORT[]),goto_table:8",
        "cookie=0x5765667404000001, table=4, priority=361,icmp6,in_port=3,dl_src=00:00:00:00:00:00/01:00:00:00:00:00,icmp_type=135 actions=learn(table=48,idle_timeout=300,priority=400,delete_learned,cookie=0x5765667430800003,limit=256,NXM_NX_REG0[],NXM_OF_ETH_DST[]=NXM_OF_ETH_SRC[],output:NXM_OF_IN_PORT[]),goto_table:8",
        "cookie=0x5765667430000000, table=48, priority=0 actions=drop",
        "cookie=0x5765667430000001, table=48, priority=1,reg0=0x1,reg1=0x1 actions=push_vlan:0x88a8,set_field:4097->vlan_vid,output:1",
      ]
    `);
  });

  it('tags the frames of a vlan network on its uplink', async () => {
    const networks = [
      network(1, { encap: 'vlan', vni: 0, uplink: { port: 7, tag: 100 }, locals: [local(2, '10.128.0.2')] }),
    ];
    await expect(`${text({ ...MODEL, networks }).join('\n')}\n`).toMatchFileSnapshot('vlan.flows');
  });

  it('gives no flow to a network without a local endpoint', () => {
    expect(text(MODEL).filter((line) => line.includes('4098') || line.includes('reg0=0x3'))).toEqual([]);
  });

  it('renders again only what changed, with the same result', () => {
    const memo = new Map();
    const first = render(MODEL, memo);
    const more: BridgeModel = {
      ...MODEL,
      networks: MODEL.networks.map((n) =>
        n.index === 2 ? { ...n, locals: [...n.locals, local(5, '10.128.16.3')] } : n,
      ),
    };
    const second = render(more, memo);
    expect([...second.values()].map(formatFlow).sort()).toEqual(text(more));
    const anew = [...first].filter(([key, flow]) => second.get(key) !== flow).map(([, flow]) => flow.cookie & 0xffffn);
    expect(new Set(anew)).toEqual(new Set([2n]));
  });
});
