/** A network of many applications, each with policies of its own: who may call it, whom it may call, and nobody else. Pure. */
import { Policy, type PolicyPeer } from '../../gen/weft/v1/types.ts';
import type { Mesh, MeshEndpoint } from '../../test/harness/policy-mesh.ts';

export interface Size {
  readonly policies: number;
  readonly endpoints: number;
  /** Of these, on the host that is measured. */
  readonly local: number;
}

/** Policies of an application. */
const KINDS = 4;
const NETWORK = 'n1';
const SUBNET = '10.1.0.0/16';
/** Of the measured host, and of the others. */
const BLOCKS = ['10.1.0.0/20', '10.1.128.0/17'] as const;
/** OpenFlow ports 1 to 9 are for the tunnel and for real links. */
const FIRST_PORT = 10;

const hex = (n: number, digits: number): string => n.toString(16).padStart(digits, '0');

/** @param n from 0; the other hosts' have addresses of another block */
export function endpointAt(host: 'h1' | 'h2', n: number, ofport: number, labels: Record<string, string>): MeshEndpoint {
  const at = (host === 'h1' ? 0 : 0x8000) + 16 + n;
  const [high, low] = [at >> 8, at & 255];
  return {
    id: hex((host === 'h1' ? 1 << 20 : 0) + n, 16).repeat(4),
    network: NETWORK,
    host,
    ips: [`10.1.${high}.${low}`],
    labels,
    mac: `02:58:0a:01:${hex(high, 2)}:${hex(low, 2)}`,
    ofport,
  };
}

const app = (i: number): Record<string, string> => ({ app: `a${i}` });
const peers = (...labels: Record<string, string>[]): PolicyPeer[] =>
  labels.map((one) => ({ who: { $case: 'endpoints', value: { networkId: '', labels: one } } }));
const port = (protocol: string, first: number, last = first) => ({ protocol, first, last });

/** Policy `k` of `apps` applications: one of four kinds. */
function policyAt(k: number, apps: number): Policy {
  const [i, kind] = [k % apps, Math.floor(k / apps) % KINDS];
  const base = { networkId: NETWORK, name: `p${k}`, selector: app(i), order: 100, tier: 'application' };
  switch (kind) {
    case 0:
      return Policy.fromPartial({
        ...base,
        ingress: [{ action: 'allow', peers: peers(app((i + 1) % apps)), ports: [port('tcp', 8000, 8100)] }],
      });
    case 1:
      return Policy.fromPartial({
        ...base,
        order: 100 + (i % 5),
        ingress: [
          {
            action: 'allow',
            peers: [
              ...peers(app((i + 2) % apps)),
              { who: { $case: 'addresses', value: { cidr: `172.16.${i % 250}.0/24`, except: [] } } },
            ],
            ports: [port('tcp', 9042), port('udp', 9042)],
          },
        ],
      });
    case 2:
      return Policy.fromPartial({
        ...base,
        tier: 'platform',
        egress: [{ action: 'drop', peers: peers(app((i + 7) % apps)), ports: [port('tcp', 22), port('tcp', 3389)] }],
      });
    default:
      return Policy.fromPartial({ ...base, tier: 'baseline', ingress: [{ action: 'drop' }] });
  }
}

/**
 * Applications have the same number of endpoints, here and elsewhere.
 * @param more endpoints and policies besides, of this host
 */
export function large(
  { policies, endpoints, local }: Size,
  more: { readonly endpoints: readonly MeshEndpoint[]; readonly policies: readonly Policy[] } = NOTHING,
): Mesh {
  const apps = Math.ceil(policies / KINDS);
  const here = Array.from({ length: local }, (_, n) => endpointAt('h1', n, FIRST_PORT + n, app(n % apps)));
  const away = Array.from({ length: endpoints - local }, (_, n) => endpointAt('h2', n, 0, app(n % apps)));
  return {
    networks: new Map([[NETWORK, { shut: false, subnets: [SUBNET] }]]),
    endpoints: [...here, ...away, ...more.endpoints],
    policies: [...Array.from({ length: policies }, (_, k) => policyAt(k, apps)), ...more.policies],
    services: new Map(),
    routers: [],
    blocks: [
      { network: NETWORK, cidr: BLOCKS[0], host: 'h1' },
      { network: NETWORK, cidr: BLOCKS[1], host: 'h2' },
    ],
  };
}

const NOTHING = { endpoints: [], policies: [] } as const;

/** The same mesh, the endpoint at that place with other labels. */
export const relabelled = (m: Mesh, at: number, labels: Record<string, string>): Mesh => ({
  ...m,
  endpoints: m.endpoints.with(at, { ...m.endpoints[at]!, labels }),
});
