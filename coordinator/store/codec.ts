/** Values in etcd: the protobuf JSON form of the model's messages; small JSON objects or plain ids for the rest. */
import {
  Address,
  Block,
  Endpoint,
  EndpointSettings,
  ExternalPeer,
  Host,
  Memberships,
  Network,
  Policy,
  Reservation,
  Router,
  Service,
} from '../../gen/weft/v1/types.ts';
import { parseCidr, tryParseIp } from '../../lib/addr.ts';
import { isUplink, isVlanTag } from '../alloc/encap.ts';
import type { CoordinatorRecord, Presence } from '../contract.ts';
import type { Key } from './keys.ts';

/** One key as etcd has it. `lease` is "0" without one. */
export interface RawKey {
  readonly value: string;
  readonly create: bigint;
  readonly mod: bigint;
  readonly lease: string;
}

/** Identity of the mesh, and how often it has been restored. */
export interface Cluster {
  readonly id: string;
  readonly epoch: bigint;
}

/** Why an identifier rests: who had it last, and since when (RFC 3339; for people). */
export interface Resting {
  readonly networkId: string;
  readonly since: string;
}

export type Decoded =
  | { readonly kind: 'network'; readonly value: Network }
  | { readonly kind: 'host'; readonly value: Host }
  | { readonly kind: 'block'; readonly value: Block }
  | { readonly kind: 'address'; readonly value: Address }
  | { readonly kind: 'endpoint'; readonly value: Endpoint }
  | { readonly kind: 'external'; readonly value: ExternalPeer }
  | { readonly kind: 'settings'; readonly value: EndpointSettings }
  | { readonly kind: 'memberships'; readonly value: Memberships }
  | { readonly kind: 'reservation'; readonly value: Reservation }
  | { readonly kind: 'service'; readonly value: Service }
  | { readonly kind: 'policy'; readonly value: Policy }
  | { readonly kind: 'router'; readonly value: Router }
  | { readonly kind: 'presence'; readonly value: Presence }
  | { readonly kind: 'coordinator'; readonly value: CoordinatorRecord }
  | { readonly kind: 'cluster'; readonly value: Cluster }
  | { readonly kind: 'resting'; readonly value: Resting }
  /** Index keys (names, vnis, subnets, hostnames): the id. Guards and the stamp: text that nobody reads. */
  | { readonly kind: 'text'; readonly value: string };

// The revision is the key's mod_revision: it is filled in on reading and left out of what is stored. Whether services publish a network, they say.
const stored = (message: object): string => JSON.stringify(message);

export const encode = {
  network: (network: Network): string =>
    stored(Network.toJSON({ ...network, revision: 0n, published: false }) as object),
  host: (host: Host): string => stored(Host.toJSON(host) as object),
  block: (block: Block): string => stored(Block.toJSON({ ...block, revision: 0n }) as object),
  address: (address: Address): string => stored(Address.toJSON({ ...address, revision: 0n }) as object),
  endpoint: (endpoint: Endpoint): string => stored(Endpoint.toJSON({ ...endpoint, revision: 0n }) as object),
  external: (peer: ExternalPeer): string => stored(ExternalPeer.toJSON({ ...peer, revision: 0n }) as object),
  settings: (settings: EndpointSettings): string =>
    stored(EndpointSettings.toJSON({ ...settings, revision: 0n }) as object),
  memberships: (memberships: Memberships): string =>
    stored(Memberships.toJSON({ ...memberships, revision: 0n }) as object),
  reservation: (reservation: Reservation): string =>
    stored(Reservation.toJSON({ ...reservation, revision: 0n }) as object),
  service: (service: Service): string => stored(Service.toJSON({ ...service, revision: 0n }) as object),
  policy: (policy: Policy): string => stored(Policy.toJSON({ ...policy, revision: 0n }) as object),
  router: (router: Router): string => stored(Router.toJSON({ ...router, revision: 0n }) as object),
  presence: (presence: Presence): string => stored(presence),
  coordinator: (record: CoordinatorRecord): string => stored(record),
  cluster: (cluster: Cluster): string => stored({ id: cluster.id, epoch: String(cluster.epoch) }),
  resting: (resting: Resting): string => stored(resting),
} as const;

const TEXT_KINDS: readonly Key['kind'][] = [
  'name',
  'vni',
  'vlan',
  'subnet',
  'hostname',
  'leader',
  'stamp',
  'pool',
  'blockguard',
  'portguard',
];

/** The value of a key, or null when it is not what the key says it is (written by hand, or damaged). */
export function decode(key: Key, raw: RawKey): Decoded | null {
  if (TEXT_KINDS.includes(key.kind)) return { kind: 'text', value: raw.value };
  const json = parseObject(raw.value);
  if (json === null) return null;
  try {
    return decodeObject(key, json, raw.mod);
  } catch {
    return null;
  }
}

