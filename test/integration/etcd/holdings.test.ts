import { afterAll, beforeAll, beforeEach, describe, expect, test } from 'vitest';
import type { OpenedStore } from '../../../coordinator/store/index.ts';
import { overlaps, parseCidr } from '../../../lib/ip.ts';
import type { Address, Block, Network } from '../../../lib/model.ts';
import { TestEtcd } from '../../harness/etcd.ts';
import { aHost, anEndpoint, aSpec, open } from './support.ts';

describe('what hosts hold', () => {
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
    await two.state.reached(network.revision);
    return async () => {
      expect(await one.auditor.audit(false)).toEqual([]);
    };
  });
  const cidr = (suffix: string): string => `10.${turn}.0.${suffix}`;
  const block = (suffix: string, hostId: string): Block => ({
    networkId: network.id,
    cidr: cidr(suffix),
    hostId,
    revision: 0n,
  });
  const holding = (more: Partial<Parameters<OpenedStore['store']['replaceHoldings']>[1]>) => ({
    endpoints: [],
    blocks: [],
    addresses: [],
    ...more,
  });

  test('one MAC, one endpoint of a network, also when two hosts take it at the same moment', async () => {
    const mac = '02:42:00:00:00:99';
    const taking = (host: string, id: string, suffix: string) => ({
      ...anEndpoint(network.id, host, `${id}${turn}`, cidr(suffix)),
      mac,
      givenMac: true,
    });
    const asked = await Promise.allSettled([
      one.store.registerEndpoints('h1', [taking('h1', 'mac-a', '2')], []),
      two.store.registerEndpoints('h2', [taking('h2', 'mac-b', '20')], []),
    ]);
    const refused = asked.filter((a) => a.status === 'rejected').map((a) => a.reason as unknown);
    expect(refused).toHaveLength(1);
    expect(refused[0]).toMatchObject({
      code: 'ALREADY_EXISTS',
      message: expect.stringContaining(`n${turn} is in use`),
    });
    await two.store.caughtUp();
    expect([...(two.state.endpoints.get(network.id)?.values() ?? [])].filter((e) => e.mac === mac)).toHaveLength(1);
  });

  test('a host is not kept away from the mesh by a MAC that another one took while they were apart', async () => {
    const mac = '02:42:00:00:00:98';
    const other = { ...anEndpoint(network.id, 'h1', `apart-a${turn}`, cidr('2')), mac, givenMac: true };
    const same = { ...anEndpoint(network.id, 'h2', `apart-b${turn}`, cidr('20')), mac, givenMac: true };
    const fine = anEndpoint(network.id, 'h2', `apart-c${turn}`, cidr('21'));
    await one.store.replaceHoldings('h1', holding({ endpoints: [other] }));
    await two.store.caughtUp();
    const { refused } = await two.store.replaceHoldings('h2', holding({ endpoints: [same, fine] }));
    expect(refused).toEqual([expect.stringContaining(`MAC address ${mac} of network n${turn} is in use`)]);
    expect([...(two.state.endpoints.get(network.id)?.keys() ?? [])].sort()).toEqual([other.id, fine.id]);
    // Said again, it is still there: the host that was first keeps it.
    expect((await two.store.replaceHoldings('h1', holding({ endpoints: [other] }))).refused).toEqual([]);
    await two.store.replaceHoldings('h1', holding({}));
    expect((await two.store.replaceHoldings('h2', holding({ endpoints: [same, fine] }))).refused).toEqual([]);
    await two.store.replaceHoldings('h2', holding({}));
    await one.store.caughtUp();
  });

  test('blocks asked for at the same time never overlap, until none is left', async () => {
    const asked = await Promise.all(
      Array.from({ length: 20 }, (_, i) =>
        (i % 2 ? one : two).store.allocateBlock(network.id, `h${(i % 3) + 1}`, { family: 4 }),
      ),
    );
    const got = asked.filter((b) => b !== null);
    expect(got).toHaveLength(16);
    const cidrs = got.map((b) => parseCidr(b.cidr));
    expect(cidrs.flatMap((a, i) => cidrs.slice(i + 1).filter((b) => overlaps(a, b)))).toEqual([]);
    await two.state.reached(await one.deps.committer.barrier());
    expect(await two.store.allocateBlock(network.id, 'h1', { family: 4 })).toBe(null);
    // A host gives half of one back: that half is the next block, for whoever asks.
    const mine = got.find((b) => b.hostId === 'h1' && b.cidr !== cidr('0/28'))!;
    const [base] = mine.cidr.split('/');
    await one.store.shrinkBlock(network.id, mine.cidr, 'h1', [`${base}/29`]);
    const half = await one.store.allocateBlock(network.id, 'h2', { family: 4 });
    expect(half?.cidr).toMatch(/\/29$/);
    // Once more, as after a lost answer; and parts that it does not hold.
    await one.store.shrinkBlock(network.id, mine.cidr, 'h1', [`${base}/29`]);
    const refused = { code: 'FAILED_PRECONDITION' };
    await expect(one.store.shrinkBlock(network.id, mine.cidr, 'h1', [half!.cidr])).rejects.toMatchObject(refused);
    await expect(one.store.shrinkBlock(network.id, half!.cidr, 'h1', [])).rejects.toMatchObject({
      code: 'FAILED_PRECONDITION',
    });
  });

  test('the block around a given address', async () => {
    expect((await one.store.allocateBlock(network.id, 'h1', { containing: cidr('20') }))?.cidr).toBe(cidr('16/28'));
    expect((await one.store.allocateBlock(network.id, 'h1', { containing: cidr('21') }))?.cidr).toBe(cidr('16/28'));
    await two.state.reached(one.state.revision);
    expect(await two.store.allocateBlock(network.id, 'h2', { containing: cidr('21') })).toBe(null);
    const ask = (suffix: string) => one.store.allocateBlock(network.id, 'h1', { containing: cidr(suffix) });
    for (const bad of ['0', '1', '255']) await expect(ask(bad)).rejects.toMatchObject({ code: 'INVALID_ARGUMENT' });
    await expect(one.store.allocateBlock('nope', 'h1', { family: 4 })).rejects.toMatchObject({ code: 'NOT_FOUND' });
    await one.store.putHost(aHost('h3', { draining: true }));
    await expect(one.store.allocateBlock(network.id, 'h3', { family: 4 })).rejects.toMatchObject({
      code: 'FAILED_PRECONDITION',
    });
    await one.store.putHost(aHost('h3'));
  });

  test('a claim: one claimant, an answer, a release', async () => {
    const claim = (store: OpenedStore, hostId: string) =>
      store.store.claimAddress({ networkId: network.id, address: cidr('40'), hostId, grantorHostId: 'h1' });
    const results = await Promise.allSettled([claim(one, 'h2'), claim(two, 'h3')]);
    const won = results.find((r) => r.status === 'fulfilled')!.value;
    expect(results.find((r) => r.status === 'rejected')?.reason).toMatchObject({ code: 'ALREADY_EXISTS' });
    expect(won.state).toBe('claimed');
    await one.state.reached(won.revision);
    await one.store.answerClaim(won, false, 'in use by web');
    expect(one.state.addresses.get(network.id)?.get(cidr('40'))).toMatchObject({
      state: 'refused',
      reason: 'in use by web',
    });
    await expect(one.store.answerClaim(won, true, '')).rejects.toMatchObject({ code: 'FAILED_PRECONDITION' });
    const again = await claim(one, 'h2');
    await one.store.answerClaim(again, true, '');
    await one.store.answerClaim(again, true, '');
    // Nobody else gets a block with it.
    expect((await one.store.allocateBlock(network.id, 'h1', { containing: cidr('41') }))?.cidr).toBe(cidr('41/32'));
    await one.store.releaseAddresses(network.id, 'h3', [cidr('40')]);
    expect(one.state.addresses.get(network.id)?.size).toBe(1);
    await one.store.releaseAddresses(network.id, 'h2', [cidr('40'), cidr('99')]);
    expect(one.state.addresses.has(network.id)).toBe(false);
  });

  test('endpoints: many at once, only of the own host, only of networks that are there', async () => {
    const many = Array.from({ length: 230 }, (_, i) =>
      anEndpoint(network.id, 'h1', `m${i}`, cidr(String(2 + (i % 250)))),
    );
    const revision = await one.store.registerEndpoints('h1', many, []);
    expect(one.state.endpoints.get(network.id)?.size).toBe(230);
    // Nothing new: nothing is written.
    expect(await one.store.registerEndpoints('h1', many, ['unknown'])).toEqual(revision);
    await two.state.reached(revision.number);
    const foreign = { ...many[0]!, hostId: 'h2' };
    await expect(two.store.registerEndpoints('h2', [foreign], [])).rejects.toMatchObject({ code: 'PERMISSION_DENIED' });
    await expect(two.store.registerEndpoints('h2', [many[0]!], [])).rejects.toMatchObject({
      code: 'PERMISSION_DENIED',
    });
    await two.store.registerEndpoints('h2', [], ['m0']);
    expect(two.state.endpoints.get(network.id)?.has('m0')).toBe(true);
    const lost = anEndpoint('gone', 'h1', 'x', '10.0.0.2');
    const renamed = { ...many[1]!, aliases: ['db'] };
    await expect(one.store.registerEndpoints('h1', [lost, renamed], ['m2'])).rejects.toMatchObject({
      code: 'NOT_FOUND',
    });
    expect(one.state.endpoints.get(network.id)?.get('m1')?.aliases).toEqual(['db']);
    expect(one.state.endpoints.get(network.id)?.has('m2')).toBe(false);
    await one.store.registerEndpoints(
      'h1',
      [],
      many.map((e) => e.id),
    );
    expect(one.state.endpoints.has(network.id)).toBe(false);
  });

  test('a hello is reconciled with what etcd has', async () => {
    const { store, state } = one;
    const kept = (await store.allocateBlock(network.id, 'h1', { family: 4 }))!;
    const theirs = (await store.allocateBlock(network.id, 'h2', { family: 4 }))!;
    await store.registerEndpoints('h1', [anEndpoint(network.id, 'h1', 'old', cidr('2'))], []);
    await store.registerEndpoints('h2', [anEndpoint(network.id, 'h2', 'other', cidr('20'))], []);
    await store.claimAddress({ networkId: network.id, address: cidr('25'), hostId: 'h1', grantorHostId: 'h2' });
    const held: Address = {
      networkId: network.id,
      address: cidr('26'),
      hostId: 'h1',
      state: 'held',
      grantorHostId: 'h2',
      reason: '',
      revision: 0n,
    };
    const { refused } = await store.replaceHoldings('h1', {
      endpoints: [
        anEndpoint(network.id, 'h1', 'new', cidr('3')),
        anEndpoint('gone', 'h1', 'lost', '10.9.9.9'),
        anEndpoint(network.id, 'h1', 'other', cidr('4')),
      ],
      blocks: [block('64/28', 'h1'), block('16/29', 'h1'), { ...block('0/28', 'h1'), networkId: 'gone' }],
      addresses: [held, { ...held, address: cidr('20') }],
    });
    expect(refused).toHaveLength(5);
    expect(refused.join('\n')).toContain(`host name-h2 holds ${theirs.cidr}`);
    expect([...state.endpoints.get(network.id)!.keys()].sort()).toEqual(['new', 'other']);
    expect(state.endpoints.get(network.id)?.get('other')?.hostId).toBe('h2');
    const mine = [...state.blocks.get(network.id)!.values()].filter((b) => b.hostId === 'h1').map((b) => b.cidr);
    expect(mine.sort()).toEqual([kept.cidr, cidr('64/28')].sort());
    expect([...state.addresses.get(network.id)!.values()].map((a) => [a.address, a.state])).toEqual([
      [cidr('26'), 'held'],
    ]);
    // Once more: nothing changes.
    const before = await etcd.ctl('get', '--prefix', '/weft/v1/default/');
    await store.replaceHoldings(
      'h1',
      holding({ endpoints: [anEndpoint(network.id, 'h1', 'new', cidr('3'))], addresses: [held] }),
    );
    expect(await etcd.ctl('get', '--prefix', '/weft/v1/default/')).toBe(before);
    for (const id of ['h1', 'h2']) await store.replaceHoldings(id, holding({}));
    await store.releaseAddresses(network.id, 'h1', [cidr('26')]);
  });

  test('hosts: names are unique, rm frees everything, not while connected', async () => {
    const { store, state } = one;
    await expect(store.putHost(aHost('h9', { name: 'name-h1' }))).rejects.toMatchObject({ code: 'ALREADY_EXISTS' });
    await expect(store.putHost(aHost('h9', { name: 'a/b' }))).rejects.toMatchObject({ code: 'INVALID_ARGUMENT' });
    await store.putHost(aHost('h9'));
    await store.putHost(aHost('h9', { name: 'renamed' }));
    expect(state.hostByName('renamed')?.id).toBe('h9');
    expect(state.hostByName('name-h9')).toBe(undefined);
    const many = Array.from({ length: 150 }, (_, i) => anEndpoint(network.id, 'h9', `d${i}`, cidr(String(2 + i))));
    await store.registerEndpoints('h9', many, []);
    await store.allocateBlock(network.id, 'h9', { family: 4 });
    await store.putPresence('h9', 's1');
    await expect(store.deleteHost('h9')).rejects.toMatchObject({ code: 'FAILED_PRECONDITION' });
    // A newer session elsewhere: the old one's end changes nothing.
    await two.state.reached(state.revision);
    await two.store.putPresence('h9', 's2');
    await state.reached(two.state.revision);
    await store.deletePresence('h9', 's1');
    expect(state.presences.get('h9')).toMatchObject({ coordinatorId: 'two', sessionId: 's2' });
    await two.store.deletePresence('h9', 's2');
    await state.reached(two.state.revision);
    await store.deleteHost('h9');
    expect(state.hosts.has('h9')).toBe(false);
    expect(await etcd.ctl('get', '--prefix', '/weft/v1/')).not.toContain('h9');
    await expect(store.deleteHost('h9')).rejects.toMatchObject({ code: 'NOT_FOUND' });
  });
});
