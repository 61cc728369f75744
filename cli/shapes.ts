/** JSON of the objects, as people and scripts see it: keys never left out, absent = null, 64-bit numbers as decimal strings. */
import type { HostAudit, HostStatus, Laggard, PathMtu, RateInForce, ServiceBackend } from '../gen/weft/v1/control.ts';
import type {
  Conflict,
  Drift,
  Endpoint,
  Event,
  ExternalPeer,
  Network,
  Policy,
  PolicyRule,
  Rate,
  Reservation,
  Revision,
  Router,
  Service,
} from '../gen/weft/v1/types.ts';
import { endpointName } from '../lib/endpoint-name.ts';
import { portText } from '../lib/policy-port.ts';
import { formatBits } from '../lib/rate.ts';

const orNull = (text: string): string | null => (text === '' ? null : text);

/** Only the number; the epoch is for machines. */
export const revisionJson = (revision: Revision | undefined): string | null =>
  revision === undefined || revision.number === 0n ? null : revision.number.toString();

/** Bits per second, and bytes; null = none; burst null = made from the rate. */
const rateJson = (rate: Rate | undefined) =>
  rate === undefined || rate.bits === 0n
    ? null
    : { rate: formatBits(rate.bits), bits: Number(rate.bits), burst: rate.burst === 0n ? null : Number(rate.burst) };

export const networkJson = (n: Network) => ({
  name: n.name,
  id: n.id,
  vni: n.vni === 0 ? null : n.vni,
  subnets: n.subnets,
  space: n.space,
  ipRange: orNull(n.ipRange),
  gateways: n.gateways,
  encap: n.encap,
  mtu: n.mtu,
  internal: n.internal,
  encrypted: n.encrypted,
  uplink: orNull(n.uplink),
  vlanTag: n.vlanTag === 0 ? null : n.vlanTag,
  allowTrust: n.allowTrust,
  publishBy: n.publishBy === '' ? 'weft' : n.publishBy,
  egressIps: n.egressIps,
  dnsOrder: n.dnsOrder === '' ? 'rotate' : n.dnsOrder,
  /** Of each endpoint that nothing else is said of. */
  rate: rateJson(n.rate),
  policyDefault: n.policyDefault === '' ? 'allow' : n.policyDefault,
  labels: n.labels,
  revision: n.revision.toString(),
});

export const hostJson = (h: HostStatus) => ({
  name: h.host?.name ?? null,
  id: h.host?.id ?? null,
  state: h.state,
  vteps: h.host?.vteps ?? [],
  datapath: orNull(h.host?.datapath ?? ''),
  backend: orNull(h.host?.backend ?? ''),
  express: h.host?.express ?? false,
  underlayMtu: h.host?.underlayMtu || null,
  capabilities: h.host?.capabilities ?? [],
  probes: (h.host?.probes ?? []).map((p) => ({ name: p.name, result: p.result, reason: orNull(p.reason) })),
  appliedRevision: revisionJson(h.appliedRevision),
  versions: h.host?.versions ?? {},
  draining: h.host?.draining ?? false,
  coordinator: orNull(h.coordinator),
  reason: orNull(h.reason),
});

