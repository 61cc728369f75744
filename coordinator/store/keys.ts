/**
 * The key layout in etcd. PROJECT is a part of every key that belongs to one, so that projects never need another layout.
 * `/` of a CIDR is written `_` in a key: one segment stays one segment.
 */
import { formatCidr, parseCidr } from '../../lib/addr.ts';

/** Everything of Weft is under this prefix, and nothing else may be. */
export const ROOT = '/weft/v1/';

/** First segments that are not projects; a project may not have one of these names. */
export const GLOBAL_SEGMENTS = [
  'cluster',
  'stamp',
  'leaders',
  'vnis',
  'vlans',
  'quarantine',
  'hosts',
  'hostnames',
  'presence',
  'coordinators',
  'portguard',
] as const;

/** A key taken apart. */
export type Key =
  | { readonly kind: 'cluster' }
  | { readonly kind: 'stamp' }
  | { readonly kind: 'leader'; readonly name: string }
  | { readonly kind: 'network'; readonly project: string; readonly id: string }
  | { readonly kind: 'name'; readonly project: string; readonly name: string }
  | { readonly kind: 'vni'; readonly vni: number }
  | { readonly kind: 'vlan'; readonly uplink: string; readonly tag: number }
  | { readonly kind: 'subnet'; readonly project: string; readonly space: string; readonly cidr: string }
  | { readonly kind: 'pool'; readonly project: string; readonly space: string }
  | { readonly kind: 'restingVni'; readonly vni: number }
  | { readonly kind: 'restingSubnet'; readonly project: string; readonly space: string; readonly cidr: string }
  | { readonly kind: 'block'; readonly project: string; readonly networkId: string; readonly cidr: string }
  | { readonly kind: 'blockguard'; readonly project: string; readonly networkId: string }
  | { readonly kind: 'address'; readonly project: string; readonly networkId: string; readonly address: string }
  | { readonly kind: 'endpoint'; readonly project: string; readonly networkId: string; readonly id: string }
  | { readonly kind: 'external'; readonly project: string; readonly networkId: string; readonly id: string }
  | { readonly kind: 'settings'; readonly project: string; readonly networkId: string; readonly endpointId: string }
  | { readonly kind: 'reservation'; readonly project: string; readonly networkId: string; readonly name: string }
  | { readonly kind: 'service'; readonly project: string; readonly networkId: string; readonly name: string }
  | { readonly kind: 'policy'; readonly project: string; readonly networkId: string; readonly name: string }
  | { readonly kind: 'router'; readonly project: string; readonly name: string }
  | { readonly kind: 'portguard' }
  | { readonly kind: 'memberships'; readonly project: string; readonly networkId: string; readonly hostId: string }
  | { readonly kind: 'host'; readonly id: string }
  | { readonly kind: 'hostname'; readonly name: string }
  | { readonly kind: 'presence'; readonly hostId: string }
  | { readonly kind: 'coordinator'; readonly id: string };

export const cidrSegment = (cidr: string): string => cidr.replace('/', '_');

/** Text of every kind of key. */
export const keys = {
  cluster: (): string => `${ROOT}cluster`,
  /** Written by every transaction of a coordinator: a revision without it was made by hand. */
  stamp: (): string => `${ROOT}stamp`,
  leader: (name: string): string => `${ROOT}leaders/${name}`,
  network: (project: string, id: string): string => `${ROOT}${project}/networks/${id}`,
  name: (project: string, name: string): string => `${ROOT}${project}/names/${name}`,
  vni: (vni: number): string => `${ROOT}vnis/${vni}`,
  vlan: (uplink: string, tag: number): string => `${ROOT}vlans/${uplink}/${tag}`,
  subnet: (project: string, space: string, cidr: string): string =>
    `${ROOT}${project}/subnets/${space}/${cidrSegment(cidr)}`,
  /** Compared and rewritten by whatever adds a subnet to the space. */
  pool: (project: string, space: string): string => `${ROOT}${project}/pools/${space}`,
  restingVni: (vni: number): string => `${ROOT}quarantine/vnis/${vni}`,
  restingSubnet: (project: string, space: string, cidr: string): string =>
    `${ROOT}quarantine/subnets/${project}/${space}/${cidrSegment(cidr)}`,
  blocks: (project: string, networkId: string): string => `${ROOT}${project}/blocks/${networkId}/`,
  block: (project: string, networkId: string, cidr: string): string =>
    `${ROOT}${project}/blocks/${networkId}/${cidrSegment(cidr)}`,
  /** Compared and rewritten by whatever adds a block, an address, a reservation, a service, a policy or a router to the network. */
  blockguard: (project: string, networkId: string): string => `${ROOT}${project}/blockguard/${networkId}`,
  addresses: (project: string, networkId: string): string => `${ROOT}${project}/addresses/${networkId}/`,
  address: (project: string, networkId: string, address: string): string =>
    `${ROOT}${project}/addresses/${networkId}/${address}`,
  endpoints: (project: string, networkId: string): string => `${ROOT}${project}/endpoints/${networkId}/`,
  endpoint: (project: string, networkId: string, id: string): string =>
    `${ROOT}${project}/endpoints/${networkId}/${id}`,
  externals: (project: string, networkId: string): string => `${ROOT}${project}/externals/${networkId}/`,
  external: (project: string, networkId: string, id: string): string =>
    `${ROOT}${project}/externals/${networkId}/${id}`,
  /** What the mesh's side says of an endpoint; goes with it. */
  allSettings: (project: string, networkId: string): string => `${ROOT}${project}/settings/${networkId}/`,
  settings: (project: string, networkId: string, endpointId: string): string =>
    `${ROOT}${project}/settings/${networkId}/${endpointId}`,
  reservations: (project: string, networkId: string): string => `${ROOT}${project}/reservations/${networkId}/`,
  reservation: (project: string, networkId: string, name: string): string =>
    `${ROOT}${project}/reservations/${networkId}/${name}`,
  services: (project: string, networkId: string): string => `${ROOT}${project}/services/${networkId}/`,
  service: (project: string, networkId: string, name: string): string =>
    `${ROOT}${project}/services/${networkId}/${name}`,
  policies: (project: string, networkId: string): string => `${ROOT}${project}/policies/${networkId}/`,
  policy: (project: string, networkId: string, name: string): string =>
    `${ROOT}${project}/policies/${networkId}/${name}`,
  router: (project: string, name: string): string => `${ROOT}${project}/routers/${name}`,
  /** Compared and rewritten by whatever publishes a port of the hosts. */
  portguard: (): string => `${ROOT}portguard`,
  /** Under the lease of the coordinator that has the host's session: they go with its presence. */
  allMemberships: (project: string, networkId: string): string => `${ROOT}${project}/memberships/${networkId}/`,
  memberships: (project: string, networkId: string, hostId: string): string =>
    `${ROOT}${project}/memberships/${networkId}/${hostId}`,
  host: (id: string): string => `${ROOT}hosts/${id}`,
  hostname: (name: string): string => `${ROOT}hostnames/${name}`,
  presence: (hostId: string): string => `${ROOT}presence/${hostId}`,
  coordinator: (id: string): string => `${ROOT}coordinators/${id}`,
} as const;

