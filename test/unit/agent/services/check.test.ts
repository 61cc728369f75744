/** One question to a server of this machine. */
import { createServer, type RequestListener } from 'node:http';
import { type AddressInfo, createServer as createTcp, type Server } from 'node:net';
import { afterEach, describe, expect, it } from 'vitest';
import { answers, type Target } from '../../../../agent/services/check.ts';

const open: Server[] = [];
afterEach(() => {
  for (const server of open.splice(0)) server.close();
});

async function listen(server: Server): Promise<number> {
  open.push(server);
  await new Promise<void>((resolve) => server.listen(0, '127.0.0.1', resolve));
  return (server.address() as AddressInfo).port;
}
const http = (handler: RequestListener): Promise<number> => listen(createServer(handler));
const target = (port: number, more: Partial<Target> = {}): Target => ({
  type: 'http',
  host: '127.0.0.1',
  from: '127.0.0.1',
  port,
  path: '/ready',
  name: '10.1.0.2',
  timeoutMs: 5_000,
  ...more,
});
const ask = (t: Target, signal = new AbortController().signal): Promise<boolean> => answers(t, signal);

describe('an answer', () => {
  it('over TCP is a connection that is accepted', async () => {
    const port = await listen(createTcp());
    expect(await ask(target(port, { type: 'tcp' }))).toBe(true);
    open.splice(0)[0]?.close();
    expect(await ask(target(port, { type: 'tcp' }))).toBe(false);
  });

  it.each([
    [200, true],
    [204, true],
    [302, true],
    [399, true],
    [400, false],
    [503, false],
  ])('over HTTP: %i is one: %s', async (status, expected) => {
    const port = await http((_, response) => response.writeHead(status, { location: '/elsewhere' }).end());
    expect(await ask(target(port))).toBe(expected);
  });

  it('is asked for once, by path and name, on a connection that ends', async () => {
    const seen: unknown[] = [];
    const port = await http((request, response) => {
      seen.push([request.method, request.url, request.headers.host, request.headers.connection]);
      response.end();
    });
    expect(await ask(target(port))).toBe(true);
    expect(seen).toEqual([['GET', '/ready', '10.1.0.2', 'close']]);
  });

  it('must come in time, and while it matters', async () => {
    const port = await http(() => undefined);
    expect(await ask(target(port, { timeoutMs: 50 }))).toBe(false);
    expect(await ask(target(port), AbortSignal.timeout(50))).toBe(false);
    expect(await ask(target(port), AbortSignal.abort())).toBe(false);
  });

  it('is none where nothing can be asked', async () => {
    const port = await http((_, response) => response.end());
    expect(await ask(target(port, { path: '/a b' }))).toBe(false);
    expect(await ask(target(port, { from: '192.0.2.1' }))).toBe(false);
  });
});