/** @param names network and host names by id; an id stands for a name that is gone. */
export const endpointJson = (
  e: Endpoint,
  names: { readonly networks: Readonly<Record<string, string>>; readonly hosts: Readonly<Record<string, string>> },
  more: {
    readonly draining?: boolean;
    readonly rate?: RateInForce | undefined;
    readonly priority?: string | undefined;
  } = {},
) => ({
  id: e.id,
  network: names.networks[e.networkId] ?? e.networkId,
  host: names.hosts[e.hostId] ?? e.hostId,
  name: orNull(endpointName(e)),
  container: e.container === undefined ? null : { id: e.container.id, name: e.container.name },
  ips: e.ips,
  mac: e.mac,
  ofport: e.ofport,
  state: e.state,
  kind: orNull(e.kind),
  allowed: e.allowed.map((a) => ({ ip: orNull(a.ip), mac: orNull(a.mac) })),
  trusted: e.trusted,
  express: e.express,
  /** Services give it no new connections. */
  draining: more.draining ?? false,
  /** What it may send, and receive, and who says so: "endpoint", "container" or "network". */
  rate: more.rate === undefined ? null : { ...rateJson(more.rate.rate), by: more.rate.by },
  priority: orNull(more.priority ?? ''),
  /** Ports of its host that lead to it. */
  ports: e.ports.map(({ protocol, port, hostIp, hostPort }) => ({ protocol, port, hostIp, hostPort })),
  /** What policies select by: the container's labels, once known. */
  identity: e.state === 'known' ? e.labels : null,
});

/** @param networks network names by id */
export const peerJson = (p: ExternalPeer, networks: Readonly<Record<string, string>>) => ({
  name: p.name,
  id: p.id,
  network: networks[p.networkId] ?? p.networkId,
  vtep: p.vtep,
  encap: p.encap,
  /** null = the network's VNI. */
  key: p.key === 0 ? null : p.key,
  /** null = that of the mesh. */
  udpPort: p.udpPort === 0 ? null : p.udpPort,
  macs: p.macs.map((m) => ({ mac: m.mac, ip: orNull(m.ip) })),
  learn: p.learn,
  createdAt: orNull(p.createdAt),
  revision: p.revision.toString(),
});

/** @param holder the endpoint that has one of its addresses now */
export const reservationJson = (
  r: Reservation,
  holder: Endpoint | undefined,
  names: { readonly networks: Readonly<Record<string, string>>; readonly hosts: Readonly<Record<string, string>> },
) => ({
  name: r.name,
  network: names.networks[r.networkId] ?? r.networkId,
  ips: r.ips,
  mac: orNull(r.mac),
  labels: r.labels,
  holder:
    holder === undefined
      ? null
      : {
          endpoint: holder.id,
          host: names.hosts[holder.hostId] ?? holder.hostId,
          container: orNull(endpointName(holder)),
        },
  revision: r.revision.toString(),
});

/** @param backends endpoints that have its labels */
export const serviceJson = (
  s: Service,
  backends: readonly ServiceBackend[],
  names: { readonly networks: Readonly<Record<string, string>>; readonly hosts: Readonly<Record<string, string>> },
) => ({
  name: s.name,
  id: s.id,
  network: names.networks[s.networkId] ?? s.networkId,
  ips: s.ips,
  headless: s.headless,
  ports: s.ports.map((p) => ({
    name: orNull(p.name),
    protocol: p.protocol,
    port: p.port,
    targetPort: p.targetPort,
    hostPort: p.hostPort === 0 ? null : p.hostPort,
  })),
  selector: s.selector,
  /** null: whoever is attached counts as healthy. */
  health:
    s.health === undefined
      ? null
      : {
          type: s.health.type,
          port: s.health.port,
          path: orNull(s.health.path),
          intervalMs: s.health.intervalMs,
          timeoutMs: s.health.timeoutMs,
          rise: s.health.rise,
          fall: s.health.fall,
        },
  /** null: each connection by itself. */
  affinitySeconds: s.affinityS === 0 ? null : s.affinityS,
  localFirst: s.localFirst,
  /** "all" hosts, or "local": those with a healthy endpoint of it. */
  publish: orNull(s.publish),
  labels: s.labels,
  backends: backends.flatMap(({ endpoint, state }) =>
    endpoint === undefined
      ? []
      : [
          {
            endpoint: endpoint.id,
            container: orNull(endpointName(endpoint)),
            host: names.hosts[endpoint.hostId] ?? endpoint.hostId,
            ips: endpoint.ips,
            state,
          },
        ],
  ),
  createdAt: orNull(s.createdAt),
  revision: s.revision.toString(),
});

