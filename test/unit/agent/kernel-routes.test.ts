import { expect, test } from 'vitest';
import { describeMaps } from '../../../agent/bpf/describe.ts';
import { encode, type MapName } from '../../../agent/bpf/encode.ts';
import { kernelSide } from '../../../agent/plan/kernel.ts';
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
