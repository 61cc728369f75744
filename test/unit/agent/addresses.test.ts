import { afterEach, expect, test } from 'vitest';
import { nearestFree, partsToKeep, pick, reservedOf, type Slot } from '../../../agent/address-pick.ts';
import { AddressBook } from '../../../agent/addresses.ts';
import { ExternalPeer } from '../../../gen/weft/v1/types.ts';
import { formatCidr, formatIp, parseCidr, parseIp } from '../../../lib/addr.ts';
import { silentLog } from '../../../lib/log.ts';
import { FakeMesh, FakeWorld, networkOf } from '../../harness/fake-mesh.ts';
import { FakeClock, MemoryJournal } from '../../harness/memory-journal.ts';
import { until } from '../../harness/ovs.ts';

const books: AddressBook[] = [];
afterEach(() => {
  for (const book of books.splice(0)) book.close();
});

const clock = new FakeClock();
function hostOn(world: FakeWorld, name: string): { mesh: FakeMesh; book: AddressBook; journal: MemoryJournal } {
  const mesh = world.host(name);
  const journal = new MemoryJournal();
  const book = new AddressBook({ journal, mesh, clock, log: silentLog() });
  mesh.book = book;
  book.start();
  books.push(book);
  return { mesh, book, journal };
}

test('pick: never used first, then least recently freed; resting only when told', () => {
  const reserved = reservedOf(networkOf({ id: 'n', subnets: ['10.0.0.0/29'] })); // .1 gateway; .2 to .6
  const block = [parseCidr('10.0.0.0/29')];
  const at = (...entries: [string, Slot][]) => new Map(entries.map(([ip, slot]) => [parseIp(ip), slot]));
  const text = (slots: Map<bigint, Slot>, resting: boolean) => {
    const ip = pick(block, reserved, slots, 100_000, resting);
    return ip === null ? null : formatIp(ip);
  };
  expect(text(at(), false)).toBe('10.0.0.2');
  const taken = { taken: true } as const;
  const freed = (freedAt: number): Slot => ({ taken: false, freedAt });
  expect(text(at(['10.0.0.2', taken], ['10.0.0.3', freed(0)]), false)).toBe('10.0.0.4');
  const full: [string, Slot][] = [
    ['10.0.0.2', taken],
    ['10.0.0.3', freed(50_000)],
    ['10.0.0.4', freed(20_000)],
    ['10.0.0.5', freed(90_000)],
    ['10.0.0.6', freed(80_000)],
  ];
  expect(text(at(...full), false)).toBe('10.0.0.4');
  const resting = full.map(([ip, slot]): [string, Slot] => [ip, slot.taken ? slot : freed(slot.freedAt + 60_000)]);
  expect(text(at(...resting), false)).toBe(null);
  expect(text(at(...resting), true)).toBe('10.0.0.4');
});

test.each([
  ['10.0.0.0/28', [], []],
  ['10.0.0.0/28', ['10.0.0.3'], ['10.0.0.3/32']],
  ['10.0.0.0/28', ['10.0.0.3', '10.0.0.2'], ['10.0.0.2/31']],
  ['10.0.0.0/28', ['10.0.0.3', '10.0.0.9'], ['10.0.0.3/32', '10.0.0.9/32']],
  ['10.0.0.0/30', ['10.0.0.0', '10.0.0.1', '10.0.0.2', '10.0.0.3'], ['10.0.0.0/30']],
  ['10.0.0.0/30', ['10.0.0.0', '10.0.0.2', '10.0.0.3'], ['10.0.0.0/32', '10.0.0.2/31']],
])('partsToKeep %s %j', (block, busy, keep) => {
  expect(partsToKeep(parseCidr(block), new Set(busy.map(parseIp))).map(formatCidr)).toEqual(keep);
});

test('nearestFree shares the longest prefix with something busy', () => {
  expect(formatIp(nearestFree([parseIp('10.0.0.9'), parseIp('10.0.0.2')], [parseIp('10.0.0.3')])!)).toBe('10.0.0.2');
  expect(nearestFree([], [1n])).toBe(null);
});

test('300 requests at once get 300 addresses, and no more blocks than needed', async () => {
  const world = new FakeWorld();
  world.pause = () => new Promise((resolve) => setImmediate(resolve));
  const network = world.createNetwork('net', '10.1.0.0/16'); // /26 blocks
  const { book, mesh } = hostOn(world, 'h1');
  const got = await Promise.all(Array.from({ length: 300 }, () => book.request(network, 4)));
  expect(new Set(got).size).toBe(300);
  expect(got).not.toContain('10.1.0.0');
  expect(got).not.toContain('10.1.0.1');
  await until('the last ask', () => mesh.calls.filter((c) => c === 'requestBlock').length >= 6);
  expect(world.blocksOf(network.id).length).toBeLessThanOrEqual(7); // 5 needed, and what is asked ahead
});

