/**
 * Policies as flows. A connection is judged where it is sent (egress, before its destination is looked up) and where it arrives
 * (ingress, when the port is known); what belongs to one that was allowed passes by the state that conntrack has of it, in a zone of the
 * network's own (its index). Rules are conjunctive matches (ovs-fields(7), CONJUNCTIVE MATCH FIELDS): endpoints, addresses and ports are
 * flows of their own, so that n × m × k cost n + m + k. All rules of one priority have one action. Pure.
 */
import { type Cidr, containsIp, IPV4 } from '../../lib/addr.ts';
import { DNS_ADDRESS, DNS_PORT } from '../gateway/addresses.ts';
import type { Action, Flow, MatchField } from '../openflow/flow.ts';
import { ETH_ARP, ETH_IPV4, ETH_IPV6, flow, goto, ICMPV6, inPrefix, is, masked, set } from './build.ts';
import type { NetworkModel } from './model.ts';
import { REG, SIDE, type Stage, TABLE } from './pipeline.ts';
import type { Direction, PolicyModel, PortMatch, RuleModel } from './policy-model.ts';
import { portMasks } from './port-masks.ts';
import { rejected } from './punt.ts';
import { compared, renderStaged, stagedBase, suspected, UNDECIDED } from './staged.ts';

/** Its connections are tracked, and judged. */
export const isJudged = (n: Pick<NetworkModel, 'policies' | 'locals'>): boolean =>
  n.policies != null && n.locals.length > 0;

/** Where frames go that port security, or a tunnel, has let in. */
export const judgedStage = (n: Pick<NetworkModel, 'policies'>): Stage => (n.policies == null ? 'l2' : 'conntrack');

/** Before a frame leaves this host's part of the pipeline its connection is committed, once it is allowed; nothing where nothing is judged. */
export const committed = (n: Pick<NetworkModel, 'policies'>): Action[] =>
  n.policies == null ? [] : [{ type: 'resubmit', table: TABLE.commit }];

/** To a port of an endpoint of this host, which stands in a register: judged there where there is a judge. */
export const delivery = (n: Pick<NetworkModel, 'policies'>): Action =>
  goto(n.policies == null ? 'output' : 'policyIngress');

/** A copy for an endpoint of this host, judged like any frame. */
export const copyTo = (n: Pick<NetworkModel, 'policies'>, port: number): Action[] =>
  n.policies == null
    ? [{ type: 'output', port }]
    : [set(REG.out, port), { type: 'resubmit', table: TABLE.policyIngress }];

/** Priorities of the judge's tables; rules are between `rest` and `exempt` (policies/rank.ts). */
export const JUDGED = {
  nowhere: 65_100,
  pending: 65_000,
  entered: 64_950,
  untracked: 64_900,
  invalid: 64_800,
  answer: 64_700,
  revoked: 64_690,
  exempt: 64_600,
  rest: 1,
} as const;

/** Bits of ct_state (ovs-fields(7), CONNECTION TRACKING FIELDS). */
const CT = { new: 1n, est: 2n, rel: 4n, rpl: 8n, inv: 16n, trk: 32n } as const;
const state = (value: bigint, mask: bigint): MatchField => masked('ct_state', value, mask);
/** Mark of a connection whose caller is not allowed any more: its answers are not either. */
const REVOKED = 1;
const ZONE = { field: REG.network, ofs: 0, nBits: 16 } as const;
const FAMILIES = [ETH_IPV4, ETH_IPV6] as const;
const TABLES = { egress: 'policyEgress', ingress: 'policyIngress' } as const satisfies Record<Direction, Stage>;

/** Never judged, and never routed: neighbour discovery and group membership (RFC 4861 §4, RFC 2710, RFC 3810), without which nothing else works. */
export const LINK: readonly (readonly MatchField[])[] = [
  [is('eth_type', ETH_IPV4), is('ip_proto', 2)],
  ...[130, 131, 132, 133, 134, 135, 136, 137, 143].map((type) => [
    is('eth_type', ETH_IPV6),
    is('ip_proto', ICMPV6),
    is('icmpv6_type', type),
  ]),
];

