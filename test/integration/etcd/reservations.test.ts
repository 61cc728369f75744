import { afterAll, beforeAll, beforeEach, describe, expect, test } from 'vitest';
import type { NewReservation } from '../../../coordinator/contract.ts';
import type { OpenedStore } from '../../../coordinator/store/index.ts';
import { keys } from '../../../coordinator/store/keys.ts';
import { containsIp, parseCidr, parseIp } from '../../../lib/addr.ts';
import type { Network } from '../../../lib/model.ts';
import { TestEtcd } from '../../harness/etcd.ts';
import { aHost, anEndpoint, aSpec, open, until } from './support.ts';

describe('reservations', () => {
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
    network = await one.store.createNetwork(aSpec(`n${n}`, { subnets: [`10.${n}.0.0/24`] }));
    await two.store.caughtUp();
    return async () => {
      expect(await one.auditor.audit(false)).toEqual([]);
    };
  });
  const ip = (last: number): string => `10.${turn}.0.${last}`;
  const wanted = (name: string, last: number, more: Partial<NewReservation> = {}): NewReservation => ({
    networkId: network.id,
    name,
    ips: [ip(last)],
    mac: '',
    labels: {},
    ...more,
  });
  const NOBODY = new Map<string, string>();
  const both = (i: number): OpenedStore => (i % 2 === 0 ? one : two);

  test('of twenty who want one address at the same moment, on two coordinators, one gets it', async () => {
    const asked = await Promise.allSettled(
      Array.from({ length: 20 }, (_, i) => both(i).store.createReservation(wanted(`r${i}`, 9), NOBODY)),
    );
    const made = asked.filter((a) => a.status === 'fulfilled');
    const refused = asked.filter((a) => a.status === 'rejected').map((a) => a.reason as { code: string });
    expect(made).toHaveLength(1);
    expect(new Set(refused.map((e) => e.code))).toEqual(new Set(['ALREADY_EXISTS']));
    await two.store.caughtUp();
    expect([...(two.state.reservations.get(network.id)?.values() ?? [])]).toMatchObject([{ ips: [ip(9)] }]);
  });

  test('so it is with one name, and with one MAC', async () => {
    const named = await Promise.allSettled(
      Array.from({ length: 20 }, (_, i) => both(i).store.createReservation(wanted('db', 10 + i), NOBODY)),
    );
    expect(named.filter((a) => a.status === 'fulfilled')).toHaveLength(1);
    const mac = '02:aa:00:00:00:01';
    const same = await Promise.allSettled(
      Array.from({ length: 20 }, (_, i) => both(i).store.createReservation(wanted(`m${i}`, 40 + i, { mac }), NOBODY)),
    );
    expect(same.filter((a) => a.status === 'fulfilled')).toHaveLength(1);
    // A given MAC that an endpoint registers in the same moment meets it at the guard.
    const other = '02:aa:00:00:00:02';
    const given = { ...anEndpoint(network.id, 'h1', `mac${turn}`, ip(90)), mac: other, givenMac: true };
    const race = await Promise.allSettled([
      one.store.registerEndpoints('h1', [given], []),
      two.store.createReservation(wanted('late', 91, { mac: other }), NOBODY),
    ]);
    expect(race.filter((a) => a.status === 'fulfilled')).toHaveLength(1);
    await one.store.registerEndpoints('h1', [], [given.id]);
  });

  test('no block is given that has a reserved address, whoever is first', async () => {
    const [, , ...blocks] = await Promise.all([
      one.store.createReservation(wanted('a', 20), NOBODY).catch((e: { code: string }) => e.code),
      two.store.createReservation(wanted('b', 100), NOBODY).catch((e: { code: string }) => e.code),
      ...Array.from({ length: 16 }, (_, i) =>
        both(i).store.allocateBlock(network.id, `h${(i % 3) + 1}`, { family: 4 }),
      ),
    ]);
    await one.store.caughtUp();
    for (const { ips } of one.state.reservations.get(network.id)?.values() ?? [])
      for (const block of blocks)
        if (block !== null) expect(containsIp(parseCidr(block.cidr), parseIp(ips[0]!))).toBe(false);
    // Where the block was first, its host would have had to agree.
    const holder = blocks.find((b) => b !== null && containsIp(parseCidr(b.cidr), parseIp(ip(50))));
    const agreed = new Map([[ip(50), holder?.hostId ?? '']]);
    if (holder === undefined || holder === null) return;
    await expect(one.store.createReservation(wanted('c', 50), NOBODY)).rejects.toMatchObject({ code: 'ABORTED' });
    expect(await one.store.createReservation(wanted('c', 50), agreed)).toMatchObject({ ips: [ip(50)] });
    // Lost from etcd by somebody's hand, the block comes back although it has one.
    await etcd.ctl('del', keys.block('default', network.id, holder.cidr));
    await until(
      'it is there again',
      () => one.state.blocks.get(network.id)?.get(holder.cidr)?.hostId === holder.hostId,
    );
  });

  test('is held by one host at a time, and not while a container of another has it', async () => {
    await one.store.createReservation(wanted('db', 9), NOBODY);
    await two.store.caughtUp();
    const race = await Promise.allSettled(
      ['h1', 'h2', 'h3'].map((host, i) => both(i).store.holdReserved(network.id, ip(9), host)),
    );
    const held = race.filter((a) => a.status === 'fulfilled').map((a) => a.value);
    expect(held).toMatchObject([{ state: 'held', address: ip(9) }]);
    const { hostId } = held[0]!;
    await one.store.caughtUp();
    // An ordinary claim goes the other way.
    const claim = { networkId: network.id, address: ip(9), hostId: 'h3', grantorHostId: 'h1' };
    await expect(one.store.claimAddress(claim)).rejects.toMatchObject({ code: 'ABORTED' });
    await one.store.registerEndpoints(hostId, [anEndpoint(network.id, hostId, `e${turn}`, ip(9))], []);
    await one.store.releaseAddresses(network.id, hostId, [ip(9)]);
    const other = hostId === 'h1' ? 'h2' : 'h1';
    await expect(one.store.holdReserved(network.id, ip(9), other)).rejects.toMatchObject({
      code: 'ALREADY_EXISTS',
      message: expect.stringContaining(`container c-e${turn} on host name-${hostId}`),
    });
    await one.store.registerEndpoints(hostId, [], [`e${turn}`]);
    expect(await one.store.holdReserved(network.id, ip(9), other)).toMatchObject({ hostId: other });
    // Its end leaves the address with who has it.
    await one.store.removeReservation(network.id, 'db');
    expect(one.state.addresses.get(network.id)?.get(ip(9))).toMatchObject({ hostId: other, state: 'held' });
    await one.store.releaseAddresses(network.id, other, [ip(9)]);
    await expect(one.store.holdReserved(network.id, ip(9), 'h1')).rejects.toMatchObject({ code: 'ABORTED' });
  });

  test('what somebody does to its key by hand is undone, and it goes with its network', async () => {
    await one.store.createReservation(wanted('db', 9, { mac: '02:aa:00:00:00:09', labels: { tier: 'db' } }), NOBODY);
    const key = keys.reservation('default', network.id, 'db');
    const there = () => one.state.reservations.get(network.id)?.get('db')?.mac === '02:aa:00:00:00:09';
    const told: string[] = [];
    const tell = (drift: { object: string; change: string }, _at: string, healed: string | null): void => {
      if (healed !== null) told.push(`${drift.change} ${drift.object}`);
    };
    const unsubscribe = [one, two].map((each) => each.auditor.onDrift(tell));
    const stray = keys.reservation('default', network.id, 'stray');
    await etcd.ctl('del', key);
    await until('the key is back', () => told.includes(`missing ${key}`) && there());
    await etcd.ctl('put', key, '{"name":"db"}');
    await until('the record is back', () => told.includes(`differs ${key}`) && there());
    await etcd.ctl('put', stray, 'x');
    await until('the stray one goes', () => told.includes(`extra ${stray}`) && !one.deps.cache.raw.has(stray));
    for (const stop of unsubscribe) stop();
    await one.store.deleteNetwork(network.id);
    expect(one.state.reservations.has(network.id)).toBe(false);
    expect(one.deps.cache.raw.has(key)).toBe(false);
  });
});
