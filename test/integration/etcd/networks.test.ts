import { afterAll, beforeAll, beforeEach, describe, expect, test } from 'vitest';
import type { NetworkBind } from '../../../coordinator/contract.ts';
import type { OpenedStore } from '../../../coordinator/store/index.ts';
import { overlaps, parseCidr } from '../../../lib/addr.ts';
import { codeOf } from '../../../lib/errors.ts';
import type { Network } from '../../../lib/model.ts';
import { TestEtcd } from '../../harness/etcd.ts';
import { aHost, anEndpoint, aSpec, open, until } from './support.ts';

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

describe('networks through two coordinators on one etcd', () => {
  let etcd: TestEtcd;
  let one: OpenedStore;
  let two: OpenedStore;
  const limits = { restSeconds: 600, reserveSeconds: 3 };

  beforeAll(async () => {
    etcd = await TestEtcd.start();
  });
  afterAll(() => etcd?.[Symbol.asyncDispose]());
  beforeEach(async () => {
    await one?.close();
    await two?.close();
    await etcd.ctl('del', '--prefix', '/weft/v1/');
    one = await open(etcd.endpoint, 'one', { limits });
    two = await open(etcd.endpoint, 'two', { limits });
    return async () => {
      await clean(one, two);
      await one.close();
      await two.close();
    };
  });

  test('200 created at once: no VNI twice, no overlap', async () => {
    const jobs = Array.from({ length: 200 }, (_, i) => (i % 2 === 0 ? one : two).store.createNetwork(aSpec(`n${i}`)));
    const made = await Promise.all(jobs);
    expect(new Set(made.map((n) => n.vni)).size).toBe(200);
    expectNoOverlap(made);
    await one.store.caughtUp();
    for (const { id, revision } of made) expect(one.state.networks.get(id)?.revision).toBe(revision);
    // Given subnets against automatic ones, at the same time.
    const wanted = Array.from({ length: 20 }, (_, i) =>
      (i % 2 === 0 ? two : one).store.createNetwork(
        aSpec(`w${i}`, { subnets: [`10.14${i % 2}.${(i >> 1) * 16}.0/20`] }),
      ),
    );
    const picked = Array.from({ length: 20 }, (_, i) => (i % 2 === 0 ? one : two).store.createNetwork(aSpec(`p${i}`)));
    const done = await Promise.allSettled([...wanted, ...picked]);
    for (const one of done) if (one.status === 'rejected') expect(codeOf(one.reason)).toBe('FAILED_PRECONDITION');
    expectNoOverlap([...two.state.networks.values()]);
  });

  test('an address space has each subnet once; names and VNIs are of all spaces', async () => {
    const here = await one.store.createNetwork(aSpec('here', { subnets: ['10.9.0.0/16'] }));
    const there = await two.store.createNetwork(aSpec('there', { subnets: ['10.9.0.0/16'], space: 'other' }));
    expect([here.space, there.space]).toEqual(['default', 'other']);
    expect(there.vni).not.toBe(here.vni);
    const clashes = [aSpec('third', { subnets: ['10.9.1.0/24'], space: 'other' }), aSpec('here', { space: 'other' })];
    const results = await Promise.allSettled(clashes.map((spec) => one.store.createNetwork(spec)));
    expect(results.map((r) => (r.status === 'rejected' ? codeOf(r.reason) : 'done'))).toEqual([
      'FAILED_PRECONDITION',
      'ALREADY_EXISTS',
    ]);
    // What rests does so in its own space.
    await one.store.deleteNetwork(there.id);
    await two.store.caughtUp();
    const again = await two.store.createNetwork(aSpec('again', { subnets: ['10.9.0.0/16'], space: 'other' }));
    expect(again.subnets).toEqual(['10.9.0.0/16']);
  });

  test('one name, two coordinators: one wins', async () => {
    const results = await Promise.allSettled(
      Array.from({ length: 10 }, (_, i) => (i % 2 === 0 ? one : two).store.createNetwork(aSpec('same'))),
    );
    const won = results.filter((r) => r.status === 'fulfilled');
    expect(won).toHaveLength(1);
    for (const r of results)
      if (r.status === 'rejected') expect(r.reason).toMatchObject({ code: 'ALREADY_EXISTS', message: /"same"/ });
  });

  test('a name that differs from another by its case alone is refused, by two coordinators at once too', async () => {
    const web = await one.store.createNetwork(aSpec('web'));
    const refused = { code: 'ALREADY_EXISTS', message: expect.stringContaining('a network named "web" exists') };
    await two.store.caughtUp();
    await expect(two.store.createNetwork(aSpec('Web'))).rejects.toMatchObject(refused);
    await expect(one.store.createNetwork(aSpec('WEB', { space: 'other' }))).rejects.toMatchObject(refused);
    const reserved = await one.store.createNetwork(aSpec('', { originHost: 'h1' }));
    await expect(one.store.bindNetwork(reserved.id, aBind('WEB'))).rejects.toMatchObject(refused);
    // The name itself is the network's, as ever.
    expect(await one.store.bindNetwork(reserved.id, aBind('web'))).toMatchObject({
      won: false,
      network: { id: web.id },
    });
    for (let turn = 0; turn < 10; turn++) {
      const [a, b] = await Promise.all([one, two].map((s) => s.store.createNetwork(aSpec('', { originHost: 'h1' }))));
      const results = await Promise.allSettled([
        one.store.bindNetwork(a!.id, aBind(`Blue${turn}`)),
        two.store.bindNetwork(b!.id, aBind(`blue${turn}`)),
        two.store.createNetwork(aSpec(`BLUE${turn}`)),
      ]);
      expect(results.filter((r) => r.status === 'fulfilled')).toHaveLength(1);
      for (const r of results) if (r.status === 'rejected') expect(codeOf(r.reason)).toBe('ALREADY_EXISTS');
    }
  });

  test('refused with the name of what is in the way', async () => {
    await one.store.createNetwork(aSpec('blue', { subnets: ['10.7.0.0/16'], vni: 77 }));
    await expect(one.store.createNetwork(aSpec('red', { subnets: ['10.7.3.0/24'] }))).rejects.toMatchObject({
      code: 'FAILED_PRECONDITION',
      message: expect.stringContaining('10.7.0.0/16 of network "blue"'),
    });
    await expect(two.store.createNetwork(aSpec('red', { vni: 77 }))).rejects.toMatchObject({ code: 'ALREADY_EXISTS' });
    await expect(
      one.store.createNetwork(aSpec('x', { subnets: ['10.8.0.0/30'], ipRange: '10.8.0.0/32' })),
    ).rejects.toMatchObject({ code: 'INVALID_ARGUMENT', message: expect.stringContaining('no address left') });
  });

  test('no subnet has the VTEP of a host in it: a given one is refused, the pool passes over', async () => {
    const vtep = (address: string) => ({ address, encaps: ['vxlan'], encrypted: false });
    await one.store.putHost(aHost('h1', { vteps: [vtep('10.128.0.9'), vtep('fd00:7::9')] }));
    const refused = (what: string) => ({ code: 'FAILED_PRECONDITION', message: expect.stringContaining(what) });
    for (const name of ['red', '']) {
      const four = one.store.createNetwork(aSpec(name, { subnets: ['10.128.0.0/24'] }));
      await expect(four).rejects.toMatchObject(refused('10.128.0.9, the VTEP of host name-h1'));
    }
    const six = one.store.createNetwork(aSpec('red', { subnets: ['fd00:7::/64'] }));
    await expect(six).rejects.toMatchObject(refused('fd00:7::9, the VTEP of host name-h1'));
    expect(await one.store.createNetwork(aSpec('red', { subnets: ['10.128.1.0/24'] }))).toMatchObject({ name: 'red' });
    expect(await one.store.createNetwork(aSpec('blue'))).toMatchObject({ subnets: ['10.128.16.0/20'] });
  });

  test('an exhausted pool and an exhausted VNI range', async () => {
    const few = { pool: { range: parseCidr('10.0.0.0/22'), prefix: 120 }, vnis: { first: 5000, last: 5002 } };
    await using small = await open(etcd.endpoint, 'small', { limits: { ...limits, ...few } });
    const made: Network[] = [];
    for (let i = 0; i < 3; i++) made.push(await small.store.createNetwork(aSpec(`s${i}`)));
    await expect(small.store.createNetwork(aSpec('s3'))).rejects.toMatchObject({ code: 'RESOURCE_EXHAUSTED' });
    await small.store.createNetwork(aSpec('s3', { vni: 9 }));
    await expect(small.store.createNetwork(aSpec('s4', { vni: 10 }))).rejects.toMatchObject({
      code: 'RESOURCE_EXHAUSTED',
      message: expect.stringContaining('10.0.0.0/22'),
    });
    // What rests is used again only now that there is nothing else; the one that rests longest first.
    await small.store.deleteNetwork(made[1]!.id);
    await small.store.deleteNetwork(made[0]!.id);
    const again = await small.store.createNetwork(aSpec('again'));
    expect(again).toMatchObject({ vni: made[1]!.vni, subnets: made[1]!.subnets });
  });

  test('freed VNIs and subnets rest', async () => {
    const first = await one.store.createNetwork(aSpec('first'));
    await one.store.deleteNetwork(first.id);
    const second = await two.store.createNetwork(aSpec('second'));
    expect(second.vni).toBe(first.vni + 1);
    expect(second.subnets).not.toEqual(first.subnets);
    await expect(one.store.createNetwork(aSpec('third', { vni: first.vni }))).rejects.toMatchObject({
      code: 'FAILED_PRECONDITION',
      message: expect.stringContaining('rests'),
    });
    // A subnet that somebody asks for may be had at once, and rests no more.
    const third = await one.store.createNetwork(aSpec('third', { subnets: first.subnets }));
    expect(third.subnets).toEqual(first.subnets);
    expect(await etcd.ctl('get', '--prefix', '--keys-only', '/weft/v1/quarantine/subnets')).toBe('');
    expect((await etcd.ctl('get', '--prefix', '--keys-only', '/weft/v1/quarantine')).trim()).toContain(
      `vnis/${first.vni}`,
    );
  });

  test('rest ends by itself', async () => {
    await using short = await open(etcd.endpoint, 'short', { limits: { restSeconds: 2 } });
    const first = await short.store.createNetwork(aSpec('first'));
    await short.store.deleteNetwork(first.id);
    await until(
      'quarantine is over',
      () => short.state.revision > 0n && !short.deps.cache.byKind.get('restingVni')?.size,
      15_000,
    );
    expect((await short.store.createNetwork(aSpec('second'))).vni).toBe(first.vni);
  });

  test('a reservation is bound, loses a race, or expires', async () => {
    const [a, b, c] = await Promise.all(
      [one, two, one].map((s) => s.store.createNetwork(aSpec('', { originHost: 'h1' }))),
    );
    expect(a).toMatchObject({ state: 'reserved', name: '' });
    expectNoOverlap([a!, b!, c!]);
    const bind = aBind('web', { labels: { a: 'b' }, gateway: a!.subnets[0]!.replace('.0/20', '.9'), auxAddresses: {} });
    const results = await Promise.all([one.store.bindNetwork(a!.id, bind), two.store.bindNetwork(b!.id, aBind('web'))]);
    expect(results.filter((r) => r.won)).toHaveLength(1);
    expect(results[0]?.network.id).toBe(results[1]?.network.id);
    const winner = one.state.networkByName('default', 'web')!;
    expect(winner.state).toBe('bound');
    // Once more: the answer was lost.
    expect(await one.store.bindNetwork(winner.id, aBind('web'))).toMatchObject({ won: true });
    await expect(one.store.bindNetwork(winner.id, aBind('other'))).rejects.toMatchObject({
      code: 'FAILED_PRECONDITION',
    });
    // The loser's is released, the one that nobody binds expires; the bound one stays.
    await until('the third has expired', () => one.state.networks.size === 1, 15_000);
    await expect(one.store.bindNetwork(c!.id, aBind('late'))).rejects.toMatchObject({ code: 'NOT_FOUND' });
    expect(await one.auditor.audit(false)).toEqual([]);
    expect(await etcd.ctl('lease', 'timetolive', '--keys', '0').catch(() => '')).not.toContain(winner.id);
  });

  test('an internal network is not led out by Docker, whichever comes first', async () => {
    const [plain, led] = [{}, { 'weft.publish-by': 'docker' }];
    const refused = { code: 'INVALID_ARGUMENT', message: expect.stringContaining('an internal network') };
    for (const [reserving, binding] of [
      [plain, led],
      [led, plain],
    ] as const) {
      const { id } = await one.store.createNetwork(aSpec('', { originHost: 'h1', options: reserving }));
      // Its options alone are judged first, without a name.
      for (const name of ['', 'shut'])
        await expect(
          two.store.bindNetwork(id, aBind(name, { internal: true, options: binding })),
        ).rejects.toMatchObject(refused);
      const prepared = await two.store.bindNetwork(id, aBind('', { options: binding }));
      expect(prepared.network).toMatchObject({ state: 'reserved', publishBy: 'docker' });
    }
  });

  test('in use: the endpoints are named; a race never leaves an endpoint without its network', async () => {
    const network = await one.store.createNetwork(aSpec('busy'));
    await one.store.putHost(aHost('h1'));
    await one.store.registerEndpoints('h1', [anEndpoint(network.id, 'h1', 'e1', '10.128.0.2')], []);
    await expect(two.store.deleteNetwork(network.id)).rejects.toMatchObject({
      code: 'FAILED_PRECONDITION',
      message: expect.stringContaining('c-e1 on name-h1'),
    });
    await one.store.registerEndpoints('h1', [], ['e1']);
    for (let i = 0; i < 20; i++) {
      const { id } = await one.store.createNetwork(aSpec(`race${i}`));
      const [registered, deleted] = await Promise.allSettled([
        two.store.registerEndpoints('h1', [anEndpoint(id, 'h1', `r${i}`, '10.128.0.2')], []),
        one.store.deleteNetwork(id),
      ]);
      expect(registered.status === 'fulfilled').toBe(deleted.status === 'rejected');
    }
  });
});

function expectNoOverlap(networks: readonly Network[]): void {
  const cidrs = networks.map((n) => parseCidr(n.subnets[0]!));
  const clashes = cidrs.flatMap((a, i) => cidrs.slice(i + 1).filter((b) => overlaps(a, b)));
  expect(clashes).toEqual([]);
}

/** Both know the same, and nothing drifts. */
async function clean(...opened: readonly OpenedStore[]): Promise<void> {
  for (const { auditor } of opened) expect(await auditor.audit(false)).toEqual([]);
  const newest = await opened[0]!.deps.committer.barrier();
  for (const { state } of opened) await state.reached(newest);
  const [first, ...others] = opened.map((o) => o.deps.cache.raw);
  for (const other of others) expect(other).toEqual(first);
}
