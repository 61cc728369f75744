import { describe, expect, test } from 'vitest';
import { checkRouter, editedRouter, MAX_HOPS, MAX_NETWORKS, MAX_ROUTES } from '../../../coordinator/alloc/routers.ts';
import type { NewRouter } from '../../../coordinator/contract.ts';
import { Router, Service } from '../../../gen/weft/v1/types.ts';
import { WeftError } from '../../../lib/errors.ts';
import type { Network } from '../../../lib/model.ts';
import { aNetworkRecord } from './samples.ts';

const named = (id: string, name: string, subnet: string, more: Partial<Network> = {}): Network =>
  aNetworkRecord(id, { name, subnets: [subnet], gateways: [subnet.replace(/0\/\d+$/, '1')], ...more });
const A = named('a', 'front', '10.1.0.0/24');
const B = named('b', 'back', '10.2.0.0/24');
const C = named('c', 'vault', '10.3.0.0/24');
const DUAL = aNetworkRecord('d', {
  name: 'dual',
  subnets: ['10.4.0.0/24', 'fd00:4::/64'],
  gateways: ['10.4.0.1', 'fd00:4::1'],
});
const ELSEWHERE = named('e', 'twin', '10.1.0.0/25', { space: 'lab' });
const FAR = named('f', 'far', '10.9.0.0/24', { space: 'lab' });
const VLAN = named('v', 'floor', '10.8.0.0/24', { encap: 'vlan' });
const NAMELESS = named('n', '', '10.7.0.0/24', { state: 'reserved' });

const sources = (...routers: Router[]) => ({
  networks: new Map([A, B, C, DUAL, ELSEWHERE, FAR, VLAN, NAMELESS].map((n) => [n.id, n])),
  routers: new Map(routers.map((r) => [`default/${r.name}`, r])),
  services: new Map([['b', new Map([['shop', Service.fromPartial({ name: 'shop', ips: ['10.2.0.200'] })]])]]),
});
const asked = (more: Partial<NewRouter> = {}): NewRouter => ({
  project: 'default',
  name: 'r',
  networkIds: ['a', 'b'],
  routes: [],
  labels: {},
  ...more,
});
const route = (cidr: string, ...via: string[]) => ({ cidr, via });
const check = (more: Partial<NewRouter>, ...routers: Router[]) => checkRouter(sources(...routers), asked(more));
const refusal = (run: () => unknown): WeftError => {
  try {
    run();
  } catch (error) {
    return WeftError.from(error);
  }
  throw new Error('it was not refused');
};