/** @param networks network names by id */
export const policyJson = (p: Policy, networks: Readonly<Record<string, string>>) => {
  const nameOf = (id: string): string => networks[id] ?? id;
  const rule = (r: PolicyRule) => ({
    action: r.action,
    /** None: whoever. */
    peers: r.peers.map(({ who }) => ({
      labels: who?.$case === 'endpoints' ? who.value.labels : null,
      network: who?.$case === 'endpoints' ? nameOf(who.value.networkId || p.networkId) : null,
      cidr: who?.$case === 'addresses' ? who.value.cidr : null,
      except: who?.$case === 'addresses' ? who.value.except : [],
      service: who?.$case === 'service' ? who.value : null,
      name: who?.$case === 'name' ? who.value : null,
    })),
    /** None: every port of every protocol. */
    ports: r.ports.map(portText),
  });
  return {
    name: p.name,
    id: p.id,
    network: nameOf(p.networkId),
    tier: p.tier,
    order: p.order,
    /** Of the endpoints that it is about; none: all of the network. */
    select: p.selector,
    ingress: p.ingress.map(rule),
    egress: p.egress.map(rule),
    staged: p.staged,
    labels: p.labels,
    createdAt: orNull(p.createdAt),
    revision: p.revision.toString(),
  };
};

/** @param networks network names by id */
export const routerJson = (r: Router, networks: Readonly<Record<string, string>>) => ({
  name: r.name,
  id: r.id,
  networks: r.networkIds.map((id) => networks[id] ?? id),
  routes: r.routes.map(({ cidr, via }) => ({ cidr, via })),
  labels: r.labels,
  createdAt: orNull(r.createdAt),
  revision: r.revision.toString(),
});

export const pathJson = (p: PathMtu) => ({
  from: p.from,
  to: p.to,
  fromVtep: orNull(p.fromVtep),
  toVtep: orNull(p.toVtep),
  largest: p.largest === 0 ? null : p.largest,
  underlayMtu: p.underlayMtu === 0 ? null : p.underlayMtu,
  problem: orNull(p.problem),
  /** "vxlan": frames through the tunnel, this way only; "icmp": echoes, both ways. */
  probedBy: p.probedBy || 'icmp',
  /** Why not by VXLAN. */
  probedWhy: orNull(p.probedWhy),
});

export const conflictJson = (c: Conflict) => ({ host: orNull(c.host), network: orNull(c.network), message: c.message });

export const laggardJson = (l: Laggard) => ({
  host: l.host,
  appliedRevision: revisionJson(l.appliedRevision),
  reason: orNull(l.reason),
});

export const driftJson = (d: Drift) => ({
  kind: d.kind,
  object: d.object,
  change: d.change,
  want: orNull(d.want),
  have: orNull(d.have),
});

export const hostAuditJson = (a: HostAudit) => ({
  host: a.host,
  drift: a.drift.map(driftJson),
  error: orNull(a.error),
});

export const eventJson = (e: Event) => ({
  type: e.type,
  time: orNull(e.time),
  host: orNull(e.host),
  action: orNull(e.action),
  kind: orNull(e.kind),
  object: orNull(e.object),
  detectedAt: orNull(e.detectedAt),
  healedAt: orNull(e.healedAt),
  message: orNull(e.message),
  revision: revisionJson(e.revision),
});

export type NetworkJson = ReturnType<typeof networkJson>;
export type PeerJson = ReturnType<typeof peerJson>;
export type ReservationJson = ReturnType<typeof reservationJson>;
export type ServiceJson = ReturnType<typeof serviceJson>;
export type PolicyJson = ReturnType<typeof policyJson>;
export type RouterJson = ReturnType<typeof routerJson>;
export type PathJson = ReturnType<typeof pathJson>;
export type HostJson = ReturnType<typeof hostJson>;
export type EndpointJson = ReturnType<typeof endpointJson>;
