import { expect, test } from 'vitest';
import type { LocalAddress, LocalEndpoint } from '../../../agent/contract.ts';
import type { DockerEndpoint } from '../../../agent/docker/api.ts';
import { confirmed, driftOf, isEmpty, planEndpoints } from '../../../agent/docker/reconcile.ts';

const endpoint = (id: string, ip: string): LocalEndpoint => ({
  id,
  networkId: 'n1',
  dockerNetworkId: 'd1',
  ip,
  prefix: 24,
  ip6: '',
  prefix6: 0,
  mac: '02:58:0a:00:00:02',
  givenMac: false,
  mtu: 1450,
  createdAt: '',
  sandbox: '/s',
  container: null,
  labels: {},
  aliases: [],
  interfaceName: null,
});
const seen = (id: string, ip: string, containerId: string | null = 'c'): DockerEndpoint => ({
  id,
  dockerNetworkId: 'd1',
  containerId,
  containerName: 'web',
  ip,
  prefix: 24,
  ip6: '',
  prefix6: 0,
  mac: '',
});
const address = (ip: string, state: LocalAddress['state']): [string, LocalAddress] => [
  `n1/${ip}`,
  { networkId: 'n1', ip, state, since: 0, lentTo: null, claimed: false },
];

function plan(
  docker: [string, DockerEndpoint[] | null][],
  endpoints: LocalEndpoint[],
  addresses: [string, LocalAddress][] = [],
  inFlight: string[] = [],
) {
  const p = planEndpoints({
    docker: new Map(docker),
    endpoints: new Map(endpoints.map((e) => [e.id, e])),
    addresses: new Map(addresses),
    inFlight: (id) => inFlight.includes(id),
    abandoned: () => true,
  });
  return { stale: p.stale.map((e) => e.id), lost: p.lost.map((e) => e.id), unused: p.unused };
}
const nothing = { stale: [], lost: [], unused: [] };

test('agreement', () => {
  expect(
    plan([['d1', [seen('e1', '10.0.0.2')]]], [endpoint('e1', '10.0.0.2')], [address('10.0.0.2', 'endpoint')]),
  ).toEqual(nothing);
});

test('Docker does not have it, or not even its network; what was not asked is not judged', () => {
  const e1 = endpoint('e1', '10.0.0.2');
  expect(plan([['d1', []]], [e1])).toEqual({ ...nothing, stale: ['e1'] });
  expect(plan([['d1', null]], [e1])).toEqual({ ...nothing, stale: ['e1'] });
  expect(plan([], [e1])).toEqual(nothing);
  expect(plan([['d1', []]], [e1], [], ['e1'])).toEqual(nothing);
});

test('the journal lacks it: only what is in a container is rebuilt', () => {
  const docker: [string, DockerEndpoint[]][] = [['d1', [seen('e1', '10.0.0.2'), seen('e2', '10.0.0.3', null)]]];
  expect(plan(docker, [])).toEqual({ ...nothing, lost: ['e1'] });
});

test('addresses that nothing uses; lent and resting ones are others', () => {
  const addresses = [
    address('10.0.0.2', 'endpoint'),
    address('10.0.0.3', 'requested'),
    address('10.0.0.4', 'lent'),
    address('10.0.0.5', 'resting'),
    address('10.0.0.6', 'endpoint'),
  ];
  expect(plan([['d1', [seen('e1', '10.0.0.2')]]], [endpoint('e1', '10.0.0.2')], addresses)).toEqual({
    ...nothing,
    unused: ['n1/10.0.0.3', 'n1/10.0.0.6'],
  });
});

test('only what two looks agree on', () => {
  const [e1, e2] = [endpoint('e1', '10.0.0.2'), endpoint('e2', '10.0.0.3')];
  const first = { stale: [e1, e2], lost: [seen('e3', '10.0.0.4')], unused: ['a', 'b'] };
  const second = { stale: [e2], lost: [], unused: ['b', 'c'] };
  const both = confirmed(first, second);
  expect(both).toEqual({ stale: [e2], lost: [], unused: ['b'] });
  expect(driftOf(both)).toMatchObject([{ kind: 'endpoint', object: 'e2 (10.0.0.3)', change: 'extra' }]);
  expect(isEmpty(both)).toBe(false);
  expect(isEmpty(confirmed(first, { stale: [], lost: [], unused: [] }))).toBe(true);
});
