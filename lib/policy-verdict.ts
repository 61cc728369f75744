/** What policies say about one connection, and which rule says it: the meaning that proto/weft/v1/types.proto gives them. Pure. */
import { containsIp, familyOfText, parseCidr, parseIp } from './addr.ts';
import type { Network, Policy, PolicyPeer, PolicyPort, Service } from './model.ts';
import { ACTIONS, levelsOf, type PolicyAction, TIERS } from './policy-order.ts';
import { RESOLVER_ADDRESS } from './resolver-address.ts';
import { selects } from './selector.ts';

type Labels = Readonly<Record<string, string>>;
export type Direction = 'egress' | 'ingress';

/** One end of a connection. */
export interface End {
  readonly ip: string;
  /** Null: an address that no endpoint has. */
  readonly endpoint: {
    readonly networkId: string;
    /** Null: not known yet. */
    readonly labels: Labels | null;
  } | null;
}

/** Its first packet. */
export interface Packet {
  readonly protocol: string;
  /** Destination's; of ICMP 0. */
  readonly port: number;
  readonly icmpType: number;
  readonly icmpCode: number;
}

export interface PolicyWorld {
  /** Of the network; of others they mean nothing. */
  readonly policies: readonly Policy[];
  readonly services: readonly Pick<Service, 'name' | 'selector'>[];
  readonly network: Pick<Network, 'id' | 'subnets' | 'policyDefault'>;
  /** Id to network; those that selectors name. */
  readonly networks: ReadonlyMap<string, Pick<Network, 'subnets'>>;
}

export interface Judgement extends Decision {
  /** What staged policies would decide otherwise, were all of them in force; null: nothing. */
  readonly staged: Decision | null;
  /** What is decided where the other address stands for a name that rules give, which each host knows for itself; null: the same. */
  readonly named: Decision | null;
}

interface Decision {
  readonly action: PolicyAction;
  /** "pending": rules ask for labels, and those of the endpoint are not known yet. */
  readonly by: 'rule' | 'default' | 'pending' | 'exempt';
  readonly policy: Policy | null;
  /** From 1, in its list; null without a policy. */
  readonly rule: number | null;
}

/**
 * What is said in one direction.
 * @param self the end that is judged, an endpoint of the world's network: the source for egress, the destination for ingress
 */
export function judge(world: PolicyWorld, direction: Direction, self: End, other: End, packet: Packet): Judgement {
  const mine = world.policies.filter((policy) => policy.networkId === world.network.id);
  const inForce = mine.filter((policy) => !policy.staged);
  const labels = self.endpoint?.labels ?? null;
  const exempt: Judgement = { action: 'allow', by: 'exempt', policy: null, rule: null, staged: null, named: null };
  if (isOfLink(self.ip, packet)) return exempt;
  if (labels === null && inForce.some(asksForLabels)) return { ...exempt, action: 'drop', by: 'pending' };
  if (direction === 'egress' && isForResolver(other.ip, packet)) return exempt;
  const decided = decide(world, inForce, direction, self, other, packet);
  const would = decide(world, mine, direction, self, other, packet);
  const named = decide(world, inForce, direction, self, other, packet, true);
  return {
    ...decided,
    staged: would.action === decided.action ? null : would,
    named: named.policy === decided.policy && named.rule === decided.rule ? null : named,
  };
}

