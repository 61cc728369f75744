import { mkdtemp, rm } from 'node:fs/promises';
import net from 'node:net';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterEach, beforeEach, describe, expect, it } from 'vitest';
import { JsonSplitter } from '../../../agent/ovs/framing.ts';
import { JsonRpc } from '../../../agent/ovs/jsonrpc.ts';
import type { WeftError } from '../../../lib/errors.ts';

type Answer = (message: Record<string, unknown>, socket: net.Socket) => void;

describe('JsonRpc', () => {
  let dir: string;
  let path: string;
  let server: net.Server;
  let answer: Answer;
  const sockets = new Set<net.Socket>();
  const notified: unknown[] = [];

  beforeEach(async () => {
    dir = await mkdtemp(join(tmpdir(), 'weft-rpc-'));
    path = join(dir, 'sock');
    notified.length = 0;
    answer = (message, socket) =>
      socket.write(JSON.stringify({ id: message['id'], result: message['params'], error: null }));
    server = net.createServer((socket) => {
      sockets.add(socket);
      const splitter = new JsonSplitter();
      socket.on('data', (chunk) => {
        for (const message of splitter.push(chunk)) answer(message, socket);
      });
      socket.on('error', () => undefined);
    });
    await new Promise<void>((resolve) => server.listen(path, resolve));
  });
  afterEach(async () => {
    for (const socket of sockets) socket.destroy();
    sockets.clear();
    await new Promise((resolve) => server.close(resolve));
    await rm(dir, { recursive: true });
  });

  const open = async (idleMs?: number): Promise<{ rpc: JsonRpc; closed: Promise<WeftError> }> => {
    const { promise: closed, resolve } = Promise.withResolvers<WeftError>();
    const rpc = await JsonRpc.connect({
      path,
      ...(idleMs !== undefined && { idleMs }),
      onNotify: (method, params) => notified.push([method, ...params]),
      onClose: resolve,
    });
    return { rpc, closed };
  };

  it('calls, in any order of answers', async () => {
    const held: (() => void)[] = [];
    answer = (message, socket) =>
      held.push(() => socket.write(JSON.stringify({ id: message['id'], result: message['params'], error: null })));
    const { rpc } = await open();
    const calls = Promise.all([rpc.call('a', [1]), rpc.call('b', [2])]);
    await expect.poll(() => held.length).toBe(2);
    for (const reply of held.reverse()) reply();
    expect(await calls).toEqual([[1], [2]]);
    rpc.close();
  });

  it('a call has a deadline, and a late answer is nobody’s', async () => {
    let late: (() => void) | null = null;
    answer = (message, socket) => {
      late = () => socket.write(JSON.stringify({ id: message['id'], result: 'late', error: null }));
    };
    const { rpc } = await open();
    await expect(rpc.call('a', [], 20)).rejects.toMatchObject({ code: 'DEADLINE_EXCEEDED' });
    late!();
    answer = (message, socket) => socket.write(JSON.stringify({ id: message['id'], result: 'next', error: null }));
    expect(await rpc.call('b', [])).toBe('next');
    rpc.close();
  });

  it('errors are errors', async () => {
    answer = (message, socket) =>
      socket.write(JSON.stringify({ id: message['id'], result: null, error: 'unknown method' }));
    const { rpc } = await open();
    await expect(rpc.call('a', [])).rejects.toMatchObject({
      code: 'INTERNAL',
      message: expect.stringContaining('unknown method'),
    });
    rpc.close();
    await expect(rpc.call('a', [])).rejects.toMatchObject({ code: 'CANCELLED' });
  });

  it('answers echo, passes notifications on', async () => {
    const replies: unknown[] = [];
    answer = (message) => replies.push(message);
    const { rpc } = await open();
    const [socket] = sockets;
    socket!.write(
      `${JSON.stringify({ id: 'e', method: 'echo', params: ['x'] })}${JSON.stringify({ id: null, method: 'update', params: [1, 2] })}`,
    );
    await expect.poll(() => replies).toEqual([{ id: 'e', result: ['x'], error: null }]);
    expect(notified).toEqual([['update', 1, 2]]);
    rpc.close();
  });

  it('a closed connection, nonsense, and silence end all calls', async () => {
    answer = (_message, socket) => socket.destroy();
    const first = await open();
    await expect(first.rpc.call('a', [])).rejects.toMatchObject({ code: 'UNAVAILABLE' });
    await first.closed;

    answer = (_message, socket) => socket.write('HTTP/1.1 400 Bad Request');
    const second = await open();
    await expect(second.rpc.call('a', [])).rejects.toMatchObject({ code: 'INTERNAL' });
    await second.closed;

    answer = () => undefined;
    const third = await open(20);
    await expect(third.rpc.call('a', [])).rejects.toMatchObject({
      code: 'UNAVAILABLE',
      message: expect.stringContaining('not answered'),
    });
    await third.closed;
  });

  it('nobody there', async () => {
    await expect(
      JsonRpc.connect({ path: join(dir, 'other'), onNotify: () => undefined, onClose: () => undefined }),
    ).rejects.toMatchObject({ code: 'UNAVAILABLE' });
  });
});