test('freed addresses rest; they are used only when nothing else can be had', async () => {
  const world = new FakeWorld();
  const network = world.createNetwork('net', '10.1.0.0/29'); // one block, .2 to .6
  const { book } = hostOn(world, 'h1');
  const all = await Promise.all([1, 2, 3, 4, 5].map(() => book.request(network, 4)));
  expect(all.toSorted()).toEqual(['10.1.0.2', '10.1.0.3', '10.1.0.4', '10.1.0.5', '10.1.0.6']);
  await expect(book.request(network, 4)).rejects.toMatchObject({ code: 'RESOURCE_EXHAUSTED' });
  await book.release(network.id, '10.1.0.4');
  clock.advance(1_000);
  await book.release(network.id, '10.1.0.3');
  expect(await book.request(network, 4)).toBe('10.1.0.4');
  await book.release(network.id, '10.1.0.4');
  clock.advance(31_000);
  expect(await book.request(network, 4)).toBe('10.1.0.3');
});

test('without a coordinator: own blocks go on, full ones say why', async () => {
  const world = new FakeWorld();
  const network = world.createNetwork('net', '10.1.0.0/24'); // /28 blocks
  const { book, mesh } = hostOn(world, 'h1');
  await book.request(network, 4);
  mesh.setConnected(false);
  for (let i = 0; i < 13; i++) await book.request(network, 4);
  await expect(book.request(network, 4)).rejects.toMatchObject({
    code: 'UNAVAILABLE',
    message: expect.stringContaining('no free address of network net in its own blocks'),
  });
  await expect(book.requestGiven(network, '10.1.0.200')).rejects.toMatchObject({ code: 'UNAVAILABLE' });
});

test('a further block comes before the last address is gone', async () => {
  const world = new FakeWorld();
  const network = world.createNetwork('net', '10.1.0.0/24');
  const { book } = hostOn(world, 'h1');
  for (let i = 0; i < 11; i++) await book.request(network, 4); // 3 of 14 left
  await until('a second block', () => world.blocksOf(network.id).length === 2);
});

test('given addresses: own, claimed from another host, refused with the holder named', async () => {
  const world = new FakeWorld();
  const network = world.createNetwork('net', '10.1.0.0/24');
  const h1 = hostOn(world, 'h1');
  const h2 = hostOn(world, 'h2');
  expect(await h1.book.request(network, 4)).toBe('10.1.0.2');
  expect(await h2.book.request(network, 4)).toBe('10.1.0.16');
  expect(await h1.book.requestGiven(network, '10.1.0.9')).toBe('10.1.0.9');
  await expect(h1.book.requestGiven(network, '10.1.0.9')).rejects.toMatchObject({ code: 'ALREADY_EXISTS' });
  // In h2's block: h2 lends it, on disk.
  expect(await h1.book.requestGiven(network, '10.1.0.20')).toBe('10.1.0.20');
  expect(h2.journal.durable).toBe(1);
  expect(h2.journal.addresses.get(`${network.id}/10.1.0.20`)).toMatchObject({ state: 'lent', lentTo: h1.mesh.hostId });
  await expect(h2.book.requestGiven(network, '10.1.0.20')).rejects.toMatchObject({ code: 'ALREADY_EXISTS' });
  await expect(h1.book.requestGiven(network, '10.1.0.16')).rejects.toMatchObject({ code: 'ALREADY_EXISTS' });
  // In nobody's block: h1 gets the block.
  expect(await h1.book.requestGiven(network, '10.1.0.100')).toBe('10.1.0.100');
  expect(h1.journal.blocks.has(`${network.id}/10.1.0.96/28`)).toBe(true);
  for (const [ip, code] of [
    ['10.1.0.0', 'FAILED_PRECONDITION'],
    ['10.1.0.1', 'FAILED_PRECONDITION'],
    ['10.1.0.255', 'FAILED_PRECONDITION'],
    ['10.2.0.1', 'INVALID_ARGUMENT'],
  ] as const)
    await expect(h1.book.requestGiven(network, ip)).rejects.toMatchObject({ code });
});

