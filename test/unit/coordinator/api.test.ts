import { expect, test } from 'vitest';
import { hostOf, networkOf, projectOf } from '../../../coordinator/api/resolve.ts';
import { Events } from '../../../coordinator/events.ts';
import { parseFlags } from '../../../coordinator/main.ts';
import { notIts } from '../../../coordinator/owners.ts';
import type { Event } from '../../../lib/model.ts';
import { FakeState } from '../../harness/fake-state.ts';
import { aHost, aNetworkRecord, anEndpoint } from './samples.ts';

test('names, ids and unique prefixes are resolved', () => {
  const state = new FakeState();
  const [one, two] = ['00aa112233445566', '00aa118888888888'];
  state.commit(
    { network: one, after: aNetworkRecord(one, { name: 'blue' }) },
    { network: two, after: aNetworkRecord(two, { name: 'abcd' }) },
    { host: one, after: aHost(one, { name: 'h1' }) },
  );
  expect(networkOf(state, '', 'blue').id).toBe(one);
  expect(networkOf(state, 'default', two).name).toBe('abcd');
  expect(networkOf(state, '', '00aa1122').name).toBe('blue');
  expect(() => networkOf(state, '', '00aa11')).toThrow(/not unique/);
  expect(() => networkOf(state, '', '00a')).toThrow(/no network/);
  expect(() => networkOf(state, '', '')).toThrow(/No network is named/);
  expect(() => networkOf(state, 'other', 'blue')).toThrow(/no project other/);
  expect(projectOf('')).toBe('default');
  expect(hostOf(state, 'h1').id).toBe(one);
  expect(hostOf(state, '00aa').name).toBe('h1');
  expect(() => hostOf(state, 'h2')).toThrow(/no host h2/);
});

test('events are read off change sets; a reservation is none until it has its name', async () => {
  const state = new FakeState();
  const events = new Events(state, () => new Date(0), 5);
  state.subscribe((set) => events.apply(set));
  const all = async (localOnly = false): Promise<Event[]> => {
    const found: Event[] = [];
    for await (const event of events.read({ localOnly, follow: false, signal: new AbortController().signal }))
      found.push(event);
    return found;
  };
  const reserved = aNetworkRecord('n1', { name: '', state: 'reserved' });
  state.commit({ network: 'n1', after: reserved }, { host: 'h1', after: aHost('h1') });
  state.commit({ network: 'n1', after: aNetworkRecord('n1', { name: 'blue' }) });
  state.commit({ presence: 'h1', after: { hostId: 'h1', coordinatorId: 'c', sessionId: 's' } });
  state.commit({ endpoint: 'e1', of: 'n1', after: anEndpoint('n1', 'h1', 1, '10.0.0.1') });
  events.add({ type: 'drift', host: 'h1', kind: 'flow' });
  expect((await all()).map((e) => `${e.type} ${e.action} ${e.host} ${e.object}`)).toEqual([
    'host create h1 ',
    'network create  blue',
    'host connect h1 h1',
    'endpoint create h1 c1',
    'drift  h1 ',
  ]);
  expect(await all(true)).toMatchObject([{ type: 'drift' }]);
  state.commit({ presence: 'h1', after: null });
  expect((await all()).map((e) => e.action)).toEqual(['create', 'connect', 'create', '', 'disconnect']);
});

test('a follower gets what comes, until it goes', async () => {
  const state = new FakeState();
  const events = new Events(state, () => new Date(0));
  const stop = new AbortController();
  const reading = events.read({ localOnly: false, follow: true, signal: stop.signal });
  const next = reading.next();
  events.add({ type: 'conflict', message: 'one' });
  expect((await next).value).toMatchObject({ type: 'conflict', message: 'one' });
  const end = reading.next();
  stop.abort();
  expect((await end).done).toBe(true);
});

test('an address that another host holds is not this host’s', () => {
  const state = new FakeState();
  const block = { networkId: 'n1', cidr: '10.0.0.16/28', hostId: 'h2', revision: 0n };
  const granted = {
    networkId: 'n1',
    address: '10.0.0.17',
    hostId: 'h1',
    state: 'held',
    grantorHostId: 'h2',
    reason: '',
    revision: 0n,
  };
  state.commit(
    { host: 'h2', after: aHost('h2') },
    { block: block.cidr, of: 'n1', after: block },
    { address: granted.address, of: 'n1', after: granted },
  );
  const at = (ip: string, host = 'h1', network = 'n1') => notIts(state, host, anEndpoint(network, host, 1, ip));
  expect(at('10.0.0.18')).toMatch(/10\.0\.0\.18, which host h2 holds/);
  expect(at('10.0.0.17')).toBeNull();
  expect(at('10.0.0.17', 'h2')).toMatch(/host h1 holds/);
  expect(at('10.0.0.18', 'h2')).toBeNull();
  expect(at('10.0.0.99')).toBeNull();
  expect(at('10.0.0.18', 'h1', 'n2')).toBeNull();
});

test('flags replace keys of the configuration', () => {
  expect(parseFlags(['--config', '/x', '--etcd', 'http://a:1,http://b:2', '--listen', '127.0.0.1:1'])).toEqual({
    config: '/x',
    overrides: { etcd: { endpoints: ['http://a:1', 'http://b:2'] }, listen: ['127.0.0.1:1'] },
  });
  expect(parseFlags(['--etcd', 'embedded'])).toEqual({ config: null, overrides: { etcd: 'embedded' } });
  expect(() => parseFlags(['--what'])).toThrow(expect.objectContaining({ code: 'INVALID_ARGUMENT' }));
});
