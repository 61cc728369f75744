import { type ChildProcess, spawn } from 'node:child_process';
import { once } from 'node:events';
import { mkdtemp, rm, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterAll, beforeAll, describe, expect, test } from 'vitest';
import { SessionService } from '../../../gen/weft/v1/session.ts';
import type { Endpoint, Network } from '../../../lib/model.ts';
import type { FakeAgent } from '../../harness/fake-agent.ts';
import { aHost, anEndpoint, Mesh, type Node, until } from './support.ts';

const ip = (n: number): string => `10.40.${n >> 8}.${n & 255}`;
const endpoints = (
  network: Network,
  agent: FakeAgent,
  from: number,
  count: number,
  more: Partial<Endpoint> = {},
): Endpoint[] =>
  Array.from({ length: count }, (_, i) => anEndpoint(network.id, agent.host.id, from + i, ip(from + i), more));

/** Bytes of network messages sent in a host's present session. */
const networkBytes = (node: Node, agent: FakeAgent): number => {
  const sent = node.coordinator.parts.sessions.live(agent.host.id)?.sent;
  return (sent?.get('network')?.bytes ?? 0) + (sent?.get('networkComplete')?.bytes ?? 0);
};

const metric = async (node: Node, name: string, labels: Record<string, string>): Promise<number> => {
  const found = await node.coordinator.registry.getSingleMetric(name)?.get();
  const match = found?.values.find((v) => Object.entries(labels).every(([k, x]) => v.labels[k] === x));
  return match?.value ?? 0;
};