test('a claimed address goes back when it is free, also when the coordinator is away then', async () => {
  const world = new FakeWorld();
  const network = world.createNetwork('net', '10.1.0.0/24');
  const h1 = hostOn(world, 'h1');
  const h2 = hostOn(world, 'h2');
  await h1.book.request(network, 4);
  await h2.book.request(network, 4);
  const key = `${network.id}/10.1.0.20`;
  await h1.book.requestGiven(network, '10.1.0.20');
  h1.mesh.setConnected(false);
  await h1.book.release(network.id, '10.1.0.20');
  expect(h1.journal.addresses.get(key)).toMatchObject({ state: 'resting', claimed: true });
  // Meanwhile its own container may have it again.
  expect(await h1.book.requestGiven(network, '10.1.0.20')).toBe('10.1.0.20');
  await h1.book.release(network.id, '10.1.0.20');
  h1.mesh.setConnected(true);
  await until('released', () => !h1.journal.addresses.has(key) && !world.addresses.has(key));
  await until('back at h2', () => h2.journal.addresses.get(key)?.state === 'resting');
  expect(await h2.book.requestGiven(network, '10.1.0.20')).toBe('10.1.0.20');
});

test('an address that is being claimed is nobody else’s, also when its block comes by another way', async () => {
  const world = new FakeWorld();
  const network = world.createNetwork('net', '10.1.0.0/24');
  const { book, mesh } = hostOn(world, 'h1');
  let go: () => void = () => undefined;
  const answered = new Promise<void>((resolve) => (go = resolve));
  const claim = mesh.claimAddress.bind(mesh);
  mesh.claimAddress = async (...of) => {
    const answer = await claim(...of);
    await answered;
    return answer;
  };
  const given = book.requestGiven(network, '10.1.0.2');
  await until('the block', () => world.blocksOf(network.id).length === 1);
  // Asked for all of it meanwhile: the answer on its way says that the host has it.
  expect(await book.giveBack(network.id, '10.1.0.0/28')).toEqual(['10.1.0.0/28']);
  const more = await Promise.all([1, 2, 3].map(() => book.request(network, 4)));
  expect(await book.giveBack(network.id, '10.1.0.0/28')).toEqual(['10.1.0.0/28']);
  go();
  expect(new Set([await given, ...more]).size).toBe(4);
});

test('grant: the same host twice, another host never', async () => {
  const world = new FakeWorld();
  const network = world.createNetwork('net', '10.1.0.0/24');
  const { book } = hostOn(world, 'h1');
  await book.request(network, 4);
  await book.grant(network.id, '10.1.0.5', 'x');
  await book.grant(network.id, '10.1.0.5', 'x');
  await expect(book.grant(network.id, '10.1.0.5', 'y')).rejects.toMatchObject({ code: 'ALREADY_EXISTS' });
  await expect(book.grant(network.id, '10.1.0.2', 'x')).rejects.toMatchObject({
    code: 'ALREADY_EXISTS',
    message: expect.stringContaining('on host h1'),
  });
  await expect(book.grant(network.id, '10.1.0.1', 'x')).rejects.toMatchObject({ code: 'FAILED_PRECONDITION' });
  await expect(book.grant(network.id, '10.1.0.99', 'x')).rejects.toMatchObject({ code: 'FAILED_PRECONDITION' });
});

test('an allowed address that was granted is given to nobody, with or without the mesh, until it is nobody’s', async () => {
  const world = new FakeWorld();
  const network = world.createNetwork('net', '10.1.0.0/29'); // .2 to .6
  const { book, journal, mesh } = hostOn(world, 'h1');
  expect(await book.request(network, 4)).toBe('10.1.0.2');
  const key = `${network.id}/10.1.0.3`;
  await book.grant(network.id, '10.1.0.3', 'x');
  expect(journal.durable).toBe(1);
  world.allow(network.id, 'e', [{ ip: '10.1.0.3', mac: '' }]);
  await expect(book.requestGiven(network, '10.1.0.3')).rejects.toMatchObject({
    message: expect.stringContaining('allowed address of e'),
  });
  // The agent's view may be lost or old: the journal says enough.
  mesh.setConnected(false);
  mesh.view = () => ({ revision: world.revision, networks: new Map(), routers: new Map(), interests: new Map() });
  const rest = ['10.1.0.4', '10.1.0.5', '10.1.0.6'];
  for (const ip of rest) expect(await book.request(network, 4)).toBe(ip);
  await expect(book.request(network, 4)).rejects.toMatchObject({ code: 'UNAVAILABLE' });
  mesh.view = FakeMesh.prototype.view;
  clock.advance(120_000);
  mesh.setConnected(true);
  expect(journal.addresses.get(key)).toMatchObject({ state: 'lent' });
  world.allow(network.id, 'e', []);
  await until('it is back', () => journal.addresses.get(key)?.state === 'resting');
  expect(await book.requestGiven(network, '10.1.0.3')).toBe('10.1.0.3');
});