/** The first of the rules that are about it, or the network's default. @param named the other end is every name that is given */
function decide(
  world: PolicyWorld,
  mine: readonly Policy[],
  direction: Direction,
  self: End,
  other: End,
  packet: Packet,
  named = false,
): Decision {
  const labels = self.endpoint?.labels ?? null;
  const found = mine
    .filter((policy) => meant(policy.selector, labels ?? {}))
    .flatMap((policy) => {
      const levels = levelsOf(policy[direction]);
      return policy[direction].flatMap((rule, i) => {
        const who = rule.peers.length === 0 || rule.peers.some((peer) => isPeer(world, peer, other, named));
        const what = rule.ports.length === 0 || rule.ports.some((port) => isPort(port, packet));
        return who && what ? [{ policy, rule: i + 1, action: rule.action as PolicyAction, level: levels[i] ?? 0 }] : [];
      });
    });
  const [first] = found.sort(
    (a, b) =>
      tierOf(a.policy) - tierOf(b.policy) ||
      a.policy.order - b.policy.order ||
      a.level - b.level ||
      ACTIONS.indexOf(a.action) - ACTIONS.indexOf(b.action) ||
      (a.policy.name < b.policy.name ? -1 : Number(a.policy.name > b.policy.name)) ||
      a.rule - b.rule,
  );
  if (first !== undefined) return { action: first.action, by: 'rule', policy: first.policy, rule: first.rule };
  const action = world.network.policyDefault === 'drop' ? 'drop' : 'allow';
  return { action, by: 'default', policy: null, rule: null };
}

/** Neighbour discovery and group membership (RFC 4861 §4, RFC 2710, RFC 3810): without them nothing else works. */
const isOfLink = (ip: string, { protocol, icmpType }: Packet): boolean =>
  protocol === 'icmp' && familyOfText(ip) === 6 && ((icmpType >= 130 && icmpType <= 137) || icmpType === 143);

/** Names are answered whatever policies say. */
const isForResolver = (ip: string, { protocol, port }: Packet): boolean =>
  ip === RESOLVER_ADDRESS && port === 53 && (protocol === 'udp' || protocol === 'tcp');

/** Of both directions; null: nobody is judged there. */
export function verdictOf(egress: Judgement | null, ingress: Judgement | null): PolicyAction {
  if (egress !== null && egress.action !== 'allow') return egress.action;
  return ingress?.action ?? 'allow';
}

const tierOf = ({ tier }: Policy): number => (TIERS as readonly string[]).indexOf(tier);

/** An empty selector is about everybody. */
const meant = (selector: Labels, labels: Labels): boolean =>
  Object.keys(selector).length === 0 || selects(selector, labels);

/** Labels of endpoints of the network say something in it. */
const asksForLabels = (policy: Policy): boolean =>
  Object.keys(policy.selector).length > 0 ||
  [...policy.ingress, ...policy.egress].some((rule) =>
    rule.peers.some(
      ({ who }) => who?.$case === 'service' || (who?.$case === 'endpoints' && Object.keys(who.value.labels).length > 0),
    ),
  );

function isPeer(world: PolicyWorld, { who }: PolicyPeer, other: End, named: boolean): boolean {
  const labelled = (networkId: string, labels: Labels): boolean =>
    other.endpoint?.networkId === networkId && selects(labels, other.endpoint.labels ?? {});
  // As numbers all of IPv4 lies in ::/0.
  const within = (cidr: string): boolean =>
    familyOfText(cidr) === familyOfText(other.ip) && containsIp(parseCidr(cidr), parseIp(other.ip));
  switch (who?.$case) {
    case 'endpoints': {
      const id = who.value.networkId === '' ? world.network.id : who.value.networkId;
      if (Object.keys(who.value.labels).length > 0) return labelled(id, who.value.labels);
      // All of a network are known by its subnets, also before anybody has heard of them.
      const network = id === world.network.id ? world.network : world.networks.get(id);
      return network?.subnets.some(within) === true;
    }
    case 'addresses':
      return within(who.value.cidr) && !who.value.except.some(within);
    case 'service': {
      const service = world.services.find(({ name }) => name === who.value);
      return service !== undefined && labelled(world.network.id, service.selector);
    }
    case 'name':
      return named;
    case undefined:
      return false;
  }
}

function isPort(port: PolicyPort, packet: Packet): boolean {
  if (port.protocol !== packet.protocol) return false;
  if (port.protocol !== 'icmp') return port.first === 0 || (packet.port >= port.first && packet.port <= port.last);
  const { icmpType, icmpCode } = port;
  return (
    (icmpType === undefined || icmpType === packet.icmpType) && (icmpCode === undefined || icmpCode === packet.icmpCode)
  );
}
