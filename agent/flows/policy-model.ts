/** Policies of one network as its bridge has to know them: plain data, labels resolved. */
import type { Cidr } from '../../lib/addr.ts';

export type Direction = 'egress' | 'ingress';
export type Verdict = 'allow' | 'drop' | 'reject';

export interface PolicyModel {
  /** What no rule is about is dropped. */
  readonly shut: boolean;
  /** OpenFlow ports of endpoints of this host whose labels are not known yet, where rules ask for labels: nothing passes. */
  readonly pending: readonly number[];
  /** Nothing is in force: all policies are staged, and no frame may be lost by them. */
  readonly open: boolean;
  /** Some of the rules are staged. */
  readonly staged: boolean;
  readonly rules: readonly RuleModel[];
}

/** A rule that concerns this host. Null in a dimension: whatever. */
export interface RuleModel {
  /** Unique in the network, 1..2^32-1: conjunction id. */
  readonly id: number;
  readonly direction: Direction;
  /** policies/rank.ts. All rules of one priority have one action. */
  readonly priority: number;
  readonly action: Verdict;
  /** OpenFlow ports of the endpoints that are judged. Never empty. */
  readonly subjects: readonly number[] | null;
  /** At the other end. Never empty. */
  readonly peers: readonly Cidr[] | null;
  readonly ports: readonly PortMatch[] | null;
  /** Absent: it is in force. */
  readonly staged?: StagedRule;
}

/** A rule that decides nothing: what it would have decided otherwise is counted. */
export interface StagedRule {
  readonly policy: string;
  /** From 1, in its list. */
  readonly rule: number;
}

export type PortMatch =
  | { readonly protocol: 'tcp' | 'udp' | 'sctp'; readonly first: number; readonly last: number }
  | { readonly protocol: 'icmp'; readonly type: number | null; readonly code: number | null };

/** @param before what was there last time: rules, or nothing */
export function sameRules(before: unknown, rules: readonly RuleModel[]): boolean {
  if (!Array.isArray(before) || before.length !== rules.length) return false;
  return rules.every((rule, i) => sameRule(before[i] as RuleModel, rule));
}

const sameRule = (a: RuleModel, b: RuleModel): boolean =>
  a === b ||
  (a.id === b.id &&
    a.direction === b.direction &&
    a.priority === b.priority &&
    a.action === b.action &&
    a.staged?.policy === b.staged?.policy &&
    a.staged?.rule === b.staged?.rule &&
    sameList(a.subjects, b.subjects, (x, y) => x === y) &&
    sameList(a.peers, b.peers, (x, y) => x.base === y.base && x.prefix === y.prefix) &&
    sameList(a.ports, b.ports, samePort));

const samePort = (a: PortMatch, b: PortMatch): boolean =>
  a.protocol === 'icmp'
    ? b.protocol === 'icmp' && a.type === b.type && a.code === b.code
    : b.protocol === a.protocol && a.first === b.first && a.last === b.last;

const sameList = <T>(a: readonly T[] | null, b: readonly T[] | null, same: (x: T, y: T) => boolean): boolean =>
  a === b || (a !== null && b !== null && a.length === b.length && a.every((x, i) => same(x, b[i] as T)));
