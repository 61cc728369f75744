/**
 * How frames reach other hosts. `ovs-tunnel`: OVS tunnel ports with remote_ip=flow, key=flow (ovs-fields(7), TUNNEL FIELDS).
 * `kernel-tunnel`: one port whose frames carry the local network index as 802.1ad tag; beyond it, eBPF finds the VTEP by destination
 * MAC, makes the copies, and lets in only what comes from a VTEP of the network. Networks of encapsulation "vlan" need neither (vlan.ts).
 */
import { tryParseIp } from '../../lib/ip.ts';
import { tryParseIp6 } from '../../lib/ip6.ts';
import { MAC_PREFIX, MAC_PREFIX_6 } from '../../lib/mac.ts';
import { ROUTER_PREFIX } from '../gateway/addresses.ts';
import type { Action, Flow, MatchField } from '../openflow/flow.ts';
import { MAX_TAGGED_INDEX } from '../wiring.ts';
import { flow, goto, is, masked, set } from './build.ts';
import type { NetworkModel, Remote, Tunnels } from './model.ts';
import { PRIORITY, REG, SIDE } from './pipeline.ts';
import { judgedStage } from './policies.ts';
import { learnRemote } from './shared.ts';

export interface Backend {
  /** Frames of this network from those hosts are recognised, and nobody else's. */
  classify(n: NetworkModel, from: readonly Remote[]): Flow[];
  /** What is let in of a host that nothing else comes from: frames with this source. */
  enters(n: NetworkModel, from: Pick<Remote, 'vtep'>, mac: bigint): Flow[];
  /** Last actions of a frame for that host. */
  unicast(n: NetworkModel, to: Pick<Remote, 'vtep' | 'encap' | 'key'>): Action[];
  /**
   * Actions that send a copy to each of the hosts. They change the frame: nothing else may follow.
   * @param pruned not to all hosts of the network, but to receivers of the frame's group
   */
  copies(n: NetworkModel, to: readonly Remote[], pruned?: boolean): Action[];
  /** The same for what nobody here can answer: to those who may know, all that `asked` (shared.ts) names. */
  ask(n: NetworkModel, to: readonly Remote[]): Action[];
  /** Last actions of a frame for a MAC that only the backend may have learned from these hosts; none when it learns nothing. */
  unknown(n: NetworkModel, from: readonly Remote[]): Action[];
}

const NOWHERE: Backend = {
  classify: () => [],
  enters: () => [],
  unicast: () => [],
  copies: () => [],
  ask: () => [],
  unknown: () => [],
};

/** OFPVID_PRESENT (OpenFlow 1.4 §7.2.3.7): the frame has a tag. */
const PRESENT = 0x1000;
const TAG_8021AD = 0x88a8;
/** Priority in the tag: the eBPF program looks for the receivers of the group, where it else takes all hosts. */
const PRUNED = 1;
/** And here it takes those who may know of addresses that no record tells of. */
const ASKED = 2;

export function backendOf(n: NetworkModel, tunnels: Tunnels): Backend {
  if (n.encap === 'vlan') return NOWHERE;
  // Of a network that is only led to, nobody has asked whether it can be carried.
  if (tunnels.kind === 'kernel') return n.index > MAX_TAGGED_INDEX ? NOWHERE : kernelTunnel(tunnels.port, n.index);
  return ovsTunnel(tunnels.ports);
}

const arrived = (
  n: NetworkModel,
  match: readonly MatchField[],
  before: readonly Action[],
  above = 0,
  after: readonly Action[] = [],
): Flow =>
  flow('classify', n.index, PRIORITY.entry + above, match, [
    ...before,
    set(REG.network, n.index),
    set(REG.side, SIDE.tunnel),
    ...after,
    goto(judgedStage(n)),
  ]);

/** First two bytes of MACs that hosts of the mesh alone send from: where there is a router, their own too. */
const prefixes = (n: Pick<NetworkModel, 'routing'>): number[] => [
  MAC_PREFIX,
  MAC_PREFIX_6,
  ...(n.routing === undefined ? [] : [ROUTER_PREFIX]),
];
const meshMacs = (n: Pick<NetworkModel, 'routing'>): MatchField[] =>
  prefixes(n).map((prefix) => masked('eth_src', BigInt(prefix) << 32n, 0xffffn << 32n));

