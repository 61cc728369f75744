/**
 * Networks of encapsulation "vlan": one 802.1Q tag on a physical interface, with machines there that are not Weft's. What is not on
 * this host goes to the uplink, ARP and ND too: whoever has the address answers, for an endpoint the host that has it. Pure.
 */
import type { Action, Flow } from '../openflow/flow.ts';
import { ARP_REQUEST, arpReply, ETH_ARP, flow, goto, is, MULTICAST_BIT, masked, set } from './build.ts';
import type { NetworkModel } from './model.ts';
import { PRIORITY, REG, SIDE } from './pipeline.ts';

/** OFPVID_PRESENT (OpenFlow 1.4 §7.2.3.7): the frame has a tag. */
const PRESENT = 0x1000;

/** Beside classification, port security and delivery of local endpoints, all flows of such a network. */
export function renderVlan(n: NetworkModel): Flow[] {
  const { port, tag } = n.uplink ?? { port: null, tag: 0 };
  const here = is(REG.network, n.index);
  const local = is(REG.side, SIDE.local);
  const remote = is(REG.side, SIDE.tunnel);
  const group = masked('eth_dst', MULTICAST_BIT, MULTICAST_BIT);
  const locals: Action[] = n.locals.map((p) => ({ type: 'output', port: p.ofport }));
  const within = [
    // What nobody here answers is asked further on.
    flow('arpNd', n.index, PRIORITY.default + 1, [here], [goto('l2')]),
    flow('l2', n.index, PRIORITY.flood, [here, remote, group], locals),
  ];
  if (port === null) return [...within, flow('l2', n.index, PRIORITY.flood, [here, local, group], locals)];

  const tagged: Action[] = [{ type: 'push_vlan', etherType: 0x8100 }, set('vlan_vid', PRESENT | tag)];
  const arrived = (match: Parameters<typeof flow>[3], priority: number, to: 'arpNd' | 'l2'): Flow =>
    flow(
      'classify',
      n.index,
      priority,
      [is('in_port', port), is('vlan_vid', PRESENT | tag), ...match],
      [{ type: 'pop_vlan' }, set(REG.network, n.index), set(REG.side, SIDE.tunnel), goto(to)],
    );
  const answer = (p: { mac: bigint; ip: number }): Flow =>
    flow(
      'arpNd',
      n.index,
      PRIORITY.local + 1,
      [here, remote, is('eth_type', ETH_ARP), is('arp_op', ARP_REQUEST), is('arp_tpa', p.ip)],
      [...arpReply(p), ...tagged, { type: 'in_port' }],
    );
  return [
    ...within,
    arrived([is('eth_type', ETH_ARP), is('arp_op', ARP_REQUEST)], PRIORITY.entry + 1, 'arpNd'),
    arrived([], PRIORITY.entry, 'l2'),
    ...n.locals.flatMap(({ mac, ip }) => (ip === null ? [] : [answer({ mac, ip })])),
    flow('l2', n.index, PRIORITY.flood, [here, local, group], [...locals, ...tagged, { type: 'output', port }]),
    flow('l2', n.index, PRIORITY.default + 1, [here, local], [...tagged, set(REG.out, port), goto('output')]),
  ];
}
