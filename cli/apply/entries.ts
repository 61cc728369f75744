/** Things of the mesh as files have them: what is by default is left out, and so is what means nothing elsewhere (ids, times). Pure. */
import type { EndpointSettings, Network, Policy, Reservation, Router, Service } from '../../gen/weft/v1/types.ts';
import { familyOf, formatIp, parseCidr } from '../../lib/addr.ts';
import { withHealthDefaults } from '../../lib/service-defaults.ts';
import { policyEntry as policyJsonEntry } from '../policy-yaml.ts';
import { policyJson } from '../shapes.ts';
import { allowedText, burstText, healthText, publishText, rateText, routeText, servicePortText } from './compare.ts';

/** Keys of a file; none is undefined. */
export type FileEntry = Readonly<Record<string, unknown>>;

/** One as it is, several as a list, none not at all. */
const some = (texts: readonly string[]): string | readonly string[] | undefined =>
  texts.length > 1 ? texts : (texts[0] ?? undefined);
const map = (labels: Readonly<Record<string, string>>): Readonly<Record<string, string>> | undefined =>
  Object.keys(labels).length === 0 ? undefined : labels;
const unless = <T>(usual: T, value: T): T | undefined => (value === usual ? undefined : value);

const defined = (entry: FileEntry): FileEntry =>
  Object.fromEntries(Object.entries(entry).filter(([, value]) => value !== undefined));

/** A network from the pool has its subnet and VNI, so that it can be made again as it was. */
export function networkEntry(n: Network): FileEntry {
  const usual = n.subnets.map((cidr) => formatIp(parseCidr(cidr).base + 1n));
  const asUsual = n.gateways.length === usual.length && n.gateways.every((ip, i) => ip === usual[i]);
  const six = n.subnets.some((cidr) => familyOf(parseCidr(cidr).base) === 6);
  return defined({
    name: n.name,
    subnet: some(n.subnets),
    'ip-range': unless('', n.ipRange),
    gateway: asUsual ? undefined : some(n.gateways),
    ipv6: n.ipv6 && !six ? true : undefined,
    encap: unless('vxlan', n.encap || 'vxlan'),
    vni: unless(0, n.vni),
    mtu: unless(0, n.mtu),
    uplink: unless('', n.uplink),
    tag: unless(0, n.vlanTag),
    internal: unless(false, n.internal),
    'allow-trust': unless(false, n.allowTrust),
    'publish-by': unless('weft', n.publishBy || 'weft'),
    'dns-order': unless('rotate', n.dnsOrder || 'rotate'),
    'policy-default': unless('allow', n.policyDefault || 'allow'),
    space: unless('default', n.space || 'default'),
    label: map(n.labels),
    'egress-ip': some(n.egressIps),
    rate: unless('', rateText(n.rate)),
    burst: unless('', burstText(n.rate)),
  });
}

export const reservationEntry = (r: Reservation, network: string): FileEntry =>
  defined({ name: r.name, network, ip: some(r.ips), mac: unless('', r.mac), label: map(r.labels) });

/** @param nameOf network by id */
export const routerEntry = (r: Router, nameOf: (id: string) => string): FileEntry =>
  defined({
    name: r.name,
    network: r.networkIds.map(nameOf),
    route: some(r.routes.map(({ cidr, via }) => routeText(cidr, via))),
    label: map(r.labels),
  });

export function serviceEntry(s: Service, network: string): FileEntry {
  const published = some(s.ports.filter((p) => p.hostPort !== 0).map(publishText));
  const tcp = s.ports.some((p) => p.protocol === 'tcp');
  const said = s.health === undefined ? undefined : healthText(s.health);
  const usual = withHealthDefaults(
    { type: 'tcp', port: 0, path: '', intervalMs: 0, timeoutMs: 0, rise: 0, fall: 0 },
    s.ports,
  );
  // The usual timeout depends on the interval.
  const timeout = withHealthDefaults(
    { ...usual, intervalMs: s.health?.intervalMs ?? 0, timeoutMs: 0 },
    s.ports,
  ).timeoutMs;
  const time = (ms: number | undefined, other: number): string | undefined =>
    ms === undefined || ms === other ? undefined : `${ms}ms`;
  return defined({
    name: s.name,
    network,
    selector: s.selector,
    port: some(s.ports.map(servicePortText)),
    ip: some(s.ips),
    headless: unless(false, s.headless),
    health: said === undefined ? (tcp ? 'none' : undefined) : tcp && said === healthText(usual) ? undefined : said,
    'health-interval': time(s.health?.intervalMs, usual.intervalMs),
    'health-timeout': time(s.health?.timeoutMs, timeout),
    'health-rise': s.health === undefined ? undefined : unless(usual.rise, s.health.rise),
    'health-fall': s.health === undefined ? undefined : unless(usual.fall, s.health.fall),
    affinity: unless(0, s.affinityS),
    'local-first': unless(false, s.localFirst),
    publish: s.publish === 'all' ? published : undefined,
    'publish-local': s.publish === 'local' ? published : undefined,
    label: map(s.labels),
  });
}

/** @param names of networks, by id */
export function policyEntry(p: Policy, names: Readonly<Record<string, string>>): FileEntry {
  const { name, ...rest } = plain(policyJsonEntry(policyJson(p, names))) as { name: string };
  return { name, ...rest };
}

/** Without what is undefined, at every depth. */
const plain = (value: unknown): unknown => {
  if (Array.isArray(value)) return value.map(plain);
  if (typeof value !== 'object' || value === null) return value;
  return Object.fromEntries(
    Object.entries(value).flatMap(([key, item]) => (item === undefined ? [] : [[key, plain(item)]])),
  );
};

export const endpointEntry = (s: EndpointSettings, name: string, network: string): FileEntry =>
  defined({
    name,
    network: unless('', network),
    'allow-address': some(s.allowed.map(allowedText)),
    drain: unless(false, s.draining),
    rate: unless('', rateText(s.rate)),
    burst: unless('', burstText(s.rate)),
    priority: s.priority,
  });
