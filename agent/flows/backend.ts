/** How frames reach other hosts. `ovs-tunnel`: an OVS tunnel port with remote_ip=flow, key=flow (ovs-fields(7), TUNNEL FIELDS). */
import type { Action, Flow } from '../openflow/flow.ts';
import { flow, goto, is, set } from './build.ts';
import type { NetworkModel, Remote } from './model.ts';
import { PRIORITY, REG, SIDE } from './pipeline.ts';

export interface Backend {
  /** Frames of this network from that host are recognised, and nobody else's. */
  classify(n: NetworkModel, from: Remote): Flow[];
  /** Last actions of a frame for that host. */
  unicast(n: NetworkModel, to: Remote): Action[];
  /** Actions that send a copy to each of the hosts. */
  copies(n: NetworkModel, to: readonly Remote[]): Action[];
}

/** @param port OpenFlow port of the tunnel; null = none: nothing leaves, nothing arrives. */
export function ovsTunnel(port: number | null): Backend {
  if (port === null) return { classify: () => [], unicast: () => [], copies: () => [] };
  return {
    // The outer source is checked: only a VTEP of this very network gets in.
    classify: (n, from) => [
      flow(
        'classify',
        n.index,
        PRIORITY.entry,
        [is('in_port', port), is('tun_id', n.vni), is('tun_src', from.vtep)],
        [set(REG.network, n.index), set(REG.side, SIDE.tunnel), goto('l2')],
      ),
    ],
    unicast: (n, to) => [set('tun_id', n.vni), set('tun_dst', to.vtep), set(REG.out, port), goto('output')],
    copies: (n, to) =>
      to.length === 0
        ? []
        : [set('tun_id', n.vni), ...to.flatMap((r): Action[] => [set('tun_dst', r.vtep), { type: 'output', port }])],
  };
}
