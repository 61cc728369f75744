/**
 * Who a network's policies are about on this host: labels become ports, addresses and ranges. What this host holds is in its journal, and the
 * journal alone is believed about it; what the others hold is in the view. Pure.
 */
import { byBase, type Cidr, containsCidr, halves, isIp4, overlaps, parseCidr, tryParseIp } from '../../lib/addr.ts';
import { LabelIndex } from '../../lib/label-index.ts';
import type { Network, NetworkView, Policy, PolicyPeer, PolicyPort, PolicyRule, View } from '../../lib/model.ts';
import { levelsOf } from '../../lib/policy-order.ts';
import { selects } from '../../lib/selector.ts';
import { ipsOf, type LocalEndpoint } from '../contract.ts';
import type { Direction, PolicyModel, PortMatch, RuleModel, Verdict } from '../flows/policy-model.ts';
import { priorityOf } from './rank.ts';

type Labels = Readonly<Record<string, string>>;

/** An endpoint of this host with the port that it has. */
export interface Subject {
  readonly endpoint: LocalEndpoint;
  readonly ofport: number;
}

export interface PolicySources {
  readonly hostId: string;
  readonly network: Network;
  readonly view: View;
  /** Those of the network. */
  readonly subjects: readonly Subject[];
  /** Those of the host, of whatever network. */
  readonly endpoints: readonly LocalEndpoint[];
  readonly names: NameSource;
}

/** What names of the world stand for. */
export interface NameSource {
  /** Canonical, in order. @param name as policies have it */
  addresses(networkId: string, name: string): readonly string[];
}

/** Nobody has asked for any. */
export const NO_NAMES: NameSource = { addresses: () => [] };

const isKnown = (e: LocalEndpoint): boolean => e.container !== null || e.attached !== undefined;

/** An empty selector is about everybody. */
const meant = (selector: Labels, labels: Labels): boolean =>
  Object.keys(selector).length === 0 || selects(selector, labels);

/** True when frames of the endpoint, or to it, may have to be judged: then Open vSwitch has to see them all. */
export function isJudged(e: LocalEndpoint, network: Network | undefined, interest: NetworkView | undefined): boolean {
  if (network?.policyDefault === 'drop') return true;
  const policies = interest?.policies;
  if (policies === undefined || policies.size === 0) return false;
  return !isKnown(e) || policies.values().some((p) => meant(p.selector, e.labels));
}

/** @returns null where nothing is judged */
export function policyModel(s: PolicySources): PolicyModel | null {
  const policies = policiesOf(s);
  const shut = s.network.policyDefault === 'drop';
  if (!shut && policies.length === 0) return null;
  const rules = namedRules(s).map(({ model }) => model);
  const pending = policies.some((p) => !p.staged && asksForLabels(p))
    ? s.subjects.filter(({ endpoint }) => !isKnown(endpoint)).map(({ ofport }) => ofport)
    : [];
  const open = !shut && policies.every((p) => p.staged);
  return { shut, pending, open, staged: rules.some((r) => r.staged !== undefined), rules };
}

/** A rule that has flows here, and what people call it. */
export interface NamedRule {
  readonly policy: Policy;
  /** From 1, in its list. */
  readonly rule: number;
  readonly model: RuleModel;
}

/** In the order of their policies' names. */
export function namedRules(s: PolicySources): NamedRule[] {
  const peers = new Peers(s);
  const known = s.subjects.filter(({ endpoint }) => isKnown(endpoint));
  const subjects = new LabelIndex(known, ({ endpoint }) => endpoint.labels);
  const used = new Set<number>();
  return policiesOf(s).flatMap((policy) =>
    (['ingress', 'egress'] as const).flatMap((direction) => rulesOf(policy, direction, subjects, peers, used)),
  );
}

const policiesOf = (s: PolicySources): Policy[] =>
  [...(s.view.interests.get(s.network.id)?.policies.values() ?? [])].sort((a, b) => (a.name < b.name ? -1 : 1));

function rulesOf(
  policy: Policy,
  direction: Direction,
  all: LabelIndex<Subject>,
  peers: Peers,
  used: Set<number>,
): NamedRule[] {
  const rules = policy[direction];
  const levels = levelsOf(rules);
  const everybody = Object.keys(policy.selector).length === 0;
  const subjects = everybody ? null : all.find(policy.selector).map(({ ofport }) => ofport);
  if (subjects?.length === 0) return [];
  return rules.flatMap((rule, i): NamedRule[] => {
    const priority = priorityOf(policy.tier, policy.order, levels[i] ?? 0, rule.action);
    const ends = rule.peers.length === 0 ? null : peers.of(rule.peers);
    // Of a coordinator that knows more than this agent, or about nobody (yet).
    if (priority === null || ends?.length === 0) return [];
    const id = numberOf(`${policy.name} ${direction} ${i}`, used);
    const staged = policy.staged ? { staged: { policy: policy.name, rule: i + 1 } } : {};
    const action = rule.action as Verdict;
    const model = { id, direction, priority, action, subjects, peers: ends, ports: portsOf(rule), ...staged };
    return [{ policy, rule: i + 1, model }];
  });
}

