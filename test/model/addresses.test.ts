import fc from 'fast-check';
import { expect, test } from 'vitest';
import { AddressBook } from '../../agent/addresses.ts';
import { containsCidr, type Family, parseCidr } from '../../lib/addr.ts';
import { silentLog } from '../../lib/log.ts';
import { FakeWorld } from '../harness/fake-mesh.ts';
import { reservationAt, reserve, serviceAt, unreserve } from '../harness/fake-reservations.ts';
import { serve, unserve } from '../harness/fake-services.ts';
import { FakeClock, MemoryJournal } from '../harness/memory-journal.ts';

/** One thing that a host does, or that happens to it. */
type Step =
  | { readonly do: 'request' | 'release' | 'cut' | 'join'; readonly host: number; readonly n: number }
  | { readonly do: 'given' | 'reserve' | 'unreserve'; readonly host: number; readonly n: number }
  | { readonly do: 'serve' | 'unserve'; readonly host: number; readonly n: number }
  | { readonly do: 'time' | 'idle'; readonly host: number; readonly n: number };

const HOSTS = 3;
const step: fc.Arbitrary<Step> = fc.record({
  do: fc.constantFrom(
    ...(['request', 'request', 'request', 'release', 'release', 'given', 'cut', 'join', 'time', 'idle'] as const),
    ...(['given', 'reserve', 'unreserve', 'serve', 'unserve'] as const),
  ),
  host: fc.nat(HOSTS - 1),
  n: fc.nat(31),
}) as fc.Arbitrary<Step>;

/** Runs the steps, several at a time, with seeded interleaving; checks I1 after each. */
async function walk(steps: readonly Step[], family: Family, order: () => number): Promise<void> {
  const world = new FakeWorld();
  const clock = new FakeClock();
  const pause = async (): Promise<void> => {
    for (let i = order() % 4; i > 0; i--) await Promise.resolve();
  };
  world.pause = pause;
  // Tight: every way of getting addresses is used.
  const network = world.createNetwork('net', family === 4 ? '10.0.0.0/27' : 'fd00::/123');
  const given = (n: number): string => (family === 4 ? `10.0.0.${n}` : `fd00::${n === 0 ? '' : n.toString(16)}`);
  const hosts = Array.from({ length: HOSTS }, (_, i) => {
    const mesh = world.host(`h${i + 1}`);
    const journal = new MemoryJournal();
    journal.pause = pause;
    const book = new AddressBook({ journal, mesh, clock, log: silentLog() });
    mesh.book = book;
    book.start();
    return { mesh, book, journal };
  });
  /** Oracle: address to host, while Docker has it. */
  const held = new Map<string, number>();
  const reserved = new Set<string>();
  /** Of services: from the answer on, until its end, no endpoint has one. */
  const virtual = new Set<string>();
  const running = new Set<Promise<void>>();
  const take = (ip: string, host: number): void => {
    expect(held.has(ip), `${ip} is given to h${host + 1}, and h${(held.get(ip) ?? 0) + 1} has it`).toBe(false);
    expect(virtual.has(ip), `${ip} is given to h${host + 1}, and is a service's`).toBe(false);
    held.set(ip, host);
  };
  const one = async (s: Step): Promise<void> => {
    const { mesh, book } = hosts[s.host]!;
    if (s.do === 'request') {
      const ip = await book.request(network, family);
      expect(reserved.has(ip), `${ip} is reserved, and picked by h${s.host + 1}`).toBe(false);
      take(ip, s.host);
    } else if (s.do === 'reserve') {
      // From the answer on, until its end, nobody picks it.
      await reserve(world, network.id, `r${s.n}`, given(s.n));
      if (reservationAt(world, network.id, given(s.n)) !== undefined) reserved.add(given(s.n));
    } else if (s.do === 'unreserve') {
      reserved.delete(given(s.n));
      unreserve(world, network.id, `r${s.n}`);
    } else if (s.do === 'serve') {
      await serve(world, network.id, `s${s.n}`, given(s.n));
      if (serviceAt(world, network.id, given(s.n)) === undefined) return;
      expect(held.has(given(s.n)), `${given(s.n)} has become a service's, and a host has it`).toBe(false);
      virtual.add(given(s.n));
    } else if (s.do === 'unserve') {
      virtual.delete(given(s.n));
      unserve(world, network.id, `s${s.n}`);
    } else if (s.do === 'given') take(await book.requestGiven(network, given(s.n)), s.host);
    else if (s.do === 'cut') mesh.setConnected(false);
    else if (s.do === 'join') mesh.setConnected(true);
    else if (s.do === 'time') clock.advance(s.n * 2_000);
    else if (s.do === 'idle') {
      clock.advance(600_000);
      if (s.n % 4 === 0) mesh.failNext('releaseBlocks', 'DEADLINE_EXCEEDED');
      await book.releaseUnused();
    } else {
      const mine = [...held].filter(([, host]) => host === s.host);
      const [ip] = mine[s.n % Math.max(1, mine.length)] ?? [];
      if (ip === undefined) return;
      held.delete(ip); // Docker asks for nothing twice
      await book.release(network.id, ip);
    }
  };
  for (const s of steps) {
    const run = one(s).catch((error: { code?: string; message?: string }) => {
      const fine = ['RESOURCE_EXHAUSTED', 'UNAVAILABLE', 'ALREADY_EXISTS', 'FAILED_PRECONDITION', 'DEADLINE_EXCEEDED'];
      if (!fine.includes(error.code ?? '')) throw error;
    });
    running.add(run);
    void run.finally(() => running.delete(run)).catch(() => undefined);
    if (order() % 3 === 0) await Promise.all(running);
    else await pause();
    blocksAreDisjoint(world);
  }
  await Promise.all(running);
  for (const { book } of hosts) book.close();
  // The journals agree with the oracle: each address that Docker has is in use on its host, and on no other.
  for (const [index, { journal, mesh }] of hosts.entries()) {
    // No host takes for its own what the mesh may give to another (a block that is just being taken back is larger there).
    for (const { cidr } of journal.blocks.values()) {
      const around = world.blocksOf(network.id).find((b) => containsCidr(parseCidr(b.cidr), parseCidr(cidr)));
      expect(around?.hostId, `block ${cidr} of h${index + 1}`).toBe(mesh.hostId);
    }
    for (const row of journal.addresses.values())
      if (row.state === 'requested') expect(held.get(row.ip), `${row.ip} on h${index + 1}`).toBe(index);
  }
}

function blocksAreDisjoint(world: FakeWorld): void {
  const cidrs = [...world.blocks.values()].map((b) => b.cidr);
  expect(new Set(cidrs).size).toBe(cidrs.length);
}

test('no address is ever held twice: requests, claims, reservations, services, lending, giving back, cuts (I1)', async () => {
  await fc.assert(
    fc.asyncProperty(
      fc.array(step, { minLength: 10, maxLength: 120 }),
      fc.constantFrom<Family>(4, 6),
      fc.infiniteStream(fc.nat(11)),
      async (steps, family, stream) => {
        await walk(steps, family, () => stream.next().value as number);
      },
    ),
    { numRuns: Number(process.env['WEFT_RUNS'] ?? 300) },
  );
}, 600_000);
