/** Where things of the mesh are not as files say, key by key, in the words of the files. Pure. */
import {
  EndpointSettings,
  type HealthCheck,
  type Network,
  type Policy,
  type Rate,
  type Reservation,
  type Router,
  type Service,
  type ServicePort,
} from '../../gen/weft/v1/types.ts';
import { type Family, familyOfText } from '../../lib/addr.ts';
import { formatBits } from '../../lib/rate.ts';
import { policyJson } from '../shapes.ts';
import type { Difference, NetworkWish } from './model.ts';

/** Collects differences of texts; empty text = nothing. */
class Differences {
  readonly found: Difference[] = [];

  of(key: string, have: string, want: string): void {
    if (have !== want) this.found.push({ key, have: have || null, want: want || null });
  }
}

const yes = (value: boolean): string => (value ? 'true' : '');
const listText = (texts: readonly string[]): string => texts.join(', ');
const sorted = (texts: readonly string[]): string[] => [...texts].sort();
const labelText = (labels: Readonly<Record<string, string>>): string =>
  listText(sorted(Object.entries(labels).map(([key, value]) => `${key}=${value}`)));

export const rateText = (rate: Rate | undefined): string => (rate === undefined ? '' : formatBits(rate.bits));
export const burstText = (rate: Rate | undefined): string =>
  rate === undefined || rate.burst === 0n ? '' : `${rate.burst}b`;

/** What can be changed while the network is there. */
export const LIVE = ['policy-default', 'egress-ip', 'rate', 'burst'] as const;

/** What nobody said and the mesh chose (subnet, gateway, VNI, MTU) is as it should be. */
export function networkDifferences({ request: want, egressIps, rate }: NetworkWish, have: Network): Difference[] {
  const d = new Differences();
  const ofFamily = (texts: readonly string[], family: Family): string =>
    listText(texts.filter((text) => familyOfText(text) === family));
  const only6 = want.subnets.length > 0 && ofFamily(want.subnets, 4) === '' && !want.ipv6;
  const six = only6 || want.ipv6 || ofFamily(want.subnets, 6) !== '';
  for (const family of [4, 6] as const) {
    const [mine, theirs] = [ofFamily(want.subnets, family), ofFamily(have.subnets, family)];
    const wanted = family === 4 ? !only6 : six;
    if (mine !== '') d.of('subnet', theirs, mine);
    else if (wanted !== (theirs !== ''))
      d.found.push({
        key: family === 6 ? 'ipv6' : 'subnet',
        have: theirs || null,
        want: wanted ? 'from the pool' : null,
      });
    const [gateway, present] = [ofFamily(want.gateways, family), ofFamily(have.gateways, family)];
    if (gateway !== '') d.of('gateway', present, gateway);
  }
  d.of('ip-range', have.ipRange, want.ipRange);
  d.of('encap', have.encap, want.encap || 'vxlan');
  if (want.vni !== 0) d.of('vni', String(have.vni), String(want.vni));
  if (want.mtu !== 0) d.of('mtu', String(have.mtu), String(want.mtu));
  d.of('uplink', have.uplink, want.uplink);
  d.of('tag', String(have.vlanTag || ''), String(want.vlanTag || ''));
  d.of('internal', yes(have.internal), yes(want.internal));
  d.of('allow-trust', yes(have.allowTrust), yes(want.allowTrust));
  d.of('publish-by', have.publishBy || 'weft', want.publishBy || 'weft');
  d.of('dns-order', have.dnsOrder || 'rotate', want.dnsOrder || 'rotate');
  d.of('space', have.space, want.space || 'default');
  d.of('label', labelText(have.labels), labelText(want.labels));
  d.of('policy-default', have.policyDefault || 'allow', want.policyDefault || 'allow');
  d.of('egress-ip', listText(sorted(have.egressIps)), listText(sorted(egressIps)));
  d.of('rate', rateText(have.rate), rateText(rate));
  d.of('burst', burstText(have.rate), burstText(rate));
  return d.found;
}

export function reservationDifferences(want: Reservation, have: Reservation): Difference[] {
  const d = new Differences();
  d.of('ip', listText(have.ips), listText(want.ips));
  if (want.mac !== '') d.of('mac', have.mac, want.mac);
  d.of('label', labelText(have.labels), labelText(want.labels));
  return d.found;
}

/** @param nameOf network by id; the wish's are names already */
export function routerDifferences(want: Router, have: Router, nameOf: (id: string) => string): Difference[] {
  const d = new Differences();
  const routes = (r: Router): string => listText(sorted(r.routes.map(({ cidr, via }) => routeText(cidr, sorted(via)))));
  d.of('network', listText(sorted(have.networkIds.map(nameOf))), listText(sorted(want.networkIds)));
  d.of('route', routes(have), routes(want));
  d.of('label', labelText(have.labels), labelText(want.labels));
  return d.found;
}

export const routeText = (cidr: string, via: readonly string[]): string => `${cidr} via ${via.join(',')}`;

/** As the flag --port takes it. */
export const servicePortText = (p: ServicePort): string =>
  `${p.name === '' ? '' : `${p.name}=`}${p.port}${p.targetPort === p.port ? '' : `:${p.targetPort}`}/${p.protocol}`;
