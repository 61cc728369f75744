import { describe, expect, it } from 'vitest';
import { render } from '../../../agent/flows/memo.ts';
import type { BridgeModel } from '../../../agent/flows/model.ts';
import { formatFlow } from '../../../agent/openflow/format.ts';
import { bridgeOf, placed, type Routed } from '../../harness/route-models.ts';

/** Networks 1 and 2 here, 2 and 3 there; two static routes, one of them over two hops. */
const MESH: Routed = {
  endpoints: [
    placed('a', 'h1', 1, 2, 2),
    placed('b', 'h1', 2, 2, 3, { mac: '02:42:00:00:00:03' }),
    placed('c', 'h2', 2, 18, 2, { mac: '02:42:00:00:00:04' }),
    placed('d', 'h2', 3, 18, 3),
  ],
  statics: [
    { to: '192.168.0.0/16', hops: [{ network: 2, ip: '10.2.0.2' }] },
    {
      to: '192.168.7.0/24',
      hops: [
        { network: 2, ip: '10.2.0.18' },
        { network: 3, ip: '10.3.0.18' },
      ],
    },
  ],
};
const flowsOf = (model: BridgeModel): string[] => [...render(model, new Map()).values()].map(formatFlow).sort();
const without = (model: BridgeModel): BridgeModel => ({
  ...model,
  networks: model.networks.map((n) => {
    const without = { ...n };
    delete without.routing;
    delete without.routers;
    delete without.reached;
    return without;
  }),
});
const added = (model: BridgeModel): string[] => {
  const before = new Set(flowsOf(without(model)));
  return flowsOf(model).filter((f) => !before.has(f));
};

describe('routes', () => {
  it('are these, on the host that two of three networks are on', async () => {
    await expect(`${added(bridgeOf(MESH, 'h1')).join('\n')}\n`).toMatchFileSnapshot('routes.flows');
  });

  it('let in what other hosts have routed, where Open vSwitch has the tunnels itself', () => {
    const model: BridgeModel = { ...bridgeOf(MESH, 'h2'), tunnels: { kind: 'ovs', ports: { vxlan: 1 } } };
    const arriving = added(model).filter((f) => f.includes('tun_src'));
    expect(arriving.map((f) => f.replace(/cookie=\S+ /, ''))).toMatchInlineSnapshot(`
      [
        "priority=300,tun_id=0x1002,tun_src=192.0.2.1,in_port=1,dl_src=02:5c:97:f6:61:25 actions=set_field:0x3->reg0,set_field:0x2->reg1,goto_table:28",
      ]
    `);
  });

  it('leave a judged network alone until the packet is where it is delivered', () => {
    const judged = { policies: { rules: [], shut: true, pending: [], open: false, staged: false } };
    const model = bridgeOf({ ...MESH, more: { 2: judged } }, 'h1');
    const unrouted = new Set(flowsOf(without(model)));
    const more = flowsOf(model).filter((f) => !unrouted.has(f) && /table=(32|33|36)|resubmit\(,36\)/.test(f));
    expect(more.map((f) => f.replace(/cookie=\S+ /, ''))).toMatchInlineSnapshot(`
      [
        "table=25, priority=228,ipv6,reg0=0x2,ipv6_dst=fd00:1::/64 actions=resubmit(,36),dec_ttl,set_field:02:5c:97:f6:61:25->eth_src,set_field:0x1->reg0,set_field:0x1->reg5,move:NXM_NX_IPV6_DST[]->NXM_NX_XXREG2[],goto_table:27",
        "table=25, priority=340,ip,reg0=0x2,nw_dst=10.1.0.0/24 actions=resubmit(,36),dec_ttl,set_field:02:5c:97:f6:61:25->eth_src,set_field:0x1->reg0,set_field:0x1->reg5,move:NXM_OF_IP_DST[]->NXM_NX_REG8[],goto_table:27",
        "table=26, priority=228,ipv6,reg0=0x2,ipv6_dst=fd00:3::/64 actions=resubmit(,36),dec_ttl,set_field:02:5c:97:f6:61:25->eth_src,set_field:0x3->reg0,set_field:0x1->reg5,move:NXM_NX_IPV6_DST[]->NXM_NX_XXREG2[],goto_table:27",
        "table=26, priority=340,ip,reg0=0x2,nw_dst=10.3.0.0/24 actions=resubmit(,36),dec_ttl,set_field:02:5c:97:f6:61:25->eth_src,set_field:0x3->reg0,set_field:0x1->reg5,move:NXM_OF_IP_DST[]->NXM_NX_REG8[],goto_table:27",
        "table=26, priority=340,ip,reg0=0x2,reg7=0x10000/0xffff0000,nw_dst=192.168.7.0/24 actions=resubmit(,36),dec_ttl,set_field:02:5c:97:f6:61:25->eth_src,set_field:0x3->reg0,set_field:0x1->reg5,set_field:0xa030012->reg8,goto_table:27",
        "table=32, priority=64950,ip,reg0=0x2,reg5=0x1 actions=ct(table=33,zone=NXM_NX_REG0[0..15])",
        "table=32, priority=64950,ipv6,reg0=0x2,reg5=0x1 actions=ct(table=33,zone=NXM_NX_REG0[0..15])",
        "table=33, priority=0 actions=set_field:0->reg5,resubmit(,32)",
        "table=36, priority=500,reg5=0x1 actions=drop",
      ]
    `);
  });

  it('lead nowhere where frames of the network cannot be told from others', () => {
    const model = bridgeOf(MESH, 'h1');
    const most = 4094;
    const networks = model.networks.map((n) => (n.index === 3 ? { ...n, index: most + 1 } : n));
    const flows = flowsOf({ ...model, networks });
    expect(flowsOf(model).some((f) => f.includes('set_field:4099->vlan_vid'))).toBe(true);
    expect(flows.filter((f) => /set_field:8191->vlan_vid|reg0=0xfff,reg1=0x1,dl_dst/.test(f))).toEqual([]);
  });

  it('lead to MACs that several endpoints of other hosts may have', () => {
    const mac = 0x0000_5e00_0133n;
    const { networks, ...bridge } = bridgeOf(MESH, 'h1');
    const shared = networks.map((n) =>
      n.index === 3
        ? { ...n, macs: [{ mac, locals: [], remotes: n.remotes }], neighbours: [{ ip: 0xffff_0a03_0063n, mac }] }
        : n,
    );
    const before = new Set(flowsOf({ ...bridge, networks }));
    const more = flowsOf({ ...bridge, networks: shared }).filter((f) => !before.has(f));
    expect(more.map((f) => f.replace(/cookie=\S+ /, ''))).toEqual([
      'table=27, priority=300,ip,reg0=0x3,reg8=0xa030063 actions=set_field:00:00:5e:00:01:33->eth_dst,goto_table:28',
      'table=28, priority=400,reg0=0x3,reg1=0x1,dl_dst=00:00:5e:00:01:33 actions=push_vlan:0x88a8,set_field:4099->vlan_vid,set_field:1->vlan_pcp,output:1',
    ]);
  });

  it('measure datagrams alone where segments pass whole', () => {
    const model = bridgeOf(MESH, 'h1');
    const whole = new Set(flowsOf(model));
    expect(
      flowsOf({ ...model, wholeSegments: true })
        .filter((f) => !whole.has(f))
        .every((f) => /table=25, priority=\d+,tcp6?,/.test(f)),
    ).toBe(true);
  });
});
