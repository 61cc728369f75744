import { describe, expect, test } from 'vitest';
import type { LocalEndpoint } from '../../../agent/contract.ts';
import { impliedMac } from '../../../agent/implied-mac.ts';
import { refuseMac } from '../../../agent/mac-use.ts';
import { decodeView, encodeView } from '../../../agent/viewstore.ts';
import type { Network } from '../../../lib/model.ts';
import { FakeWorld } from '../../harness/fake-mesh.ts';
import { reserve, unreserve } from '../../harness/fake-reservations.ts';
import { until } from '../../harness/ovs.ts';
import { addressHosts, stateOf, takeAll } from './address-hosts.ts';

const { clock, hostOn, two } = addressHosts();

describe('reserved addresses of own blocks', () => {
  test('are never picked, also without a coordinator and when nothing else is left', async () => {
    const { world, network, h1 } = await two();
    await reserve(world, network.id, 'db', '10.0.0.5');
    expect(stateOf(h1, network, '10.0.0.5')).toMatchObject({ state: 'reserved', claimed: false });
    expect(h1.journal.durable).toBe(1);
    h1.mesh.setConnected(false);
    const got = await takeAll(h1, network);
    expect(got).not.toContain('10.0.0.5');
    expect(got.length).toBeGreaterThan(3);
  });

  test('are the journal’s to know: a host that has not heard of the reservation keeps them', async () => {
    const { world, network, h1 } = await two();
    h1.mesh.deaf = true;
    await reserve(world, network.id, 'db', '10.0.0.3');
    expect(h1.mesh.view().interests.get(network.id)?.reservations.size).toBe(0);
    expect(await h1.book.request(network, 4)).toBe('10.0.0.4');
  });

  test('are kept out of a block that is still on its way here', async () => {
    const world = new FakeWorld();
    const network = world.createNetwork('net', '10.0.0.0/27');
    const h1 = hostOn(world, 'h1');
    const gate = Promise.withResolvers<void>();
    world.pause = () => (world.blocks.size === 0 ? Promise.resolve() : gate.promise);
    const first = h1.book.request(network, 4);
    await until('the mesh has given it', () => world.blocks.size === 1);
    h1.mesh.deaf = true;
    await reserve(world, network.id, 'db', '10.0.0.2');
    gate.resolve();
    expect(await first).toBe('10.0.0.3');
  });

  test('are refused while somebody has them', async () => {
    const { world, network, own } = await two();
    await expect(reserve(world, network.id, 'db', own)).rejects.toMatchObject({
      code: 'ALREADY_EXISTS',
      message: expect.stringContaining('it is being given to a container on host h1'),
    });
    expect(world.reservations.size).toBe(0);
  });

  test('may have been lent a moment ago', async () => {
    const { world, network, h1, h2 } = await two();
    await h2.book.requestGiven(network, '10.0.0.5');
    await expect(reserve(world, network.id, 'db', '10.0.0.5')).rejects.toMatchObject({
      code: 'ALREADY_EXISTS',
      message: expect.stringContaining('on host h2'),
    });
    h1.mesh.deaf = true;
    await h2.book.release(network.id, '10.0.0.5');
    await until('nobody holds it', () => world.addresses.size === 0);
    expect(stateOf(h1, network, '10.0.0.5')?.state).toBe('lent');
    await reserve(world, network.id, 'db', '10.0.0.5');
    expect(stateOf(h1, network, '10.0.0.5')?.state).toBe('reserved');
  });

  test('go to whichever host asks, one at a time, and rest for nobody', async () => {
    const { world, network, h1, h2 } = await two();
    await reserve(world, network.id, 'db', '10.0.0.5', '02:aa:00:00:00:05');
    for (const [user, other] of [
      [h2, h1],
      [h1, h2],
      [h2, h1],
    ] as const) {
      expect(await user.book.requestGiven(network, '10.0.0.5')).toBe('10.0.0.5');
      expect(stateOf(user, network, '10.0.0.5')).toMatchObject({
        state: 'requested',
        claimed: true,
        reserved: { name: 'db', mac: '02:aa:00:00:00:05' },
      });
      await expect(other.book.requestGiven(network, '10.0.0.5')).rejects.toMatchObject({ code: 'ALREADY_EXISTS' });
      await user.book.release(network.id, '10.0.0.5');
    }
    await until('nobody holds it', () => world.addresses.size === 0);
    expect(stateOf(h1, network, '10.0.0.5')?.state).toBe('reserved');
    expect(stateOf(h2, network, '10.0.0.5')).toBe(undefined);
  });

  test('are restarted with while no coordinator is there', async () => {
    const { world, network, h1 } = await two();
    await reserve(world, network.id, 'db', '10.0.0.5', '02:aa:00:00:00:05');
    await h1.book.requestGiven(network, '10.0.0.5');
    h1.mesh.setConnected(false);
    await h1.book.release(network.id, '10.0.0.5');
    expect(await h1.book.requestGiven(network, '10.0.0.5')).toBe('10.0.0.5');
    expect(stateOf(h1, network, '10.0.0.5')).toMatchObject({ claimed: true, reserved: { name: 'db' } });
    // What nobody here has had just before, another host may have.
    await reserve(world, network.id, 'far', '10.0.0.6').catch(() => undefined);
    h1.mesh.setConnected(true);
    await reserve(world, network.id, 'far', '10.0.0.6');
    h1.mesh.setConnected(false);
    await expect(h1.book.requestGiven(network, '10.0.0.6')).rejects.toMatchObject({ code: 'UNAVAILABLE' });
  });

  test('are the host’s again when the reservation ends, and rest like others', async () => {
    const { world, network, h1 } = await two();
    await reserve(world, network.id, 'db', '10.0.0.3');
    unreserve(world, network.id, 'db');
    expect(stateOf(h1, network, '10.0.0.3')?.state).toBe('resting');
    expect(await h1.book.request(network, 4)).toBe('10.0.0.4');
    // In use at that moment: it ends with its user.
    await reserve(world, network.id, 'web', '10.0.0.5');
    await h1.book.requestGiven(network, '10.0.0.5');
    unreserve(world, network.id, 'web');
    expect(stateOf(h1, network, '10.0.0.5')).toMatchObject({ state: 'requested', claimed: true });
    await h1.book.release(network.id, '10.0.0.5');
    await until('it is free', () => stateOf(h1, network, '10.0.0.5')?.state === 'resting');
    expect(world.addresses.size).toBe(0);
  });

  test('keep no block from going back, and no new block has them', async () => {
    const { world, network, h1, h2, own } = await two('10.0.0.0/28');
    await h1.book.release(network.id, own);
    await reserve(world, network.id, 'db', '10.0.0.5');
    clock.advance(600_000);
    await h1.book.releaseUnused();
    clock.advance(600_000);
    await h1.book.releaseUnused();
    expect(world.blocks.size).toBe(0);
    expect(h1.journal.addresses.size).toBe(0);
    const all: string[] = [];
    for (;;) {
      const ip = await h2.book.request(network, 4).catch(() => null);
      if (ip === null) break;
      all.push(ip);
    }
    expect(all).toHaveLength(12);
    expect(all).not.toContain('10.0.0.5');
    expect(await h1.book.requestGiven(network, '10.0.0.5')).toBe('10.0.0.5');
  });

  test('come back with the view when the journal is lost', async () => {
    const { world, network, h1 } = await two();
    await reserve(world, network.id, 'db', '10.0.0.3');
    h1.journal.rows.address.clear();
    world.publish();
    expect(stateOf(h1, network, '10.0.0.3')?.state).toBe('reserved');
  });
});