test('giveBack keeps what is used, lent or resting, and one free address for a host at work', async () => {
  const world = new FakeWorld();
  const network = world.createNetwork('net', '10.1.0.0/24');
  const { book, journal } = hostOn(world, 'h1');
  const first = await book.request(network, 4); // .2
  expect(await book.giveBack(network.id, '10.1.0.0/28')).toEqual(['10.1.0.2/32']);
  expect(journal.durable).toBe(1);
  expect([...journal.blocks.values()].map((b) => b.cidr)).toEqual(['10.1.0.2/32']);
  expect(await book.giveBack(network.id, '10.1.0.0/28')).toEqual(['10.1.0.2/32']); // asked again
  await book.release(network.id, first);
  expect(await book.giveBack(network.id, '10.1.0.2/32')).toEqual(['10.1.0.2/32']); // resting
  clock.advance(31_000);
  expect(await book.giveBack(network.id, '10.1.0.2/32')).toEqual([]);
  expect(journal.blocks.size + journal.addresses.size).toBe(0);
});

test('giveBack at the last keeps only what is used or lent', async () => {
  const world = new FakeWorld();
  const network = world.createNetwork('net', '10.1.0.0/24');
  const { book } = hostOn(world, 'h1');
  const [used, resting] = [await book.request(network, 4), await book.request(network, 4)];
  await book.release(network.id, resting);
  expect(await book.giveBack(network.id, '10.1.0.0/28', false)).toEqual(['10.1.0.2/31']);
  expect(await book.giveBack(network.id, '10.1.0.0/28', true)).toEqual([`${used}/32`]);
});

test('exhausted only when every usable address of all hosts is taken', async () => {
  const world = new FakeWorld();
  const network = world.createNetwork('net', '10.1.0.0/27'); // 29 usable
  const [h1, h2] = [hostOn(world, 'h1'), hostOn(world, 'h2')];
  await h2.book.request(network, 4);
  const got = new Set<string>();
  for (let i = 0; i < 28; i++) got.add(await h1.book.request(network, 4));
  expect(got.size).toBe(28);
  await expect(h1.book.request(network, 4)).rejects.toMatchObject({ code: 'RESOURCE_EXHAUSTED' });
});

test('what an endpoint shares or a peer has is given to nobody', async () => {
  const world = new FakeWorld();
  const network = world.createNetwork('net', '10.7.0.0/24');
  const { mesh, book } = hostOn(world, 'h1');
  expect(await book.request(network, 4)).toBe('10.7.0.2');
  const view = mesh.view.bind(mesh);
  const blank = { blocks: new Map(), endpoints: new Map(), peers: new Map(), addresses: new Map() };
  const allowed = [{ ip: '10.7.0.3', mac: '' }];
  const settings = {
    endpointId: 'e'.repeat(64),
    networkId: network.id,
    allowed,
    draining: false,
    updatedAt: '',
    revision: 0n,
  };
  const router = { name: 'router', macs: [{ mac: '02:00:00:00:00:01', ip: '10.7.0.4' }] };
  const interest = {
    ...blank,
    networkId: network.id,
    memberships: new Map(),
    reservations: new Map(),
    services: new Map(),
    policies: new Map(),
    settings: new Map([[settings.endpointId, settings]]),
    externals: new Map([
      ['x', ExternalPeer.fromPartial({ ...router, id: 'x', networkId: network.id, vtep: '192.0.2.9' })],
    ]),
  };
  mesh.view = () => {
    const now = view();
    return {
      ...now,
      interests: new Map(now.interests).set(network.id, {
        ...interest,
        ...now.interests.get(network.id),
        settings: interest.settings,
        externals: interest.externals,
      }),
    };
  };
  expect(await book.request(network, 4)).toBe('10.7.0.5');
  await expect(book.requestGiven(network, '10.7.0.3')).rejects.toMatchObject({
    code: 'ALREADY_EXISTS',
    message: expect.stringContaining('allowed address of eeeeeeeeeeee'),
  });
  await expect(book.requestGiven(network, '10.7.0.4')).rejects.toMatchObject({
    code: 'ALREADY_EXISTS',
    message: expect.stringContaining('external peer router'),
  });
});
