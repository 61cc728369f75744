/**
 * What no record tells: addresses that several endpoints may have, and MACs that are learned from trusted endpoints and external peers.
 * Learned entries stand in a table of their own, under their sender's cookie, limited in number, and go with their sender. Pure.
 */

import type { Action, Flow, LearnAction } from '../openflow/flow.ts';
import { LEARN } from '../openflow/learn.ts';
import type { Backend } from './backend.ts';
import { ARP_REQUEST, ETH_ARP, ETH_IPV6, flow, goto, ICMPV6, is, MULTICAST_BIT, masked, ND, set } from './build.ts';
import type { LocalPort, NetworkModel, Remote } from './model.ts';
import { learnedCookie, PRIORITY, REG, SIDE, type Stage, TABLE } from './pipeline.ts';
import { committed, copyTo, JUDGED, judgedStage } from './policies.ts';

/** MACs that one trusted endpoint, or one peer of a network, may have at a time. */
export const LEARNED_LIMIT = 256;
/** Seconds that a MAC is known after it was last seen. */
const LEARNED_IDLE_S = 300;

const inNetwork = (n: NetworkModel) => is(REG.network, n.index);

/** Who may have addresses that no record tells of: who is no Weft host, and hosts with trusted endpoints in the network. */
export const asked = (n: NetworkModel): Remote[] => n.remotes.filter((r) => r.external || r.learn);

const learned = (cookie: bigint, more: LearnAction['specs']): LearnAction => ({
  type: 'learn',
  table: TABLE.learned,
  priority: PRIORITY.local,
  idleTimeout: LEARNED_IDLE_S,
  cookie,
  limit: LEARNED_LIMIT,
  flags: LEARN.deleteLearned,
  specs: [
    { to: 'match', dst: whole(REG.network, 32), from: whole(REG.network, 32) },
    { to: 'match', dst: whole('eth_dst', 48), from: whole('eth_src', 48) },
    ...more,
  ],
});
const whole = (field: Parameters<typeof is>[0], nBits: number) => ({ field, ofs: 0, nBits });

/** Where a trusted endpoint's MACs are: behind its port, which is where it is judged, too. */
const learnLocal = (n: Pick<NetworkModel, 'policies'>, port: LocalPort): Action =>
  learned(learnedCookie('port', port.ofport), [
    n.policies == null
      ? { to: 'output', from: whole('in_port', 16) }
      : { to: 'load', dst: whole(REG.out, 16), from: whole('in_port', 16) },
  ]);

/** Entries that were learned from a peer go with it: few others of the network have its number. */
const which = (r: Remote): number =>
  Array.from(`${r.vtep} ${r.encap} ${r.key}`).reduce((sum, c) => (sum * 31 + (c.codePointAt(0) ?? 0)) % 64, 0);

/** Where a peer's MACs are: behind the VTEP that the frame came from, by the tunnel port that it came by (`ovs-tunnel`). */
export const learnRemote = (n: NetworkModel, r: Remote): Action =>
  learned(learnedCookie('network', n.index, which(r)), [
    { to: 'match', dst: whole(REG.side, 32), from: SIDE.local },
    { to: 'load', dst: whole('tun_id', 64), from: BigInt(r.key) },
    r.vtep.includes(':')
      ? { to: 'load', dst: whole('tun_ipv6_dst', 128), from: whole('tun_ipv6_src', 128) }
      : { to: 'load', dst: whole('tun_dst', 32), from: whole('tun_src', 32) },
    { to: 'output', from: whole('in_port', 16) },
  ]);

/** A trusted endpoint sends from what it likes, and is found there. Before the drop of neighbour discovery that is not true. */
export function trustedSecurity(n: NetworkModel, port: LocalPort): Flow[] {
  if (!port.trusted) return [];
  const from = [is('in_port', port.ofport), masked('eth_src', 0, MULTICAST_BIT)];
  const pass = (more: Parameters<typeof flow>[3], priority: number, to: Stage): Flow =>
    flow('portSecurity', n.index, priority, [...from, ...more], [learnLocal(n, port), goto(to)]);
  return [
    pass([is('eth_type', ETH_ARP), is('arp_op', ARP_REQUEST)], PRIORITY.trusted + 1, 'arpNd'),
    pass(
      [is('eth_type', ETH_IPV6), is('ip_proto', ICMPV6), is('icmpv6_type', ND.solicitation)],
      PRIORITY.trusted + 1,
      'arpNd',
    ),
    pass([], PRIORITY.trusted, judgedStage(n)),
  ];
}

