import { once } from 'node:events';
import { existsSync, statSync } from 'node:fs';
import { mkdtemp, rm, writeFile } from 'node:fs/promises';
import { type IncomingMessage, request } from 'node:http';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterEach, beforeEach, expect, test } from 'vitest';
import { eventOf } from '../../../agent/docker/answers.ts';
import { activatedFd, type Handlers, PluginServer } from '../../../agent/docker/plugin.ts';
import { parsePoolId, poolId } from '../../../agent/docker/wire.ts';
import { WeftError } from '../../../lib/errors.ts';
import { silentLog } from '../../../lib/log.ts';

let dir: string;
let path: string;
let plugin: PluginServer | null = null;
const calls: string[] = [];

beforeEach(async () => {
  dir = await mkdtemp(join(tmpdir(), 'weft-plugin-'));
  path = join(dir, 'plugins', 'weft.sock');
});
afterEach(async () => {
  await plugin?.close();
  plugin = null;
  await rm(dir, { recursive: true });
});

const plain = (answer: object) => ({ needs: [], answer: () => answer });

async function serve(handlers: Handlers): Promise<PluginServer> {
  plugin = new PluginServer({ path, env: {}, pid: 1, handlers, log: silentLog(), onCall: (m) => calls.push(m) });
  await plugin.start();
  return plugin;
}

async function call(
  method: string,
  body: string,
  verb = 'POST',
): Promise<{ status: number; body: Record<string, unknown> }> {
  const outgoing = request({ socketPath: path, path: `/${method}`, method: verb });
  const answered = once(outgoing, 'response') as Promise<[IncomingMessage]>;
  outgoing.end(body);
  await once(outgoing, 'finish');
  const [response] = await answered;
  const chunks: Buffer[] = [];
  for await (const chunk of response as AsyncIterable<Buffer>) chunks.push(chunk);
  return { status: response.statusCode ?? 0, body: JSON.parse(Buffer.concat(chunks).toString()) };
}

test('answers, and counts each call', async () => {
  await serve({ 'A.B': { needs: ['x'], answer: (r: { x: string }) => ({ got: r.x }) }, 'A.C': plain({ ok: 1 }) });
  expect(await call('A.B', '{"x":"1"}')).toEqual({ status: 200, body: { got: '1' } });
  expect(await call('A.C', '')).toEqual({ status: 200, body: { ok: 1 } });
  expect(calls).toEqual(['A.B', 'A.C']);
  expect(statSync(path).mode & 0o777).toBe(0o600);
});

test('errors are sentences with their hint, under both keys', async () => {
  await serve({
    'A.B': {
      needs: [],
      answer: () => {
        throw new WeftError('ALREADY_EXISTS', 'address 10.0.0.2 is in use', { hint: 'choose another' });
      },
    },
  });
  const sentence = 'address 10.0.0.2 is in use (choose another)';
  expect(await call('A.B', '{}')).toEqual({ status: 200, body: { Err: sentence, Error: sentence } });
});

test.each([
  ['A.Nothing', '{}', 'POST', 404, 'no method "A.Nothing"'],
  ['toString', '{}', 'POST', 404, 'no method "toString"'],
  ['A.B', '', 'GET', 404, 'no method'],
  ['A.B', '', 'POST', 200, 'without its content'],
  ['A.B', '{"x":1}', 'POST', 200, 'no field x'],
  ['A.B', '{"x"', 'POST', 200, 'not JSON'],
  ['A.B', '[1]', 'POST', 200, 'not a JSON object'],
  ['A.B', `{"x":"${'y'.repeat(2 << 20)}"}`, 'POST', 200, 'larger than'],
])('%s is refused', async (method, body, verb, status, sentence) => {
  await serve({ 'A.B': { needs: ['x'], answer: () => ({}) } });
  const answer = await call(method, body, verb);
  expect(answer.status).toBe(status);
  expect(answer.body['Err']).toContain(sentence);
});

test('a stale socket file is replaced, a living one is not', async () => {
  await serve({});
  const second = new PluginServer({ path, env: {}, pid: 1, handlers: {}, log: silentLog() });
  await expect(second.start()).rejects.toMatchObject({ code: 'FAILED_PRECONDITION' });
  await plugin?.close();
  expect(existsSync(path)).toBe(false);
  await writeFile(path, '');
  await serve({ 'A.B': plain({ ok: true }) });
  expect((await call('A.B', '')).body).toEqual({ ok: true });
});

test('close lets calls under way finish', async () => {
  const began = Promise.withResolvers<void>();
  const finish = Promise.withResolvers<void>();
  const server = await serve({
    'A.B': {
      needs: [],
      answer: async () => {
        began.resolve();
        await finish.promise;
        return { done: true };
      },
    },
  });
  const answer = call('A.B', '');
  await began.promise;
  const closed = server.close();
  finish.resolve();
  expect((await answer).body).toEqual({ done: true });
  await closed;
});

test('socket activation: only for this very process', () => {
  expect(activatedFd({ LISTEN_PID: '42', LISTEN_FDS: '1' }, 42)).toBe(3);
  expect(activatedFd({ LISTEN_PID: '41', LISTEN_FDS: '1' }, 42)).toBe(null);
  expect(activatedFd({}, 42)).toBe(null);
});

test('pool ids', () => {
  const id = poolId('0123456789abcdef', '10.0.0.0/24');
  expect(parsePoolId(id)).toEqual({ networkId: '0123456789abcdef', cidr: '10.0.0.0/24' });
  for (const bad of ['', 'weft/x/10.0.0.0/24', 'LocalDefault/10.0.0.0/24']) expect(parsePoolId(bad)).toBe(null);
});

test('events keep the nanoseconds of their time', () => {
  const line =
    '{"Type":"network","Action":"connect","Actor":{"ID":"n","Attributes":{"container":"c","type":"weft"}},"time":1700000000,"timeNano":1700000000123456789}';
  expect(eventOf(line)).toEqual({
    event: { type: 'network', action: 'connect', id: 'n', attributes: { container: 'c', type: 'weft' } },
    since: '1700000000.123456789',
  });
  expect(eventOf('{"Type":"image"}')).toBe(null);
  expect(eventOf('nonsense')).toBe(null);
});
