import { afterAll, afterEach, beforeAll, beforeEach, describe, expect, test } from 'vitest';
import type { NetworkBind } from '../../../coordinator/contract.ts';
import type { OpenedStore } from '../../../coordinator/store/index.ts';
import { overlaps, parseCidr } from '../../../lib/addr.ts';
import type { Network } from '../../../lib/model.ts';
import { TestEtcd } from '../../harness/etcd.ts';
import { aHost, anEndpoint, aSpec, open } from './support.ts';

const aBind = (name: string, more: Partial<NetworkBind> = {}): NetworkBind => ({
  name,
  labels: {},
  options: {},
  internal: false,
  attachable: false,
  gateway: '',
  gateway6: '',
  joins: '',
  ipv6: false,
  auxAddresses: {},
  ...more,
});

describe('IPv6 through two coordinators on one etcd', () => {
  let etcd: TestEtcd;
  let one: OpenedStore;
  let two: OpenedStore;

  beforeAll(async () => {
    etcd = await TestEtcd.start();
  });
  afterAll(() => etcd?.[Symbol.asyncDispose]());
  beforeEach(async () => {
    await etcd.ctl('del', '--prefix', '/weft/v1/');
    one = await open(etcd.endpoint, 'one');
    two = await open(etcd.endpoint, 'two');
  });
  afterEach(async () => {
    await one.close();
    await two.close();
  });

  const subnetsOf = (networks: readonly Network[]): string[] => networks.flatMap((n) => n.subnets);
  const disjoint = (cidrs: readonly string[]): void => {
    const parsed = cidrs.map(parseCidr);
    for (const [i, a] of parsed.entries())
      expect(
        parsed.slice(i + 1).some((b) => overlaps(a, b)),
        cidrs[i],
      ).toBe(false);
  };

  test('subnets of one /48 for the whole mesh, never one twice', async () => {
    const jobs = Array.from({ length: 40 }, (_, i) =>
      (i % 2 === 0 ? one : two).store.createNetwork(aSpec(`n${i}`, { ipv6: true })),
    );
    const made = await Promise.all(jobs);
    expect(made.every((n) => n.subnets.length === 2 && n.gateways.length === 2 && n.ipv6)).toBe(true);
    disjoint(subnetsOf(made));
    const heads = new Set(made.map((n) => parseCidr(n.subnets[1]!).base >> 80n));
    expect(heads.size).toBe(1);
    const alone = await two.store.createNetwork(aSpec('alone', { subnets: ['fd00:9::/64'] }));
    expect(alone).toMatchObject({ subnets: ['fd00:9::/64'], gateways: ['fd00:9::1'], ipv6: true });
    await expect(one.store.createNetwork(aSpec('x', { subnets: ['fd00:9::/48'] }))).rejects.toMatchObject({
      code: 'FAILED_PRECONDITION',
      message: expect.stringContaining('overlaps fd00:9::/64 of network "alone"'),
    });
    await one.store.deleteNetwork(alone.id);
    await two.store.caughtUp();
    await two.store.createNetwork(aSpec('again', { subnets: ['fd00:9::/48'] }));
  });

  test('the reservation of an IPv6 pool joins that of an IPv4 one, and ends', async () => {
    const four = await one.store.createNetwork(aSpec('', { originHost: 'h1' }));
    const six = await one.store.createNetwork(aSpec('', { ipv6: true, ipv6Only: true, originHost: 'h1' }));
    expect([four.subnets, six.subnets].map((s) => s.length)).toEqual([1, 1]);
    const stranger = await one.store.createNetwork(aSpec('', { ipv6: true, ipv6Only: true, originHost: 'h2' }));
    await expect(two.store.bindNetwork(four.id, aBind('net', { joins: stranger.id }))).rejects.toMatchObject({
      code: 'NOT_FOUND',
    });
    const gateway6 = six.gateways[0]!.replace(/1$/, 'fe');
    const bind = aBind('net', { joins: six.id, gateway6, ipv6: true });
    const { network, won } = await two.store.bindNetwork(four.id, bind);
    expect(won).toBe(true);
    expect(network).toMatchObject({
      subnets: [four.subnets[0], six.subnets[0]],
      gateways: [four.gateways[0], gateway6],
      ipv6: true,
    });
    await one.store.caughtUp();
    expect(one.state.networks.has(six.id)).toBe(false);
    // Asked again after a lost answer.
    expect(await one.store.bindNetwork(four.id, bind)).toMatchObject({ won: true });
    // No key of the joined reservation is left but its subnet's, which says the network's id now.
    const keys = (await etcd.ctl('get', '--prefix', '/weft/v1/', '--keys-only')).split('\n');
    expect(keys.filter((key) => key.includes(six.id) || key.endsWith(`/vnis/${six.vni}`))).toEqual([]);
    const index = `/weft/v1/default/subnets/default/${six.subnets[0]!.replace('/', '_')}`;
    expect(await etcd.ctl('get', '--print-value-only', index)).toContain(four.id);
  });

  test('a name that another has releases both reservations; IPv6 without a pool is allocated', async () => {
    await one.store.createNetwork(aSpec('net'));
    const four = await one.store.createNetwork(aSpec(''));
    const six = await one.store.createNetwork(aSpec('', { ipv6: true, ipv6Only: true }));
    expect(await one.store.bindNetwork(four.id, aBind('net', { joins: six.id }))).toMatchObject({ won: false });
    await one.store.caughtUp();
    expect([four, six].map((n) => one.state.networks.has(n.id))).toEqual([false, false]);
    const other = await one.store.createNetwork(aSpec(''));
    const { network } = await one.store.bindNetwork(other.id, aBind('other', { ipv6: true }));
    expect(network.subnets).toHaveLength(2);
  });

  test('blocks of each family by itself, and addresses beyond the automatic ones alone', async () => {
    for (const id of ['h1', 'h2']) await one.store.putHost(aHost(id));
    const net = await one.store.createNetwork(aSpec('net', { subnets: ['10.9.0.0/24', 'fd00:9::/64'] }));
    const got = await Promise.all(
      Array.from({ length: 30 }, (_, i) =>
        (i % 2 === 0 ? one : two).store.allocateBlock(net.id, `h${(i % 2) + 1}`, { family: i % 3 === 0 ? 4 : 6 }),
      ),
    );
    const cidrs = got.map((block) => block!.cidr);
    disjoint(cidrs);
    expect(cidrs.filter((cidr) => cidr.endsWith('/28'))).toHaveLength(10);
    expect(cidrs.filter((cidr) => /^fd00:9::[0-9a-f]{0,3}\/122$/.test(cidr))).toHaveLength(20);
    const far = await one.store.allocateBlock(net.id, 'h1', { containing: 'fd00:9::1:0:0:5' });
    expect(far?.cidr).toBe('fd00:9::1:0:0:5/128');
    expect(await two.store.allocateBlock(net.id, 'h2', { containing: 'fd00:9::1:0:0:5' })).toBe(null);
    await expect(one.store.allocateBlock(net.id, 'h1', { containing: 'fd00:9::1' })).rejects.toMatchObject({
      code: 'INVALID_ARGUMENT',
    });
    // What an endpoint has, no block of another host holds.
    const endpoint = { ...anEndpoint(net.id, 'h2', 'e1', '10.9.0.250'), ips: ['10.9.0.250', 'fd00:9::7000'] };
    await one.store.registerEndpoints('h2', [endpoint], []);
    expect(await one.store.allocateBlock(net.id, 'h1', { containing: 'fd00:9::7000' })).toBe(null);
    expect((await one.store.allocateBlock(net.id, 'h1', { containing: 'fd00:9::7001' }))?.cidr).toBe(
      'fd00:9::7001/128',
    );
    const alone = await one.store.createNetwork(aSpec('alone', { subnets: ['fd00:a::/64'] }));
    await expect(one.store.allocateBlock(alone.id, 'h1', { family: 4 })).rejects.toMatchObject({
      code: 'INVALID_ARGUMENT',
    });
  });
});
