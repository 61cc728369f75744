import { afterEach, beforeEach, describe, expect, test } from 'vitest';
import type { ChangeSet } from '../../../coordinator/contract.ts';
import type { OpenedStore } from '../../../coordinator/store/index.ts';
import { TestEtcd } from '../../harness/etcd.ts';
import { TcpProxy } from './proxy.ts';
import { aHost, anEndpoint, aSpec, open, until } from './support.ts';

describe('when etcd or the way to it fails', () => {
  let etcd: TestEtcd;
  let proxy: TcpProxy;
  let far: OpenedStore;
  let near: OpenedStore;
  let sets: ChangeSet[];

  beforeEach(async () => {
    etcd = await TestEtcd.start();
    proxy = await TcpProxy.start(etcd.endpoint);
    far = await open(proxy.endpoint, 'far', { idleMs: 500, verifyMs: 500 });
    near = await open(etcd.endpoint, 'near', { idleMs: 500, verifyMs: 500 });
    sets = [];
    far.state.subscribe((set) => sets.push(set));
  });
  afterEach(async () => {
    await far?.close();
    await near?.close();
    await proxy?.[Symbol.asyncDispose]();
    await etcd?.[Symbol.asyncDispose]();
  });

  /** Both say the same, key by key and object by object. */
  async function same(): Promise<void> {
    const newest = await near.deps.committer.barrier();
    await near.state.reached(newest);
    await until('the far one has caught up', () => far.state.revision >= newest, 20_000);
    expect(far.deps.cache.raw).toEqual(near.deps.cache.raw);
    for (const part of ['networks', 'hosts', 'blocks', 'addresses', 'endpoints', 'presences'] as const)
      expect(far.state[part]).toEqual(near.state[part]);
  }

  test('2,000 changes while cut off, and cut again in the middle of the backlog: nothing is lost', async () => {
    const { id } = await near.store.createNetwork(aSpec('n'));
    await near.store.putHost(aHost('h'));
    await far.state.reached(near.state.revision);
    proxy.down();
    const padding = 'x'.repeat(500);
    for (let round = 0; round < 40; round++) {
      const batch = Array.from({ length: 50 }, (_, i) => ({
        ...anEndpoint(id, 'h', `e${i}`, `10.128.0.${i + 2}`),
        labels: { round: String(round), padding },
      }));
      await near.store.registerEndpoints('h', batch, []);
    }
    proxy.cutAfter = 300_000;
    proxy.up();
    await same();
    expect(proxy.cutAfter).toBe(0);
    expect(far.watch.lists).toBe(1);
    const revisions = sets.map((set) => set.revision);
    expect(revisions).toEqual([...new Set(revisions)].sort((a, b) => Number(a - b)));
    // All changes of one revision came at once.
    const rounds = sets.filter((set) => set.changes.some((c) => c.kind === 'endpoint'));
    expect(rounds.length).toBe(40);
    for (const set of rounds) expect(set.changes.length).toBe(50);
  });

  test('history compacted while away: listed anew, the difference is told as a reset', async () => {
    const gone = await near.store.createNetwork(aSpec('gone'));
    const kept = await near.store.createNetwork(aSpec('kept'));
    await far.state.reached(near.state.revision);
    proxy.down();
    await near.store.deleteNetwork(gone.id);
    const added = await near.store.createNetwork(aSpec('added'));
    await etcd.ctl('compact', String(near.state.revision));
    sets.length = 0;
    proxy.up();
    await same();
    expect(far.watch.lists).toBe(2);
    const reset = sets.find((set) => set.reset)!;
    const ids = reset.changes.flatMap((c) => (c.kind === 'network' ? [[c.id, c.before?.id, c.after?.id]] : []));
    expect(ids).toEqual([
      [gone.id, gone.id, undefined],
      [added.id, undefined, added.id],
    ]);
    expect(far.state.networks.has(kept.id)).toBe(true);
    const next = await near.store.createNetwork(aSpec('next'));
    await far.state.reached(next.revision);
  });

  test('etcd killed and started again', async () => {
    await near.store.createNetwork(aSpec('before'));
    await etcd.signal('SIGKILL');
    const started = performance.now();
    await expect(near.store.createNetwork(aSpec('during'))).rejects.toMatchObject({
      code: 'UNAVAILABLE',
      message: expect.stringContaining('cannot be reached'),
    });
    expect(performance.now() - started).toBeLessThan(6000);
    const waiting = far.store.createNetwork(aSpec('waiting'));
    await etcd.run();
    await waiting;
    await near.store.createNetwork(aSpec('after'));
    await same();
    expect([...far.state.networks.values()].map((n) => n.name).sort()).toEqual(['after', 'before', 'waiting']);
    expect(await near.auditor.audit(false)).toEqual([]);
  });

  test('a silent way: noticed, and taken up again', async () => {
    proxy.silence(true);
    await until('the stream is given up', () => far.watch.failures > 0, 10_000);
    await expect(far.store.createNetwork(aSpec('no'))).rejects.toMatchObject({ code: 'UNAVAILABLE' });
    proxy.silence(false);
    await near.store.createNetwork(aSpec('yes'));
    await same();
  });

  test('an answer that is lost: done once, and known to be done', async () => {
    for (let i = 0; i < 10; i++) {
      proxy.cutAfter = 1;
      const network = await far.store.createNetwork(aSpec(`n${i}`));
      expect(network.name).toBe(`n${i}`);
    }
    await same();
    expect(near.state.networks.size).toBe(10);
    expect(await near.auditor.audit(false)).toEqual([]);
  });

  test('a lease that is lost: known before etcd says so, a new one, presences put again', async () => {
    await near.store.putHost(aHost('h'));
    await near.store.putHost(aHost('moved'));
    await far.state.reached(near.state.revision);
    await far.store.putPresence('h', 's1');
    await far.store.putPresence('moved', 's1');
    let lostAt = 0;
    far.lease.onLost(() => {
      lostAt = performance.now();
    });
    proxy.down();
    await until('the lease is lost', () => lostAt > 0, 10_000);
    expect(far.lease.held).toBe(false);
    // Its keys are there still: it gave up before etcd did.
    expect(near.state.presences.get('h')?.coordinatorId).toBe('far');
    await until(
      'etcd has ended it',
      () => !near.state.presences.has('h') && !near.state.coordinators.has('far'),
      15_000,
    );
    await near.store.putPresence('moved', 's2');
    proxy.up();
    await until('it is back', () => near.state.presences.get('h')?.coordinatorId === 'far', 15_000);
    await until('it is announced', () => near.state.coordinators.has('far'), 5000);
    expect(near.state.presences.get('moved')).toMatchObject({ coordinatorId: 'near', sessionId: 's2' });
    await same();
  });

  test('restored from a backup while coordinators run: a new epoch, and the backup is the truth', async () => {
    const kept = await near.store.createNetwork(aSpec('kept'));
    await etcd.ctl('snapshot', 'save', etcd.path('backup.db'));
    const lost = await near.store.createNetwork(aSpec('lost'));
    for (let i = 0; i < 30; i++) await near.deps.committer.barrier();
    await far.state.reached(near.state.revision);
    sets.length = 0;
    await etcd.signal('SIGKILL');
    await etcd.restore(etcd.path('backup.db'), 'restored');
    await etcd.run('restored');
    await until('a new epoch', () => far.state.epoch === 2n && near.state.epoch === 2n, 20_000);
    await same();
    expect(far.state.networks.has(kept.id)).toBe(true);
    expect(far.state.networks.has(lost.id)).toBe(false);
    const seen = { epoch: 1n, number: 10_000n };
    expect(await near.raiseEpoch(seen)).toBe(2n);
    expect(await near.raiseEpoch({ epoch: 2n, number: 1n })).toBe(2n);
    expect(await near.raiseEpoch({ epoch: 2n, number: 10_000n })).toBe(3n);
    await until('all know', () => far.state.epoch === 3n);
    expect(sets.some((set) => set.reset)).toBe(true);
  });
});

test('no etcd at all: a sentence, within the deadline', async () => {
  const started = performance.now();
  await expect(open('127.0.0.1:1', 'x')).rejects.toMatchObject({ code: 'UNAVAILABLE', hint: expect.any(String) });
  expect(performance.now() - started).toBeLessThan(6000);
});
