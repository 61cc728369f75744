import { mkdir, readFile, rm, stat, writeFile } from 'node:fs/promises';
import { createServer, type Server } from 'node:net';
import { afterAll, beforeAll, expect, test } from 'vitest';
import { createCa, issueUser, writeKeyPair } from '../../../lib/tls.ts';
import manifest from '../../../package.json' with { type: 'json' };
import { FakeControl, runCli } from './fake-control.ts';
import { BLUE, hostStatus } from './fixtures.ts';

const LS = ['network', 'ls', '-q'];
const ID = `${BLUE.id}\n`;

let fake: FakeControl;
let here: string;
let flags: string[];
let silent: Server;
beforeAll(async () => {
  fake = await FakeControl.start();
  fake.answers.set('listNetworks', () => ({ networks: [BLUE], revision: undefined }));
  fake.answers.set('listHosts', () => ({ hosts: [hostStatus('h1', 'connected')], revision: undefined }));
  here = `127.0.0.1:${fake.port}`;
  flags = ['--coordinator', here, '--ca', fake.tls.ca, '--cert', fake.tls.cert, '--key', fake.tls.key];
  // Takes connections and never says a word, as a stopped process does.
  silent = createServer(() => {});
  await new Promise<void>((resolve) => silent.listen(0, '127.0.0.1', resolve));
});
afterAll(async () => {
  silent.close();
  await fake[Symbol.asyncDispose]();
});

async function writeContext(context: unknown): Promise<void> {
  await mkdir(`${fake.home}/.config/weft`, { recursive: true });
  await writeFile(
    `${fake.home}/.config/weft/context.json`,
    typeof context === 'string' ? context : JSON.stringify(context),
  );
}

test('nothing known: says what to do', async () => {
  expect(await runCli(LS, {})).toMatchObject({
    code: 1,
    err: expect.stringMatching(/^weft: No coordinator is known\.\nhint: .*WEFT_COORDINATOR/),
  });
  expect(await runCli(LS, { env: { WEFT_COORDINATOR: here } })).toMatchObject({
    code: 1,
    err: expect.stringContaining('ca, cert, key missing'),
  });
});

test('flags before the noun, after it; variables; the context file; in that order', async () => {
  expect(await runCli([...LS, ...flags], {})).toMatchObject({ code: 0, out: ID });
  expect(await runCli([...flags, ...LS], {})).toMatchObject({ code: 0, out: ID });
  expect(await runCli(LS, { env: fake.env })).toMatchObject({ code: 0, out: ID });
  await writeContext({ coordinators: [here], tls: fake.tls });
  expect(await runCli(LS, { home: fake.home })).toMatchObject({ code: 0, out: ID });
  const wrong = { WEFT_COORDINATOR: '127.0.0.1:1' };
  expect(await runCli(LS, { home: fake.home, env: wrong })).toMatchObject({ code: 1 });
  expect(await runCli([...LS, ...flags], { home: fake.home, env: wrong })).toMatchObject({ code: 0 });
});

test('a context file that makes no sense is named', async () => {
  for (const context of ['{', '[]', 'null', { coordinators: 'a', tls: {} }, { coordinators: ['a'], tls: { ca: 1 } }]) {
    await writeContext(context);
    expect(await runCli(LS, { home: fake.home })).toMatchObject({
      code: 1,
      err: expect.stringContaining('context.json'),
    });
  }
  await rm(`${fake.home}/.config`, { recursive: true });
});

test('an address that makes no sense is refused', async () => {
  for (const address of ['a b', ':1', 'x:70000', 'http://x:1', ',,'])
    expect(await runCli(LS, { env: { ...fake.env, WEFT_COORDINATOR: address } })).toMatchObject({ code: 1, out: '' });
});

test('the next coordinator is tried when one is down, silent or a stranger', async () => {
  const { port } = silent.address() as { port: number };
  await using stranger = await FakeControl.start();
  const list = `127.0.0.1:1, 127.0.0.1:${stranger.port},127.0.0.1:${port},${here}`;
  const started = Date.now();
  expect(await runCli(LS, { env: { ...fake.env, WEFT_COORDINATOR: list } })).toMatchObject({ code: 0, out: ID });
  expect(Date.now() - started).toBeLessThan(6000);
  const failed = await runCli([...LS, '--json'], {
    env: { ...fake.env, WEFT_COORDINATOR: `127.0.0.1:1,127.0.0.1:${stranger.port}` },
  });
  expect(failed.code).toBe(1);
  const { error } = JSON.parse(failed.err) as { error: { code: string; message: string } };
  expect(error.code).toBe('UNAVAILABLE');
  expect(error.message).toMatch(/127\.0\.0\.1:1: .*ECONNREFUSED.*; 127\.0\.0\.1:\d+: .*certificate/);
});

