import { afterEach, expect, test } from 'vitest';
import { AddressBook } from '../../../agent/addresses.ts';
import type { LocalEndpoint } from '../../../agent/contract.ts';
import { WeftError } from '../../../lib/errors.ts';
import { silentLog } from '../../../lib/log.ts';
import type { Network } from '../../../lib/model.ts';
import { type FakeMesh, FakeWorld } from '../../harness/fake-mesh.ts';
import { FakeClock, MemoryJournal } from '../../harness/memory-journal.ts';

const MINUTE = 60_000;

interface Host {
  readonly world: FakeWorld;
  readonly network: Network;
  readonly clock: FakeClock;
  readonly mesh: FakeMesh;
  readonly journal: MemoryJournal;
  readonly book: AddressBook;
}

const books: AddressBook[] = [];
afterEach(() => {
  for (const book of books.splice(0)) book.close();
});

function makeHost(world: FakeWorld, network: Network, name: string): Host {
  const clock = new FakeClock();
  const mesh = world.host(name);
  const journal = new MemoryJournal();
  const book = new AddressBook({ journal, mesh, clock, log: silentLog() });
  mesh.book = book;
  book.start();
  books.push(book);
  return { world, network, clock, mesh, journal, book };
}

function newHost(): Host {
  const world = new FakeWorld();
  return makeHost(world, world.createNetwork('net', '10.1.0.0/24'), 'h1');
}

/** Looks as often as the timer does. */
async function pass({ clock, book }: Host, ms: number): Promise<void> {
  for (let at = 0; at < ms; at += 20_000) {
    clock.advance(20_000);
    await book.releaseUnused();
  }
}

const released = ({ mesh }: Host): number => mesh.calls.filter((call) => call === 'releaseBlocks').length;

test('ten minutes after the last address has rested, the blocks go; later ones come anew', async () => {
  const host = newHost();
  const { world, network, journal, book } = host;
  const ip = await book.request(network, 4);
  await pass(host, 20 * MINUTE);
  await book.release(network.id, ip);
  await pass(host, 10 * MINUTE);
  expect(world.blocksOf(network.id).length).toBe(1);
  await pass(host, MINUTE);
  expect(world.blocksOf(network.id)).toEqual([]);
  expect([journal.blocks.size, journal.addresses.size, journal.durable]).toEqual([0, 0, 1]);
  await pass(host, 20 * MINUTE);
  expect(released(host)).toBe(1);
  expect(await book.request(network, 4)).toBe(ip);
  await pass(host, 20 * MINUTE);
  expect(journal.blocks.size).toBe(1);
});

test('what is used, even between two looks, keeps the blocks: requested, lent, endpoint', async () => {
  const host = newHost();
  const { world, network, clock, journal, book } = host;
  const ip = await book.request(network, 4);
  await book.release(network.id, ip);
  for (let i = 0; i < 4; i++) {
    await pass(host, 9 * MINUTE);
    const again = await book.request(network, 4);
    await book.release(network.id, again);
  }
  await book.grant(network.id, '10.1.0.9', 'another');
  clock.advance(MINUTE);
  await pass(host, 20 * MINUTE);
  await journal.write([{ table: 'address', key: `${network.id}/10.1.0.9`, value: null }]);
  const endpoint = { id: 'e', networkId: network.id } as LocalEndpoint;
  await journal.write([{ table: 'endpoint', key: 'e', value: endpoint }]);
  await pass(host, 20 * MINUTE);
  expect(world.blocksOf(network.id).length).toBe(1);
  await journal.write([{ table: 'endpoint', key: 'e', value: null }]);
  await pass(host, 11 * MINUTE);
  expect(world.blocksOf(network.id)).toEqual([]);
});

test('a network in use keeps its blocks beside an unused one', async () => {
  const host = newHost();
  const { world, network, book } = host;
  const other = world.createNetwork('other', '10.2.0.0/24');
  await book.request(network, 4);
  await book.release(other.id, await book.request(other, 4));
  await pass(host, 11 * MINUTE);
  expect([world.blocksOf(network.id).length, world.blocksOf(other.id).length]).toEqual([1, 0]);
});

