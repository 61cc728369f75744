import { expect, test } from 'vitest';
import { Scope } from '../../../lib/scope.ts';

test('stops last first; what fails or hangs holds up nothing', async () => {
  const events: string[] = [];
  const scope = new Scope({ stopTimeoutMs: 20, onError: (name) => events.push(`error ${name}`) });
  scope.defer('a', () => void events.push('a'));
  scope.use('b', { [Symbol.asyncDispose]: async () => void events.push('b') });
  scope.use('c', { [Symbol.dispose]: () => void events.push('c') });
  scope.defer('hang', () => new Promise(() => {}));
  scope.defer('fail', () => {
    throw new Error('no');
  });
  scope.background(
    'loop',
    (signal) =>
      new Promise((_resolve, reject) => {
        signal.addEventListener('abort', () => {
          events.push('loop');
          reject(new Error('stopped'));
        });
      }),
    () => events.push('unexpected'),
  );
  await Promise.all([scope.close(), scope.close()]);
  expect(events).toEqual(['loop', 'error fail', 'error hang', 'c', 'b', 'a']);
  expect(scope.signal.aborted).toBe(true);
  scope.defer('late', () => void events.push('late'));
  expect(events.at(-1)).toBe('late');
});

test('a background task that fails says so', async () => {
  const failed = Promise.withResolvers<unknown>();
  await using scope = new Scope();
  scope.background('loop', () => Promise.reject(new Error('broken')), failed.resolve);
  expect(await failed.promise).toMatchObject({ message: 'broken' });
});