/** Of a network, beside its endpoints: who is asked, and where unknown MACs go. */
export function renderShared(n: NetworkModel, backend: Backend): Flow[] {
  return [...n.asked.map((a) => ask(n, a)), ...n.macs.flatMap((m) => sharedMac(n, m, backend)), ...open(n, backend)];
}

/** Whoever has the address now answers: the question goes where it was sent, to all if to all. */
function ask(n: NetworkModel, { ip, ip6 }: NetworkModel['asked'][number]): Flow {
  const match =
    ip !== null
      ? [is('eth_type', ETH_ARP), is('arp_op', ARP_REQUEST), is('arp_tpa', ip)]
      : [
          is('eth_type', ETH_IPV6),
          is('ip_proto', ICMPV6),
          is('icmpv6_type', ND.solicitation),
          is('nd_target', ip6 ?? 0n),
        ];
  // Above the block that the address may lie in, and above probes of it.
  return flow('arpNd', n.index, PRIORITY.entry, [inNetwork(n), ...match], [goto('l2')]);
}

/** All who may have the MAC get the frame; those that do not have it now drop it, as on a shared wire. */
export function sharedMac(n: NetworkModel, m: NetworkModel['macs'][number], backend: Backend): Flow[] {
  const locals = m.locals.flatMap((port) => copyTo(n, port));
  const at = (side: bigint, actions: readonly Action[]): Flow =>
    flow('l2', n.index, PRIORITY.local, [inNetwork(n), is(REG.side, side), is('eth_dst', m.mac)], actions);
  return [
    at(SIDE.local, [...locals, ...committed(n), ...backend.copies(n, m.remotes, true)]),
    ...(locals.length === 0 ? [] : [at(SIDE.tunnel, locals)]),
  ];
}

/** What nobody answers is asked of those who may know, and of nobody else. */
function open(n: NetworkModel, backend: Backend): Flow[] {
  if (n.encap === 'vlan') return [];
  const trusted = n.locals.filter((p) => p.trusted);
  const may = asked(n);
  if (trusted.length === 0 && may.length === 0) return [];
  const question = [inNetwork(n), is(REG.side, SIDE.local)];
  const locals = trusted.map((p): Action => ({ type: 'output', port: p.ofport }));
  const group = masked('eth_dst', MULTICAST_BIT, MULTICAST_BIT);
  return [
    flow('arpNd', n.index, PRIORITY.default + 2, [...question, group], [...locals, ...backend.ask(n, may)]),
    // Asked again of the one who answered before.
    flow('arpNd', n.index, PRIORITY.default + 1, question, [goto('l2')]),
    ...learnedStage(n, backend),
  ];
}

/** It has MACs that no record tells of. */
export const learns = (n: Pick<NetworkModel, 'remotes' | 'locals'>): boolean =>
  n.remotes.some((r) => r.learn) || n.locals.some((p) => p.trusted);

/** What goes to a MAC behind an endpoint of this host is judged as what goes to the endpoint; what goes to other hosts goes from there. */
const toLearned = (n: Pick<NetworkModel, 'policies'>): Action[] =>
  n.policies == null
    ? [goto('learned')]
    : [set(REG.out, 0), { type: 'resubmit', table: TABLE.learned }, goto('policyIngress')];

function learnedStage(n: NetworkModel, backend: Backend): Flow[] {
  if (!learns(n)) return [];
  const behind = n.remotes.filter((r) => r.learn);
  const unknown = backend.unknown(n, behind);
  const committing = unknown.length === 0 ? [] : committed(n);
  return [
    flow('l2', n.index, PRIORITY.default + 1, [inNetwork(n)], toLearned(n)),
    // Nobody here is known by it.
    ...(n.policies == null ? [] : [flow('policyIngress', n.index, JUDGED.nowhere, [inNetwork(n), is(REG.out, 0)], [])]),
    ...(unknown.length === 0
      ? []
      : [
          flow(
            'learned',
            n.index,
            PRIORITY.default + 1,
            [inNetwork(n), is(REG.side, SIDE.local)],
            [...committing, ...unknown],
          ),
        ]),
  ];
}
