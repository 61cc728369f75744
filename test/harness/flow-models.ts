/** Short forms of the renderer's model, for tests of flows with IPv6. */
import type { BridgeModel, LocalPort, NetworkModel, Remote, ServiceModel } from '../../agent/flows/model.ts';
import { addressesOf } from '../../agent/plan/entries.ts';
import { parseCidr as parse6, parseIp as parseIp6 } from '../../lib/addr.ts';
import { parseCidr, parseIp } from '../../lib/ip.ts';
import { defaultMac, parseMac } from '../../lib/mac.ts';

/** Empty text: it has no address of that family. */
export function localPort(ofport: number, ip: string, ip6: string, mac = defaultMac(ip, ip6, 64).mac): LocalPort {
  const id = String(ofport).repeat(64).slice(0, 64);
  return {
    id,
    ofport,
    mac: parseMac(mac),
    ...addressesOf({ ip, ip6, prefix6: 64 }),
    express: true,
    allowed: [],
    trusted: false,
  };
}

export const remote = (vtep: string, more: Partial<Remote>): Remote => ({
  hostId: vtep,
  vtep,
  encap: 'vxlan',
  key: 4096,
  blocks: [],
  blocks6: [],
  entries: [],
  withheld: [],
  learn: false,
  external: false,
  ...more,
});

export const network = (
  more: Partial<NetworkModel> & Pick<NetworkModel, 'index' | 'locals' | 'remotes'>,
): NetworkModel => ({
  vni: 4095 + more.index,
  encap: 'vxlan',
  uplink: null,
  ipv4: true,
  ipv6: true,
  mtu: 1450,
  asked: [],
  macs: [],
  multicast: null,
  ...more,
});

/**
 * Network 1 has both families: endpoints on ports 2 and 3 (that one's MAC is given), another host with a block of each, a third one
 * with an address out of the second's. Network 2 has IPv6 only: an endpoint on port 4, and a block elsewhere.
 */
export const IPV6_MODEL: BridgeModel = {
  tunnels: { kind: 'ovs', ports: { vxlan: 1 } },
  maxMeters: 0,
  networks: [
    network({
      index: 1,
      locals: [localPort(2, '10.128.0.2', 'fd00::2'), localPort(3, '10.128.0.3', 'fd00::3', '02:42:00:00:00:03')],
      remotes: [
        remote('192.0.2.2', { blocks: [parseCidr('10.128.0.32/27')], blocks6: [parse6('fd00::40/122')] }),
        remote('192.0.2.3', {
          entries: [
            {
              mac: parseMac('02:58:0a:80:00:39'),
              ip: parseIp('10.128.0.57'),
              ip6: parseIp6('fd00::49'),
              express: true,
            },
          ],
        }),
      ],
    }),
    network({
      index: 2,
      ipv4: false,
      locals: [localPort(4, '', 'fd01::2')],
      remotes: [remote('192.0.2.2', { key: 4097, blocks6: [parse6('fd01::40/122')] })],
    }),
  ],
};

export const virtualPort = (address: ServiceModel['address'], port: number): ServiceModel => ({
  id: port,
  address,
  protocol: 6,
  port,
  affinity: 0,
  backends: [],
});
export const VIP4 = { family: 4, address: parseIp('10.1.0.200') } as const;
export const VIP6 = { family: 6, address: parseIp6('fd00:1::200') } as const;
const GATEWAYS = { ip: parseIp('10.1.0.1'), ip6: parseIp6('fd00:1::1') };

/** A network that leads out, with a service of two ports in both families whose endpoints are checked; one that does not, with one. */
export const SERVED: Pick<NetworkModel, 'services' | 'checks'>[] = [
  {
    services: [virtualPort(VIP4, 80), virtualPort(VIP4, 443), virtualPort(VIP6, 80), virtualPort(VIP6, 443)],
    checks: GATEWAYS,
  },
  { services: [virtualPort(VIP4, 80)] },
];
export const servicesModel = (served: readonly Pick<NetworkModel, 'services' | 'checks'>[]): BridgeModel => ({
  maxMeters: 65_536,
  tunnels: { kind: 'kernel', port: 1 },
  gateway: 9,
  networks: [
    network({
      index: 1,
      remotes: [],
      egress: { ...GATEWAYS, subnets: [parse6('10.1.0.0/24'), parse6('fd00:1::/64')] },
      locals: [{ ...localPort(2, '10.1.0.2', 'fd00:1::2'), transit: parseIp('169.254.70.1') }],
      ...served[0],
    }),
    network({ index: 2, ipv6: false, remotes: [], locals: [localPort(3, '10.1.0.2', '')], ...served[1] }),
  ],
});