describe('what flows to the hosts', () => {
  let mesh: Mesh;
  let node: Node;

  beforeAll(async () => {
    mesh = await Mesh.start();
    node = await mesh.coordinator('coord1', { logLimit: 500 });
  });
  afterAll(async () => {
    await mesh?.[Symbol.asyncDispose]();
  });

  test('a change to one endpoint among 1,000 costs little, and only those who are interested', async () => {
    const network = await mesh.network(node, 'big', '10.40.0.0/16');
    const hello = { interest: [network.id] };
    const writer = await mesh.agent(node, aHost(1), { hello });
    await writer.register(endpoints(network, writer, 10, 1000));
    const readers = await Promise.all(Array.from({ length: 20 }, (_, i) => mesh.agent(node, aHost(10 + i), { hello })));
    const stranger = await mesh.agent(node, aHost(2));
    await writer.until('all', () => writer.views.get(network.id)?.endpoints.size === 1000);
    for (const reader of readers) expect(reader.views.get(network.id)?.endpoints.size).toBe(1000);
    // Twenty complete views of one state were encoded together, or nearly.
    expect(await metric(node, 'weft_session_messages_encoded_total', { kind: 'networkComplete' })).toBeLessThan(6);

    const before = new Map([...readers, stranger].map((agent) => [agent, networkBytes(node, agent)]));
    const strangersMessages = stranger.messages.length;
    const encoded = await metric(node, 'weft_session_messages_encoded_total', { kind: 'network' });
    const [one] = endpoints(network, writer, 500, 1, { labels: { tier: 'web' } });
    const revision = await writer.register([one!]);
    await Promise.all(readers.map((r) => r.until('told', () => r.views.get(network.id)?.at === revision.number)));
    for (const reader of readers) {
      const bytes = networkBytes(node, reader) - (before.get(reader) ?? 0);
      expect(bytes).toBeGreaterThan(0);
      expect(bytes).toBeLessThan(2048);
    }
    expect(await metric(node, 'weft_session_messages_encoded_total', { kind: 'network' })).toBe(encoded + 1);
    expect(networkBytes(node, stranger)).toBe(0);
    expect(stranger.messages).toHaveLength(strangersMessages);

    // Interest comes and goes.
    stranger.interest(network.id);
    await stranger.until('complete', () => stranger.views.get(network.id)?.endpoints.size === 1000);
    stranger.interest(network.id, false);
    await until('forgotten', () => !node.coordinator.parts.sessions.live(stranger.host.id)?.interestedIn(network.id));
    const quiet = networkBytes(node, stranger);
    await writer.register(endpoints(network, writer, 501, 1, { labels: { tier: 'db' } }));
    expect(networkBytes(node, stranger)).toBe(quiet);
    await Promise.all([...readers, stranger].map((agent) => agent.close()));
    await writer.close();
  });

  test('a reader that does not read costs nothing, and is brought up to date with one complete view', async () => {
    const network = await mesh.network(node, 'slow', '10.41.0.0/16');
    const hello = { interest: [network.id] };
    const slow = await mesh.dial(node, aHost(3), { hello, reading: false });
    const writer = await mesh.agent(node, aHost(4), { hello });
    await until('welcomed', () => node.coordinator.parts.sessions.live(slow.host.id) !== undefined);
    const fat = (round: number): Partial<Endpoint> => ({ labels: { round: `${round}`, fat: 'x'.repeat(2000) } });
    // As many bytes as the connection takes, and many more.
    for (let round = 0; round < 60; round++) await writer.register(endpoints(network, writer, 10, 50, fat(round)));
    const session = node.coordinator.parts.sessions.live(slow.host.id);
    const sent = (): number => session?.sent.get('network')?.messages ?? 0;
    expect(sent()).toBeLessThan(40);
    expect(networkBytes(node, slow)).toBeLessThan(networkBytes(node, writer) / 2);
    const stuck = sent();
    await writer.register(endpoints(network, writer, 10, 50, fat(60)));
    expect(sent()).toBe(stuck);
    expect(session?.lagging).toBe(true);
    slow.resume();
    await slow.until(
      'up to date',
      () =>
        slow.views.get(network.id)?.endpoints.get(endpoints(network, writer, 59, 1)[0]!.id)?.labels['round'] === '60',
    );
    expect(slow.ended).toBeNull();
    // More had passed than the log keeps: the rest came as one complete view, not as sixty increments.
    expect(slow.networkMessages.filter((m) => m.complete).length).toBeGreaterThan(1);
    expect(slow.views.get(network.id)?.endpoints).toEqual(writer.views.get(network.id)?.endpoints);
    await until('acknowledged', () => session?.lagging === false);
    await slow.close();
    await writer.close();
  });

  test('after a restart of the coordinator everything is as before, and etcd has not been written to needlessly', async () => {
    const network = await mesh.network(node, 'again', '10.42.0.0/24');
    const first = await mesh.agent(node, aHost(5), { hello: { interest: [network.id] } });
    const block = await first.block(network.id);
    const endpoint = anEndpoint(network.id, first.host.id, 5, '10.42.0.2');
    await first.register([endpoint]);
    await first.until('registered', () => first.views.get(network.id)?.endpoints.size === 1);
    const at = node.opened.state.endpoints.get(network.id)?.get(endpoint.id)?.revision;
    await node.close();
    expect(first.ended).toMatchObject({ code: 'UNAVAILABLE' });
    node = await mesh.coordinator('coord1', { logLimit: 500 });
    const hello = { interest: [network.id], endpoints: [endpoint], blocks: [block], applied: first.revision };
    const second = await mesh.agent(node, aHost(5), { hello });
    expect(second.messages.map((m) => m.body?.$case)).toEqual(['welcome', 'catalogue', 'network', 'sync']);
    expect(second.views.get(network.id)?.endpoints).toEqual(first.views.get(network.id)?.endpoints);
    expect(second.views.get(network.id)?.blocks).toEqual(first.views.get(network.id)?.blocks);
    expect(node.opened.state.endpoints.get(network.id)?.get(endpoint.id)?.revision).toBe(at);
    // What is not in the Hello is gone.
    await second.close();
    const third = await mesh.agent(node, aHost(5), { hello: { interest: [network.id], blocks: [block] } });
    expect(third.views.get(network.id)?.endpoints.size).toBe(0);
    await third.close();
  });

  test('a session that has ended makes no calls', async () => {
    const agent = await mesh.agent(node, aHost(6));
    const old = agent.welcome?.sessionId ?? '';
    const newer = await mesh.agent(node, aHost(6));
    newer.welcome = { ...newer.welcome!, sessionId: old };
    await expect(newer.call(SessionService.releaseBlocks, { networkId: '', cidrs: [] })).rejects.toMatchObject({
      code: 'FAILED_PRECONDITION',
    });
    await newer.close();
  });

  test('a host that has seen more than etcd has is refused', async () => {
    const strict = await mesh.coordinator('coord2', { restored: async () => false });
    const applied = { epoch: 1n, number: node.opened.state.revision + 1000n };
    await expect(mesh.agent(strict, aHost(7), { hello: { applied } })).rejects.toMatchObject({
      code: 'FAILED_PRECONDITION',
    });
    const later = { epoch: 2n, number: 1n };
    await expect(mesh.agent(strict, aHost(7), { hello: { applied: later } })).rejects.toMatchObject({
      code: 'FAILED_PRECONDITION',
    });
    const older = await mesh.agent(node, aHost(7), { hello: { applied: { epoch: 0n, number: 99_999n } } });
    await older.close();
    await strict.close();
  });

  test('an agent that hangs is noticed within 5 s', async () => {
    const dir = await mkdtemp(join(tmpdir(), 'weft-agent-'));
    let child: ChildProcess | null = null;
    try {
      const host = aHost(200);
      const tls = await mesh.certificate(host.id);
      for (const part of ['ca', 'cert', 'key'] as const) await writeFile(join(dir, part), tls[part], { mode: 0o600 });
      const script = new URL('../../harness/fake-agent-process.ts', import.meta.url).pathname;
      const files = ['ca', 'cert', 'key'].map((part) => join(dir, part));
      child = spawn(process.execPath, [script, node.address, ...files, host.id], {
        stdio: ['ignore', 'pipe', 'inherit'],
      });
      await once(child.stdout!, 'data');
      expect(node.opened.state.presences.has(host.id)).toBe(true);
      child.kill('SIGSTOP');
      const start = performance.now();
      await until('noticed', () => !node.opened.state.presences.has(host.id));
      expect(performance.now() - start).toBeLessThan(5500);
    } finally {
      child?.kill('SIGKILL');
      await rm(dir, { recursive: true, force: true });
    }
  });
});
