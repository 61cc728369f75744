/** Judges the rules of a policy, and makes them canonical. Pure: every refusal says which policy, which rule, and what to do. */
import { containsCidr, type Family, familyOf, formatCidr, parseCidr, subnetOf } from '../../lib/addr.ts';
import { dnsName } from '../../lib/dns-name.ts';
import { type Code, middleCut, WeftError } from '../../lib/errors.ts';
import type { Network, Policy, PolicyPeer, PolicyPort, PolicyRule, Service } from '../../lib/model.ts';
import { ACTIONS, levelsOf, MAX_LEVEL } from '../../lib/policy-order.ts';
import { portText } from '../../lib/policy-port.ts';

/** In each direction. */
export const MAX_RULES = 64;
export const MAX_PEERS = 64;
export const MAX_EXCEPT = 64;
export const MAX_PORTS = 32;
const MAX_LABELS = 64;

export type Direction = 'ingress' | 'egress';

/** What rules may name. */
export interface RuleSources {
  /** By name, or id. @throws NOT_FOUND, INVALID_ARGUMENT */
  readonly networkOf: (text: string) => Network;
  /** Network id → name → service. */
  readonly services: ReadonlyMap<string, ReadonlyMap<string, Service>>;
}

export type Refuse = (message: string, hint: string, code?: Code) => WeftError;

/** Refusals that begin with what they are about. */
export const refusal =
  (where: string): Refuse =>
  (message, hint, code = 'INVALID_ARGUMENT') =>
    new WeftError(code, `${where}: ${message}.`, { hint });

/** What somebody else refuses, with what it is about in front. */
export function about<T>(where: string, run: () => T): T {
  try {
    return run();
  } catch (error) {
    const { code, message, hint } = WeftError.from(error);
    throw new WeftError(code, `${where}: ${message}`, { ...(hint === null ? {} : { hint }), cause: error });
  }
}

/** In one order, whatever order they were given in. */
export function canonicalLabels(refuse: Refuse, labels: Readonly<Record<string, string>>): Record<string, string> {
  const entries = Object.entries(labels);
  if (entries.some(([key]) => key === '')) throw refuse('a label has no name', 'write LABEL: VALUE');
  if (entries.length > MAX_LABELS) throw refuse(`there are more than ${MAX_LABELS} labels`, 'give fewer');
  return Object.fromEntries(entries.sort(([a], [b]) => (a < b ? -1 : 1)));
}

export function checkRules(sources: RuleSources, network: Network, policy: Policy, direction: Direction): PolicyRule[] {
  const rules = policy[direction];
  const ofRule = (i: number): string => `Policy ${policy.name}, ${direction} rule ${i + 1}`;
  if (rules.length > MAX_RULES)
    throw refusal(`Policy ${policy.name}`)(
      `it has ${rules.length} ${direction} rules, and ${MAX_RULES} are allowed`,
      'make several policies of it',
    );
  rules.forEach(({ action }, i) => {
    if (!ACTIONS.some((known) => known === action))
      throw refusal(ofRule(i))(`"${middleCut(action)}" is no action`, 'choose allow, drop or reject');
  });
  const deep = levelsOf(rules).findIndex((level) => level > MAX_LEVEL);
  if (deep >= 0)
    throw refusal(ofRule(deep))(
      `the action changes for the ${MAX_LEVEL + 1}th time`,
      `it may change ${MAX_LEVEL} times in a list: put rules of one action together, or make several policies of another order`,
    );
  return rules.map((rule, i): PolicyRule => {
    const where = ofRule(i);
    const refuse = refusal(where);
    if (rule.peers.length > MAX_PEERS)
      throw refuse(`it names ${rule.peers.length} peers, and ${MAX_PEERS} are allowed`, 'make several rules of it');
    if (rule.ports.length > MAX_PORTS)
      throw refuse(`it names ${rule.ports.length} ports, and ${MAX_PORTS} are allowed`, 'make several rules of it');
    const ports = rule.ports.map((port) => checkPort(refuse, port));
    const texts = ports.map(portText);
    const twice = texts.find((text, at) => texts.indexOf(text) < at);
    if (twice !== undefined) throw refuse(`${twice} is given twice`, 'give each once');
    const peers = rule.peers.map((peer) => checkPeer(sources, network, peer, direction, where));
    return { action: rule.action, peers, ports };
  });
}

