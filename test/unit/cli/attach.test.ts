/** weft attach and weft detach against an agent that says what it is asked. */
import { mkdtemp, rm, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { Server } from '@grpc/grpc-js';
import { afterAll, beforeAll, beforeEach, expect, test } from 'vitest';
import { AgentService, AttachResponse } from '../../../gen/weft/v1/agent.ts';
import { WeftError } from '../../../lib/errors.ts';
import { insecureServerCredentials, serverOptions, unary } from '../../../lib/rpc.ts';
import { runCli } from './fake-control.ts';

const ID = 'ab'.repeat(32);
const requests: unknown[] = [];
let refusal: WeftError | null = null;
let dir: string;
let socket: string;
const server = new Server(serverOptions());

beforeAll(async () => {
  dir = await mkdtemp(join(tmpdir(), 'weft-agent-'));
  socket = join(dir, 'agent.sock');
  const answer = (response: object) =>
    unary(async ({ request }) => {
      requests.push(request);
      if (refusal !== null) throw refusal;
      return response;
    });
  const endpoint = {
    id: ID,
    networkId: 'n1',
    hostId: 'x',
    ips: ['10.0.0.2'],
    aliases: ['db'],
    state: 'known',
    kind: 'tap',
  };
  const none = answer({});
  server.addService(AgentService, {
    attach: answer(AttachResponse.fromPartial({ endpoint, network: 'blue', host: 'h1' })),
    detach: none,
    status: none,
    dump: none,
    resync: none,
  } as never);
  await new Promise<void>((resolve, reject) => {
    server.bindAsync(`unix:${socket}`, insecureServerCredentials(), (error) =>
      error === null ? resolve() : reject(error),
    );
  });
});
afterAll(async () => {
  server.forceShutdown();
  await rm(dir, { recursive: true });
});
beforeEach(() => {
  requests.length = 0;
  refusal = null;
});

const weft = (...argv: string[]) => runCli([...argv, '--socket', socket], {});

test('attach says the id, or all of it as JSON', async () => {
  expect(await weft('attach', 'blue', '--interface', 'tap0')).toMatchObject({ code: 0, out: `${ID}\n`, err: '' });
  const shown = (await weft('attach', 'blue', '--interface', 'tap0', '--json')).json();
  expect(shown).toMatchObject({ id: ID, network: 'blue', host: 'h1', name: 'db', container: null, kind: 'tap' });
});

test('every flag goes to the agent', async () => {
  const address = ['--ip', '10.0.0.9', '--ip6', 'fd00::9', '--mac', '02:00:00:00:00:09'];
  const names = ['--name', 'db', '--ifname', 'eth0', '--label', 'a=1', '--label', 'b'];
  await weft('attach', 'blue', '--netns', '/run/netns/x', ...address, ...names);
  expect(requests).toEqual([
    {
      network: 'blue',
      interface: '',
      netns: '/run/netns/x',
      interfaceName: 'eth0',
      ip: '10.0.0.9',
      ip6: 'fd00::9',
      mac: '02:00:00:00:00:09',
      name: 'db',
      labels: { a: '1', b: '' },
    },
  ]);
});

test.each([
  ['web', '/run/netns/web'],
  ['4711', '/proc/4711/ns/net'],
  ['/var/run/docker/netns/ab', '/var/run/docker/netns/ab'],
  ['./ns', join(process.cwd(), 'ns')],
])('--netns %s is %s', async (text, path) => {
  await weft('attach', 'blue', '--netns', text);
  expect(requests).toMatchObject([{ netns: path }]);
});

test('usage', async () => {
  for (const args of [
    ['attach', 'blue'],
    ['attach', 'blue', '--netns', 'a', '--interface', 'b'],
    ['attach', 'blue', '--netns', 'a', '--label', '=x'],
    ['attach', '--netns', 'a'],
    ['detach'],
  ])
    expect([args, (await weft(...args)).code]).toEqual([args, 2]);
  expect((await weft('attach', 'blue', '--netns', '')).code).toBe(1);
  expect(requests).toEqual([]);
  expect((await runCli(['attach', '--help'], {})).out).toContain('--netns <path|name|pid>');
  expect((await runCli(['__complete', '--', 'attach', 'blue', '--if'], {})).out).toBe('--ifname\n');
});

test('detach', async () => {
  expect(await weft('detach', 'db')).toMatchObject({ code: 0, out: 'db\n' });
  expect(requests).toEqual([{ endpoint: 'db' }]);
  expect((await weft('detach', 'db', '--json')).json()).toEqual({ endpoint: 'db' });
});

test('what the agent refuses, and what to do', async () => {
  refusal = new WeftError('ALREADY_EXISTS', 'interface tap0 is attached already', { hint: 'weft detach ab' });
  expect(await weft('attach', 'blue', '--interface', 'tap0')).toMatchObject({
    code: 1,
    out: '',
    err: 'weft: interface tap0 is attached already\nhint: weft detach ab\n',
  });
});

test('no agent', async () => {
  const at = (path: string) => runCli(['detach', 'db', '--socket', path, '--json'], {});
  expect((await at(join(dir, 'none'))).err).toMatch(/UNAVAILABLE.*does not exist.*--socket/s);
  await writeFile(join(dir, 'dead'), '');
  expect((await at(join(dir, 'dead'))).err).toMatch(/UNAVAILABLE.*nothing listens there/s);
});
