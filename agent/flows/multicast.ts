/**
 * Broadcast and multicast: who gets copies. Groups that are known to have receivers (IGMP, MLD) go to those only, but only while an
 * agent repeats that it is there (`snoop`): after it dies everything goes to everybody. Pure.
 */
import type { Action, Flow, MatchField } from '../openflow/flow.ts';
import type { Backend } from './backend.ts';
import { flow, goto, is, MULTICAST_BIT, masked, set } from './build.ts';
import type { LocalPort, NetworkModel, Remote } from './model.ts';
import { PRIORITY, REG, SIDE, TABLE } from './pipeline.ts';
import { copyTo } from './policies.ts';
import { floodMeter, IGMP, MLD_QUERY, MLD_REPORTS } from './punt.ts';

/** Seconds until pruning ends by itself; repeated by the agent every 10. */
export const SNOOP_TIMEOUT_S = 30;

const ALL = (1n << 48n) - 1n;
const GROUP = masked('eth_dst', MULTICAST_BIT, MULTICAST_BIT);
/** RFC 1112 §6.4, RFC 2464 §7. */
const GROUP4 = masked('eth_dst', 0x01005e000000n, ALL & ~0x7fffffn);
const GROUP6 = masked('eth_dst', 0x333300000000n, ALL & ~0xffffffffn);
/** Groups of the link itself, which nobody needs to report. */
const LINK4 = masked('eth_dst', 0x01005e000000n, ALL & ~0xffn);
const LINK6 = [GROUP6, is('eth_type', 0x86dd), masked('ipv6_dst', 0xff02n << 112n, 0xffffn << 112n)];

const inNetwork = (n: NetworkModel): MatchField => is(REG.network, n.index);

/** Everything that is flooded from an endpoint, requests that are answered here too, is counted against its meter first. */
export function cappedClassify(
  n: NetworkModel,
  port: LocalPort,
  actions: readonly Action[],
  maxMeters: number,
): Flow[] {
  const meter = floodMeter(port.ofport, maxMeters);
  if (meter === null) return [];
  const match = [is('in_port', port.ofport), GROUP];
  return [flow('classify', n.index, PRIORITY.capped, match, [{ type: 'meter', meter }, ...actions])];
}

/** All of a network's flows for frames to groups. */
export function multicast(n: NetworkModel, backend: Backend): Flow[] {
  return [
    flow('l2', n.index, PRIORITY.flood, [inNetwork(n), GROUP], [goto('multicast')]),
    ...copies(
      n,
      PRIORITY.flood,
      [],
      n.locals.map((p) => p.ofport),
      backend.copies(n, n.remotes),
    ),
    ...membership(n),
    ...pruned(n, backend),
  ];
}

/** One flow for what endpoints of this host send, one for what came from other hosts: that stays here. */
function copies(
  n: NetworkModel,
  priority: number,
  match: readonly MatchField[],
  locals: readonly number[],
  remotes: readonly Action[],
): Flow[] {
  const ports = locals.flatMap((port) => copyTo(n, port));
  const side = (which: bigint, actions: readonly Action[]): Flow =>
    flow('multicast', n.index, priority, [inNetwork(n), is(REG.side, which), ...match], actions);
  return [side(SIDE.local, [...ports, ...remotes]), side(SIDE.tunnel, ports)];
}

/** Reports are the agent's, and nobody else's: hosts that hear those of others keep silent (RFC 2236 §3). Only the agent asks. */
function membership(n: NetworkModel): Flow[] {
  if (n.encap === 'vlan') return [];
  const at = (side: bigint, match: readonly MatchField[], actions: readonly Action[]): Flow =>
    flow('l2', n.index, PRIORITY.guard, [inNetwork(n), is(REG.side, side), ...match], actions);
  const reports = [...(n.ipv4 ? [IGMP] : []), ...(n.ipv6 ? MLD_REPORTS : [])];
  const queries = n.ipv6 ? [at(SIDE.local, MLD_QUERY, []), at(SIDE.tunnel, MLD_QUERY, [])] : [];
  return [
    ...reports.flatMap((match) => [at(SIDE.local, match, [goto('punt')]), at(SIDE.tunnel, match, [])]),
    ...queries,
  ];
}

function pruned(n: NetworkModel, backend: Backend): Flow[] {
  if (n.multicast === null) return [];
  const { groups, rest } = n.multicast;
  const known = is(REG.snooped, 1);
  const to = (remotes: readonly Remote[]): Action[] => backend.copies(n, remotes, true);
  const ask: Action[] = [{ type: 'resubmit', table: TABLE.snoop }, goto('multicast')];
  return [
    ...[...(n.ipv4 ? [GROUP4] : []), ...(n.ipv6 ? [GROUP6] : [])].map((match) =>
      flow('l2', n.index, PRIORITY.flood + 1, [inNetwork(n), match], ask),
    ),
    ...[...(n.ipv4 ? [[LINK4]] : []), ...(n.ipv6 ? [LINK6] : [])].map((match) =>
      flow('snoop', n.index, PRIORITY.guard, [inNetwork(n), ...match], []),
    ),
    { ...flow('snoop', n.index, PRIORITY.flood, [inNetwork(n)], [set(REG.snooped, 1)]), hardTimeout: SNOOP_TIMEOUT_S },
    ...copies(n, PRIORITY.flood + 1, [known], rest.locals, to(rest.remotes)),
    ...groups.flatMap((g) => copies(n, PRIORITY.local, [known, is('eth_dst', g.mac)], g.locals, to(g.remotes))),
  ];
}
