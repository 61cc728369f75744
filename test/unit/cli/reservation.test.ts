import { afterAll, beforeAll, beforeEach, expect, test } from 'vitest';
import { Reservation } from '../../../gen/weft/v1/types.ts';
import { WeftError } from '../../../lib/errors.ts';
import { FakeControl } from './fake-control.ts';
import { BLUE, endpoint } from './fixtures.ts';

let fake: FakeControl;
beforeAll(async () => {
  fake = await FakeControl.start();
});
afterAll(() => fake[Symbol.asyncDispose]());
beforeEach(() => {
  fake.answers.clear();
  fake.answers.set('waitApplied', () => ({ revision: undefined, applied: true, laggards: [] }));
  fake.calls.length = 0;
});

const DB = Reservation.fromPartial({
  id: '0123456789abcdef',
  networkId: BLUE.id,
  name: 'db-1',
  ips: ['10.128.0.7', 'fd00::7'],
  mac: '02:aa:00:00:00:07',
  labels: { tier: 'db' },
  revision: 12n,
});
const DB_JSON = {
  name: 'db-1',
  network: 'blue',
  ips: ['10.128.0.7', 'fd00::7'],
  mac: '02:aa:00:00:00:07',
  labels: { tier: 'db' },
  holder: { endpoint: 'a'.repeat(64), host: 'h1', container: 'db' },
  revision: '12',
};
const list = (...reservations: object[]) =>
  fake.answers.set('listReservations', () => ({
    reservations,
    networkNames: { [BLUE.id]: 'blue', other: 'green' },
    hostNames: { h1id: 'h1' },
    revision: undefined,
  }));
const HELD = { reservation: DB, holder: endpoint('a', 'h1id', 'db', '10.128.0.7') };

test('reservation create', async () => {
  list(HELD);
  fake.answers.set('createReservation', () => ({ status: HELD, revision: { epoch: 1n, number: 12n } }));
  const argv = ['reservation', 'create', 'db-1', '--network', 'blue', '--ip', '10.128.0.7', '--ip', 'fd00::7'];
  argv.push('--mac', '02:aa:00:00:00:07', '--label', 'tier=db');
  expect(await fake.run(...argv)).toMatchObject({ code: 0, out: 'db-1\n', err: '' });
  expect(fake.calls[0]).toMatchObject({
    method: 'createReservation',
    request: {
      project: '',
      network: 'blue',
      reservation: { name: 'db-1', ips: ['10.128.0.7', 'fd00::7'], mac: '02:aa:00:00:00:07', labels: { tier: 'db' } },
    },
  });
  expect((await fake.run(...argv, '--json')).json()).toEqual(DB_JSON);
});

test.each([
  [['--network', 'blue'], 2],
  [['--ip', '10.128.0.7'], 2],
  [['--network', '', '--ip', '10.128.0.7'], 1],
  [['--network', 'blue', '--ip', ''], 1],
  [['--network', 'blue', '--ip', '10.128.0.7', '--mac', ''], 1],
  [['--network', 'blue', '--ip', '10.128.0.7', '--label', '=x'], 2],
])('reservation create %j is refused', async (flags, code) => {
  expect(await fake.run('reservation', 'create', 'db-1', ...flags)).toMatchObject({ code, out: '' });
  expect(fake.calls).toEqual([]);
});

test('reservation ls, inspect, rm', async () => {
  const free = { reservation: { ...DB, name: 'free', ips: ['10.128.0.9'], mac: '', labels: {} }, holder: undefined };
  list(HELD, free, { reservation: { ...DB, networkId: 'other', name: 'free' }, holder: undefined });
  expect((await fake.run('reservation', 'ls', '--network', 'blue', '--json')).json()).toMatchObject([
    DB_JSON,
    { name: 'free', mac: null, holder: null, labels: {} },
    { name: 'free', network: 'green' },
  ]);
  expect(fake.calls[0]?.request).toEqual({ project: '', network: 'blue' });
  expect((await fake.run('reservation', 'ls')).out.split('\n').slice(0, 3)).toEqual([
    'NAME   NETWORK   IP                   MAC                 HOLDER',
    'db-1   blue      10.128.0.7,fd00::7   02:aa:00:00:00:07   h1/db',
    'free   blue      10.128.0.9           -                   -',
  ]);
  expect((await fake.run('reservation', 'inspect', 'db-1', '--json')).json()).toEqual(DB_JSON);
  expect((await fake.run('reservation', 'inspect', 'free')).err).toContain('is in several networks: blue, green');
  expect(await fake.run('reservation', 'inspect', 'x')).toMatchObject({ code: 1, err: expect.stringContaining('“x”') });
  fake.answers.set('removeReservation', ({ name }: { name: string }) => {
    if (name === 'gone') throw new WeftError('NOT_FOUND', 'There is no reservation gone.');
    return { revision: { epoch: 1n, number: 13n } };
  });
  const removed = await fake.run('reservation', 'rm', 'gone', 'db-1', '--network', 'blue');
  expect(removed).toMatchObject({ code: 1, out: 'db-1\n', err: expect.stringContaining('no reservation gone') });
  expect(await fake.run('reservation', 'rm', 'db-1')).toMatchObject({ code: 2 });
});

test('names of reservations are completed', async () => {
  list(HELD);
  expect((await fake.run('__complete', '--', 'reservation', 'inspect', '')).out).toBe('db-1\n');
  expect((await fake.run('__complete', '--', 'reservation', '')).out).toBe('create\ninspect\nls\nrm\n');
});
