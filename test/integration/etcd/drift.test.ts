import { afterAll, beforeAll, beforeEach, describe, expect, test } from 'vitest';
import type { OpenedStore } from '../../../coordinator/store/index.ts';
import type { Drift, Network } from '../../../lib/model.ts';
import { TestEtcd } from '../../harness/etcd.ts';
import { aHost, anEndpoint, aSpec, open, until } from './support.ts';

interface Seen {
  readonly drift: Drift;
  readonly healedAt: string | null;
}

describe('keys changed by hand', () => {
  let etcd: TestEtcd;
  let one: OpenedStore;
  let two: OpenedStore;
  let network: Network;
  let seen: Seen[];

  beforeAll(async () => {
    etcd = await TestEtcd.start();
    one = await open(etcd.endpoint, 'one');
    two = await open(etcd.endpoint, 'two');
    network = await one.store.createNetwork(aSpec('blue'));
    await one.store.putHost(aHost('h1'));
    await one.store.putHost(aHost('h2'));
    await one.store.registerEndpoints('h1', [anEndpoint(network.id, 'h1', 'e1', '10.128.0.2')], []);
    await one.store.allocateBlock(network.id, 'h1', { family: 4 });
    for (const { auditor } of [one, two])
      auditor.onDrift((drift, _, healedAt) => {
        seen.push({ drift, healedAt });
      });
  });
  afterAll(async () => {
    await one?.close();
    await two?.close();
    await etcd?.[Symbol.asyncDispose]();
  });
  beforeEach(() => {
    seen = [];
  });

  const all = (): Promise<string> => etcd.ctl('get', '--prefix', '/weft/v1/default/');
  const hand = (...args: string[]): Promise<string> => etcd.ctl(...args);

  /** Does it, and waits until etcd is as before. @returns what was told */
  async function healed(...args: string[]): Promise<Seen[]> {
    const before = await etcd.ctl('get', '--prefix', '/weft/v1/', '--print-value-only');
    await hand(...args);
    const started = performance.now();
    const now = (): Promise<string> => etcd.ctl('get', '--prefix', '/weft/v1/', '--print-value-only');
    const stamps = (text: string): string => text.replaceAll(/^(one|two)$/gm, 'stamp');
    await until(args.join(' '), async () => stamps(await now()) === stamps(before), 3000);
    expect(performance.now() - started).toBeLessThan(1000);
    await until('it is told', () => seen.length > 0);
    expect(await one.auditor.audit(false)).toEqual([]);
    return seen;
  }

  test('deleted: index keys, guards, records', async () => {
    const { id } = network;
    const [cidr] = network.subnets as [string];
    const keys = [
      '/weft/v1/default/names/blue',
      `/weft/v1/vnis/${network.vni}`,
      `/weft/v1/default/subnets/default/${cidr.replace('/', '_')}`,
      `/weft/v1/default/networks/${id}`,
      `/weft/v1/default/endpoints/${id}/e1`,
      `/weft/v1/default/blocks/${id}/10.128.0.0_27`,
      '/weft/v1/hosts/h2',
      '/weft/v1/hostnames/name-h1',
      '/weft/v1/cluster',
    ];
    for (const key of keys) {
      seen = [];
      const told = await healed('del', key);
      expect(told).toHaveLength(1);
      expect(told[0]).toMatchObject({ drift: { kind: 'etcdKey', object: key, change: 'missing' }, healedAt: /T/ });
    }
    expect(one.state.networks.get(id)).toMatchObject({ name: 'blue' });
  });

  test('changed, and added', async () => {
    const record = `/weft/v1/default/networks/${network.id}`;
    for (const [key, value, change] of [
      ['/weft/v1/default/names/blue', 'other', 'differs'],
      [record, 'garbage', 'differs'],
      [record, JSON.stringify({ id: network.id, vni: 7 }), 'differs'],
      ['/weft/v1/default/names/ghost', network.id, 'extra'],
      ['/weft/v1/vnis/99', 'ffff', 'extra'],
      ['/weft/v1/anything', 'x', 'extra'],
      ['/weft/v1/default/endpoints/gone/e9', '{}', 'extra'],
      [`/weft/v1/default/blocks/${network.id}/10.128.0.0_28`, '{}', 'extra'],
    ] as const) {
      seen = [];
      const told = await healed('put', key, value);
      expect(told.map((s) => [s.drift.object, s.drift.change])).toEqual([[key, change]]);
    }
  });

  test('everything at once', async () => {
    await Promise.all(Array.from({ length: 30 }, (_, i) => one.store.createNetwork(aSpec(`many${i}`))));
    await two.state.reached(one.state.revision);
    const before = await all();
    const lost = (await etcd.ctl('get', '--prefix', '--keys-only', '/weft/v1/default/')).trim().split(/\n+/);
    await hand('del', '--prefix', '/weft/v1/default/');
    await until('all is back', async () => (await all()) === before, 3000);
    await until('all is told', () => seen.length >= lost.length);
    expect(new Set(seen.map((s) => s.drift.object))).toEqual(new Set(lost));
    expect(seen).toHaveLength(lost.length);
    expect(await two.auditor.audit(false)).toEqual([]);
  });

  test('keys under a lease: a presence and the announcement of a coordinator', async () => {
    await one.store.putPresence('h1', 's1');
    for (const key of ['/weft/v1/presence/h1', '/weft/v1/coordinators/two']) {
      seen = [];
      await healed('del', key);
    }
    await one.store.deletePresence('h1', 's1');
    expect(one.state.presences.size).toBe(0);
  });

  test('a network deleted in order stays deleted', async () => {
    const other = await one.store.createNetwork(aSpec('other'));
    await two.store.deleteNetwork(other.id);
    await one.deps.committer.barrier();
    expect(await one.auditor.audit(true)).toEqual([]);
    expect(await two.auditor.audit(true)).toEqual([]);
    expect(seen).toEqual([]);
  });

  test('found when it happened while nobody watched', async () => {
    await one.close();
    await two.close();
    await hand('del', '/weft/v1/default/names/blue');
    await hand('put', '/weft/v1/default/names/ghost', 'ffff');
    one = await open(etcd.endpoint, 'one', { heal: false });
    const drift = await one.auditor.audit(false);
    expect(drift.map((d) => `${d.change} ${d.object}`).sort()).toEqual([
      'extra /weft/v1/default/names/ghost',
      'missing /weft/v1/default/names/blue',
    ]);
    await hand('put', '/weft/v1/default/names/blue', 'ffff');
    expect(await one.auditor.audit(true)).toHaveLength(2);
    expect(await one.auditor.audit(false)).toEqual([]);
    expect((await hand('get', '--print-value-only', '/weft/v1/default/names/blue')).trim()).toBe(network.id);
    two = await open(etcd.endpoint, 'two');
  });
});