/** A key taken apart, or null for a key that is not of this layout. */
export function parseKey(text: string): Key | null {
  if (!text.startsWith(ROOT)) return null;
  const parts = text.slice(ROOT.length).split('/');
  if (parts.some((part) => part === '')) return null;
  const [head, second, third, fourth] = parts as [string, string?, string?, string?];
  if ((GLOBAL_SEGMENTS as readonly string[]).includes(head)) return parseGlobal(parts);
  if (second === undefined || third === undefined) return null;
  const project = head;
  if (parts.length === 3) {
    if (second === 'networks') return { kind: 'network', project, id: third };
    if (second === 'names') return { kind: 'name', project, name: third };
    if (second === 'routers') return { kind: 'router', project, name: third };
    if (second === 'pools') return { kind: 'pool', project, space: third };
    if (second === 'blockguard') return { kind: 'blockguard', project, networkId: third };
    return null;
  }
  if (parts.length !== 4 || fourth === undefined) return null;
  if (second === 'addresses') return { kind: 'address', project, networkId: third, address: fourth };
  if (second === 'endpoints') return { kind: 'endpoint', project, networkId: third, id: fourth };
  if (second === 'externals') return { kind: 'external', project, networkId: third, id: fourth };
  if (second === 'settings') return { kind: 'settings', project, networkId: third, endpointId: fourth };
  if (second === 'reservations') return { kind: 'reservation', project, networkId: third, name: fourth };
  if (second === 'services') return { kind: 'service', project, networkId: third, name: fourth };
  if (second === 'policies') return { kind: 'policy', project, networkId: third, name: fourth };
  if (second === 'memberships') return { kind: 'memberships', project, networkId: third, hostId: fourth };
  const cidr = cidrOfSegment(fourth);
  if (cidr === null) return null;
  if (second === 'subnets') return { kind: 'subnet', project, space: third, cidr };
  if (second === 'blocks') return { kind: 'block', project, networkId: third, cidr };
  return null;
}

function parseGlobal(parts: readonly string[]): Key | null {
  const [head, second, third, fourth, fifth] = parts as [string, string?, string?, string?, string?];
  if (parts.length === 1) {
    if (head === 'cluster') return { kind: 'cluster' };
    if (head === 'portguard') return { kind: 'portguard' };
    return head === 'stamp' ? { kind: 'stamp' } : null;
  }
  if (parts.length === 2 && second !== undefined) {
    if (head === 'leaders') return { kind: 'leader', name: second };
    if (head === 'hosts') return { kind: 'host', id: second };
    if (head === 'hostnames') return { kind: 'hostname', name: second };
    if (head === 'presence') return { kind: 'presence', hostId: second };
    if (head === 'coordinators') return { kind: 'coordinator', id: second };
    const vni = head === 'vnis' ? vniOf(second) : null;
    return vni === null ? null : { kind: 'vni', vni };
  }
  if (head === 'vlans' && parts.length === 3 && second !== undefined && third !== undefined) {
    const tag = vniOf(third);
    return tag === null || tag > 4094 ? null : { kind: 'vlan', uplink: second, tag };
  }
  if (head !== 'quarantine') return null;
  if (parts.length === 3 && second === 'vnis' && third !== undefined) {
    const vni = vniOf(third);
    return vni === null ? null : { kind: 'restingVni', vni };
  }
  if (parts.length !== 5 || second !== 'subnets' || !third || !fourth || !fifth) return null;
  const cidr = cidrOfSegment(fifth);
  return cidr === null ? null : { kind: 'restingSubnet', project: third, space: fourth, cidr };
}

const vniOf = (text: string): number | null =>
  /^[1-9]\d{0,7}$/.test(text) && Number(text) < 2 ** 24 ? Number(text) : null;

function cidrOfSegment(segment: string): string | null {
  try {
    return formatCidr(parseCidr(segment.replace('_', '/')));
  } catch {
    return null;
  }
}