/** Labels of endpoints say something: those that have none yet cannot be judged. */
const asksForLabels = (p: Policy): boolean =>
  Object.keys(p.selector).length > 0 ||
  [...p.ingress, ...p.egress].some((rule) =>
    rule.peers.some(
      ({ who }) => who?.$case === 'service' || (who?.$case === 'endpoints' && Object.keys(who.value.labels).length > 0),
    ),
  );

/** An endpoint whose labels are known. */
interface Named {
  readonly labels: Labels;
  readonly cidrs: readonly Cidr[];
}

/** Addresses of those whom rules name. */
class Peers {
  readonly #s: PolicySources;
  readonly #indexes = new Map<string, LabelIndex<Named>>();

  constructor(sources: PolicySources) {
    this.#s = sources;
  }

  of(peers: readonly PolicyPeer[]): Cidr[] {
    const all = new Map<string, Cidr>();
    for (const cidr of peers.flatMap((peer) => this.#one(peer))) all.set(`${cidr.base}/${cidr.prefix}`, cidr);
    return [...all.values()].sort(byBase);
  }

  #one({ who }: PolicyPeer): Cidr[] {
    switch (who?.$case) {
      case 'addresses':
        return without(parseCidr(who.value.cidr), who.value.except.map(parseCidr));
      case 'endpoints': {
        const id = who.value.networkId === '' ? this.#s.network.id : who.value.networkId;
        // All of a network are known by its subnets, also before anybody has heard of them.
        if (Object.keys(who.value.labels).length === 0) return this.#subnets(id);
        return this.#labelled(id, who.value.labels);
      }
      case 'service': {
        const service = this.#s.view.interests.get(this.#s.network.id)?.services.get(who.value);
        return service === undefined ? [] : this.#labelled(this.#s.network.id, service.selector);
      }
      case 'name':
        return cidrsOf(this.#s.names.addresses(this.#s.network.id, who.value));
      case undefined:
        return [];
    }
  }

  #subnets(id: string): Cidr[] {
    const network = id === this.#s.network.id ? this.#s.network : this.#s.view.networks.get(id);
    return (network?.subnets ?? []).map(parseCidr);
  }

  #labelled(id: string, labels: Labels): Cidr[] {
    let index = this.#indexes.get(id);
    if (index === undefined) {
      index = this.#index(id);
      this.#indexes.set(id, index);
    }
    return index.find(labels).flatMap(({ cidrs }) => cidrs);
  }

  #index(id: string): LabelIndex<Named> {
    const own = this.#s.endpoints.filter((e) => e.networkId === id && isKnown(e));
    const others = [...(this.#s.view.interests.get(id)?.endpoints.values() ?? [])].filter(
      (e) => e.hostId !== this.#s.hostId && e.state === 'known',
    );
    const all = [
      ...own.map((e): Named => ({ labels: e.labels, cidrs: cidrsOf(ipsOf(e)) })),
      ...others.map((e): Named => ({ labels: e.labels, cidrs: cidrsOf(e.ips) })),
    ];
    return new LabelIndex(all, (e) => e.labels);
  }
}

const cidrsOf = (ips: readonly string[]): Cidr[] =>
  ips.flatMap((text): Cidr[] => {
    const ip = tryParseIp(text);
    return ip === null ? [] : [{ base: ip, prefix: 128 }];
  });

/** What is left of a range. */
function without(cidr: Cidr, except: readonly Cidr[]): Cidr[] {
  // IPv4 is a part of ::/0 only by how addresses are numbered.
  const touching = except.filter((e) => isIp4(e.base) === isIp4(cidr.base) && overlaps(cidr, e));
  if (touching.length === 0) return [cidr];
  if (touching.some((e) => containsCidr(e, cidr))) return [];
  return halves(cidr).flatMap((half) => without(half, touching));
}

function portsOf(rule: PolicyRule): PortMatch[] | null {
  return rule.ports.length === 0 ? null : rule.ports.flatMap(portOf);
}

function portOf(p: PolicyPort): PortMatch[] {
  switch (p.protocol) {
    case 'tcp':
    case 'udp':
    case 'sctp':
      return [{ protocol: p.protocol, first: p.first, last: Math.max(p.first, p.last) }];
    case 'icmp':
      return [{ protocol: 'icmp', type: p.icmpType ?? null, code: p.icmpCode ?? null }];
    default:
      return [];
  }
}

/** The same for the same rule, as long as no other of the network has it: FNV-1a, 32 bits. */
function numberOf(name: string, used: Set<number>): number {
  let hash = 0x811c9dc5;
  for (const byte of Buffer.from(name)) hash = Math.imul(hash ^ byte, 0x01000193) >>> 0;
  let id = hash === 0 ? 1 : hash;
  while (used.has(id)) id = id === 0xffff_ffff ? 1 : id + 1;
  used.add(id);
  return id;
}
