import { afterAll, beforeAll, describe, expect, test } from 'vitest';
import type { OpenedStore } from '../../../coordinator/store/index.ts';
import { TestEtcd } from '../../harness/etcd.ts';
import { aHost, anEndpoint, aSpec, open } from './support.ts';

describe('the store on one etcd', () => {
  let etcd: TestEtcd;
  let one: OpenedStore;

  beforeAll(async () => {
    etcd = await TestEtcd.start();
    one = await open(etcd.endpoint, 'one');
  });
  afterAll(async () => {
    await one?.close();
    await etcd?.[Symbol.asyncDispose]();
  });

  test('a network is created, seen and deleted', async () => {
    const network = await one.store.createNetwork(aSpec('blue'));
    expect(network).toMatchObject({ name: 'blue', subnets: ['10.128.0.0/20'], gateways: ['10.128.0.1'], vni: 4096 });
    expect(one.state.networkByName('default', 'blue')).toEqual(network);
    expect(network.revision).toBeGreaterThan(0n);
    const revision = await one.store.deleteNetwork(network.id);
    expect(revision).toMatchObject({ epoch: 1n });
    expect(one.state.networks.size).toBe(0);
  });

  test('hosts, presence, blocks and endpoints', async () => {
    const { store, state } = one;
    const network = await store.createNetwork(aSpec('green', { subnets: ['10.1.0.0/24'] }));
    await store.putHost(aHost('h1'));
    await store.putPresence('h1', 's1');
    expect(state.presences.get('h1')).toMatchObject({ coordinatorId: 'one', sessionId: 's1' });
    const block = await store.allocateBlock(network.id, 'h1', { family: 4 });
    expect(block?.cidr).toBe('10.1.0.0/28');
    await store.registerEndpoints('h1', [anEndpoint(network.id, 'h1', 'e1', '10.1.0.2')], []);
    expect(state.endpoints.get(network.id)?.get('e1')?.ips).toEqual(['10.1.0.2']);
    await expect(store.deleteNetwork(network.id)).rejects.toMatchObject({
      code: 'FAILED_PRECONDITION',
      message: expect.stringContaining('c-e1 on name-h1'),
    });
  });
});