const endpoint = (network: Network, ip: string, name: string): LocalEndpoint => ({
  id: 'e'.repeat(64),
  networkId: network.id,
  dockerNetworkId: 'd',
  ip,
  prefix: 27,
  ip6: '',
  prefix6: 0,
  mac: '',
  givenMac: false,
  mtu: 1450,
  createdAt: '',
  sandbox: null,
  container: { id: 'c', name },
  labels: {},
  aliases: [],
  interfaceName: null,
});

test('the container of that name keeps its address, from then on by a record of its own', async () => {
  const { world, network, h1, own } = await two();
  const web = endpoint(network, own, 'web');
  await h1.journal.write([{ table: 'endpoint', key: web.id, value: web }, h1.book.used(network.id, own, 'endpoint')]);
  await expect(reserve(world, network.id, 'db', own)).rejects.toMatchObject({
    code: 'ALREADY_EXISTS',
    message: expect.stringContaining('container web on host h1 has it'),
  });
  await reserve(world, network.id, 'web', own);
  expect(stateOf(h1, network, own)).toMatchObject({ state: 'endpoint', claimed: true });
  expect(world.addresses.get(`${network.id}/${own}`)).toMatchObject({ hostId: h1.mesh.hostId, state: 'held' });
  expect(h1.book.coveredBy(network.id, own)).toBe(undefined);
});

