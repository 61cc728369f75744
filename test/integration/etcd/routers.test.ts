import { afterAll, beforeAll, beforeEach, describe, expect, test } from 'vitest';
import { editedRouter } from '../../../coordinator/alloc/routers.ts';
import type { NewRouter } from '../../../coordinator/contract.ts';
import type { OpenedStore } from '../../../coordinator/store/index.ts';
import { keys } from '../../../coordinator/store/keys.ts';
import { WeftError } from '../../../lib/errors.ts';
import type { Network, Router } from '../../../lib/model.ts';
import { TestEtcd } from '../../harness/etcd.ts';
import { aSpec, open } from './support.ts';

describe('routers', () => {
  let etcd: TestEtcd;
  let one: OpenedStore;
  let two: OpenedStore;
  let front: Network;
  let back: Network;
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
    front = await one.store.createNetwork(aSpec(`front${n}`, { subnets: [`10.${n}.0.0/24`] }));
    back = await one.store.createNetwork(aSpec(`back${n}`, { subnets: [`10.${100 + n}.0.0/24`] }));
    await two.store.caughtUp();
    return async () => {
      expect(await one.auditor.audit(false)).toEqual([]);
    };
  });

  const wanted = (name: string, more: Partial<NewRouter> = {}): NewRouter => ({
    project: 'default',
    name,
    networkIds: [front.id, back.id],
    routes: [],
    labels: {},
    ...more,
  });
  const to = (cidr: string, host = 9) => ({ cidr, via: [front.subnets[0]!.replace('0/24', String(host))] });
  const codeOf = (error: unknown): string => WeftError.from(error).code;
  const nothing = { addNetworks: [], removeNetworks: [], addRoutes: [], removeRoutes: [] };
  const withRoute = (host: number) => (present: Router) => ({
    ...present,
    ...editedRouter(present, { ...nothing, addRoutes: [to(`172.16.${host}.0/24`, host)] }),
  });

  test('are made, changed and removed, and every coordinator has them', async () => {
    const made = await one.store.createRouter(wanted(`r${turn}`));
    await two.store.caughtUp();
    expect(two.state.routers.get(`default/r${turn}`)).toEqual(made);
    await expect(two.store.createRouter(wanted(`r${turn}`)).catch(codeOf)).resolves.toBe('ALREADY_EXISTS');
    const changed = await two.store.updateRouter('default', `r${turn}`, withRoute(9));
    expect(changed).toMatchObject({ id: made.id, createdAt: made.createdAt, routes: [to('172.16.9.0/24')] });
    // What is as wanted is not written.
    const again = await two.store.updateRouter('default', `r${turn}`, withRoute(9));
    expect(again.revision).toBe(changed.revision);
    await one.store.removeRouter('default', `r${turn}`);
    await two.store.caughtUp();
    expect(two.state.routers.has(`default/r${turn}`)).toBe(false);
    await expect(two.store.removeRouter('default', `r${turn}`).catch(codeOf)).resolves.toBe('NOT_FOUND');
    await expect(two.store.updateRouter('default', 'none', (r) => r).catch(codeOf)).resolves.toBe('NOT_FOUND');
  });

  test('a network in one is not removed, and a router is not made of a network that goes at the same time', async () => {
    await one.store.createRouter(wanted(`r${turn}`));
    const refused = await one.store.deleteNetwork(back.id).catch((error: unknown) => WeftError.from(error));
    expect(refused).toMatchObject({ code: 'FAILED_PRECONDITION' });
    expect((refused as WeftError).message).toBe(`network "back${turn}" is in router r${turn}`);
    await one.store.removeRouter('default', `r${turn}`);
    for (let i = 0; i < 10; i++) {
      const network = await one.store.createNetwork(aSpec(`gone${turn}-${i}`, { subnets: [`10.200.${i}.0/24`] }));
      await two.store.caughtUp();
      const ids = [front.id, network.id];
      const [made, gone] = await Promise.allSettled([
        two.store.createRouter(wanted(`race${turn}-${i}`, { networkIds: ids })),
        one.store.deleteNetwork(network.id),
      ]);
      expect([made.status, gone.status].sort()).toEqual(['fulfilled', 'rejected']);
      await one.store.caughtUp();
      expect(one.state.networks.has(network.id)).toBe(made.status === 'fulfilled');
      if (made.status === 'fulfilled') await one.store.removeRouter('default', `race${turn}-${i}`);
    }
  });

  test('two coordinators that change one at once both have their way; two ways to one range never come to be', async () => {
    await one.store.createRouter(wanted(`r${turn}`));
    await two.store.caughtUp();
    const hosts = [11, 12, 13, 14, 15, 16];
    await Promise.all(
      hosts.map((host, i) => (i % 2 === 0 ? one : two).store.updateRouter('default', `r${turn}`, withRoute(host))),
    );
    await one.store.caughtUp();
    const routes = one.state.routers.get(`default/r${turn}`)?.routes.map(({ cidr }) => cidr);
    expect(routes?.sort()).toEqual(hosts.map((host) => `172.16.${host}.0/24`));
    const range = '172.20.0.0/16';
    const made = await Promise.allSettled([
      one.store.createRouter(wanted(`x${turn}`, { networkIds: [front.id], routes: [to(range, 21)] })),
      two.store.createRouter(wanted(`y${turn}`, { networkIds: [front.id], routes: [to(range, 22)] })),
    ]);
    expect(made.map(({ status }) => status).sort()).toEqual(['fulfilled', 'rejected']);
  });

  test('what somebody writes by hand, and is no router, is healed', async () => {
    const key = keys.router('default', `hand${turn}`);
    await etcd.ctl('put', key, '{"name":"other"}');
    await expect
      .poll(() => etcd.ctl('get', '--keys-only', key).then((text) => text.trim()), { timeout: 20_000 })
      .toBe('');
  });
});
