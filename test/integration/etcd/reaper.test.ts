import { afterAll, beforeAll, expect, test } from 'vitest';
import { Reaper } from '../../../coordinator/reaper.ts';
import type { OpenedStore } from '../../../coordinator/store/index.ts';
import { keys } from '../../../coordinator/store/keys.ts';
import { type Clock, FakeClock, systemClock } from '../../../lib/clock.ts';
import { TestEtcd } from '../../harness/etcd.ts';
import { aHost, anEndpoint, aSpec, open, until } from './support.ts';

let etcd: TestEtcd;
let one: OpenedStore;
let two: OpenedStore;

beforeAll(async () => {
  etcd = await TestEtcd.start();
  one = await open(etcd.endpoint, 'one');
  two = await open(etcd.endpoint, 'two');
});
afterAll(async () => {
  await one?.close();
  await two?.close();
  await etcd?.[Symbol.asyncDispose]();
});

/** The store's parts with a monotonic clock that moves when told. */
function aged(opened: OpenedStore): { reaper: Reaper; fake: FakeClock } {
  const fake = new FakeClock();
  const clock: Clock = { ...systemClock(), monotonic: () => fake.monotonic() };
  return { reaper: new Reaper({ ...opened.deps, clock }), fake };
}

test('one leads, another follows; what nobody answers goes after its time', async () => {
  const a = aged(one);
  const b = aged(two);
  const { id } = await one.store.createNetwork(aSpec('n'));
  await one.store.putHost(aHost('h1'));
  const claim = { networkId: id, address: '10.128.0.9', hostId: 'h1', grantorHostId: 'h2' };
  await one.store.claimAddress(claim);
  const held = await one.store.claimAddress({ ...claim, address: '10.128.0.10' });
  await one.store.answerClaim(held, true, '');
  expect(await a.reaper.round()).toBe(true);
  await two.state.reached(await one.deps.committer.barrier());
  expect(await b.reaper.round()).toBe(false);
  await a.fake.advance(29_000);
  await a.reaper.round();
  expect(one.state.addresses.get(id)?.size).toBe(2);
  await a.fake.advance(2000);
  await a.reaper.round();
  expect([...one.state.addresses.get(id)!.keys()]).toEqual(['10.128.0.10']);
  // The leader ends: the other one leads.
  await a.reaper.close();
  await two.state.reached(await one.deps.committer.barrier());
  expect(await b.reaper.round()).toBe(true);
  await b.reaper.close();
});

test('a leader that has been replaced without knowing changes nothing', async () => {
  const a = aged(one);
  const network = await one.store.createNetwork(aSpec('fence'));
  await one.store.claimAddress({ networkId: network.id, address: '10.128.16.9', hostId: 'h1', grantorHostId: 'h2' });
  await a.reaper.round();
  await a.fake.advance(60_000);
  const { committer } = one.deps;
  const send = committer.send.bind(committer);
  let stolen = false;
  committer.send = async (txn) => {
    // Between its decision and its write another one has taken over.
    if (!stolen) {
      stolen = true;
      await two.deps.committer.send({ compares: [], ops: [{ del: '/weft/v1/leaders/reaper' }] });
      await two.deps.committer.send({ compares: [], ops: [{ put: '/weft/v1/leaders/reaper', value: 'two' }] });
    }
    return send(txn);
  };
  await a.reaper.round();
  committer.send = send;
  expect(stolen).toBe(true);
  expect(one.state.addresses.get(network.id)?.size).toBe(1);
  await two.deps.committer.send({ compares: [], ops: [{ del: '/weft/v1/leaders/reaper' }] });
  await a.reaper.close();
});

test('quarantine and reservations that have lost their lease', async () => {
  await using none = await open(etcd.endpoint, 'none', { heal: false });
  const c = aged(none);
  const reserved = await none.store.createNetwork(aSpec(''));
  const raw = none.deps.cache.raw.get(`/weft/v1/default/networks/${reserved.id}`)!;
  const ops = [
    { put: `/weft/v1/default/networks/${reserved.id}`, value: raw.value },
    { put: `/weft/v1/vnis/${reserved.vni}`, value: reserved.id },
    { put: '/weft/v1/quarantine/vnis/5000', value: '{"networkId":"x","since":"2025-01-01T00:00:00Z"}' },
  ];
  const { revision } = await none.deps.committer.send({ compares: [], ops });
  await none.state.reached(revision);
  await until('it leads', () => c.reaper.round());
  await c.fake.advance(121_000);
  await c.reaper.round();
  expect(none.state.networks.has(reserved.id)).toBe(false);
  expect(await etcd.ctl('get', `/weft/v1/vnis/${reserved.vni}`)).toBe('');
  expect(none.deps.cache.raw.has('/weft/v1/quarantine/vnis/5000')).toBe(true);
  await c.fake.advance(600_000);
  await c.reaper.round();
  expect(none.deps.cache.raw.has('/weft/v1/quarantine/vnis/5000')).toBe(false);
  await c.reaper.close();
});

test('settings of an endpoint that is gone go after a while', async () => {
  const a = aged(one);
  const { id } = await one.store.createNetwork(aSpec('settings', { subnets: ['10.77.0.0/24'] }));
  await one.store.putHost(aHost('h1'));
  const here = anEndpoint(id, 'h1', 'e1', '10.77.0.9');
  await one.store.registerEndpoints('h1', [here], []);
  const allowed = [{ ip: '10.77.0.99', mac: '' }];
  await one.store.updateSettings(id, 'e1', { allow: allowed, disallow: [], draining: null }, []);
  const value = one.deps.cache.raw.get(keys.settings('default', id, 'e1'))!.value;
  const lost = { put: keys.settings('default', id, 'e2'), value: value.replace('"e1"', '"e2"') };
  await one.state.reached((await one.deps.committer.send({ compares: [], ops: [lost] })).revision);
  await a.reaper.round();
  await a.fake.advance(59_000);
  await a.reaper.round();
  expect([...one.state.settings.get(id)!.keys()]).toEqual(['e1', 'e2']);
  await a.fake.advance(2000);
  await a.reaper.round();
  expect([...one.state.settings.get(id)!.values()]).toMatchObject([{ endpointId: 'e1', allowed }]);
  await a.reaper.close();
  await one.store.deleteHost('h1');
  expect(one.state.settings.has(id)).toBe(false);
});
