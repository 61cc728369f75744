/** Hosts that share a network of a made-up mesh, by their address books. */
import { afterEach } from 'vitest';
import { AddressBook } from '../../../agent/addresses.ts';
import { silentLog } from '../../../lib/log.ts';
import type { Network } from '../../../lib/model.ts';
import { type FakeMesh, FakeWorld } from '../../harness/fake-mesh.ts';
import { FakeClock, MemoryJournal } from '../../harness/memory-journal.ts';

export interface Host {
  readonly mesh: FakeMesh;
  readonly book: AddressBook;
  readonly journal: MemoryJournal;
}

/** For a test file; all books are closed after each test. */
export function addressHosts() {
  const books: AddressBook[] = [];
  afterEach(() => {
    for (const book of books.splice(0)) book.close();
  });
  const clock = new FakeClock();
  const hostOn = (world: FakeWorld, name: string, journal = new MemoryJournal()): Host => {
    const mesh = world.host(name);
    const book = new AddressBook({ journal, mesh, clock, log: silentLog() });
    mesh.book = book;
    book.start();
    books.push(book);
    return { mesh, book, journal };
  };
  /** Two hosts; the first has the first block of the network. */
  const two = async (subnet = '10.0.0.0/27') => {
    const world = new FakeWorld();
    const network = world.createNetwork('net', subnet);
    const [h1, h2] = [hostOn(world, 'h1'), hostOn(world, 'h2')];
    const own = await h1.book.request(network, 4);
    return { world, network, h1, h2, own };
  };
  return { clock, hostOn, two };
}

export const stateOf = ({ journal }: Host, network: Network, ip: string) =>
  journal.addresses.get(`${network.id}/${ip}`);

/** Every address that it gives out by itself. */
export async function takeAll({ book }: Host, network: Network): Promise<string[]> {
  const got: string[] = [];
  for (;;) {
    const ip = await book.request(network, 4).catch(() => null);
    if (ip === null) return got;
    got.push(ip);
  }
}
