import { expect, test } from 'vitest';
import { describeMaps } from '../../../agent/bpf/describe.ts';
import { encode, type MapName } from '../../../agent/bpf/encode.ts';
import { neighboursOf } from '../../../agent/flows/routes.ts';
import { kernelSide } from '../../../agent/plan/kernel.ts';
import { sharedOf } from '../../../agent/plan/shared.ts';
import { formatIp } from '../../../lib/addr.ts';
import { formatMac } from '../../../lib/mac.ts';
import type { NetworkView } from '../../../lib/model.ts';
import { bridgeOf, placed, type Routed } from '../../harness/route-models.ts';
import { EXPRESS_WIRING } from '../../harness/wiring.ts';

const MESH: Routed = {
  endpoints: [
    placed('a', 'h1', 1, 2, 2),
    placed('b', 'h1', 2, 2, 3, { mac: '02:42:00:00:00:03' }),
    placed('c', 'h2', 2, 18, 2, { mac: '02:42:00:00:00:04' }),
    placed('d', 'h2', 3, 18, 3),
  ],
  statics: [{ to: '192.168.0.0/16', hops: [{ network: 2, ip: '10.2.0.2' }] }],
};

const said = (express: boolean, maps: readonly MapName[]): string[] => {
  const { networks } = bridgeOf(MESH, 'h1');
  const { model } = kernelSide(networks, { ...EXPRESS_WIRING, express }, () => 9);
  return describeMaps(encode(model, maps)).split('\n').sort();
};

test('the kernel side routes to endpoints; gateways, broadcasts, static routes are Open vSwitch’s', () => {
  expect(
    said(true, ['routes', 'neighbours', 'config']).filter((text) => !text.startsWith('routes net 2')),
  ).toMatchInlineSnapshot(`
    [
      "config = tunnel port ifindex 9 ttl 64 dscp inherit df source 192.0.2.1 router 02:5c:97:f6:61:25",
      "neighbours net 2 10.2.0.18 = 02:42:00:00:00:04",
      "neighbours net 2 10.2.0.2 = 02:42:00:00:00:03",
      "neighbours net 2 fd00:2::12 = 02:42:00:00:00:04",
      "routes net 1 10.2.0.0/24 = to net 2 mtu 1450",
      "routes net 1 10.2.0.1/32 = by Open vSwitch",
      "routes net 1 10.2.0.255/32 = by Open vSwitch",
      "routes net 1 10.3.0.0/24 = to net 3 mtu 1300",
      "routes net 1 10.3.0.1/32 = by Open vSwitch",
      "routes net 1 10.3.0.255/32 = by Open vSwitch",
      "routes net 1 192.168.0.0/16 = by Open vSwitch",
      "routes net 1 fd00:2::/64 = by Open vSwitch",
      "routes net 1 fd00:2::/96 = to net 2 mtu 1450",
      "routes net 1 fd00:2::1/128 = by Open vSwitch",
      "routes net 1 fd00:3::/64 = by Open vSwitch",
      "routes net 1 fd00:3::/96 = to net 3 mtu 1300",
      "routes net 1 fd00:3::1/128 = by Open vSwitch",
    ]
  `);
  expect(said(false, ['routes', 'neighbours'])).toEqual(['']);
});

test('hosts are believed to be where what they have routed comes from, and nobody has this one’s MAC', () => {
  const routers = said(false, ['fdb', 'vteps']).filter((text) => /vteps|02:5c/.test(text));
  expect(routers).toMatchInlineSnapshot(`
    [
      "fdb net 1 02:5c:08:8a:01:b2 = remote 192.0.2.2 express",
      "fdb net 1 02:5c:97:f6:61:25 = nobody",
      "fdb net 2 02:5c:08:8a:01:b2 = remote 192.0.2.2 express",
      "fdb net 2 02:5c:97:f6:61:25 = nobody",
      "fdb net 3 02:5c:08:8a:01:b2 = remote 192.0.2.2 express",
      "fdb net 3 02:5c:97:f6:61:25 = nobody",
      "vteps device 9 key 4096 192.0.2.2 = net 1",
      "vteps device 9 key 4097 192.0.2.2 = net 2",
      "vteps device 9 key 4098 192.0.2.2 = net 3",
    ]
  `);
});

test('an address that several endpoints may have is led to by the one MAC that it has', () => {
  const setting = (endpointId: string, ...allowed: [ip: string, mac: string][]) =>
    [endpointId, { endpointId, allowed: allowed.map(([ip, mac]) => ({ ip, mac })) }] as const;
  const endpoint = (id: string, mac: string) => [id, { id, hostId: 'h2', mac }] as const;
  const VRRP = '00:00:5e:00:01:33';
  const interest = {
    settings: new Map([
      setting('e1', ['10.2.0.99', VRRP], ['10.2.0.98', ''], ['10.2.0.97', '']),
      setting('e2', ['10.2.0.99', VRRP], ['10.2.0.98', '']),
    ]),
    endpoints: new Map([endpoint('e1', '02:58:0a:02:00:12'), endpoint('e2', '02:58:0a:02:00:13')]),
  } as unknown as NetworkView;
  const { neighbours = [] } = sharedOf(interest, [], []);
  const text = ({ ip, mac }: { ip: bigint; mac: bigint }): string => `${formatIp(ip)} ${formatMac(mac)}`;
  expect(neighbours.map(text)).toEqual([`10.2.0.97 02:58:0a:02:00:12`, `10.2.0.99 ${VRRP}`]);
  expect(sharedOf(undefined, [], [])).not.toHaveProperty('neighbours');
  const known = neighboursOf({ locals: [], remotes: [], neighbours });
  expect([...known].map(([ip, mac]) => text({ ip, mac }))).toEqual(neighbours.map(text));
});