/** What judged networks share. */
export const policyBase = (): Flow[] => [
  flow('conntrack', 0, 0, [], [goto('l2')]),
  flow('policyEgress', 0, 0, [], []),
  flow('policyIngress', 0, 0, [], []),
  // Called, not gone to: what has been allowed, and is new or was revoked before; and what is not allowed any more.
  flow('commit', 0, 0, [], []),
  flow('revoke', 0, 0, [], []),
  stagedBase(),
  ...FAMILIES.flatMap((family) => {
    const type = is('eth_type', family);
    const mark = (value: number): Action => ({
      type: 'ct',
      commit: true,
      zone: ZONE,
      exec: [set('ct_mark', value)],
    });
    const est = state(CT.est | CT.trk, CT.est | CT.rpl | CT.trk);
    return [
      flow(
        'commit',
        0,
        JUDGED.rest,
        [type, state(CT.new | CT.trk, CT.new | CT.trk)],
        [{ type: 'ct', commit: true, zone: ZONE }],
      ),
      flow('commit', 0, JUDGED.rest, [type, est, is('ct_mark', REVOKED)], [mark(0)]),
      flow('revoke', 0, JUDGED.rest, [type, est, is('ct_mark', 0)], [mark(REVOKED)]),
    ];
  }),
];

/** Everything but the rules: it changes with the network's endpoints, not with what a rule says. */
export function renderJudge(
  n: Pick<NetworkModel, 'index' | 'checks' | 'routing' | 'reached'>,
  { shut, pending, open, staged }: Omit<PolicyModel, 'rules'>,
): Flow[] {
  const here = is(REG.network, n.index);
  const isRouted = n.routing !== undefined || n.reached === true;
  const pass: Record<Direction, Action[]> = { egress: [goto('l2')], ingress: DELIVER };
  const passOn = (d: Direction): Action[] => (open ? PASS_ON[d] : []);
  const both = (priority: number, match: readonly MatchField[], actions: (d: Direction) => Action[]): Flow[] =>
    (['egress', 'ingress'] as const).map((d) => flow(TABLES[d], n.index, priority, [here, ...match], actions(d)));
  const track = (side: readonly MatchField[], to: Stage, priority: number): Flow[] =>
    FAMILIES.map((type) =>
      flow(
        'conntrack',
        n.index,
        priority,
        [here, is('eth_type', type), ...side],
        [{ type: 'ct', zone: ZONE, table: TABLE[to] }],
      ),
    );
  return [
    ...LINK.map((match) => flow('conntrack', n.index, 500, [here, ...match], [goto('l2')])),
    ...track([is(REG.side, SIDE.local)], 'policyEgress', 400),
    ...track([], 'l2', 300),
    ...pending.flatMap((port) =>
      (['egress', 'ingress'] as const).map((d) =>
        flow(TABLES[d], n.index, JUDGED.pending, [here, subject(d, port)], []),
      ),
    ),
    // What was tracked so far was so in the network that it comes from.
    ...(isRouted ? FAMILIES : []).map((type) =>
      flow(
        'policyIngress',
        n.index,
        JUDGED.entered,
        [here, is('eth_type', type), is(REG.routed, 1)],
        [{ type: 'ct', zone: ZONE, table: TABLE.entered }],
      ),
    ),
    // ARP, and what goes past the tracker.
    flow('policyIngress', n.index, JUDGED.untracked, [here, is('eth_type', ETH_ARP)], [goto('output')]),
    ...FAMILIES.map((type) =>
      flow(
        'policyIngress',
        n.index,
        JUDGED.untracked,
        [here, is('eth_type', type), state(0n, CT.trk)],
        [goto('output')],
      ),
    ),
    ...both(JUDGED.invalid, [state(CT.inv | CT.trk, CT.inv | CT.trk)], passOn),
    ...both(JUDGED.answer, [state(CT.rpl | CT.trk, CT.rpl | CT.trk | CT.new), is('ct_mark', 0)], (d) => PASS_ON[d]),
    ...both(JUDGED.revoked, [state(CT.rpl | CT.trk, CT.rpl | CT.trk | CT.new)], passOn),
    ...both(JUDGED.answer, [state(CT.rel | CT.trk, CT.rel | CT.trk)], (d) => PASS_ON[d]),
    ...[
      [is('ip_proto', 17), is('udp_dst', DNS_PORT)],
      [is('ip_proto', 6), is('tcp_dst', DNS_PORT)],
    ].map((port) =>
      flow(
        'policyEgress',
        n.index,
        JUDGED.exempt,
        [here, is('eth_type', ETH_IPV4), is('ipv4_dst', DNS_ADDRESS), ...port],
        [goto('l2')],
      ),
    ),
    ...checksOf(n).map((from) =>
      flow('policyIngress', n.index, JUDGED.exempt, [here, is(REG.side, SIDE.host), ...from], DELIVER),
    ),
    ...both(JUDGED.rest, [], (d) => [
      ...(staged ? compared(shut ? 'drop' : 'allow') : []),
      ...(shut ? REVOKE : pass[d]),
    ]),
  ];
}