test('a certificate of a stranger is refused with a sentence', async () => {
  const other = await createCa({ name: 'other' });
  const pair = await writeKeyPair(fake.home, 'other', await issueUser(other, 'admin'));
  const env = { ...fake.env, WEFT_CERT: pair.cert, WEFT_KEY: pair.key };
  // Refused by the server after the client's part of the handshake: the client sees the connection close, sooner or later.
  expect(await runCli(LS, { env })).toMatchObject({ code: 1, out: '', err: expect.stringMatching(/^weft: /) });
  const missing = { ...fake.env, WEFT_KEY: '/nonexistent.key' };
  expect(await runCli(LS, { env: missing })).toMatchObject({
    code: 1,
    err: expect.stringContaining('/nonexistent.key'),
  });
});

test('completion: commands, flags, names', async () => {
  const words = async (...typed: string[]): Promise<string[]> =>
    (await fake.run('__complete', '--', ...typed)).out.trimEnd().split('\n');
  expect(await words('ne')).toEqual(['network']);
  expect(await words('network', 'in')).toEqual(['inspect']);
  expect(await words('network', 'create', '--en')).toEqual(['--encap', '--encrypt']);
  expect(await words('network', 'inspect', '')).toEqual(['blue']);
  expect(await words('network', 'inspect', 'blue', 'b')).toEqual(['blue']);
  expect(await words('wait', '--network', '')).toEqual(['blue']);
  expect(await words('host', 'drain', '')).toEqual(['h1']);
  expect(await words('completion', '')).toEqual(['bash', 'fish', 'zsh']);
  expect(await words('network', 'create', 'b')).toEqual(['']);
  expect((await runCli(['__complete', '--', 'network', 'inspect', ''], {})).out).toBe('');
  for (const shell of ['bash', 'zsh', 'fish'])
    expect(await runCli(['completion', shell], {})).toMatchObject({ code: 0, out: expect.stringContaining('weft') });
  expect(await runCli(['completion', 'toString'], {})).toMatchObject({ code: 2 });
});

test('version and help need nobody', async () => {
  expect((await runCli(['version'], {})).out).toBe(`weft ${manifest.version}\n`);
  expect(await runCli(['--version'], {})).toMatchObject({ code: 0 });
  expect((await runCli(['version', '--json'], {})).json()).toMatchObject({ version: expect.any(String) });
  expect((await runCli(['help', 'network'], {})).out).toContain('create [options] <name>');
  expect((await runCli(['wait', '--help'], {})).out).toContain('--timeout');
});

test('ca init and ca host', async () => {
  const home = `${fake.home}/ca`;
  const dir = `${home}/tls`;
  const init = ['ca', 'init', '--dir', dir, '--coordinator-address', '192.0.2.1', '--coordinator-address', 'c2:17470'];
  const made = await runCli([...init, '--json'], { home });
  expect(made.json()).toEqual({
    dir,
    context: `${home}/.config/weft/context.json`,
    coordinators: ['192.0.2.1:7470', 'c2:17470'],
  });
  expect(JSON.parse(await readFile(`${home}/.config/weft/context.json`, 'utf8'))).toEqual({
    coordinators: ['192.0.2.1:7470', 'c2:17470'],
    tls: { ca: `${dir}/ca.crt`, cert: `${dir}/admin.crt`, key: `${dir}/admin.key` },
  });
  for (const name of ['ca', 'coordinator', 'admin'])
    expect((await stat(`${dir}/${name}.key`)).mode & 0o777).toBe(0o600);
  expect(await runCli(init, { home })).toMatchObject({ code: 1, err: expect.stringContaining('there already') });
  expect(await runCli([...init, '--force'], { home })).toMatchObject({ code: 0 });

  const host = (await runCli(['ca', 'host', 'h1', '--dir', dir, '--json'], { home })).json();
  expect(host).toMatchObject({
    name: 'h1',
    id: expect.stringMatching(/^[0-9a-f]{16}$/),
    key: `${dir}/hosts/h1/agent.key`,
  });
  expect((await runCli(['ca', 'host', 'h1', '--dir', dir], { home })).code).toBe(1);
  expect((await runCli(['ca', 'host', '../x', '--dir', dir], { home })).code).toBe(1);
  expect((await runCli(['ca', 'host', 'h2', '--id', 'zz', '--dir', dir], { home })).code).toBe(2);
  expect((await runCli(['ca', 'host', 'h2', '--dir', `${home}/none`], { home })).code).toBe(1);
  expect((await runCli(['ca', 'user', 'bob', '--dir', dir], { home })).code).toBe(0);
});
