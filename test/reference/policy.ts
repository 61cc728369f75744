/**
 * What policies mean, said once more: slowly, plainly, and by nothing of the product but its types. Tests hold the real pipeline to it.
 */
import type { AddressRange, Policy, PolicyPeer, PolicyPort, PolicyRule } from '../../gen/weft/v1/types.ts';

export interface RefEndpoint {
  readonly network: string;
  readonly host: string;
  readonly ips: readonly string[];
  /** Null: not known yet. */
  readonly labels: Readonly<Record<string, string>> | null;
}

export interface RefMesh {
  /** Id to what becomes of what no rule is about, and its subnets. */
  readonly networks: ReadonlyMap<string, { readonly shut: boolean; readonly subnets: readonly string[] }>;
  readonly endpoints: readonly RefEndpoint[];
  readonly policies: readonly Policy[];
  /** Network id and name of a service to its selector. */
  readonly services: ReadonlyMap<string, Readonly<Record<string, string>>>;
}

/** A connection's first packet. ICMP has type and code, all others a port. */
export interface RefPacket {
  readonly protocol: 'tcp' | 'udp' | 'sctp' | 'icmp';
  readonly port: number;
  readonly type: number;
  readonly code: number;
}

/** @param from @param to addresses of one family */
export function passes(
  mesh: RefMesh,
  [source, from]: readonly [RefEndpoint, string],
  [destination, to]: readonly [RefEndpoint, string],
  packet: RefPacket,
): boolean {
  return (
    judged(mesh, 'egress', source, to, packet) === 'allow' &&
    judged(mesh, 'ingress', destination, from, packet) === 'allow'
  );
}

/**
 * What staged policies would decide otherwise in one direction, as policy name and rule's place; null: nothing. Where several of one rank
 * would, all are named: any of them may be the one.
 */
export function stagedOf(
  mesh: RefMesh,
  direction: 'ingress' | 'egress',
  endpoint: RefEndpoint,
  other: string,
  packet: RefPacket,
): { action: string; rules: string[] } | null {
  if (isPending(mesh, endpoint)) return null;
  const mine = mesh.policies.filter((p) => p.networkId === endpoint.network);
  const now = judged(mesh, direction, endpoint, other, packet);
  const would = first(mesh, mine, direction, endpoint, other, packet);
  return would === null || would.action === now ? null : { action: would.action, rules: would.rules };
}

const TIERS = ['platform', 'application', 'baseline'];
const ACTIONS = ['drop', 'reject', 'allow'];

/** In force, in one direction. */
export function judged(
  mesh: RefMesh,
  direction: 'ingress' | 'egress',
  endpoint: RefEndpoint,
  other: string,
  packet: RefPacket,
): string {
  if (isPending(mesh, endpoint)) return 'drop';
  const inForce = mesh.policies.filter((p) => p.networkId === endpoint.network && !p.staged);
  const found = first(mesh, inForce, direction, endpoint, other, packet);
  if (found !== null) return found.action;
  return mesh.networks.get(endpoint.network)?.shut === true ? 'drop' : 'allow';
}

/** Its labels are not known, and policies in force ask for some. */
const isPending = (mesh: RefMesh, { network, labels }: RefEndpoint): boolean =>
  labels === null &&
  mesh.policies.some(
    (p) => p.networkId === network && !p.staged && (Object.keys(p.selector).length > 0 || peersOf(p).some(byLabel)),
  );

function first(
  mesh: RefMesh,
  policies: readonly Policy[],
  direction: 'ingress' | 'egress',
  endpoint: RefEndpoint,
  other: string,
  packet: RefPacket,
): { action: string; rules: string[]; rank: number[] } | null {
  let best: { rank: number[]; action: string; rules: string[] } | null = null;
  for (const policy of policies) {
    if (!hasAll(endpoint.labels ?? {}, policy.selector)) continue;
    let level = 0;
    policy[direction].forEach((rule, i) => {
      if (i > 0 && policy[direction][i - 1]?.action !== rule.action) level += 1;
      if (!isAbout(mesh, policy, rule, other, packet)) return;
      const rank = [TIERS.indexOf(policy.tier), policy.order, level, ACTIONS.indexOf(rule.action)];
      const name = `${policy.name} ${i + 1}`;
      if (best === null || before(rank, best.rank)) best = { rank, action: rule.action, rules: [name] };
      else if (!before(best.rank, rank)) best.rules.push(name);
    });
  }
  return best;
}

