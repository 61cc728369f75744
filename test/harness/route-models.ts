/** Two hosts, three networks with a router: as each host's bridge sees them. Tests of flows and of packets share it. */
import type { BridgeModel, Hop, LocalPort, NetworkModel, RouteModel } from '../../agent/flows/model.ts';
import { routerMac } from '../../agent/gateway/addresses.ts';
import { parseCidr as parse6, parseIp as parseAny } from '../../lib/addr.ts';
import { parseCidr, parseIp } from '../../lib/ip.ts';
import { localPort, network, remote } from './flow-models.ts';

export const HOSTS = ['h1', 'h2'] as const;
export type HostName = (typeof HOSTS)[number];
export const TUNNEL_PORT = 1;
/** Of networks 1, 2 and 3; the third takes less. */
export const MTUS = [1450, 1450, 1300] as const;

export const subnetsOf = (index: number): string[] => [`10.${index}.0.0/24`, `fd00:${index}::/64`];
export const gatewaysOf = (index: number): string[] => [`10.${index}.0.1`, `fd00:${index}::1`];

export interface Placed {
  readonly name: string;
  readonly host: HostName;
  readonly network: number;
  readonly ofport: number;
  readonly ip: string;
  readonly ip6: string;
  /** Null: by its address. */
  readonly mac: string | null;
  /** May send from this, too; empty = nothing more. */
  readonly also: string;
}

/** By its last number: 2 to 15 are in the first host's blocks, 16 to 31 in the second's. */
export const placed = (
  name: string,
  host: HostName,
  index: number,
  last: number,
  ofport: number,
  more: Partial<Pick<Placed, 'mac' | 'also'>> = {},
): Placed => ({
  mac: null,
  also: '',
  ...more,
  name,
  host,
  network: index,
  ofport,
  ip: `10.${index}.0.${last}`,
  ip6: `fd00:${index}::${last.toString(16)}`,
});

export const portOf = (p: Placed): LocalPort => ({
  ...localPort(p.ofport, p.ip, p.ip6, p.mac ?? undefined),
  allowed: p.also === '' ? [] : [{ ip: parseIp(p.also), ip6: null, mac: null }],
});

export interface Routed {
  readonly endpoints: readonly Placed[];
  /** Beside the subnets of the others: of each network alike. */
  readonly statics: readonly {
    readonly to: string;
    readonly hops: readonly (Pick<Hop, 'network'> & { ip: string })[];
  }[];
  /** More of a network. */
  readonly more?: Readonly<Record<number, Partial<NetworkModel>>>;
  readonly gateway?: number;
}

const INDEXES = [1, 2, 3];

/** What the bridge of one host has to know; all reach all by the router. */
export function bridgeOf(mesh: Routed, host: HostName): BridgeModel {
  const other = HOSTS.find((h) => h !== host)!;
  const networks = INDEXES.map((index): NetworkModel => {
    const here = mesh.endpoints.filter((e) => e.network === index && e.host === host);
    const there = mesh.endpoints.filter((e) => e.network === index && e.host === other);
    const base = other === 'h1' ? 0 : 16;
    const routes = [
      ...INDEXES.filter((i) => i !== index).flatMap((i) =>
        subnetsOf(i).map((to): RouteModel => ({ to: parse6(to), hops: [{ network: i, ip: null, mtu: MTUS[i - 1]! }] })),
      ),
      ...mesh.statics.map(
        ({ to, hops }): RouteModel => ({
          to: parse6(to),
          hops: hops.map((h) => ({ network: h.network, ip: parseAny(h.ip), mtu: MTUS[h.network - 1]! })),
        }),
      ),
    ];
    return network({
      index,
      mtu: MTUS[index - 1]!,
      locals: here.map(portOf),
      remotes:
        there.length === 0
          ? []
          : [
              remote(other === 'h1' ? '192.0.2.1' : '192.0.2.2', {
                hostId: other,
                key: 4095 + index,
                blocks: [parseCidr(`10.${index}.0.${base}/28`)],
                blocks6: [parse6(base === 0 ? `fd00:${index}::/124` : `fd00:${index}::10/124`)],
                entries: there
                  .filter((e) => e.mac !== null)
                  .map((e) => ({ mac: portOf(e).mac, ip: portOf(e).ip, ip6: portOf(e).ip6, express: true })),
              }),
            ],
      routing: {
        mac: routerMac(host),
        own: gatewaysOf(index).map(parseAny),
        answering: INDEXES.flatMap(gatewaysOf).map(parseAny),
        subnets: subnetsOf(index).map(parse6),
        routes,
      },
      ...(there.length === 0 ? { routers: [{ hostId: other, vtep: other === 'h1' ? '192.0.2.1' : '192.0.2.2' }] } : {}),
      reached: true,
      ...mesh.more?.[index],
    });
  });
  return {
    tunnels: { kind: 'kernel', port: TUNNEL_PORT },
    networks,
    maxMeters: 65_536,
    ...(mesh.gateway === undefined ? {} : { gateway: mesh.gateway }),
  };
}
