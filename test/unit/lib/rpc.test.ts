import { mkdtemp, rm } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { connect } from 'node:tls';
import { type Client, Server, type ServerCredentials } from '@grpc/grpc-js';
import { afterAll, beforeAll, expect, test } from 'vitest';
import {
  AgentClient,
  AgentService,
  type DumpRequest,
  type DumpResponse,
  type StatusRequest,
  type StatusResponse,
} from '../../../gen/weft/v1/agent.ts';
import { ControlClient, ControlService, type WatchEventsRequest } from '../../../gen/weft/v1/control.ts';
import { Event } from '../../../gen/weft/v1/types.ts';
import { WeftError } from '../../../lib/errors.ts';
import {
  callStream,
  callUnary,
  channelCredentials,
  channelOptions,
  type Identity,
  insecureChannelCredentials,
  insecureServerCredentials,
  parseIdentity,
  peerIdentity,
  requireIdentity,
  serverCredentials,
  serverOptions,
  serverStream,
  unary,
} from '../../../lib/rpc.ts';
import { type Ca, createCa, issueCoordinator, issueHost, issueUser, type TlsMaterial } from '../../../lib/tls.ts';

const HOST = '0123456789abcdef';
let ca: Ca;
let user: TlsMaterial;
let server: Server;
let port: number;
let seen: Identity[] = [];
let streamEnded = Promise.withResolvers<void>();
const logged: string[] = [];
const log = { error: (_fields: object, event: string) => void logged.push(event) };

const bind = (to: Server, address: string, credentials: ServerCredentials): Promise<number> =>
  new Promise((resolve, reject) => {
    to.bindAsync(address, credentials, (error, bound) => (error === null ? resolve(bound) : reject(error)));
  });

beforeAll(async () => {
  ca = await createCa({ name: 'test' });
  user = await issueUser(ca, 'admin');
  server = new Server(serverOptions());
  const control: Record<string, unknown> = {};
  for (const name of Object.keys(ControlService))
    control[name] = unary(() => Promise.reject(new WeftError('UNIMPLEMENTED', 'no')), log);
  control['getStatus'] = unary(async (call) => {
    seen.push(peerIdentity(call));
    return { revision: undefined, coordinators: [], hosts: [], conflicts: [] };
  }, log);
  control['deleteHost'] = unary(async (call) => {
    requireIdentity(call, 'user');
    throw new WeftError('FAILED_PRECONDITION', 'Host “é” is connected.', { hint: 'stop its agent' });
  }, log);
  control['listHosts'] = unary(() => {
    throw new TypeError('a bug');
  }, log);
  control['listNetworks'] = unary(() => new Promise(() => {}), log);
  control['watchEvents'] = serverStream(async function* (call, signal) {
    const { follow } = call.request as WatchEventsRequest;
    try {
      for (let i = 0; i < (follow ? Number.POSITIVE_INFINITY : 3) && !signal.aborted; i++)
        yield Event.fromPartial({ type: 'network', object: String(i), message: 'x'.repeat(100_000) });
    } finally {
      streamEnded.resolve();
    }
    if (!follow) throw new WeftError('ABORTED', 'stop', { hint: 'again' });
  }, log);
  server.addService(ControlService, control as never);
  port = await bind(server, '127.0.0.1:0', serverCredentials(await issueCoordinator(ca, 'c1')));
});
afterAll(() => server.forceShutdown());

async function using<T>(tls: TlsMaterial, run: (client: Client) => Promise<T>): Promise<T> {
  const client = new ControlClient(`127.0.0.1:${port}`, channelCredentials(tls), channelOptions());
  try {
    return await run(client);
  } finally {
    client.close();
  }
}

test('identity comes from the certificate', async () => {
  seen = [];
  await using(user, (c) => callUnary(c, ControlService.getStatus, {}));
  await using(await issueHost(ca, HOST), (c) => callUnary(c, ControlService.getStatus, {}));
  expect(seen).toEqual([
    { kind: 'user', name: 'admin' },
    { kind: 'host', name: HOST },
  ]);
  await expect(
    using(await issueHost(ca, HOST), (c) => callUnary(c, ControlService.deleteHost, { host: 'x' })),
  ).rejects.toMatchObject({ code: 'PERMISSION_DENIED' });
});

test('errors keep code, message and hint; a bug is INTERNAL and logged', async () => {
  await using(user, async (c) => {
    await expect(callUnary(c, ControlService.deleteHost, { host: 'é' })).rejects.toMatchObject({
      code: 'FAILED_PRECONDITION',
      message: 'Host “é” is connected.',
      hint: 'stop its agent',
    });
    expect(logged).toEqual([]);
    await expect(callUnary(c, ControlService.listHosts, { localOnly: false })).rejects.toMatchObject({
      code: 'INTERNAL',
    });
    expect(logged).toEqual(['call failed']);
  });
});