describe('what can be a router', () => {
  test('is made canonical', () => {
    const routes = [route('192.168.0.0/16', '10.2.0.9', '10.1.0.9'), route('FD00:9:0::/48', 'FD00:4:0::9')];
    expect(check({ networkIds: ['b', 'a', 'd'], routes, labels: { z: '1', y: '' } })).toEqual({
      project: 'default',
      name: 'r',
      networkIds: ['b', 'a', 'd'],
      routes: [route('192.168.0.0/16', '10.2.0.9', '10.1.0.9'), route('fd00:9::/48', 'fd00:4::9')],
      labels: { y: '', z: '1' },
    });
    expect(check({ networkIds: ['a'], routes: [route('0.0.0.0/0', '10.1.0.9')] }).routes).toHaveLength(1);
  });

  test.each<[string, Partial<NewRouter>, string, string]>([
    ['a name', { name: 'No' }, 'INVALID_ARGUMENT', '"No" cannot be the name of a router.'],
    ['no network', { networkIds: [] }, 'INVALID_ARGUMENT', 'Router r: it has no network.'],
    ['a network that is gone', { networkIds: ['a', 'x'] }, 'NOT_FOUND', 'Router r: there is no network x.'],
    ['one twice', { networkIds: ['a', 'b', 'a'] }, 'INVALID_ARGUMENT', 'Router r: network front is given twice.'],
    [
      'too many',
      { networkIds: Array.from({ length: MAX_NETWORKS + 1 }, () => 'a') },
      'INVALID_ARGUMENT',
      `Router r: it has more than ${MAX_NETWORKS} networks.`,
    ],
    ['one alone', { networkIds: ['a'] }, 'INVALID_ARGUMENT', 'Router r: it leads nowhere.'],
    [
      'a vlan',
      { networkIds: ['a', 'v'] },
      'FAILED_PRECONDITION',
      'Router r: network floor is a vlan, whose machines have a router of their own.',
    ],
    ['no name yet', { networkIds: ['a', 'n'] }, 'FAILED_PRECONDITION', 'Router r: network n has no name yet.'],
    [
      'overlapping subnets',
      { networkIds: ['a', 'e'] },
      'FAILED_PRECONDITION',
      'Router r: the subnets of network front (10.1.0.0/24) and network twin (10.1.0.0/25) overlap.',
    ],
    [
      'two address spaces',
      { networkIds: ['a', 'f'] },
      'FAILED_PRECONDITION',
      'Router r: network front is in address space default, and network far in lab.',
    ],
    [
      'a range of its own',
      { routes: [route('10.2.0.0/28', '10.1.0.9')] },
      'INVALID_ARGUMENT',
      'Router r: route to 10.2.0.0/28: it is in the subnet 10.2.0.0/24 of network back, which is led to anyway.',
    ],
    [
      'a range of the host’s',
      { routes: [route('169.254.64.0/18', '10.1.0.9')] },
      'INVALID_ARGUMENT',
      'Router r: route to 169.254.64.0/18: nothing is led to 169.254.0.0/16.',
    ],
    [
      'hosts’ own addresses',
      { networkIds: ['a', 'd'], routes: [route('fd57:6566:7400:0:1::/80', 'fd00:4::9')] },
      'INVALID_ARGUMENT',
      'Router r: route to fd57:6566:7400:0:1::/80: nothing is led to fd57:6566:7400::/64.',
    ],
    [
      'no range',
      { routes: [route('10.0.0.1/8', '10.1.0.9')] },
      'INVALID_ARGUMENT',
      'Route: "10.0.0.1/8" has host bits set',
    ],
    [
      'no hop',
      { routes: [route('10.64.0.0/16')] },
      'INVALID_ARGUMENT',
      'Router r: route to 10.64.0.0/16: it has no next hop.',
    ],
    [
      'too many hops',
      { routes: [route('10.64.0.0/16', ...Array.from({ length: MAX_HOPS + 1 }, () => '10.1.0.9'))] },
      'INVALID_ARGUMENT',
      `Router r: route to 10.64.0.0/16: it has more than ${MAX_HOPS} next hops.`,
    ],
    [
      'a hop twice',
      { routes: [route('10.64.0.0/16', '10.1.0.9', '10.1.0.9')] },
      'INVALID_ARGUMENT',
      'Router r: route to 10.64.0.0/16: the next hop 10.1.0.9 is given twice.',
    ],
    [
      'a hop elsewhere',
      { routes: [route('10.64.0.0/16', '10.3.0.9')] },
      'INVALID_ARGUMENT',
      'Router r: route to 10.64.0.0/16: 10.3.0.9 is in none of its networks.',
    ],
    [
      'a gateway',
      { routes: [route('10.64.0.0/16', '10.2.0.1')] },
      'INVALID_ARGUMENT',
      'Router r: route to 10.64.0.0/16: 10.2.0.1 is the gateway of network back.',
    ],
    [
      'a broadcast address',
      { routes: [route('10.64.0.0/16', '10.2.0.255')] },
      'INVALID_ARGUMENT',
      'Router r: route to 10.64.0.0/16: 10.2.0.255 can be no container’s in 10.2.0.0/24.',
    ],
    [
      'a virtual address',
      { routes: [route('10.64.0.0/16', '10.2.0.200')] },
      'INVALID_ARGUMENT',
      'Router r: route to 10.64.0.0/16: 10.2.0.200 is the address of service shop.',
    ],
    [
      'a hop of the other family',
      { networkIds: ['a', 'd'], routes: [route('10.64.0.0/16', 'fd00:4::9')] },
      'INVALID_ARGUMENT',
      'Router r: route to 10.64.0.0/16: fd00:4::9 is no IPv4 address.',
    ],
    [
      'a range twice',
      { routes: [route('10.64.0.0/16', '10.1.0.9'), route('10.64.0.0/16', '10.2.0.9')] },
      'INVALID_ARGUMENT',
      'Router r: the route to 10.64.0.0/16 is given twice.',
    ],
    [
      'too many routes',
      { routes: Array.from({ length: MAX_ROUTES + 1 }, (_, i) => route(`11.${i >> 8}.${i & 255}.0/24`, '10.1.0.9')) },
      'INVALID_ARGUMENT',
      `Router r: it has more than ${MAX_ROUTES} routes.`,
    ],
  ])('%s is refused', (_what, more, code, message) => {
    const error = refusal(() => check(more));
    expect([error.code, error.message]).toEqual([code, message]);
    expect(error.hint).not.toBeNull();
  });

  test('two routers of a network may not lead to one range in two ways; else a network may have several', () => {
    const other = Router.fromPartial({
      ...asked({ name: 'other', networkIds: ['a', 'c'], routes: [route('10.64.0.0/16', '10.3.0.9')] }),
      id: 'x',
    });
    const error = refusal(() => check({ routes: [route('10.64.0.0/16', '10.2.0.9')] }, other));
    expect([error.code, error.message]).toEqual([
      'FAILED_PRECONDITION',
      'Router r: router other of network front has a way to 10.64.0.0/16 already.',
    ]);
    // The subnet of a network that the other one has.
    expect(refusal(() => check({ routes: [route('10.3.0.0/24', '10.2.0.9')] }, other)).message).toContain(
      '10.3.0.0/24',
    );
    expect(check({ routes: [route('10.65.0.0/16', '10.2.0.9')] }, other).networkIds).toEqual(['a', 'b']);
    // Two networks that two routers share: both lead there alike.
    expect(check({ networkIds: ['a', 'c', 'b'] }, other).networkIds).toEqual(['a', 'c', 'b']);
    // No network in common, nothing to do with each other.
    const apart = { ...other, networkIds: ['c', 'd'] };
    expect(check({ routes: [route('10.64.0.0/16', '10.2.0.9')] }, apart).routes).toHaveLength(1);
  });
});