test('a reserved address implies its MAC, and the MAC is nobody else’s', async () => {
  const { world, network, h1, h2 } = await two();
  await reserve(world, network.id, 'db', '10.0.0.5', '02:aa:00:00:00:05');
  await reserve(world, network.id, 'web', '10.0.0.6', '02:aa:00:00:00:06');
  await reserve(world, network.id, 'plain', '10.0.0.7');
  const of = (ips: string[], given: string | null = null) =>
    impliedMac(h1, { network, ips, given, flag: '--mac-address' });
  expect(of(['10.0.0.5'])).toBe('02:aa:00:00:00:05');
  expect(of(['10.0.0.5', 'fd00::5'])).toBe('02:aa:00:00:00:05');
  expect(of(['10.0.0.7'])).toBe(null);
  expect(of(['10.0.0.9'], '02:aa:00:00:00:09')).toBe(null);
  expect(of(['10.0.0.5'], '02:aa:00:00:00:05')).toBe('02:aa:00:00:00:05');
  expect(() => of(['10.0.0.5'], '02:aa:00:00:00:09')).toThrow(
    'address 10.0.0.5 of network net is reserved as "db" with the MAC 02:aa:00:00:00:05, not 02:aa:00:00:00:09',
  );
  expect(() => of(['10.0.0.5', '10.0.0.6'])).toThrow('with two MACs');
  // A host that has not heard of it knows from its claim.
  h2.mesh.deaf = true;
  await h2.book.requestGiven(network, '10.0.0.5');
  const view = h2.mesh.view();
  const deaf = { view: () => ({ ...view, interests: new Map() }) };
  expect(
    impliedMac({ journal: h2.journal, mesh: deaf }, { network, ips: ['10.0.0.5'], given: null, flag: '--mac' }),
  ).toBe('02:aa:00:00:00:05');
  const use = (ips: string[]) => () =>
    refuseMac(h1, {
      network,
      mac: '02:aa:00:00:00:05',
      usual: { mac: '02:58:0a:00:00:09', own: false },
      ips,
      endpointId: 'e',
      flag: '--mac-address',
    });
  expect(use(['10.0.0.9'])).toThrow('is reserved as "db"');
  expect(use(['10.0.0.5'])).not.toThrow();
});

test('the view on disk has them', async () => {
  const { world, network, h1 } = await two();
  await reserve(world, network.id, 'db', '10.0.0.5', '02:aa:00:00:00:05');
  const view = h1.mesh.view();
  expect(decodeView(encodeView(view)).interests.get(network.id)?.reservations).toEqual(
    view.interests.get(network.id)?.reservations,
  );
});