const DELIVER: Action[] = [{ type: 'resubmit', table: TABLE.commit }, goto('output')];
/** Connections go on being judged by what their callers send; where that is not allowed any more, answers end too. */
const REVOKE: Action[] = [{ type: 'resubmit', table: TABLE.revoke }];
const PASS_ON: Record<Direction, Action[]> = { egress: [goto('l2')], ingress: [goto('output')] };

/** The host's own questions to its endpoints. */
const checksOf = ({ checks }: Pick<NetworkModel, 'checks'>): MatchField[][] => [
  ...(checks?.ip == null ? [] : [[is('eth_type', ETH_IPV4), is('ipv4_src', checks.ip)]]),
  ...(checks?.ip6 == null ? [] : [[is('eth_type', ETH_IPV6), is('ipv6_src', checks.ip6)]]),
];

/** Who is judged: the port that a frame came in by, or is to leave by. */
const subject = (direction: Direction, port: number): MatchField =>
  direction === 'egress' ? is('in_port', port) : is(REG.out, port);

interface Slot {
  readonly match: readonly MatchField[];
  /** Dimensions of rules that the match satisfies. */
  readonly conjunctions: Action[];
  /** It is a whole rule, which does this. */
  whole: Action[] | null;
}

/** Rules whose flows have nothing to do with those of others. */
export interface RuleGroup {
  /** Unique in the network; with the same rules the flows are the same. */
  readonly name: string;
  readonly rules: readonly RuleModel[];
  readonly render: () => Flow[];
}

/** Rules of one network. Identical matches of one priority are one flow with several conjunctions. */
export const renderRules = (n: Pick<NetworkModel, 'index' | 'policies' | 'locals'>, maxMeters = 0): Flow[] =>
  ruleGroups(n, maxMeters).flatMap((group) => group.render());

export function ruleGroups(n: Pick<NetworkModel, 'index' | 'policies' | 'locals'>, maxMeters: number): RuleGroup[] {
  const all = n.locals.length === 0 ? [] : (n.policies?.rules ?? []);
  const staged = all.filter((r) => r.staged !== undefined);
  const watched = staged.length > 0;
  const decide = ({ direction, action }: RuleModel): Action[] => [
    ...(watched ? compared(action) : []),
    ...verdict(direction, action, maxMeters),
  ];
  const suspect = (rule: RuleModel): Action[] => suspected(rule, TABLES[rule.direction]);
  const here = is(REG.network, n.index);
  const looked = [here, state(CT.new | CT.trk, CT.new | CT.trk), UNDECIDED];
  const groups = Map.groupBy(all, (r) => `${r.staged === undefined} ${r.priority} ${r.direction}`);
  return [
    ...[...groups].map(([name, rules]): RuleGroup => {
      const [{ priority, direction, staged: isStaged }] = rules as [RuleModel];
      const render = (): Flow[] =>
        isStaged === undefined
          ? renderPriority([here], direction, rules, decide, n.index, priority)
          : renderPriority(looked, direction, rules, suspect, n.index, priority);
      return { name: `${name} ${watched} ${maxMeters}`, rules, render };
    }),
    { name: `staged ${maxMeters}`, rules: staged, render: () => renderStaged(n, staged, maxMeters) },
  ];
}