test('networks and routes come and go', () => {
  const present = Router.fromPartial({ ...asked({ routes: [route('10.64.0.0/16', '10.1.0.9')] }), id: 'x' });
  const none = { addNetworks: [], removeNetworks: [], addRoutes: [], removeRoutes: [] };
  const edited = editedRouter(present, {
    addNetworks: [C, A],
    removeNetworks: [B],
    addRoutes: [route('10.64.0.0/16', '10.3.0.9'), route('10.65.0.0/16', '10.3.0.9')],
    removeRoutes: [],
  });
  expect(edited.networkIds).toEqual(['a', 'c']);
  expect(edited.routes).toEqual([route('10.64.0.0/16', '10.3.0.9'), route('10.65.0.0/16', '10.3.0.9')]);
  expect(editedRouter(present, { ...none, removeRoutes: ['10.64.0.0/16'] }).routes).toEqual([]);
  // Made twice, or by two at once.
  const { id: _id, createdAt: _at, revision: _revision, ...same } = present;
  expect(editedRouter(present, { ...none, removeNetworks: [C], removeRoutes: ['10.66.0.0/16'] })).toEqual(same);
  const both = { ...none, addNetworks: [B], removeNetworks: [B] };
  expect(refusal(() => editedRouter(present, both)).message).toBe('Router r: network back is to come and to go.');
});
