import { expect, test } from 'vitest';
import { failuresOf, routeChanges } from '../../../agent/container-routes.ts';
import type { LocalEndpoint, LocalNetwork } from '../../../agent/contract.ts';
import { containerRoutes, routingOf } from '../../../agent/plan/routing.ts';
import { EMPTY_VIEW } from '../../../agent/view.ts';
import { Network, Router } from '../../../gen/weft/v1/types.ts';
import { parseCidr, parseIp } from '../../../lib/addr.ts';
import type { View } from '../../../lib/model.ts';

const net = (id: string, n: number, more: Partial<Network> = {}): Network =>
  Network.fromPartial({
    id,
    name: id,
    encap: 'vxlan',
    mtu: 1450,
    subnets: [`10.${n}.0.0/24`],
    gateways: [`10.${n}.0.1`],
    ...more,
  });
const A = net('a', 1);
const B = net('b', 2, { mtu: 1400, subnets: ['10.2.0.0/24', 'fd00:2::/64'], gateways: ['10.2.0.1', 'fd00:2::1'] });
const C = net('c', 3, { internal: true });
const rows = new Map(
  [A, B, C].map((network, i): [string, LocalNetwork] => [network.id, { index: i + 1, network } as LocalNetwork]),
);
const router = (name: string, networkIds: string[], ...routes: [string, ...string[]][]): Router =>
  Router.fromPartial({ name, networkIds, routes: routes.map(([cidr, ...via]) => ({ cidr, via })) });
const view = (...routers: Router[]): View => ({
  ...EMPTY_VIEW,
  networks: new Map([A, B, C].map((n) => [n.id, n])),
  routers: new Map(routers.map((r) => [r.name, r])),
});
const endpoint = (id: string, networkId: string, ip: string, more: Partial<LocalEndpoint> = {}): LocalEndpoint =>
  ({ id, networkId, ip, ip6: '', sandbox: '/s', interfaceName: 'eth0', ...more }) as LocalEndpoint;

test('a bridge leads to the other networks’ subnets of its families, and to routes by whoever is next', () => {
  const v = view(
    router('r', ['a', 'b'], ['192.168.0.0/16', '10.2.0.9', '10.1.0.9'], ['fd00:9::/48', 'fd00:2::9']),
    router('s', ['c', 'a']),
  );
  const routing = routingOf(v, 'h1', rows, A, (n) => n.mtu);
  expect(routing?.own).toEqual([parseIp('10.1.0.1')]);
  expect(routing?.answering).toEqual(['10.1.0.1', '10.2.0.1', 'fd00:2::1', '10.3.0.1'].map(parseIp));
  expect(routing?.routes).toEqual([
    { to: parseCidr('10.2.0.0/24'), hops: [{ network: 2, ip: null, mtu: 1400 }] },
    { to: parseCidr('10.3.0.0/24'), hops: [{ network: 3, ip: null, mtu: 1450 }] },
    {
      to: parseCidr('192.168.0.0/16'),
      hops: [
        { network: 2, ip: parseIp('10.2.0.9'), mtu: 1400 },
        { network: 1, ip: parseIp('10.1.0.9'), mtu: 1450 },
      ],
    },
  ]);
  expect(routingOf(v, 'h1', rows, B, (n) => n.mtu)?.routes.map((r) => r.to)).toEqual(
    ['10.1.0.0/24', '192.168.0.0/16', 'fd00:9::/48'].map(parseCidr),
  );
  expect(routingOf(view(), 'h1', rows, A, (n) => n.mtu)).toBeNull();
  // Its network is not on this host (yet).
  expect(routingOf(v, 'h1', new Map([['a', rows.get('a')!]]), A, (n) => n.mtu)?.routes).toMatchObject([
    { hops: [{ network: 1 }] },
  ]);
});

test('a container routes by its gateway to where routers lead, each range once', () => {
  const v = view(router('r', ['a', 'b'], ['192.168.0.0/16', '10.2.0.9']), router('s', ['c', 'a']));
  const a = endpoint('e1', 'a', '10.1.0.5');
  const via = '10.1.0.1';
  const all = ['10.2.0.0/24', '10.3.0.0/24', '192.168.0.0/16'].map((cidr) => ({ cidr, via }));
  expect(containerRoutes(v, a, A, [])).toEqual(all);
  // Its other network leads to A, which it is in itself; what both lead to, the first has.
  const c = endpoint('e2', 'c', '10.3.0.5');
  expect(containerRoutes(v, c, C, [{ ...a, routed: all }])).toEqual([]);
  expect(containerRoutes(v, a, A, [c])).toEqual(all.filter(({ cidr }) => cidr !== '10.3.0.0/24'));
  const six = endpoint('e3', 'b', '', { ip6: 'fd00:2::5' });
  expect(containerRoutes(v, six, B, [])).toEqual([]);
});

test('a default route by a router is for those who have none', () => {
  const v = view(router('r', ['a'], ['0.0.0.0/0', '10.1.0.9']), router('s', ['c'], ['0.0.0.0/0', '10.3.0.9']));
  const a = endpoint('e1', 'a', '10.1.0.5');
  const c = endpoint('e2', 'c', '10.3.0.5');
  expect(containerRoutes(v, a, A, [])).toEqual([]);
  const halves = ['0.0.0.0/1', '128.0.0.0/1'].map((cidr) => ({ cidr, via: '10.3.0.1' }));
  expect(containerRoutes(v, c, C, [])).toEqual(halves);
  expect(containerRoutes(v, c, C, [a])).toEqual([]);
});

test('what changes for running containers: of those that have joined, and nothing is taken away by half a view', () => {
  const v = view(router('r', ['a', 'b']));
  const via = '10.1.0.1';
  const to = (cidr: string) => ({ cidr, via });
  const endpoints = new Map(
    [
      endpoint('new', 'a', '10.1.0.5', { sandbox: '/1' }),
      endpoint('done', 'a', '10.1.0.6', { sandbox: '/2', routed: [to('10.2.0.0/24')] }),
      endpoint('old', 'a', '10.1.0.7', { sandbox: '/3', routed: [to('10.2.0.0/24'), to('10.3.0.0/24')] }),
      endpoint('joining', 'a', '10.1.0.8', { sandbox: '/4', interfaceName: null }),
      endpoint('left', 'a', '10.1.0.9', { sandbox: null }),
    ].map((e) => [e.id, e]),
  );
  const journal = { endpoints, networks: rows };
  const changes = (mayRemove: boolean) =>
    routeChanges(journal, v, mayRemove).map(({ endpoint: e, added, gone }) => [e.id, added, gone]);
  expect(changes(true)).toEqual([
    ['new', [to('10.2.0.0/24')], []],
    ['old', [], [to('10.3.0.0/24')]],
  ]);
  expect(changes(false)).toEqual([['new', [to('10.2.0.0/24')], []]]);
});

test('what ip says of lines that failed', () => {
  const gone = 'RTNETLINK answers: No such process\nCommand failed -:1\n';
  const bad = 'Error: Nexthop has invalid gateway.\nCommand failed -:3\n';
  expect([...failuresOf(gone + bad)]).toEqual([
    [0, 'RTNETLINK answers: No such process'],
    [2, 'Error: Nexthop has invalid gateway.'],
  ]);
  expect(failuresOf('').size).toBe(0);
});
