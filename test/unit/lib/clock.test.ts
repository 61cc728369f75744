import { expect, test } from 'vitest';
import { delay, FakeClock, systemClock } from '../../../lib/clock.ts';

test('timers of the fake clock run in order, once, unless aborted', async () => {
  const clock = new FakeClock(1000);
  const ran: string[] = [];
  const stop = new AbortController();
  clock.setTimer(20, () => ran.push(`b@${clock.monotonic()}`));
  clock.setTimer(10, () => {
    ran.push(`a@${clock.monotonic()}`);
    clock.setTimer(5, () => ran.push(`c@${clock.now()}`));
  });
  clock.setTimer(12, () => ran.push('never'), stop.signal);
  stop.abort();
  await clock.advance(30);
  expect(ran).toEqual(['a@10', 'c@1015', 'b@20']);
  expect(clock.pending).toBe(0);
  clock.jump(-500);
  expect(clock.now()).toBe(530);
  expect(clock.monotonic()).toBe(30);
});

test('delay resolves, or rejects with the reason', async () => {
  const clock = new FakeClock();
  const stop = new AbortController();
  let done = false;
  const first = delay(clock, 10).then(() => {
    done = true;
  });
  await clock.advance(9);
  expect(done).toBe(false);
  await clock.advance(1);
  await first;
  const second = delay(clock, 10, stop.signal);
  stop.abort(new Error('why'));
  await expect(second).rejects.toThrow('why');
  await expect(delay(systemClock(), 10, stop.signal)).rejects.toThrow('why');
  await delay(systemClock(), 1);
});