/** One port for every host; the tag says which network. */
function kernelTunnel(port: number | null, index: number): Backend {
  if (port === null) return NOWHERE;
  const push: Action[] = [{ type: 'push_vlan', etherType: TAG_8021AD }, set('vlan_vid', PRESENT | index)];
  const copies = (to: readonly Remote[], mark: readonly Action[]): Action[] =>
    to.length === 0 ? [] : [...push, ...mark, { type: 'output', port }];
  return {
    classify: (n) => [arrived(n, [is('in_port', port), is('vlan_vid', PRESENT | index)], [{ type: 'pop_vlan' }])],
    // The map `vteps` says whose.
    enters: () => [],
    unicast: () => [...push, set(REG.out, port), goto('output')],
    copies: (_n, to, pruned = false) => copies(to, pruned ? [set('vlan_pcp', PRUNED)] : []),
    ask: (_n, to) => copies(to, [set('vlan_pcp', ASKED)]),
    // From the last stage but one: the output stage is behind it.
    unknown: (_n, from) => (from.length === 0 ? [] : [...push, { type: 'output', port }]),
  };
}

function ovsTunnel(ports: (Tunnels & { kind: 'ovs' })['ports']): Backend {
  const portOf = (r: Pick<Remote, 'encap'>): number | null => ports[r.encap] ?? null;
  const copies = (to: readonly Remote[]): Action[] => {
    const actions: Action[] = [];
    let key = -1;
    for (const r of to) {
      const port = portOf(r);
      if (port === null) continue;
      if (r.key !== key) actions.push(set('tun_id', r.key));
      key = r.key;
      actions.push(toVtep(r), { type: 'output', port });
    }
    return actions;
  };
  return {
    // The outer source is checked: only a VTEP of this very network gets in.
    classify: (n, from) =>
      from.flatMap((r) => {
        const port = portOf(r);
        if (port === null) return [];
        const match = [is('in_port', port), is('tun_id', r.key), fromVtep(r)];
        if (r.external) return [...guarded(n, r, match), arrived(n, match, [], 0, r.learn ? [learnRemote(n, r)] : [])];
        if (!r.learn) return [arrived(n, match, [])];
        // What is known of Weft's hosts without learning leaves room for what is not.
        const known = meshMacs(n).map((prefix) => arrived(n, [...match, prefix], [], 1));
        return [...known, arrived(n, match, [], 0, [learnRemote(n, r)])];
      }),
    enters: (n, from, mac) => {
      const port = n.encap === 'vlan' ? null : (ports[n.encap] ?? null);
      if (port === null) return [];
      return [arrived(n, [is('in_port', port), is('tun_id', n.vni), fromVtep(from), is('eth_src', mac)], [])];
    },
    unicast: (_n, to) => {
      const port = portOf(to);
      return port === null ? [] : [set('tun_id', to.key), toVtep(to), set(REG.out, port), goto('output')];
    },
    copies: (_n, to) => copies(to),
    ask: (_n, to) => copies(to),
    unknown: () => [],
  };
}

/** Who is no Weft host does not send as one of the mesh's endpoints. */
function guarded(n: NetworkModel, r: Remote, match: readonly MatchField[]): Flow[] {
  const isDefault = (mac: bigint): boolean => prefixes(n).includes(Number(mac >> 32n));
  const others = n.remotes.flatMap((other) => (other === r ? [] : other.entries));
  const taken = new Set([...n.locals, ...others].map((e) => e.mac).filter((mac) => !isDefault(mac)));
  const drop = (source: MatchField): Flow => flow('classify', n.index, PRIORITY.entry + 1, [...match, source], []);
  return [
    ...meshMacs(n).map(drop),
    ...[...taken].map((mac) => drop(is('eth_src', mac))),
    // Its own, where somebody has given it such a one.
    ...r.entries.filter((e) => isDefault(e.mac)).map((e) => arrived(n, [...match, is('eth_src', e.mac)], [], 2)),
  ];
}

function toVtep(r: Pick<Remote, 'vtep'>): Action {
  const v4 = tryParseIp(r.vtep);
  return v4 === null ? set('tun_ipv6_dst', tryParseIp6(r.vtep) ?? 0n) : set('tun_dst', v4);
}

function fromVtep(r: Pick<Remote, 'vtep'>): MatchField {
  const v4 = tryParseIp(r.vtep);
  return v4 === null ? is('tun_ipv6_src', tryParseIp6(r.vtep) ?? 0n) : is('tun_src', v4);
}