test('nothing goes while the host is not in sync', async () => {
  const host = newHost();
  const { world, network, mesh, journal, book } = host;
  await book.release(network.id, await book.request(network, 4));
  mesh.setConnected(false);
  await pass(host, 60 * MINUTE);
  expect(journal.blocks.size).toBe(1);
  expect(await book.request(network, 4)).toBe('10.1.0.3'); // never used before the one that was
  await book.release(network.id, '10.1.0.3');
  mesh.setConnected(true);
  await pass(host, 11 * MINUTE);
  expect(world.blocksOf(network.id)).toEqual([]);
});

test('the journal is without them, on disk, before the mesh hears of it; a request meanwhile waits', async () => {
  const host = newHost();
  const { world, network, journal, book } = host;
  await book.release(network.id, await book.request(network, 4));
  await pass(host, 10 * MINUTE);
  const order: string[] = [];
  journal.pause = async () => {
    order.push(`journal: ${journal.blocks.size} blocks, ${journal.durable} durable, ${released(host)} released`);
  };
  let go: () => void = () => undefined;
  world.pause = () => new Promise((resolve) => (go = resolve));
  host.clock.advance(MINUTE);
  const looking = book.releaseUnused();
  await new Promise((resolve) => setImmediate(resolve));
  expect(order).toEqual(['journal: 0 blocks, 1 durable, 0 released']);
  expect(released(host)).toBe(1);
  const request = book.request(network, 4);
  const given = book.requestGiven(network, '10.1.0.5');
  await new Promise((resolve) => setImmediate(resolve));
  expect(host.mesh.calls.at(-1)).toBe('releaseBlocks');
  world.pause = () => Promise.resolve();
  go();
  await looking;
  expect([await request, await given].toSorted()).toEqual(['10.1.0.2', '10.1.0.5']);
  expect(world.blocksOf(network.id).map((b) => b.cidr)).toEqual([...journal.blocks.values()].map((b) => b.cidr));
});

test('a release that failed is tried again, before anything else of the network is asked for', async () => {
  const host = newHost();
  const { world, network, mesh, journal, book } = host;
  await book.release(network.id, await book.request(network, 4));
  await pass(host, 10 * MINUTE);
  for (let i = 0; i < 3; i++) mesh.failNext('releaseBlocks', 'DEADLINE_EXCEEDED');
  host.clock.advance(MINUTE);
  await expect(book.releaseUnused()).rejects.toMatchObject({ code: 'DEADLINE_EXCEEDED' });
  expect([journal.blocks.size, world.blocksOf(network.id).length]).toEqual([0, 1]);
  // The block is still the host's in the mesh: a claim in it would be answered with it, and then lose it.
  await expect(book.requestGiven(network, '10.1.0.5')).rejects.toMatchObject({ code: 'DEADLINE_EXCEEDED' });
  await expect(book.request(network, 4)).rejects.toMatchObject({ code: 'DEADLINE_EXCEEDED' });
  expect(await book.requestGiven(network, '10.1.0.5')).toBe('10.1.0.5');
  expect(mesh.calls.slice(-2)).toEqual(['releaseBlocks', 'claimAddress']);
  await pass(host, 20 * MINUTE);
  expect([...journal.blocks.keys()]).toEqual(world.blocksOf(network.id).map((b) => `${network.id}/${b.cidr}`));
  expect(journal.blocks.size).toBe(1);
});

test.each(['NOT_FOUND', 'FAILED_PRECONDITION'] as const)(
  'blocks that are no longer the host’s (%s) are done with',
  async (code) => {
    const host = newHost();
    const { network, mesh, book } = host;
    await book.release(network.id, await book.request(network, 4));
    mesh.failNext('releaseBlocks', code);
    await pass(host, 20 * MINUTE);
    expect(released(host)).toBe(1);
  },
);

test('a disk that does not take it: the blocks stay the host’s', async () => {
  const host = newHost();
  const { world, network, journal, book } = host;
  await book.release(network.id, await book.request(network, 4));
  await pass(host, 10 * MINUTE);
  const write = journal.write.bind(journal);
  journal.write = () => Promise.reject(new WeftError('INTERNAL', 'disk full'));
  host.clock.advance(MINUTE);
  await expect(book.releaseUnused()).rejects.toMatchObject({ code: 'INTERNAL' });
  journal.write = write;
  expect(released(host)).toBe(0);
  expect(world.blocksOf(network.id).length).toBe(1);
  expect(await book.request(network, 4)).toBe('10.1.0.3');
});
