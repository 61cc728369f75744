/** Local network indexes: round and round, and beyond what fits into a tag only when there is no other. */
import { expect, test } from 'vitest';
import { Copies } from '../../../agent/docker/copies.ts';
import { FakeWorld } from '../../harness/fake-mesh.ts';
import { MemoryJournal } from '../../harness/memory-journal.ts';

/** @param taken indexes of networks that the host has, `n7` for 7 */
async function host(taken: readonly number[]) {
  const world = new FakeWorld();
  const journal = new MemoryJournal();
  const copies = new Copies({ journal, mesh: world.host('h1') });
  const network = world.createNetwork('net', '10.1.0.0/24');
  const rows = taken.map((index) => ({ networkId: `n${index}`, dockerNetworkId: null, name: 'net', index, network }));
  await journal.write(rows.map((row) => copies.put(row)));
  return {
    put: async (id: string): Promise<number> => {
      const row = copies.rowFor({ ...network, id }, null);
      await journal.write([copies.put(row)]);
      return row.index;
    },
    remove: (id: string) => journal.write([{ table: 'network', key: id, value: null }]),
  };
}

test('an index is used again late', async () => {
  const { put, remove } = await host([1, 4092]);
  expect(await put('a')).toBe(4093);
  await remove('a');
  expect(await put('b')).toBe(4094);
  await remove('b');
  expect(await put('c')).toBe(2);
});

test('one above 4094 is taken only when there is no other', async () => {
  const { put, remove } = await host(Array.from({ length: 4094 }, (_, i) => i + 1));
  expect(await put('first above')).toBe(4095);
  expect(await put('second above')).toBe(4096);
  await remove('n77');
  expect(await put('below again')).toBe(77);
  expect(await put('third above')).toBe(4097);
});