/** As the flag --publish takes it. */
export const publishText = (p: ServicePort): string => `${p.hostPort}:${p.port}/${p.protocol}`;

/** As the flag --health takes it, with the port. */
export const healthText = (health: HealthCheck | undefined): string =>
  health === undefined ? 'none' : `${health.type}:${health.port}${health.path}`;

export function serviceDifferences(want: Service, have: Service): Difference[] {
  const d = new Differences();
  const published = (s: Service): string => listText(s.ports.filter((p) => p.hostPort !== 0).map(publishText));
  d.of('selector', labelText(have.selector), labelText(want.selector));
  d.of('port', listText(have.ports.map(servicePortText)), listText(want.ports.map(servicePortText)));
  for (const family of [4, 6] as const) {
    const [mine, theirs] = [want.ips, have.ips].map((ips) => ips.filter((ip) => familyOfText(ip) === family).join());
    if (mine !== '') d.of('ip', theirs ?? '', mine ?? '');
  }
  d.of('headless', yes(have.headless), yes(want.headless));
  d.of('health', healthText(have.health), healthText(want.health));
  const timing = (s: Service): string =>
    s.health === undefined
      ? ''
      : `every ${s.health.intervalMs}ms within ${s.health.timeoutMs}ms, rise ${s.health.rise}, fall ${s.health.fall}`;
  if (have.health !== undefined && want.health !== undefined) d.of('health timing', timing(have), timing(want));
  d.of('affinity', String(have.affinityS || ''), String(want.affinityS || ''));
  d.of('local-first', yes(have.localFirst), yes(want.localFirst));
  for (const way of ['all', 'local'] as const) {
    const of = (s: Service): string => (s.publish === way ? published(s) : '');
    d.of(way === 'all' ? 'publish' : 'publish-local', of(have), of(want));
  }
  d.of('label', labelText(have.labels), labelText(want.labels));
  return d.found;
}

/**
 * @param network name of the policy's network
 * @param nameOf network by id; the wish's are names already
 */
export function policyDifferences(
  want: Policy,
  have: Policy,
  network: string,
  nameOf: (id: string) => string,
): Difference[] {
  const d = new Differences();
  const [mine, theirs] = [
    policyJson({ ...want, networkId: network }, {}),
    policyJson(have, new Proxy({}, { get: (_none, id) => nameOf(String(id)) })),
  ];
  d.of('tier', theirs.tier, mine.tier);
  d.of('order', String(theirs.order), String(mine.order));
  d.of('select', labelText(theirs.select), labelText(mine.select));
  for (const direction of ['ingress', 'egress'] as const) {
    const [a, b] = [theirs[direction], mine[direction]];
    for (let i = 0; i < Math.max(a.length, b.length); i++)
      d.of(`${direction} rule ${i + 1}`, ruleText(direction, a[i]), ruleText(direction, b[i]));
  }
  d.of('staged', yes(theirs.staged), yes(mine.staged));
  d.of('labels', labelText(theirs.labels), labelText(mine.labels));
  return d.found;
}

type RuleJson = ReturnType<typeof policyJson>['ingress'][number];

function ruleText(direction: 'ingress' | 'egress', rule: RuleJson | undefined): string {
  if (rule === undefined) return '';
  const peer = (p: RuleJson['peers'][number]): string => {
    if (p.cidr !== null) return p.except.length === 0 ? p.cidr : `${p.cidr} except ${p.except.join(' ')}`;
    if (p.service !== null) return `service ${p.service}`;
    if (p.name !== null) return `name ${p.name}`;
    const labels = labelText(p.labels ?? {});
    return `${labels === '' ? 'all' : labels} of ${p.network ?? ''}`;
  };
  const word = direction === 'ingress' ? 'from' : 'to';
  const who = rule.peers.length === 0 ? '' : ` ${word} ${rule.peers.map(peer).join(' or ')}`;
  return `${rule.action}${who}${rule.ports.length === 0 ? '' : ` on ${rule.ports.join(', ')}`}`;
}

export const allowedText = ({ ip, mac }: { readonly ip: string; readonly mac: string }): string =>
  mac === '' ? ip : `${ip},${mac}`;

const NOTHING = EndpointSettings.fromPartial({});

/** @param have absent = nothing is set */
export function endpointDifferences(want: EndpointSettings, have: EndpointSettings = NOTHING): Difference[] {
  const d = new Differences();
  const allowed = (s: EndpointSettings): string => listText(sorted(s.allowed.map(allowedText)));
  d.of('allow-address', allowed(have), allowed(want));
  d.of('drain', yes(have.draining), yes(want.draining));
  d.of('rate', rateText(have.rate), rateText(want.rate));
  d.of('burst', burstText(have.rate), burstText(want.rate));
  d.of('priority', have.priority ?? '', want.priority ?? '');
  return d.found;
}

/** Every part of a thing that is to be made, or goes. */
export const asMade = (differences: readonly Difference[]): Difference[] =>
  differences.map(({ key, want }) => ({ key, have: null, want })).filter(({ want }) => want !== null);
