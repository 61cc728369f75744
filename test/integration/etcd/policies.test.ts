import { afterAll, beforeAll, beforeEach, describe, expect, test, vi } from 'vitest';
import { MAX_POLICIES } from '../../../coordinator/alloc/policies.ts';
import type { NewPolicy, PolicyOutcome } from '../../../coordinator/contract.ts';
import type { OpenedStore } from '../../../coordinator/store/index.ts';
import { keys } from '../../../coordinator/store/keys.ts';
import { WeftError } from '../../../lib/errors.ts';
import type { Network } from '../../../lib/model.ts';
import { TestEtcd } from '../../harness/etcd.ts';
import { aSpec, open, until } from './support.ts';

describe('policies', () => {
  let etcd: TestEtcd;
  let one: OpenedStore;
  let two: OpenedStore;
  let network: Network;
  let turn = 0;

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
  beforeEach(async () => {
    const n = ++turn;
    network = await one.store.createNetwork(aSpec(`n${n}`, { subnets: [`10.${n}.0.0/24`] }));
    await two.store.caughtUp();
    return async () => {
      expect(await one.auditor.audit(false)).toEqual([]);
    };
  });

  const wanted = (name: string, more: Partial<NewPolicy> = {}): NewPolicy => ({
    networkId: network.id,
    name,
    tier: 'application',
    order: 100,
    selector: { app: name },
    ingress: [{ action: 'drop', peers: [], ports: [] }],
    egress: [],
    staged: false,
    labels: {},
    ...more,
  });
  const many = (count: number, more: Partial<NewPolicy> = {}): NewPolicy[] =>
    Array.from({ length: count }, (_, i) => wanted(`p${i}`, more));
  const outcomesOf = (applied: readonly PolicyOutcome[]): string[] => applied.map(({ outcome }) => outcome);
  const mine = (store = one) => store.state.policies.get(network.id) ?? new Map<string, never>();

  test('are made, replaced, and left alone where nothing changes', async () => {
    const sets: number[] = [];
    const stop = one.state.subscribe((set) => {
      const changed = set.changes.filter((change) => change.kind === 'policy').length;
      if (changed > 0) sets.push(changed);
    });
    const made = await one.store.applyPolicies(many(3));
    expect(outcomesOf(made)).toEqual(['created', 'created', 'created']);
    expect(made.map(({ policy }) => policy)).toEqual([...mine().values()]);
    const [{ policy: first }] = made as [PolicyOutcome];
    expect(first).toMatchObject({
      id: expect.stringMatching(/^[0-9a-f]{16}$/),
      createdAt: expect.stringMatching(/Z$/),
    });
    await two.store.caughtUp();
    const again = await two.store.applyPolicies([wanted('p0', { order: 7 }), wanted('p1'), wanted('new')]);
    expect(outcomesOf(again)).toEqual(['updated', 'unchanged', 'created']);
    // What is replaced is the same policy; what is unchanged was not written.
    expect(again[0]?.policy).toMatchObject({ id: first.id, createdAt: first.createdAt, order: 7 });
    expect(again[1]?.policy).toEqual(made[1]?.policy);
    await one.store.caughtUp();
    expect(sets).toEqual([3, 2]);
    const before = one.state.revision;
    const still = await one.store.applyPolicies([wanted('p0', { order: 7 }), ...many(3).slice(1)]);
    expect(outcomesOf(still)).toEqual(['unchanged', 'unchanged', 'unchanged']);
    expect(one.state.revision).toBe(before);
    // A policy of that name is another one, once the first is gone.
    await one.store.removePolicy(network.id, 'p0');
    await one.store.removePolicy(network.id, 'p0');
    const anew = await one.store.applyPolicies([wanted('p0')]);
    expect(outcomesOf(anew)).toEqual(['created']);
    expect(anew[0]?.policy.id).not.toBe(first.id);
    stop();
  });

  test('two coordinators at once: each policy is one of theirs, whole', async () => {
    const [a, b] = await Promise.all([
      one.store.applyPolicies(many(100, { order: 1 })),
      two.store.applyPolicies(many(100, { order: 2 })),
    ]);
    await one.store.caughtUp();
    expect(mine().size).toBe(100);
    for (let i = 0; i < 100; i++) {
      expect(new Set([a[i]?.outcome, b[i]?.outcome])).toEqual(new Set(['created', 'updated']));
      const last = a[i]?.outcome === 'updated' ? a[i] : b[i];
      expect(mine().get(`p${i}`)).toEqual(last?.policy);
    }
  });

  test('several networks in one transaction', async () => {
    const others = await Promise.all([1, 2, 3].map((i) => one.store.createNetwork(aSpec(`n${turn}-${i}`))));
    const all = [network, ...others].map(({ id }) => wanted('same', { networkId: id }));
    const made = await one.store.applyPolicies(all);
    expect(new Set(made.map(({ policy }) => policy.revision)).size).toBe(1);
    for (const { id } of others) await one.store.deleteNetwork(id);
    expect([...one.state.policies.keys()]).toContain(network.id);
    for (const { id } of others) expect(one.state.policies.has(id)).toBe(false);
  });

  test('a network has its limit, also when two coordinators reach it at once', async () => {
    expect(outcomesOf(await one.store.applyPolicies(many(MAX_POLICIES - 10)))).toHaveLength(MAX_POLICIES - 10);
    await two.store.caughtUp();
    const late = await Promise.allSettled(
      Array.from({ length: 20 }, (_, i) => (i % 2 === 0 ? one : two).store.applyPolicies([wanted(`late${i}`)])),
    );
    expect(late.filter(({ status }) => status === 'fulfilled')).toHaveLength(10);
    for (const each of late)
      if (each.status === 'rejected') expect(each.reason).toMatchObject({ code: 'RESOURCE_EXHAUSTED' });
    // What is there can still be replaced.
    expect(outcomesOf(await one.store.applyPolicies([wanted('p0', { order: 9 })]))).toEqual(['updated']);
    await one.store.caughtUp();
    expect(mine().size).toBe(MAX_POLICIES);
    await one.store.deleteNetwork(network.id);
    expect(one.state.policies.has(network.id)).toBe(false);
    const left = [...one.deps.cache.raw.keys()].filter((key) => key.startsWith(keys.policies('default', network.id)));
    expect(left).toEqual([]);
  });

  test('a network that goes away takes no policy any more', async () => {
    const [applied, removed] = await Promise.allSettled([
      one.store.applyPolicies(many(200)),
      two.store.deleteNetwork(network.id),
    ]);
    expect(removed.status).toBe('fulfilled');
    if (applied.status === 'rejected') expect(applied.reason).toMatchObject({ code: 'NOT_FOUND' });
    await one.store.caughtUp();
    expect(mine().size).toBe(0);
    await expect(one.store.applyPolicies([wanted('x')])).rejects.toMatchObject({ code: 'NOT_FOUND' });
    await expect(one.store.removePolicy(network.id, 'x')).rejects.toMatchObject({ code: 'NOT_FOUND' });
  });

  test('an answer that is lost: what was done is told as it was, and not done again', async () => {
    const { committer } = one.deps;
    await one.store.applyPolicies([wanted('old'), wanted('same')]);
    const send = committer.send.bind(committer);
    const spy = vi.spyOn(committer, 'send').mockImplementationOnce(async (txn) => {
      await send(txn);
      throw new WeftError('UNAVAILABLE', 'the answer was lost');
    });
    const applied = await one.store.applyPolicies([wanted('old', { order: 3 }), wanted('same'), wanted('new')]);
    expect(outcomesOf(applied)).toEqual(['updated', 'unchanged', 'created']);
    spy.mockRestore();
    // Of several transactions the second fails: what is in place is said, and the rest is made by doing it again.
    const broken = vi
      .spyOn(committer, 'send')
      .mockImplementationOnce(send)
      .mockRejectedValueOnce(new WeftError('INTERNAL', 'etcd is out of order'));
    await expect(one.store.applyPolicies(many(100))).rejects.toMatchObject({
      code: 'INTERNAL',
      message: 'etcd is out of order (64 of 100 policies are in place)',
    });
    broken.mockRestore();
    const rest = outcomesOf(await one.store.applyPolicies(many(100)));
    expect(rest).toEqual([...Array<string>(64).fill('unchanged'), ...Array<string>(36).fill('created')]);
  });

  test('what somebody does to a key by hand is undone', async () => {
    await one.store.applyPolicies([wanted('web', { order: 7 })]);
    const key = keys.policy('default', network.id, 'web');
    const there = () => mine().get('web')?.order === 7;
    const told: string[] = [];
    const tell = (drift: { object: string; change: string }, _at: string, healed: string | null): void => {
      if (healed !== null) told.push(`${drift.change} ${drift.object}`);
    };
    const unsubscribe = [one, two].map((each) => each.auditor.onDrift(tell));
    const stray = keys.policy('default', network.id, 'stray');
    const orphan = keys.policy('default', 'nobody', 'web');
    await etcd.ctl('del', key);
    await until('the key is back', () => told.includes(`missing ${key}`) && there());
    await etcd.ctl('put', key, '{"name":"web"}');
    await until('the record is back', () => told.includes(`differs ${key}`) && there());
    for (const each of [stray, orphan]) {
      await etcd.ctl('put', each, 'x');
      await until('it goes', () => told.includes(`extra ${each}`) && !one.deps.cache.raw.has(each));
    }
    for (const stop of unsubscribe) stop();
  });

  test('what no policy is about is changed while the network is in use', async () => {
    expect(network.policyDefault).toBe('');
    expect(await one.store.editNetwork(network.id, { policyDefault: 'drop' })).toMatchObject({ policyDefault: 'drop' });
    const shut = await one.store.createNetwork(aSpec(`shut${turn}`, { policyDefault: 'drop' }));
    const asked = await one.store.createNetwork(aSpec('', { originHost: 'h1' }));
    const bind = { name: `bound${turn}`, labels: {}, internal: false, attachable: false, gateway: '', gateway6: '' };
    const options = { 'weft.policy-default': 'drop' };
    const bound = await one.store.bindNetwork(asked.id, { ...bind, options, joins: '', ipv6: false, auxAddresses: {} });
    expect([shut.policyDefault, bound.network.policyDefault]).toEqual(['drop', 'drop']);
  });
});
