import { mkdtemp, open, readdir, readFile, rm, stat, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterEach, beforeEach, expect, test } from 'vitest';
import type { JournalWrite, LocalAddress } from '../../../agent/contract.ts';
import { FileJournal } from '../../../agent/journal.ts';
import { silentLog } from '../../../lib/log.ts';
import { networkOf } from '../../harness/fake-mesh.ts';

let dir: string;
let path: string;
const open_ = new Set<FileJournal>();

beforeEach(async () => {
  dir = await mkdtemp(join(tmpdir(), 'weft-journal-'));
  path = join(dir, 'journal');
});
afterEach(async () => {
  for (const journal of open_) await journal.close();
  open_.clear();
  await rm(dir, { recursive: true });
});

async function start(): Promise<FileJournal> {
  const journal = new FileJournal({ path, log: silentLog() });
  await journal.start();
  open_.add(journal);
  return journal;
}

const address = (ip: string, state: LocalAddress['state'] = 'requested'): JournalWrite => ({
  table: 'address',
  key: `n1/${ip}`,
  value: { networkId: 'n1', ip, state, since: 1, lentTo: null, claimed: false },
});

test('what was written is there after a restart, networks with their 64-bit revision', async () => {
  const journal = await start();
  expect(journal.fresh).toBe(true);
  const network = networkOf({ id: 'n1', name: 'net', subnets: ['10.0.0.0/24'], revision: 2n ** 60n + 1n });
  await journal.write([
    address('10.0.0.2'),
    { table: 'network', key: 'n1', value: { networkId: 'n1', dockerNetworkId: 'd', name: 'net', index: 7, network } },
  ]);
  await journal.write([address('10.0.0.3')], { durable: true });
  await journal.write([{ table: 'address', key: 'n1/10.0.0.2', value: null }]);
  await journal.close();
  const again = await start();
  expect(again.fresh).toBe(false);
  expect([...again.addresses.keys()]).toEqual(['n1/10.0.0.3']);
  expect(again.networks.get('n1')).toEqual({ networkId: 'n1', dockerNetworkId: 'd', name: 'net', index: 7, network });
});

test('memory changes at once, all of a group together; listeners after the write', async () => {
  const journal = await start();
  let heard = 0;
  journal.onChange(() => heard++);
  const written = journal.write([address('10.0.0.2'), address('10.0.0.3')]);
  expect(journal.addresses.size).toBe(2);
  expect(heard).toBe(0);
  await written;
  expect(heard).toBe(1);
});

test('a torn last line is dropped whole; what comes after a restart is kept', async () => {
  const journal = await start();
  await journal.write([address('10.0.0.2')]);
  await journal.write([address('10.0.0.3'), address('10.0.0.4')]);
  await journal.close();
  const text = await readFile(path, 'utf8');
  await writeFile(path, text.slice(0, -20));
  const again = await start();
  expect([...again.addresses.keys()]).toEqual(['n1/10.0.0.2']);
  await again.write([address('10.0.0.5')]);
  await again.close();
  expect([...(await start()).addresses.keys()]).toEqual(['n1/10.0.0.2', 'n1/10.0.0.5']);
});

test('every prefix of a journal loads to a prefix of its groups', async () => {
  const journal = await start();
  for (let i = 1; i <= 5; i++) await journal.write([address(`10.0.0.${i}`), address(`10.0.1.${i}`)]);
  await journal.close();
  const bytes = await readFile(path);
  for (let cut = 0; cut <= bytes.length; cut += 7) {
    await writeFile(path, bytes.subarray(0, cut));
    const loaded = await start();
    expect(loaded.addresses.size % 2).toBe(0);
    await loaded.close();
    open_.delete(loaded);
  }
});

test('garbage in the middle is skipped, reported, and kept aside', async () => {
  const journal = await start();
  await journal.write([address('10.0.0.2')]);
  await journal.write([address('10.0.0.3')]);
  await journal.close();
  const lines = (await readFile(path, 'utf8')).split('\n');
  lines.splice(2, 0, '{"what"', '[["table","k",{}]]', '[["address","k"]]');
  await writeFile(path, lines.join('\n'));
  const again = await start();
  expect(again.addresses.size).toBe(2);
  expect(await readdir(dir)).toContain('journal.broken');
});

test('the file stays small: compacted at start and while it grows', async () => {
  const journal = await start();
  for (let round = 0; round < 40; round++)
    await Promise.all(Array.from({ length: 50 }, (_, i) => journal.write([address(`10.0.0.${i}`, 'resting')])));
  expect((await stat(path)).size).toBeLessThan(100_000);
  await journal.close();
  const again = await start();
  expect(again.addresses.size).toBe(50);
  expect((await stat(path)).size).toBeLessThan(10_000);
  expect(await readdir(dir)).toEqual(['journal']);
});

test('many writers at once: each resolves, in the order of their calls', async () => {
  const journal = await start();
  const order: number[] = [];
  await Promise.all(
    Array.from({ length: 300 }, async (_, i) => {
      await journal.write([address(`10.1.${i >> 8}.${i & 255}`)], { durable: i % 3 === 0 });
      order.push(i);
    }),
  );
  expect(order).toEqual(order.toSorted((a, b) => a - b));
  await journal.close();
  expect((await start()).addresses.size).toBe(300);
});

test('a write that the disk refuses is rejected, and memory goes back', async () => {
  const journal = await start();
  await journal.write([address('10.0.0.2')]);
  // /dev/full is a disk that is full.
  const full = await open('/dev/full', 'w');
  const proto = Object.getPrototypeOf(full) as { write: (...args: unknown[]) => Promise<unknown> };
  await full.close();
  const real = proto.write;
  proto.write = () => Promise.reject(Object.assign(new Error('no space left on device'), { code: 'ENOSPC' }));
  try {
    await expect(journal.write([address('10.0.0.2', 'endpoint'), address('10.0.0.3')])).rejects.toMatchObject({
      code: 'INTERNAL',
    });
  } finally {
    proto.write = real;
  }
  expect(journal.addresses.get('n1/10.0.0.2')?.state).toBe('requested');
  expect(journal.addresses.has('n1/10.0.0.3')).toBe(false);
  await journal.write([address('10.0.0.4')]);
  await journal.close();
  expect([...(await start()).addresses.keys()]).toEqual(['n1/10.0.0.2', 'n1/10.0.0.4']);
});

test('closed: refused', async () => {
  const journal = await start();
  await journal.close();
  await expect(journal.write([address('10.0.0.2')])).rejects.toMatchObject({ code: 'UNAVAILABLE' });
});

test('endpoints of before there was IPv6 have none', async () => {
  const old = { id: 'e', networkId: 'n1', ip: '10.0.0.2', prefix: 24 };
  await writeFile(path, `{"weft":"journal","version":1}\n${JSON.stringify([['endpoint', 'e', old]])}\n`);
  expect((await start()).endpoints.get('e')).toMatchObject({ ...old, ip6: '', prefix6: 0 });
});
