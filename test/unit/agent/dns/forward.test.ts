import { createSocket, type RemoteInfo } from 'node:dgram';
import { once } from 'node:events';
import { mkdtemp, rename, rm, writeFile } from 'node:fs/promises';
import { createServer } from 'node:net';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { decode, encode } from 'dns-packet';
import { describe, expect, it } from 'vitest';
import { Forwarder, type ForwarderOptions } from '../../../../agent/dns/forward.ts';
import { parseResolvConf, resolvConf, type Upstream } from '../../../../agent/dns/upstreams.ts';
import { framed } from '../../../../agent/dns/wire.ts';
import { FakeClock } from '../../../../lib/clock.ts';
import { query } from './server-fixture.ts';

type Answerer = (message: Buffer, send: (reply: Buffer) => void, from: RemoteInfo) => void;

interface Upstreamed extends AsyncDisposable, Upstream {
  readonly asked: { id: number; port: number }[];
}

/** A resolver on loopback, by UDP. */
async function upstream(answer: Answerer): Promise<Upstreamed> {
  const socket = createSocket('udp4').bind(0, '127.0.0.1');
  await once(socket, 'listening');
  const asked: { id: number; port: number }[] = [];
  socket.on('message', (message, from) => {
    asked.push({ id: message.readUInt16BE(0), port: from.port });
    answer(message, (reply) => socket.send(reply, from.port, from.address), from);
  });
  return {
    asked,
    address: '127.0.0.1',
    port: socket.address().port,
    [Symbol.asyncDispose]: () => new Promise((resolve) => socket.close(resolve)),
  };
}

const replyTo = (message: Buffer, ip: string, more = { flags: 0, name: '' }): Buffer => {
  const { id, questions } = decode(message);
  const [question] = questions!;
  const name = more.name === '' ? question!.name : more.name;
  return encode({
    type: 'response',
    id: id!,
    flags: 0x0180 | more.flags,
    questions: [{ ...question!, name }],
    answers: [{ type: 'A', name, ttl: 60, data: ip }],
  });
};
const good: Answerer = (message, send) => send(replyTo(message, '192.0.2.1'));
const OWN = { address: '169.254.100.53', port: 53 };
const forwarder = (upstreams: readonly Upstream[], more: Partial<ForwarderOptions> = {}): Forwarder =>
  new Forwarder({ upstreams: () => Promise.resolve(upstreams), own: OWN, timeoutMs: 300, ...more });
const ips = (reply: Buffer | null): unknown =>
  reply === null ? null : (decode(reply).answers ?? []).map((a) => 'data' in a && a.data);
const Q = query('example.com', 'A');

