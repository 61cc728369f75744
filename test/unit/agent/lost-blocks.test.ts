import { afterEach, expect, test } from 'vitest';
import { AddressBook } from '../../../agent/addresses.ts';
import { silentLog } from '../../../lib/log.ts';
import { type FakeMesh, FakeWorld } from '../../harness/fake-mesh.ts';
import { FakeClock, MemoryJournal } from '../../harness/memory-journal.ts';

const books: AddressBook[] = [];
afterEach(() => {
  for (const book of books.splice(0)) book.close();
});

function hostOf(world: FakeWorld, name: string) {
  const mesh: FakeMesh = world.host(name);
  const journal = new MemoryJournal();
  const book = new AddressBook({ journal, mesh, clock: new FakeClock(), log: silentLog() });
  mesh.book = book;
  book.start();
  books.push(book);
  return { mesh, journal, book };
}

/** h1 has a block with one address in use and one that rests. */
async function setup() {
  const world = new FakeWorld();
  const network = world.createNetwork('net', '10.1.0.0/24');
  const one = hostOf(world, 'h1');
  const used = await one.book.request(network, 4);
  const rests = await one.book.request(network, 4);
  await one.book.release(network.id, rests);
  const [key, block] = [...world.blocks].find(([, b]) => b.hostId === one.mesh.hostId)!;
  const two = hostOf(world, 'h2');
  return { world, network, one, two, used, rests, key, block };
}

test('a block that another host got later is given from no more, what is in use stays known', async () => {
  const { world, network, one, two, used, rests, key, block } = await setup();
  world.blocks.set(key, { ...block, hostId: two.mesh.hostId, revision: world.bump() });
  world.publish();
  await expect.poll(() => one.journal.blocks.size).toBe(0);
  expect([...one.journal.addresses.values()].map((row) => row.ip)).toEqual([used]);
  expect(one.journal.durable).toBe(1);
  const next = await one.book.request(network, 4);
  expect([used, rests]).not.toContain(next);
});

test('an older view of somebody else’s block takes nothing away', async () => {
  const { world, one, two, key, block } = await setup();
  world.blocks.set(key, { ...block, hostId: two.mesh.hostId, revision: 1n });
  world.publish();
  await one.book.releaseUnused();
  expect(one.journal.blocks.size).toBe(1);
});
