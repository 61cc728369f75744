import { expect, test } from 'vitest';
import type { LocalEndpoint } from '../../../agent/contract.ts';
import type { Copies } from '../../../agent/docker/copies.ts';
import { EndpointDriver, type EndpointOptions } from '../../../agent/docker/endpoints.ts';
import { standingOf } from '../../../agent/express.ts';
import { FakeWorld } from '../../harness/fake-mesh.ts';
import { networkOf } from '../../harness/fake-network.ts';
import { MemoryJournal } from '../../harness/memory-journal.ts';

test('express: forwarding and nothing else, over a tunnel', () => {
  const world = new FakeWorld();
  const mesh = world.host('h1');
  const network = world.createNetwork('blue', '10.0.0.0/24', { allowTrust: true });
  const endpoint = { id: 'e1', networkId: network.id, labels: {} } as unknown as LocalEndpoint;
  const express = (e: LocalEndpoint, of = network) => standingOf(e, of, mesh.view()).express;
  expect(express(endpoint)).toBe(true);
  expect(express(endpoint, { ...network, encap: 'vlan' })).toBe(false);
  expect(express({ ...endpoint, trust: true })).toBe(false);
  expect(express({ ...endpoint, attached: { kind: 'tap', name: 't', link: 't', mtu: 1500, up: true } })).toBe(false);
  world.allow(network.id, 'e1', [{ ip: '10.0.0.9', mac: '' }]);
  expect(express(endpoint)).toBe(false);
});

test('weft.trust as a driver option is yes or no, like weft.allow-trust', async () => {
  const mesh = new FakeWorld().host('h1');
  const network = networkOf({ id: 'n', name: 'blue', subnets: ['10.0.0.0/24'] });
  const row = { networkId: 'n', dockerNetworkId: 'd', name: 'blue', index: 1, network };
  const copies = { byDockerId: () => row, record: () => network } as unknown as Copies;
  const driver = new EndpointDriver({ journal: new MemoryJournal(), mesh, copies } as unknown as EndpointOptions);
  const refusal = (asked: unknown) =>
    driver
      .createEndpoint({ NetworkID: 'd', EndpointID: 'e', Interface: null, Options: { 'weft.trust': asked } } as never)
      .then(String, (error: unknown) => (error as Error).message);
  expect(await refusal('banana')).toBe('option weft.trust takes true or false, not "banana"');
  for (const yes of ['true', '1', true]) expect(await refusal(yes)).toBe('network blue was made without --allow-trust');
  // No, in words: only the address is missing now.
  for (const no of ['false', '0', false]) expect(await refusal(no)).toMatch(/needs an address/);
});

test('a rate as a driver option is judged before anything is made', async () => {
  const mesh = new FakeWorld().host('h1');
  const network = networkOf({ id: 'n', name: 'blue', subnets: ['10.0.0.0/24'] });
  const row = { networkId: 'n', dockerNetworkId: 'd', name: 'blue', index: 1, network };
  const copies = { byDockerId: () => row, record: () => network } as unknown as Copies;
  const journal = new MemoryJournal();
  const driver = new EndpointDriver({ journal, mesh, copies } as unknown as EndpointOptions);
  const refusal = (Options: Record<string, unknown>) =>
    driver
      .createEndpoint({ NetworkID: 'd', EndpointID: 'e', Interface: null, Options } as never)
      .then(String, (error: unknown) => (error as Error).message);
  expect(await refusal({ 'weft.rate': '200' })).toMatch(/^weft\.rate takes .* not "200"/);
  expect(await refusal({ 'weft.burst': '64kb' })).toMatch(/^weft\.burst needs weft\.rate/);
  expect(await refusal({ 'weft.priority': true })).toMatch(/^weft\.priority takes high, normal or low/);
  expect(await refusal({ 'weft.speed': '2mbit' })).toMatch(/not available/);
  // What means something goes on: only the address is missing now.
  expect(await refusal({ 'weft.rate': '2mbit', 'weft.burst': '64kb', 'weft.priority': 'low' })).toMatch(
    /needs an address/,
  );
  expect(journal.endpoints.size).toBe(0);
});