describe('a question for others', () => {
  it('goes out with an id and a port of its own, and comes back with the id that it had', async () => {
    await using server = await upstream(good);
    using f = forwarder([server]);
    const replies = await Promise.all(Array.from({ length: 20 }, () => f.forward(Q, '10.0.0.1')));
    for (const reply of replies) expect([reply?.readUInt16BE(0), ips(reply)]).toEqual([4711, ['192.0.2.1']]);
    expect(new Set(server.asked.map((a) => a.port)).size).toBe(20);
    expect(new Set(server.asked.map((a) => a.id)).size).toBeGreaterThan(15);
    expect(f.waiting).toBe(0);
  });

  it('is believed only with the right id and question', async () => {
    await using server = await upstream((message, send) => {
      const wrong = replyTo(message, '203.0.113.1');
      wrong.writeUInt16BE((wrong.readUInt16BE(0) + 1) & 0xffff, 0);
      send(wrong);
      send(replyTo(message, '203.0.113.2', { flags: 0, name: 'evil.com' }));
      send(message);
      send(Buffer.from('nonsense'));
      send(replyTo(message, '192.0.2.1', { flags: 0, name: 'EXAMPLE.com' }));
    });
    using f = forwarder([server]);
    expect(ips(await f.forward(Q, 's'))).toEqual(['192.0.2.1']);
  });

  it('goes to the next resolver when one is silent, not there, or fails', async () => {
    await using silent = await upstream(() => undefined);
    await using failing = await upstream((message, send) =>
      send(replyTo(message, '203.0.113.1', { flags: 2, name: '' })),
    );
    await using server = await upstream(good);
    const gone = await upstream(good);
    await gone[Symbol.asyncDispose]();
    using f = forwarder([silent, gone, failing, server]);
    expect(ips(await f.forward(Q, 's'))).toEqual(['192.0.2.1']);
    using only = forwarder([failing]);
    expect(decode((await only.forward(Q, 's'))!)).toMatchObject({ id: 4711, rcode: 'SERVFAIL' });
    using none = forwarder([silent]);
    expect(await none.forward(Q, 's')).toBeNull();
    using nobody = forwarder([]);
    expect(await nobody.forward(Q, 's')).toBeNull();
  });

  it('never goes to itself', async () => {
    await using server = await upstream(good);
    using f = forwarder([server], { own: { address: server.address, port: server.port } });
    expect(await f.forward(Q, 's')).toBeNull();
    expect(server.asked).toEqual([]);
  });

  it('is asked again by TCP when the answer was cut', async () => {
    await using server = await upstream((message, send) =>
      send(replyTo(message, '203.0.113.1', { flags: 0x0200, name: '' })),
    );
    const tcp = createServer((socket) => {
      socket.on('data', (chunk) => {
        const whole = framed(replyTo(chunk.subarray(2), '192.0.2.7'));
        socket.write(whole.subarray(0, 9));
        socket.end(whole.subarray(9));
      });
    });
    using f = forwarder([server]);
    // Without TCP there: what was told.
    expect(decode((await f.forward(Q, 's'))!).flag_tc).toBe(true);
    tcp.listen(server.port, '127.0.0.1');
    await once(tcp, 'listening');
    expect(ips(await f.forward(Q, 's'))).toEqual(['192.0.2.7']);
    tcp.close();
  });

  it('waits with a bounded number of others, each source with its share', async () => {
    await using silent = await upstream(() => undefined);
    using f = forwarder([silent], { maxWaiting: 6, maxWaitingOfOne: 4, timeoutMs: 10_000 });
    const early: string[] = [];
    const ask = (source: string): void => void f.forward(Q, source).then(() => early.push(source));
    for (let i = 0; i < 5; i++) ask('a');
    await expect.poll(() => early).toEqual(['a']);
    for (let i = 0; i < 4; i++) ask('b');
    await expect.poll(() => early).toEqual(['a', 'b', 'b']);
    expect(f.waiting).toBe(6);
    f[Symbol.dispose]();
    await expect.poll(() => early.length).toBe(9);
    expect(f.waiting).toBe(0);
  });
});

describe('resolv.conf', () => {
  it('is read as resolvers do', () => {
    const text =
      '# nameserver 9.9.9.9\nsearch x\nnameserver 127.0.0.53\n nameserver\t2001:db8::1 # x\nnameserver fe80::1%eth0\nnameserver 8.8.8.8\nnameserver dns.example\n';
    expect(parseResolvConf(text).map((u) => u.address)).toEqual(['127.0.0.53', '2001:db8::1', 'fe80::1%eth0']);
  });

  it('is looked at again at most once a second, and read when it has changed', async () => {
    const folder = await mkdtemp(join(tmpdir(), 'weft-dns-'));
    try {
      const path = join(folder, 'resolv.conf');
      const clock = new FakeClock();
      const upstreams = resolvConf(path, clock);
      const now = async (): Promise<string[]> => (await upstreams()).map((u) => u.address);
      expect(await now()).toEqual([]);
      await writeFile(path, 'nameserver 192.0.2.1\n');
      expect(await now()).toEqual([]);
      await clock.advance(1000);
      expect(await now()).toEqual(['192.0.2.1']);
      await writeFile(`${path}.new`, 'nameserver 192.0.2.2\n');
      await rename(`${path}.new`, path);
      await clock.advance(1000);
      expect(await now()).toEqual(['192.0.2.2']);
      await rm(path);
      await clock.advance(1000);
      expect(await now()).toEqual([]);
    } finally {
      await rm(folder, { recursive: true });
    }
  });
});