function checkPeer(
  sources: RuleSources,
  network: Network,
  { who }: PolicyPeer,
  direction: Direction,
  where: string,
): PolicyPeer {
  const refuse = refusal(where);
  const onlyOut = (what: string): void => {
    if (direction === 'ingress')
      throw refuse(`${what} can only be where something is sent to`, 'name whom it comes from by labels or addresses');
  };
  switch (who?.$case) {
    case 'endpoints': {
      const { networkId: text, labels } = who.value;
      const id = text === '' ? network.id : about(where, () => sources.networkOf(text)).id;
      const networkId = id === network.id ? '' : id;
      return { who: { $case: 'endpoints', value: { networkId, labels: canonicalLabels(refuse, labels) } } };
    }
    case 'addresses':
      return { who: { $case: 'addresses', value: checkRange(network, who.value, where) } };
    case 'service':
      onlyOut('a service');
      if (sources.services.get(network.id)?.has(who.value) !== true)
        throw refuse(
          `network ${network.name} has no service ${middleCut(who.value)}`,
          'list them with "weft service ls"',
          'NOT_FOUND',
        );
      return { who: { $case: 'service', value: who.value } };
    case 'name':
      onlyOut('a DNS name');
      return { who: { $case: 'name', value: checkName(refuse, who.value) } };
    case undefined:
      throw refuse('a peer says nobody', 'give it labels, a network, a cidr, a service or a name');
  }
}

function checkRange(network: Network, asked: { cidr: string; except: readonly string[] }, where: string) {
  const refuse = refusal(where);
  const range = about(where, () => parseCidr(asked.cidr));
  const family: Family = familyOf(range.base);
  if (subnetOf(network, family) === null)
    throw refuse(
      `network ${network.name} has no IPv${family}: ${formatCidr(range)} is about nothing`,
      'give addresses of its family',
    );
  if (asked.except.length > MAX_EXCEPT)
    throw refuse(`${asked.except.length} ranges are excepted, and ${MAX_EXCEPT} are allowed`, 'give larger ones');
  const except = asked.except.map((text) => {
    const part = about(where, () => parseCidr(text));
    // As numbers all of IPv4 lies in ::/0.
    if (familyOf(part.base) !== family || !containsCidr(range, part) || part.prefix === range.prefix)
      throw refuse(
        `${formatCidr(part)} is no part of ${formatCidr(range)}`,
        'except ranges that lie in the cidr, and leave some of it',
      );
    return formatCidr(part);
  });
  return { cidr: formatCidr(range), except };
}

function checkName(refuse: Refuse, text: string): string {
  const name = dnsName(text);
  if (name === null)
    throw refuse(`"${middleCut(text)}" is no DNS name`, 'write one like db.example.org or *.example.org');
  return name;
}

const PROTOCOLS = ['tcp', 'udp', 'sctp', 'icmp'];
const isIn = (value: number, first: number, last: number): boolean =>
  Number.isInteger(value) && value >= first && value <= last;

function checkPort(refuse: Refuse, p: PolicyPort): PolicyPort {
  if (!PROTOCOLS.includes(p.protocol))
    throw refuse(`"${middleCut(p.protocol)}" is no protocol`, `choose ${PROTOCOLS.join(', ')}`);
  const [first, last] = [p.first, p.last === 0 ? p.first : p.last];
  if (p.protocol === 'icmp') {
    if (first !== 0 || last !== 0) throw refuse('ICMP has no ports', 'give a type, like icmp/8, or all: icmp');
    if (p.icmpType === undefined && p.icmpCode !== undefined)
      throw refuse('a code of ICMP is given without its type', 'write icmp/TYPE/CODE');
    for (const [what, value] of Object.entries({ type: p.icmpType, code: p.icmpCode }))
      if (value !== undefined && !isIn(value, 0, 255))
        throw refuse(`${value} is no ${what} of ICMP`, 'choose 0 to 255');
    return { protocol: 'icmp', first: 0, last: 0, icmpType: p.icmpType, icmpCode: p.icmpCode };
  }
  if (p.icmpType !== undefined || p.icmpCode !== undefined)
    throw refuse(`${p.protocol} has no types and codes`, 'they are for icmp');
  if (first !== 0 || last !== 0) {
    for (const port of [first, last])
      if (!isIn(port, 1, 65_535)) throw refuse(`${port} is no port`, 'choose 1 to 65535');
    if (first > last) throw refuse(`the ports ${first}-${last} end before they begin`, `write ${last}-${first}`);
  }
  return { protocol: p.protocol, first, last, icmpType: undefined, icmpCode: undefined };
}
