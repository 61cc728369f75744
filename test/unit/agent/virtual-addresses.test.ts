/** Addresses of services: no endpoint of any host ever has one. */
import { expect, test } from 'vitest';
import type { LocalEndpoint } from '../../../agent/contract.ts';
import { decodeView, encodeView } from '../../../agent/viewstore.ts';
import { serve, unserve } from '../../harness/fake-services.ts';
import { until } from '../../harness/ovs.ts';
import { addressHosts, stateOf, takeAll } from './address-hosts.ts';

const { clock, two } = addressHosts();

test('are not picked, also without a coordinator and when nothing else is left', async () => {
  const { world, network, h1 } = await two();
  await serve(world, network.id, 'shop', '10.0.0.5');
  expect(stateOf(h1, network, '10.0.0.5')).toMatchObject({ state: 'reserved', claimed: false });
  expect(h1.journal.durable).toBe(1);
  h1.mesh.setConnected(false);
  const got = await takeAll(h1, network);
  expect(got).not.toContain('10.0.0.5');
  expect(got.length).toBeGreaterThan(3);
});

test('are the journal’s to know, and the view’s where the journal was lost', async () => {
  const { world, network, h1 } = await two();
  h1.mesh.deaf = true;
  await serve(world, network.id, 'shop', '10.0.0.3');
  expect(h1.mesh.view().interests.get(network.id)?.services.size).toBe(0);
  expect(await h1.book.request(network, 4)).toBe('10.0.0.4');
  h1.mesh.deaf = false;
  h1.journal.rows.address.clear();
  world.publish();
  expect(stateOf(h1, network, '10.0.0.3')?.state).toBe('reserved');
  const view = decodeView(encodeView(h1.mesh.view()));
  expect(view.interests.get(network.id)?.services.get('shop')?.ips).toEqual(['10.0.0.3']);
});

test('are given to nobody who asks for them, on any host', async () => {
  const { world, network, h1, h2 } = await two();
  await serve(world, network.id, 'shop', '10.0.0.5');
  await serve(world, network.id, 'far', '10.0.0.30');
  for (const host of [h1, h2])
    for (const [ip, name] of [
      ['10.0.0.5', 'shop'],
      ['10.0.0.30', 'far'],
    ] as const)
      await expect(host.book.requestGiven(network, ip)).rejects.toMatchObject({
        code: 'ALREADY_EXISTS',
        message: expect.stringContaining(`it is the address of service ${name}`),
      });
  // Nor by the mesh, where the host has not heard of it; nor while the mesh cannot be asked.
  h1.mesh.deaf = true;
  h2.mesh.deaf = true;
  await serve(world, network.id, 'new', '10.0.0.6');
  for (const host of [h1, h2])
    await expect(host.book.requestGiven(network, '10.0.0.6')).rejects.toMatchObject({ code: 'ALREADY_EXISTS' });
  h1.mesh.setConnected(false);
  await expect(h1.book.requestGiven(network, '10.0.0.6')).rejects.toMatchObject({ code: 'UNAVAILABLE' });
  await expect(h1.book.requestGiven(network, '10.0.0.5')).rejects.toMatchObject({ code: 'ALREADY_EXISTS' });
});

test('are refused while somebody has them, also a container that is called like the service', async () => {
  const { world, network, h1, h2, own } = await two();
  await expect(serve(world, network.id, 'shop', own)).rejects.toMatchObject({
    code: 'ALREADY_EXISTS',
    message: expect.stringContaining('it is being given to a container on host h1'),
  });
  const named = (name: string): LocalEndpoint => ({
    id: 'e'.repeat(64),
    networkId: network.id,
    dockerNetworkId: 'd',
    ip: own,
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
  for (const name of ['shop', '']) {
    const value = named(name);
    await h1.journal.write([{ table: 'endpoint', key: value.id, value }, h1.book.used(network.id, own, 'endpoint')]);
    await expect(serve(world, network.id, 'shop', own)).rejects.toMatchObject({ code: 'ALREADY_EXISTS' });
  }
  await h2.book.requestGiven(network, '10.0.0.5');
  await expect(serve(world, network.id, 'shop', '10.0.0.5')).rejects.toMatchObject({
    code: 'ALREADY_EXISTS',
    message: expect.stringContaining('on host h2'),
  });
  expect(world.services.size).toBe(0);
});

test('are the host’s again when the service ends, and rest; nothing of it lingers', async () => {
  const { world, network, h1 } = await two();
  await serve(world, network.id, 'shop', '10.0.0.3');
  unserve(world, network.id, 'shop');
  expect(stateOf(h1, network, '10.0.0.3')?.state).toBe('resting');
  expect(await h1.book.request(network, 4)).toBe('10.0.0.4');
  clock.advance(60_000);
  expect(await h1.book.requestGiven(network, '10.0.0.3')).toBe('10.0.0.3');
});

test('that were agreed to and not made are the host’s again after a minute', async () => {
  const { network, h1 } = await two();
  await h1.book.reserve(network.id, '10.0.0.3', 'service shop', '');
  expect(stateOf(h1, network, '10.0.0.3')?.state).toBe('reserved');
  h1.mesh.changed();
  expect(stateOf(h1, network, '10.0.0.3')?.state).toBe('reserved');
  clock.advance(61_000);
  h1.mesh.changed();
  expect(stateOf(h1, network, '10.0.0.3')?.state).toBe('resting');
});

test('keep no block from going back, and no new block has them', async () => {
  const { world, network, h1, h2, own } = await two('10.0.0.0/28');
  await h1.book.release(network.id, own);
  await serve(world, network.id, 'shop', '10.0.0.5');
  for (let i = 0; i < 2; i++) {
    clock.advance(600_000);
    await h1.book.releaseUnused();
  }
  await until('the block has gone back', () => world.blocks.size === 0);
  expect(h1.journal.addresses.size).toBe(0);
  const got = await takeAll(h2, network);
  expect(got).toHaveLength(12);
  expect(got).not.toContain('10.0.0.5');
});