/** Actions of all rules in force that are about it at the first tier, order and level: of several, the order of actions decides. */
export function rivals(
  mesh: RefMesh,
  direction: 'ingress' | 'egress',
  endpoint: RefEndpoint,
  other: string,
  packet: RefPacket,
): string[] {
  const inForce = mesh.policies.filter((p) => p.networkId === endpoint.network && !p.staged);
  const one = (action: string): Policy[] =>
    inForce.map((p) => ({
      ...p,
      [direction]: p[direction].map((r) => (r.action === action ? r : { ...r, ...NOBODY })),
    }));
  const ranks = ACTIONS.map((action) => first(mesh, one(action), direction, endpoint, other, packet)?.rank.slice(0, 3));
  const [best] = ranks.filter((r) => r !== undefined).sort((a, b) => (before(a, b) ? -1 : 1));
  return ACTIONS.filter((_, i) => String(ranks[i]) === String(best) && best !== undefined);
}

/** A rule that is about nothing, and counts among its neighbours all the same. */
const NOBODY = { peers: [{ who: undefined }] };

const peersOf = (p: Policy): PolicyPeer[] => [...p.ingress, ...p.egress].flatMap((rule) => rule.peers);
const byLabel = (peer: PolicyPeer): boolean =>
  peer.who?.$case === 'service' || (peer.who?.$case === 'endpoints' && Object.keys(peer.who.value.labels).length > 0);

function before(a: readonly number[], b: readonly number[]): boolean {
  for (let i = 0; i < a.length; i++) if (a[i] !== b[i]) return (a[i] ?? 0) < (b[i] ?? 0);
  return false;
}

const hasAll = (labels: Readonly<Record<string, string>>, wanted: Readonly<Record<string, string>>): boolean =>
  Object.entries(wanted).every(([key, value]) => labels[key] === value);

function isAbout(mesh: RefMesh, policy: Policy, rule: PolicyRule, other: string, packet: RefPacket): boolean {
  const who = rule.peers.length === 0 || rule.peers.some((peer) => isPeer(mesh, policy, peer, other));
  return who && (rule.ports.length === 0 || rule.ports.some((port) => isPort(port, packet)));
}

function isPeer(mesh: RefMesh, policy: Policy, { who }: PolicyPeer, ip: string): boolean {
  if (who === undefined) return false;
  if (who.$case === 'addresses') return inRange(who.value, ip);
  if (who.$case === 'name') return false;
  const network = who.$case === 'endpoints' && who.value.networkId !== '' ? who.value.networkId : policy.networkId;
  const labels = who.$case === 'endpoints' ? who.value.labels : mesh.services.get(`${policy.networkId}/${who.value}`);
  if (labels === undefined) return false;
  if (Object.keys(labels).length === 0)
    return (mesh.networks.get(network)?.subnets ?? []).some((subnet) => contains(subnet, ip));
  return mesh.endpoints.some(
    (e) => e.network === network && e.labels !== null && e.ips.includes(ip) && hasAll(e.labels, labels),
  );
}

const inRange = (range: AddressRange, ip: string): boolean =>
  contains(range.cidr, ip) && !range.except.some((part) => contains(part, ip));

export function contains(cidr: string, ip: string): boolean {
  const [base = '', length = ''] = cidr.split('/');
  if (base.includes(':') !== ip.includes(':')) return false;
  const [a, b] = [bitsOf(base), bitsOf(ip)];
  return a.slice(0, Number(length)) === b.slice(0, Number(length));
}

/** As a string of zeros and ones. */
function bitsOf(ip: string): string {
  if (!ip.includes(':'))
    return ip
      .split('.')
      .map((n) => Number(n).toString(2).padStart(8, '0'))
      .join('');
  const [head = '', tail = ''] = ip.split('::');
  const groups = (text: string): string[] => (text === '' ? [] : text.split(':'));
  const [left, right] = [groups(head), groups(tail)];
  const zeros = ip.includes('::') ? Array.from({ length: 8 - left.length - right.length }, () => '0') : [];
  return [...left, ...zeros, ...right].map((g) => Number.parseInt(g, 16).toString(2).padStart(16, '0')).join('');
}

function isPort(port: PolicyPort, packet: RefPacket): boolean {
  if (port.protocol !== packet.protocol) return false;
  if (packet.protocol === 'icmp')
    return (
      (port.icmpType === undefined || port.icmpType === packet.type) &&
      (port.icmpCode === undefined || port.icmpCode === packet.code)
    );
  if (port.first === 0 && port.last === 0) return true;
  return packet.port >= port.first && packet.port <= Math.max(port.first, port.last);
}