function decodeObject(key: Key, json: Record<string, unknown>, revision: bigint): Decoded | null {
  switch (key.kind) {
    case 'network': {
      const value: Network = { ...Network.fromJSON(json), revision };
      return value.id === key.id && value.project === key.project && saneNetwork(value)
        ? { kind: 'network', value }
        : null;
    }
    case 'host': {
      const value = Host.fromJSON(json);
      return value.id === key.id && value.name !== '' ? { kind: 'host', value } : null;
    }
    case 'block': {
      const value: Block = { ...Block.fromJSON(json), revision };
      const ok = value.networkId === key.networkId && value.cidr === key.cidr && value.hostId !== '';
      return ok ? { kind: 'block', value } : null;
    }
    case 'address': {
      const value: Address = { ...Address.fromJSON(json), revision };
      const ok = value.networkId === key.networkId && value.address === key.address && value.hostId !== '';
      const known = ['claimed', 'held', 'refused'].includes(value.state) && tryParseIp(value.address) !== null;
      return ok && known ? { kind: 'address', value } : null;
    }
    case 'endpoint': {
      const value: Endpoint = { ...Endpoint.fromJSON(json), revision };
      const ok = value.networkId === key.networkId && value.id === key.id && value.hostId !== '';
      return ok ? { kind: 'endpoint', value } : null;
    }
    case 'external': {
      const value: ExternalPeer = { ...ExternalPeer.fromJSON(json), revision };
      const ok = value.networkId === key.networkId && value.id === key.id && value.name !== '' && value.vtep !== '';
      return ok ? { kind: 'external', value } : null;
    }
    case 'settings': {
      const value: EndpointSettings = { ...EndpointSettings.fromJSON(json), revision };
      const ok = value.networkId === key.networkId && value.endpointId === key.endpointId;
      return ok ? { kind: 'settings', value } : null;
    }
    case 'memberships': {
      const value: Memberships = { ...Memberships.fromJSON(json), revision };
      const ok = value.networkId === key.networkId && value.hostId === key.hostId;
      return ok ? { kind: 'memberships', value } : null;
    }
    case 'reservation': {
      const value: Reservation = { ...Reservation.fromJSON(json), revision };
      const ok = value.networkId === key.networkId && value.name === key.name && value.ips.length > 0;
      return ok && value.ips.every((ip) => tryParseIp(ip) !== null) ? { kind: 'reservation', value } : null;
    }
    case 'service': {
      const value: Service = { ...Service.fromJSON(json), revision };
      const ok =
        value.networkId === key.networkId && value.name === key.name && value.headless === (value.ips.length === 0);
      return ok && value.ips.every((ip) => tryParseIp(ip) !== null) ? { kind: 'service', value } : null;
    }
    case 'policy': {
      const value: Policy = { ...Policy.fromJSON(json), revision };
      const ok = value.networkId === key.networkId && value.name === key.name && value.id !== '';
      return ok && sanePolicy(value) ? { kind: 'policy', value } : null;
    }
    case 'router': {
      const value: Router = { ...Router.fromJSON(json), revision };
      const ok = value.project === key.project && value.name === key.name && value.networkIds.length > 0;
      return ok && saneRoutes(value) ? { kind: 'router', value } : null;
    }
    case 'presence': {
      const { hostId, coordinatorId, sessionId } = json;
      if (hostId !== key.hostId || typeof coordinatorId !== 'string' || typeof sessionId !== 'string') return null;
      return { kind: 'presence', value: { hostId: key.hostId, coordinatorId, sessionId } };
    }
    case 'coordinator': {
      const text = (name: string): string => (typeof json[name] === 'string' ? json[name] : '');
      if (json.id !== key.id) return null;
      const value = { id: key.id, name: text('name'), address: text('address') };
      return { kind: 'coordinator', value: { ...value, version: text('version'), startedAt: text('startedAt') } };
    }
    case 'cluster': {
      if (typeof json.id !== 'string' || typeof json.epoch !== 'string' || !/^\d+$/.test(json.epoch)) return null;
      return { kind: 'cluster', value: { id: json.id, epoch: BigInt(json.epoch) } };
    }
    case 'restingVni':
    case 'restingSubnet': {
      if (typeof json.networkId !== 'string' || typeof json.since !== 'string') return null;
      return { kind: 'resting', value: { networkId: json.networkId, since: json.since } };
    }
    case 'name':
    case 'vni':
    case 'vlan':
    case 'subnet':
    case 'hostname':
    case 'leader':
    case 'stamp':
    case 'pool':
    case 'blockguard':
    case 'portguard':
      return null;
  }
}

function parseObject(text: string): Record<string, unknown> | null {
  try {
    const json: unknown = JSON.parse(text);
    return typeof json === 'object' && json !== null && !Array.isArray(json) ? (json as Record<string, unknown>) : null;
  } catch {
    return null;
  }
}

/** Numbers and prefixes that the pickers compute with must be what they seem; the rest is carried as it is. */
function saneNetwork(network: Network): boolean {
  const vlan = network.encap === 'vlan';
  if (!Number.isInteger(network.vni) || network.vni < (vlan ? 0 : 1) || network.vni >= 2 ** 24) return false;
  if (vlan && (network.vni !== 0 || !isUplink(network.uplink) || !isVlanTag(network.vlanTag))) return false;
  if (network.state !== 'bound' && network.state !== 'reserved') return false;
  if ((network.state === 'bound') === (network.name === '')) return false;
  if (network.subnets.length === 0 || network.space === '') return false;
  for (const cidr of [...network.subnets, ...(network.ipRange === '' ? [] : [network.ipRange])]) parseCidr(cidr);
  return network.gateways.every((gateway) => tryParseIp(gateway) !== null);
}

/** Ranges are computed with on every host. @throws what no range is */
function sanePolicy({ ingress, egress }: Policy): boolean {
  for (const { who } of [...ingress, ...egress].flatMap((rule) => rule.peers))
    if (who?.$case === 'addresses') for (const cidr of [who.value.cidr, ...who.value.except]) parseCidr(cidr);
  return true;
}

/** They too. @throws what no range is */
function saneRoutes({ routes }: Router): boolean {
  for (const { cidr } of routes) parseCidr(cidr);
  return routes.every(({ via }) => via.length > 0 && via.every((ip) => tryParseIp(ip) !== null));
}
