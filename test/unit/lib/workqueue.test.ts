import { expect, test } from 'vitest';
import { FakeClock } from '../../../lib/clock.ts';
import { Workqueue } from '../../../lib/workqueue.ts';

test('a key waits once, and runs again when added while it runs', async () => {
  const clock = new FakeClock();
  const ran: string[] = [];
  let gate = Promise.withResolvers<void>();
  const queue = new Workqueue<string>({
    clock,
    work: async (key) => {
      ran.push(key);
      await gate.promise;
    },
  });
  queue.add('a');
  queue.add('b');
  queue.add('b');
  await clock.advance(0);
  expect(ran).toEqual(['a']);
  queue.add('a');
  queue.add('a');
  gate.resolve();
  await queue.idle();
  expect(ran).toEqual(['a', 'b', 'a']);
  gate = Promise.withResolvers();
  gate.resolve();
  await queue.close();
  queue.add('c');
  expect(queue.size).toBe(0);
});

test('failures are tried again later and later, and forgotten after a success', async () => {
  const clock = new FakeClock();
  const at: number[] = [];
  let failing = true;
  const attempts: number[] = [];
  const queue = new Workqueue<string>({
    clock,
    minDelayMs: 100,
    maxDelayMs: 400,
    random: () => 0.99999,
    onError: (_key, _error, attempt) => attempts.push(attempt),
    work: async () => {
      at.push(Math.round(clock.monotonic()));
      if (failing) throw new Error('no');
    },
  });
  queue.add('a');
  await clock.advance(1200);
  expect(at).toEqual([0, 100, 300, 700, 1100]);
  failing = false;
  queue.add('a');
  await clock.advance(1000);
  expect(at.slice(5)).toEqual([1200]);
  failing = true;
  queue.add('a');
  await clock.advance(0);
  expect(attempts).toEqual([1, 2, 3, 4, 5, 1]);
  await queue.close();
});

test('close aborts what runs and waits for it', async () => {
  const clock = new FakeClock();
  let aborted = false;
  const queue = new Workqueue<string>({
    clock,
    concurrency: 2,
    work: (_key, signal) =>
      new Promise((_resolve, reject) => {
        signal.addEventListener('abort', () => {
          aborted = true;
          reject(new Error('stopped'));
        });
      }),
  });
  queue.add('a');
  queue.add('b');
  queue.addAfter('c', 100);
  await clock.advance(0);
  await queue.close();
  expect(aborted).toBe(true);
  await clock.advance(1000);
  expect(queue.size).toBe(0);
});