function renderPriority(
  here: readonly MatchField[],
  direction: Direction,
  rules: readonly RuleModel[],
  actionsOf: (rule: RuleModel) => Action[],
  index: number,
  priority: number,
): Flow[] {
  const stage = TABLES[direction];
  const slots = new Map<string, Slot>();
  const flows: Flow[] = [];
  const slotOf = (match: readonly MatchField[]): Slot => {
    const key = keyOf(match);
    const slot = slots.get(key) ?? { match, conjunctions: [], whole: null };
    slots.set(key, slot);
    return slot;
  };
  for (const rule of rules) {
    const dimensions = dimensionsOf(direction, rule);
    const nClauses = dimensions.length;
    if (nClauses < 2) for (const match of dimensions[0] ?? [[]]) slotOf(match).whole ??= actionsOf(rule);
    else {
      for (const [clause, matches] of dimensions.entries())
        for (const match of matches)
          slotOf(match).conjunctions.push({ type: 'conjunction', id: rule.id, clause, nClauses });
      flows.push(flow(stage, index, priority, [...here, is('conj_id', rule.id)], actionsOf(rule)));
    }
  }
  for (const { match, conjunctions, whole } of slots.values())
    flows.push(flow(stage, index, priority, [...here, ...match], whole ?? conjunctions));
  return flows;
}

const keyOf = (match: readonly MatchField[]): string =>
  match.map((m) => (m.field === 'raw' ? m.raw : `${m.field}=${m.value}/${m.mask ?? ''}`)).join();

function verdict(direction: Direction, action: RuleModel['action'], maxMeters: number): Action[] {
  if (action === 'allow') return direction === 'egress' ? [goto('l2')] : DELIVER;
  return action === 'reject' ? [...REVOKE, rejected(maxMeters)] : REVOKE;
}

/** Those that say anything: each is a set of matches of which one must hold. */
function dimensionsOf(direction: Direction, { subjects, peers, ports }: RuleModel): MatchField[][][] {
  return [
    ...(subjects === null ? [] : [subjects.map((port) => [subject(direction, port)])]),
    ...(peers === null ? [] : [peers.map((cidr) => address(direction === 'egress' ? 'dst' : 'src', cidr))]),
    ...(ports === null ? [] : [ports.flatMap(portMatches)]),
  ];
}

const address = (end: 'src' | 'dst', cidr: Cidr): MatchField[] => [
  is('eth_type', containsIp(IPV4, cidr.base) ? ETH_IPV4 : ETH_IPV6),
  inPrefix(end, cidr),
];

const PROTOCOLS = { tcp: 6n, udp: 17n, sctp: 132n } as const;

/** In both families, and in each all masks that the range takes. */
function portMatches(p: PortMatch): MatchField[][] {
  if (p.protocol === 'icmp') {
    const of = (type: bigint, protocol: bigint, name: 'icmp' | 'icmpv6'): MatchField[] => [
      is('eth_type', type),
      is('ip_proto', protocol),
      ...(p.type === null ? [] : [is(`${name}_type`, p.type)]),
      ...(p.code === null ? [] : [is(`${name}_code`, p.code)]),
    ];
    return [of(ETH_IPV4, 1n, 'icmp'), of(ETH_IPV6, ICMPV6, 'icmpv6')];
  }
  const { protocol, first, last } = p;
  const masks = first === 0 && last === 0 ? [null] : portMasks(first, last);
  return FAMILIES.flatMap((type) =>
    masks.map((m) => [
      is('eth_type', type),
      is('ip_proto', PROTOCOLS[protocol]),
      ...(m === null ? [] : [masked(`${protocol}_dst`, m.value, m.mask)]),
    ]),
  );
}
