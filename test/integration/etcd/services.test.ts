import { afterAll, beforeAll, beforeEach, describe, expect, test } from 'vitest';
import type { NewService, ServiceOutcome } from '../../../coordinator/contract.ts';
import type { OpenedStore } from '../../../coordinator/store/index.ts';
import { keys } from '../../../coordinator/store/keys.ts';
import { containsIp, parseCidr, parseIp } from '../../../lib/addr.ts';
import type { Network, Service } from '../../../lib/model.ts';
import { TestEtcd } from '../../harness/etcd.ts';
import { aHost, anEndpoint, aSpec, open, until } from './support.ts';

describe('services', () => {
  let etcd: TestEtcd;
  let one: OpenedStore;
  let two: OpenedStore;
  let network: Network;
  let turn = 0;

  beforeAll(async () => {
    etcd = await TestEtcd.start();
    one = await open(etcd.endpoint, 'one');
    two = await open(etcd.endpoint, 'two');
    for (const id of ['h1', 'h2', 'h3']) await one.store.putHost(aHost(id));
  });
  afterAll(async () => {
    await one?.close();
    await two?.close();
    await etcd?.[Symbol.asyncDispose]();
  });
  beforeEach(async () => {
    const n = ++turn;
    network = await one.store.createNetwork(aSpec(`n${n}`, { subnets: [`10.${n}.0.0/24`, `fd00:${n}::/64`] }));
    await two.store.caughtUp();
    return async () => {
      expect(await one.auditor.audit(false)).toEqual([]);
    };
  });
  const ip = (last: number): string => `10.${turn}.0.${last}`;
  const wanted = (name: string, more: Partial<NewService> = {}): NewService => ({
    networkId: network.id,
    name,
    ips: [],
    ports: [{ name: '', protocol: 'tcp', port: 80, targetPort: 80, hostPort: 0 }],
    selector: { app: name },
    headless: false,
    health: undefined,
    affinityS: 0,
    localFirst: false,
    publish: '',
    labels: {},
    ...more,
  });
  const NOBODY = new Map<string, string>();
  const both = (i: number): OpenedStore => (i % 2 === 0 ? one : two);
  const madeOf = (outcomes: readonly PromiseSettledResult<ServiceOutcome>[]): Service[] =>
    outcomes.flatMap((o) => (o.status === 'fulfilled' && 'made' in o.value ? [o.value.made] : []));
  const codesOf = (outcomes: readonly PromiseSettledResult<unknown>[]): Set<string> =>
    new Set(outcomes.flatMap((o) => (o.status === 'rejected' ? [(o.reason as { code: string }).code] : [])));

  test('of twenty that are made at the same moment, on two coordinators, each gets addresses of its own', async () => {
    const outcomes = await Promise.allSettled(
      Array.from({ length: 20 }, (_, i) => both(i).store.createService(wanted(`s${i}`), NOBODY)),
    );
    const made = madeOf(outcomes);
    expect(made).toHaveLength(20);
    for (const { ips } of made) expect(ips).toHaveLength(2);
    expect(new Set(made.flatMap((s) => s.ips)).size).toBe(40);
    // The highest ones, where no block comes soon.
    const four = made.map((s) => parseIp(s.ips[0]!)).sort((a, b) => (a < b ? -1 : 1));
    expect([four.at(0), four.at(-1)]).toEqual([parseIp(ip(235)), parseIp(ip(254))]);
  });

  test('of twenty who want one address, name or port of the hosts, one gets it', async () => {
    const asked = await Promise.allSettled(
      Array.from({ length: 20 }, (_, i) => both(i).store.createService(wanted(`r${i}`, { ips: [ip(9)] }), NOBODY)),
    );
    expect(madeOf(asked)).toMatchObject([{ ips: [ip(9), expect.any(String)] }]);
    expect(codesOf(asked)).toEqual(new Set(['ALREADY_EXISTS']));
    const named = await Promise.allSettled(
      Array.from({ length: 20 }, (_, i) => both(i).store.createService(wanted('shop', { ips: [ip(20 + i)] }), NOBODY)),
    );
    expect(madeOf(named)).toHaveLength(1);
    expect(codesOf(named)).toEqual(new Set(['ALREADY_EXISTS']));
    // Also in two networks, which have guards of their own.
    const other = await one.store.createNetwork(aSpec(`other${turn}`));
    await two.store.caughtUp();
    const ports = [{ name: '', protocol: 'tcp', port: 80, targetPort: 80, hostPort: 8000 + turn }];
    const published = await Promise.allSettled(
      Array.from({ length: 20 }, (_, i) =>
        both(i).store.createService(
          wanted(`p${i}`, { networkId: i % 4 < 2 ? network.id : other.id, ports, publish: 'all' }),
          NOBODY,
        ),
      ),
    );
    expect(madeOf(published)).toHaveLength(1);
    expect(codesOf(published)).toEqual(new Set(['ALREADY_EXISTS']));
    await one.store.deleteNetwork(other.id);
  });

  test('a reservation and a service do not get one address', async () => {
    const race = await Promise.allSettled([
      one.store.createReservation({ networkId: network.id, name: 'r', ips: [ip(9)], mac: '', labels: {} }, NOBODY),
      two.store.createService(wanted('s', { ips: [ip(9)] }), NOBODY),
    ]);
    expect(race.filter((a) => a.status === 'fulfilled')).toHaveLength(1);
    expect(codesOf(race)).toEqual(new Set(['ALREADY_EXISTS']));
  });

  test('no block is given that has a virtual address, and none is picked out of a block, whoever is first', async () => {
    const [blocks, services] = await Promise.all([
      Promise.all(
        Array.from({ length: 20 }, (_, i) => both(i).store.allocateBlock(network.id, `h${(i % 3) + 1}`, { family: 4 })),
      ),
      Promise.all(Array.from({ length: 10 }, (_, i) => both(i + 1).store.createService(wanted(`s${i}`), NOBODY))),
    ]);
    await one.store.caughtUp();
    const held = [...(one.state.blocks.get(network.id)?.keys() ?? [])].map(parseCidr);
    const ips = [...(one.state.services.get(network.id)?.values() ?? [])].flatMap((s) => s.ips);
    for (const text of ips) expect(held.some((block) => containsIp(block, parseIp(text)))).toBe(false);
    // Twenty /28 would be more than there is: some hosts got smaller ones, or nothing; some services may have found nothing outside.
    expect(blocks.filter((block) => block !== null).length).toBeGreaterThan(10);
    for (const outcome of services) if ('crowded' in outcome) expect(outcome.crowded).toBe(4);
  });

  test('where a block is, its host must agree; nobody claims or holds the address then', async () => {
    const block = await one.store.allocateBlock(network.id, 'h1', { containing: ip(50) });
    const given = wanted('shop', { ips: [ip(50)] });
    await expect(one.store.createService(given, NOBODY)).rejects.toMatchObject({ code: 'ABORTED' });
    await expect(one.store.createService(given, new Map([[ip(50), 'h2']]))).rejects.toMatchObject({ code: 'ABORTED' });
    const outcome = await one.store.createService(given, new Map([[ip(50), 'h1']]));
    expect(outcome).toMatchObject({ made: { ips: [ip(50), `fd00:${turn}::ffff:ffff`] } });
    await two.store.caughtUp();
    const claim = { networkId: network.id, address: ip(50), hostId: 'h3', grantorHostId: 'h1' };
    const taken = { code: 'ALREADY_EXISTS', message: expect.stringContaining('is the address of service shop') };
    await expect(two.store.claimAddress(claim)).rejects.toMatchObject(taken);
    await expect(two.store.allocateBlock(network.id, 'h1', { containing: ip(50) })).rejects.toMatchObject(taken);
    // A host that comes back and says that it holds it is not believed.
    const held = { networkId: network.id, address: ip(50), hostId: 'h2', grantorHostId: '', reason: '', revision: 0n };
    const back = { endpoints: [], blocks: [], addresses: [{ ...held, state: 'held' }] };
    const { refused } = await one.store.replaceHoldings('h2', back);
    expect(refused).toEqual([expect.stringContaining('it is the address of service shop')]);
    // Lost from etcd by somebody's hand, the block comes back although it has one.
    await etcd.ctl('del', keys.block('default', network.id, block!.cidr));
    await until('it is there again', () => one.state.blocks.get(network.id)?.get(block!.cidr)?.hostId === 'h1');
    await one.store.removeService(network.id, 'shop');
    expect(await one.store.claimAddress(claim)).toMatchObject({ state: 'claimed' });
    await expect(one.store.createService(given, new Map([[ip(50), 'h3']]))).rejects.toMatchObject({
      code: 'ALREADY_EXISTS',
      message: expect.stringContaining('being claimed'),
    });
    await one.store.releaseAddresses(network.id, 'h3', [ip(50)]);
  });

  test('a full network is said to be crowded, and what is given there is made', async () => {
    const small = await one.store.createNetwork(aSpec(`small${turn}`, { subnets: [`172.30.${turn}.0/28`] }));
    const mine = { networkId: small.id };
    for (const part of [0, 8]) {
      const block = await one.store.allocateBlock(small.id, 'h1', { family: 4 });
      expect(block?.cidr).toBe(`172.30.${turn}.${part}/29`);
    }
    expect(await one.store.createService(wanted('s', mine), NOBODY)).toEqual({ crowded: 4 });
    const address = `172.30.${turn}.14`;
    const outcome = await one.store.createService(wanted('s', { ...mine, ips: [address] }), new Map([[address, 'h1']]));
    expect(outcome).toMatchObject({ made: { ips: [address] } });
    expect(await one.store.createService(wanted('h', { ...mine, headless: true, ports: [] }), NOBODY)).toMatchObject({
      made: { ips: [] },
    });
    await one.store.deleteNetwork(small.id);
    expect(one.state.services.has(small.id)).toBe(false);
  });

  test('what somebody does to its key by hand is undone, and it goes with its network', async () => {
    await one.store.createService(wanted('shop', { labels: { tier: 'front' } }), NOBODY);
    const key = keys.service('default', network.id, 'shop');
    const there = () => one.state.services.get(network.id)?.get('shop')?.labels['tier'] === 'front';
    const told: string[] = [];
    const tell = (drift: { object: string; change: string }, _at: string, healed: string | null): void => {
      if (healed !== null) told.push(`${drift.change} ${drift.object}`);
    };
    const unsubscribe = [one, two].map((each) => each.auditor.onDrift(tell));
    const stray = keys.service('default', network.id, 'stray');
    await etcd.ctl('del', key);
    await until('the key is back', () => told.includes(`missing ${key}`) && there());
    await etcd.ctl('put', key, '{"name":"shop"}');
    await until('the record is back', () => told.includes(`differs ${key}`) && there());
    await etcd.ctl('put', stray, 'x');
    await until('the stray one goes', () => told.includes(`extra ${stray}`) && !one.deps.cache.raw.has(stray));
    for (const stop of unsubscribe) stop();
    await one.store.deleteNetwork(network.id);
    expect(one.state.services.has(network.id)).toBe(false);
    expect(one.deps.cache.raw.has(key)).toBe(false);
  });

  test('an endpoint is drained, and no more', async () => {
    await one.store.registerEndpoints('h1', [anEndpoint(network.id, 'h1', `e${turn}`, ip(7))], []);
    const settings = () => one.state.settings.get(network.id)?.get(`e${turn}`);
    const change = (draining: boolean | null, more = {}) =>
      one.store.updateSettings(network.id, `e${turn}`, { allow: [], disallow: [], draining, ...more }, []);
    await change(true);
    expect(settings()).toMatchObject({ draining: true, allowed: [] });
    const { revision } = settings()!;
    await change(true);
    expect(settings()?.revision).toBe(revision);
    const allow = [{ ip: ip(99), mac: '' }];
    await change(null, { allow });
    expect(settings()).toMatchObject({ draining: true, allowed: allow });
    await change(false, { disallow: allow });
    expect(settings()).toBe(undefined);
    await change(false);
    expect(settings()).toBe(undefined);
    await one.store.registerEndpoints('h1', [], [`e${turn}`]);
  });
});
