import { expect, test } from 'vitest';
import { Session } from '../../../coordinator/session.ts';
import { Topics } from '../../../coordinator/topics.ts';
import { Wire } from '../../../coordinator/wire.ts';
import type { CoordinatorMessage } from '../../../gen/weft/v1/session.ts';
import { WeftError } from '../../../lib/errors.ts';
import { FakeState } from '../../harness/fake-state.ts';
import { aHost, aNetworkRecord, anEndpoint } from './samples.ts';

const N = 'n1';
const later = (): Promise<void> => new Promise((resolve) => setImmediate(resolve));

function begin(interest: string[] = [N]) {
  const state = new FakeState();
  state.commit({ network: N, after: aNetworkRecord(N) }, { host: 'h1', after: aHost('h1') });
  const topics = new Topics(state, 20);
  state.subscribe((set) => topics.apply(set));
  const sent: CoordinatorMessage[] = [];
  const sink = { room: Number.POSITIVE_INFINITY };
  const encoded: string[] = [];
  const session = new Session(
    's1',
    aHost('h1'),
    0n,
    { write: (message) => sent.push(message) < sink.room },
    {
      topics,
      wire: new Wire((kind) => encoded.push(kind)),
      revision: () => state.revision,
      epoch: 1n,
      sent: () => {},
      progressed: () => {},
    },
  );
  const welcome = { sessionId: 's1', epoch: 1n, coordinator: 'c', clusterId: '', vxlanPort: 4789, host: undefined };
  session.start(welcome, interest);
  const kinds = (): (string | undefined)[] => sent.map((m) => m.body?.$case);
  const counted = (m: CoordinatorMessage): bigint[] => {
    const body = m.body;
    const is = body?.$case === 'catalogue' || body?.$case === 'network' || body?.$case === 'sync';
    if (body?.$case === 'settings') return [body.value.revision?.number ?? 0n];
    return is ? [body.value.revision?.number ?? 0n] : [];
  };
  /** The host has applied all messages up to a revision. */
  const ack = (number: bigint, failure = ''): void => {
    const messages = BigInt(sent.flatMap(counted).filter((revision) => revision <= number).length);
    session.ack({ applied: { epoch: 1n, number }, failure, messages });
  };
  const change = (n: number, of = N): bigint =>
    state.commit({ endpoint: `e${n}`, of, after: anEndpoint(of, 'h1', n, `10.0.0.${n}`) });
  return { state, topics, session, sent, sink, kinds, ack, change, encoded };
}

test('welcome, everything, Sync; then one message for what came together', async () => {
  const { kinds, session, change, ack, sent } = begin();
  expect(kinds()).toEqual(['welcome', 'catalogue', 'network', 'sync']);
  expect(session.inSync).toBe(false);
  ack(2n);
  expect(session.inSync).toBe(true);
  change(2);
  change(3);
  const last = change(4);
  expect(kinds()).toHaveLength(4);
  await later();
  expect(kinds().slice(4)).toEqual(['network']);
  expect(sent[4]?.body).toMatchObject({
    value: { basedOn: { number: 2n }, revision: { number: last }, complete: false },
  });
});

test('applied: nothing before the first view is, then up to what is missing, or all that is known', async () => {
  const { session, state, change, ack } = begin();
  expect(session.applied).toBe(0n);
  ack(state.revision);
  expect(session.applied).toBe(state.revision);
  // Of no concern here.
  state.commit({ endpoint: 'x', of: 'other', after: anEndpoint('other', 'h9', 1, '10.9.0.1') });
  expect(session.applied).toBe(state.revision);
  const first = change(2);
  expect(session.applied).toBe(first - 1n);
  await later();
  const second = change(3);
  await later();
  expect(session.applied).toBe(first - 1n);
  ack(first);
  expect(session.applied).toBe(second - 1n);
  expect(session.lagging).toBe(true);
  ack(second);
  expect(session.applied).toBe(state.revision);
  expect(session.lagging).toBe(false);
});

test('applied: nothing while a network that has come to concern the host is not', async () => {
  const { session, state, ack } = begin();
  ack(state.revision);
  const at = state.commit({ endpoint: 'x', of: 'other', after: anEndpoint('other', 'h9', 1, '10.9.0.1') });
  state.commit({ endpoint: 'y', of: 'third', after: anEndpoint('third', 'h9', 2, '10.9.1.1') });
  session.setInterest('other', true);
  expect(session.applied).toBeLessThan(at);
  await later();
  expect(session.applied).toBeLessThan(at);
  ack(state.revision);
  expect(session.applied).toBe(state.revision);
});

test('a failure is kept until the next acknowledgement, which also ends being slow', async () => {
  const { session, change, ack } = begin();
  ack(2n);
  session.slow = true;
  const at = change(2);
  await later();
  ack(at - 1n, 'flow table is full');
  expect(session).toMatchObject({ failure: 'flow table is full', slow: true, lagging: true });
  ack(at);
  expect(session).toMatchObject({ failure: '', slow: false, lagging: false });
});

test('acknowledgements of another epoch count for nothing', () => {
  const { session } = begin();
  session.ack({ applied: { epoch: 7n, number: 100n }, failure: '', messages: 100n });
  expect(session.inSync).toBe(false);
});