test('a deadline ends a call, and so does a signal', async () => {
  await using(user, async (c) => {
    const call = callUnary(c, ControlService.listNetworks, { project: '' }, { timeoutMs: 50 });
    await expect(call).rejects.toMatchObject({ code: 'DEADLINE_EXCEEDED' });
    const signal = AbortSignal.timeout(20);
    const aborted = callUnary(c, ControlService.listNetworks, { project: '' }, { signal });
    await expect(aborted).rejects.toMatchObject({ code: 'CANCELLED' });
    await expect(callUnary(c, ControlService.getStatus, {}, { signal })).rejects.toMatchObject({ code: 'CANCELLED' });
  });
});

test('streams: messages, then the status; leaving the loop ends the handler', async () => {
  await using(user, async (c) => {
    const objects: string[] = [];
    const read = async (): Promise<void> => {
      for await (const event of callStream(c, ControlService.watchEvents, { localOnly: false, follow: false }))
        objects.push(event.object);
    };
    await expect(read()).rejects.toMatchObject({ code: 'ABORTED', hint: 'again' });
    expect(objects).toEqual(['0', '1', '2']);
    streamEnded = Promise.withResolvers();
    for await (const event of callStream(c, ControlService.watchEvents, { localOnly: false, follow: true }))
      if (event.object === '5') break;
    await streamEnded.promise;
  });
});

test('a client of another CA, without a certificate or with TLS 1.2 is refused', async () => {
  const other = await issueUser(await createCa({ name: 'other' }), 'admin');
  const call = (tls: TlsMaterial) => using(tls, (c) => callUnary(c, ControlService.getStatus, {}, { timeoutMs: 3000 }));
  await expect(call(other)).rejects.toMatchObject({ code: 'UNAVAILABLE' });
  await expect(call({ ...other, ca: ca.cert })).rejects.toMatchObject({ code: 'UNAVAILABLE' });
  const old = new Promise<string>((resolve) => {
    const socket = connect({ port, host: '127.0.0.1', maxVersion: 'TLSv1.2', minVersion: 'TLSv1.2', ...user });
    socket.on('error', (error) => resolve((error as NodeJS.ErrnoException).code ?? ''));
    socket.on('secureConnect', () => resolve('connected'));
  });
  expect(await old).toBe('ERR_SSL_TLSV1_ALERT_PROTOCOL_VERSION');
});

test('a user’s certificate is no server’s, a host’s is no coordinator’s', async () => {
  const impostor = new Server();
  impostor.addService(ControlService, {} as never);
  const at = await bind(impostor, '127.0.0.1:0', serverCredentials(await issueHost(ca, HOST)));
  const client = new ControlClient(`127.0.0.1:${at}`, channelCredentials(user), channelOptions());
  await expect(callUnary(client, ControlService.getStatus, {}, { timeoutMs: 3000 })).rejects.toMatchObject({
    code: 'UNAVAILABLE',
  });
  client.close();
  impostor.forceShutdown();
});

test('over a unix socket', async () => {
  const dir = await mkdtemp(join(tmpdir(), 'weft-rpc-'));
  const agent = new Server(serverOptions());
  agent.addService(AgentService, {
    dump: unary<DumpRequest, DumpResponse>(async (call) => ({ text: call.request.what })),
    status: unary<StatusRequest, StatusResponse>(async (call) => {
      peerIdentity(call);
      throw new Error('unreachable');
    }),
    resync: unary(() => Promise.reject(new Error('no'))),
    attach: unary(() => Promise.reject(new Error('no'))),
    detach: unary(() => Promise.reject(new Error('no'))),
  });
  await bind(agent, `unix:${dir}/a.sock`, insecureServerCredentials());
  const client = new AgentClient(
    `unix:${dir}/a.sock`,
    insecureChannelCredentials(),
    channelOptions({ serverName: null }),
  );
  expect(await callUnary(client, AgentService.dump, { what: 'view' })).toEqual({ text: 'view' });
  await expect(callUnary(client, AgentService.status, {})).rejects.toMatchObject({ code: 'UNAUTHENTICATED' });
  client.close();
  agent.forceShutdown();
  await rm(dir, { recursive: true });
});

test.each([
  [`URI:weft://host/${HOST}, DNS:agent.weft`, { kind: 'host', name: HOST }],
  ['URI:weft://user/admin', { kind: 'user', name: 'admin' }],
  ['DNS:agent.weft', null],
  ['URI:weft://host/h1', null],
  [`URI:weft://host/${HOST}, URI:weft://user/admin`, null],
  ['URI:weft://root/admin', null],
  ['URI:weft://user/', null],
  ['URI:weft://user/a/b', null],
  ['URI:"weft://user/a, URI:weft://user/admin"', null],
  [undefined, null],
])('identity of %s', (text, expected) => {
  expect(parseIdentity(text)).toEqual(expected);
});