test('a stream that takes no more is left alone, and then gets one message for all', async () => {
  const { session, sink, sent, change, kinds, ack } = begin();
  ack(2n);
  sink.room = 5;
  change(2);
  await later();
  expect(kinds()).toHaveLength(5);
  for (let n = 3; n < 10; n++) {
    change(n);
    await later();
  }
  expect(kinds()).toHaveLength(5);
  sink.room = Number.POSITIVE_INFINITY;
  session.drained();
  expect(kinds().slice(5)).toEqual(['network']);
  expect(sent[5]?.body).toMatchObject({
    value: { complete: false, basedOn: { number: 3n }, revision: { number: 10n } },
  });
  // More than the log keeps (20 objects).
  sink.room = 7;
  change(20);
  await later();
  for (let n = 21; n < 60; n++) change(n);
  sink.room = Number.POSITIVE_INFINITY;
  session.drained();
  expect(sent.at(-1)?.body).toMatchObject({ value: { complete: true } });
});

test('after the first Sync messages go out in the order of revisions', async () => {
  const { state, sent, kinds, change, ack } = begin([N, 'n2']);
  ack(state.revision);
  const before = sent.length;
  const old = change(2);
  const middle = change(2, 'n2');
  state.commit({ network: 'n3', after: aNetworkRecord('n3') });
  await later();
  expect(kinds().slice(before)).toEqual(['network', 'network', 'catalogue']);
  expect(sent[before]?.body).toMatchObject({ value: { revision: { number: old } } });
  expect(sent[before + 1]?.body).toMatchObject({ value: { revision: { number: middle } } });
});

test('the host is told that it is drained, and counts as lagging until it knows', async () => {
  const { session, kinds, sent, ack, state } = begin();
  ack(state.revision);
  session.stored({ ...aHost('h1'), datapath: 'system' });
  expect(kinds()).toHaveLength(4);
  const revision = state.commit({ host: 'h1', after: { ...aHost('h1'), draining: true } });
  session.stored({ ...aHost('h1'), draining: true });
  expect(sent.at(-1)?.body).toMatchObject({ $case: 'settings', value: { revision: { number: revision } } });
  expect(session.applied).toBe(revision - 1n);
  ack(revision);
  expect(session.applied).toBe(revision);
  session.stored({ ...aHost('h1'), draining: true });
  expect(kinds()).toEqual(['welcome', 'catalogue', 'network', 'sync', 'settings']);
});

test('interest that comes brings everything, interest that goes brings nothing more', async () => {
  const { session, kinds, change, ack, state } = begin([]);
  expect(kinds()).toEqual(['welcome', 'catalogue', 'sync']);
  ack(state.revision);
  change(2);
  await later();
  expect(kinds()).toHaveLength(3);
  session.setInterest(N, true);
  await later();
  expect(kinds().slice(3)).toEqual(['network']);
  expect(session.applied).toBe(0n);
  ack(state.revision);
  expect(session.applied).toBe(state.revision);
  session.setInterest(N, false);
  change(3);
  await later();
  expect(kinds()).toHaveLength(4);
});

test('questions are answered, refused, too late, or ended with the session', async () => {
  const { session, sent } = begin();
  const ask = (ms = 1000) => session.ask({ $case: 'audit', value: { noHeal: true } }, ms);
  const answer = (code: number, message = ''): void => {
    const body = sent.at(-1)?.body;
    if (body?.$case === 'query') session.answer({ id: body.value.id, code, message, body: undefined });
  };
  const good = ask();
  answer(0);
  expect((await good).code).toBe(0);
  const bad = ask();
  answer(6, 'it is taken\nhint: take another');
  await expect(bad).rejects.toMatchObject({ code: 'ALREADY_EXISTS', message: 'it is taken', hint: 'take another' });
  await expect(ask(10)).rejects.toMatchObject({ code: 'DEADLINE_EXCEEDED' });
  const cut = ask();
  session.end(new WeftError('ABORTED', 'newer'));
  await expect(cut).rejects.toMatchObject({ code: 'UNAVAILABLE' });
  await expect(ask()).rejects.toMatchObject({ code: 'UNAVAILABLE' });
  expect(await session.ending).toMatchObject({ code: 'ABORTED' });
});

test('one revision in two messages is applied when both are', async () => {
  const { session, state, change, sent, ack } = begin([N, 'n2']);
  ack(state.revision);
  const before = state.revision;
  const of = (network: string, id: string) => ({
    endpoint: id,
    of: network,
    after: anEndpoint(network, 'h1', 7, '10.0.0.7'),
  });
  const both = state.commit(of(N, 'a'), of('n2', 'b'));
  await later();
  expect(sent.slice(-2).map((m) => m.body?.$case)).toEqual(['network', 'network']);
  session.ack({ applied: { epoch: 1n, number: both }, failure: '', messages: 5n });
  expect(session.applied).toBe(before);
  session.ack({ applied: { epoch: 1n, number: both }, failure: '', messages: 6n });
  expect(session.applied).toBe(both);
  expect(change(9)).toBeGreaterThan(both);
});
