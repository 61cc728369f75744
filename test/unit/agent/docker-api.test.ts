import { once } from 'node:events';
import { mkdtemp, rm } from 'node:fs/promises';
import { createServer, type IncomingMessage, type Server, type ServerResponse } from 'node:http';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterEach, beforeEach, expect, test } from 'vitest';
import { DockerApi, type DockerEvent } from '../../../agent/docker/api.ts';
import { DockerClient } from '../../../agent/docker/client.ts';
import { silentLog } from '../../../lib/log.ts';
import { until } from '../../harness/ovs.ts';

interface Seen {
  readonly method: string;
  readonly url: string;
  readonly body: unknown;
}

let dir: string;
let socketPath: string;
let server: Server | null = null;
let api: DockerApi;
let seen: Seen[];
type Answer = (response: ServerResponse, request: Seen) => void;
let answer: Answer;

const json =
  (body: unknown, status = 200): Answer =>
  (response) =>
    void response.writeHead(status, { 'content-type': 'application/json' }).end(JSON.stringify(body));

async function serve(request: IncomingMessage, response: ServerResponse): Promise<void> {
  let text = '';
  for await (const chunk of request) text += String(chunk);
  const { method = '', url = '' } = request;
  const call = { method, url, body: text === '' ? null : (JSON.parse(text) as unknown) };
  seen.push(call);
  answer(response, call);
}

async function listen(): Promise<void> {
  server = createServer((request, response) => void serve(request, response));
  server.listen(socketPath);
  await once(server, 'listening');
}

async function stop(): Promise<void> {
  server?.closeAllConnections();
  const closed = server?.listening === true ? once(server, 'close') : null;
  server?.close();
  await closed;
  server = null;
}

beforeEach(async () => {
  dir = await mkdtemp(join(tmpdir(), 'weft-dockerd-'));
  socketPath = join(dir, 'docker.sock');
  seen = [];
  await listen();
  api = new DockerApi({ socketPath, log: silentLog() });
});
afterEach(async () => {
  delete process.env['DOCKER_HOST'];
  api.close();
  await stop();
  await rm(dir, { recursive: true });
});

const NETWORK = {
  Id: 'd1',
  Name: 'net',
  Driver: 'weft',
  Internal: false,
  Attachable: true,
  IPAM: { Driver: 'weft', Config: [{ Subnet: '10.1.0.0/24', Gateway: '10.1.0.1/24', AuxiliaryAddresses: null }] },
  Options: null,
  Labels: { a: 'b' },
  Containers: {
    c1: { Name: 'web', EndpointID: 'e1', MacAddress: '02:58:0A:01:00:02', IPv4Address: '10.1.0.2/24', IPv6Address: '' },
    'ep-e2': { Name: 'gone', EndpointID: 'e2', MacAddress: '', IPv4Address: '' },
  },
};

test('networks and endpoints, with null where dockerd has none', async () => {
  answer = json([NETWORK, { ...NETWORK, Id: 'd2', IPAM: { Driver: 'default', Config: null }, Labels: null }]);
  const [first, second] = await api.networks();
  expect(first).toEqual({
    id: 'd1',
    name: 'net',
    driver: 'weft',
    ipamDriver: 'weft',
    subnet: '10.1.0.0/24',
    subnet6: '',
    ipRanges: [],
    gateway: '10.1.0.1',
    gateway6: '',
    auxAddresses: {},
    internal: false,
    attachable: true,
    options: {},
    labels: { a: 'b' },
  });
  expect(second).toMatchObject({ id: 'd2', subnet: '', labels: {} });
  answer = json(NETWORK);
  expect((await api.network('d1'))?.endpoints).toEqual([
    {
      id: 'e1',
      dockerNetworkId: 'd1',
      containerId: 'c1',
      containerName: 'web',
      ip: '10.1.0.2',
      prefix: 24,
      ip6: '',
      prefix6: 128,
      mac: '02:58:0a:01:00:02',
    },
    {
      id: 'e2',
      dockerNetworkId: 'd1',
      containerId: null,
      containerName: 'gone',
      ip: '',
      prefix: 32,
      ip6: '',
      prefix6: 128,
      mac: '',
    },
  ]);
  expect(seen.map((s) => s.url)).toEqual(['/v1.41/networks', '/v1.41/networks/d1']);
});

test('IPv6 beside IPv4, and alone: 0.0.0.0 stands for none', async () => {
  const six = { Subnet: 'fd00:1::/64', Gateway: 'fd00:1::1', IPRange: 'fd00:1::100/120' };
  const IPAM = { Driver: 'weft', Config: [{ Subnet: '0.0.0.0/0', Gateway: '0.0.0.0' }, six] };
  const c1 = { EndpointID: 'e1', MacAddress: '', IPv4Address: '0.0.0.0/32', IPv6Address: 'fd00:1::2/64' };
  answer = json({ ...NETWORK, IPAM, Containers: { c1 } });
  expect(await api.network('d1')).toMatchObject({
    network: { subnet: '', gateway: '', subnet6: 'fd00:1::/64', gateway6: 'fd00:1::1', ipRanges: ['fd00:1::100/120'] },
    endpoints: [{ ip: '', ip6: 'fd00:1::2', prefix6: 64 }],
  });
  answer = json({ Id: 'd9' }, 201);
  const pools = [
    { subnet: '', ipRange: '', gateway: '' },
    { subnet: 'fd00:1::/64', ipRange: '', gateway: 'fd00:1::1' },
  ];
  const rest = { options: {}, labels: {}, internal: false, attachable: false };
  await api.createNetwork({ name: 'n', pools, auxAddresses: { a: 'fd00:1::9' }, ...rest });
  expect(seen.at(-1)?.body).toMatchObject({
    EnableIPv6: true,
    IPAM: {
      Config: [
        { Subnet: '0.0.0.0/0' },
        { Subnet: 'fd00:1::/64', Gateway: 'fd00:1::1', AuxiliaryAddresses: { a: 'fd00:1::9' } },
      ],
    },
  });
  answer = (response) => void response.writeHead(200).end();
  await api.connect('d9', 'c1', { ip: '10.1.0.7', ip6: 'fd00:1::7', mac: '' });
  expect(seen.at(-1)?.body).toMatchObject({
    EndpointConfig: { IPAMConfig: { IPv4Address: '10.1.0.7', IPv6Address: 'fd00:1::7' } },
  });
});

test('what is sent: nothing of the body in the URL, a newer version only where it is needed', async () => {
  answer = json({ Id: 'd9' }, 201);
  const none = { subnet: '', ipRange: '', gateway: '' };
  const four = { ...none, subnet: '10.1.0.0/24', gateway: '10.1.0.1' };
  const spec = { name: 'n', pools: [four, none], auxAddresses: { p: '10.1.0.9' } };
  const rest = { options: { o: '1' }, labels: { l: '2' }, internal: true, attachable: false };
  expect(await api.createNetwork({ ...spec, ...rest })).toBe('d9');
  answer = (response) => void response.writeHead(200).end();
  await api.connect('d9', 'c1', { ip: '10.1.0.7', ip6: '', mac: '' });
  await api.connect('d9', 'c1', { ip: '', ip6: '', mac: '02:00:00:00:00:01' });
  await api.disconnect('d9', 'c1', true);
  answer = (response) => void response.writeHead(204).end();
  await api.removeNetwork('d9');
  answer = json([{ Id: 'c1', Names: ['/web'], Labels: null, State: 'running' }]);
  expect(await api.containers(['c1', 'c2'])).toEqual([{ id: 'c1', name: 'web', labels: {}, state: 'running' }]);
  const filters = `&filters=${encodeURIComponent('{"id":["c1","c2"]}')}`;
  expect(seen).toEqual([
    {
      method: 'POST',
      url: '/v1.41/networks/create?',
      body: {
        Name: 'n',
        CheckDuplicate: true,
        Driver: 'weft',
        Internal: true,
        Attachable: false,
        EnableIPv6: false,
        Options: { o: '1' },
        Labels: { l: '2' },
        IPAM: {
          Driver: 'weft',
          Config: [{ Subnet: '10.1.0.0/24', Gateway: '10.1.0.1', AuxiliaryAddresses: { p: '10.1.0.9' } }],
        },
      },
    },
    {
      method: 'POST',
      url: '/v1.41/networks/d9/connect',
      body: { Container: 'c1', EndpointConfig: { IPAMConfig: { IPv4Address: '10.1.0.7' } } },
    },
    {
      method: 'POST',
      url: '/v1.41/networks/d9/connect',
      body: { Container: 'c1', EndpointConfig: { DriverOpts: { 'weft.mac': '02:00:00:00:00:01' } } },
    },
    { method: 'POST', url: '/v1.41/networks/d9/disconnect', body: { Container: 'c1', Force: true } },
    { method: 'DELETE', url: '/v1.41/networks/d9', body: null },
    { method: 'GET', url: `/v1.41/containers/json?all=true${filters}`, body: null },
  ]);
});

test('inspect of a container: namespace and aliases by endpoint', async () => {
  const networks = { net: { EndpointID: 'e1', Aliases: ['web', 'c1'] }, other: { EndpointID: 'e2', Aliases: null } };
  answer = json({ Id: 'c1', State: { Pid: 12 }, NetworkSettings: { SandboxKey: '/run/netns/x', Networks: networks } });
  expect(await api.inspectContainer('c1', 1_000)).toEqual({
    sandbox: '/run/netns/x',
    pid: 12,
    aliases: new Map([
      ['e1', ['web', 'c1']],
      ['e2', []],
    ]),
  });
});

test.each([
  [400, 'INVALID_ARGUMENT'],
  [403, 'FAILED_PRECONDITION'],
  [409, 'ALREADY_EXISTS'],
  [500, 'INTERNAL'],
  [501, 'UNIMPLEMENTED'],
])('status %i is %s, with the sentence of dockerd', async (status, code) => {
  answer = json({ message: 'no, because' }, status);
  await expect(api.networks()).rejects.toMatchObject({ code, message: 'no, because' });
  await expect(api.removeNetwork('d1')).rejects.toMatchObject({ code, message: 'no, because' });
});

test('404 is null, or nothing to do; a connect without its network is refused', async () => {
  answer = json({ message: 'network d1 not found' }, 404);
  expect(await api.network('d1')).toBe(null);
  expect(await api.inspectContainer('c1', 1_000)).toBe(null);
  await api.removeNetwork('d1');
  await expect(api.connect('d1', 'c', { ip: '', ip6: '', mac: '' })).rejects.toMatchObject({ code: 'NOT_FOUND' });
});

test('an answer that is not understood is no empty list', async () => {
  for (const odd of ['{}', 'null', '<html>', '']) {
    answer = (response) => void response.writeHead(200).end(odd);
    await expect(api.networks()).rejects.toMatchObject({ code: 'INTERNAL' });
    await expect(api.network('d1')).rejects.toMatchObject({ code: 'INTERNAL' });
  }
});

test('dockerd away is UNAVAILABLE', async () => {
  await stop();
  await expect(api.networks()).rejects.toMatchObject({ code: 'UNAVAILABLE' });
  await expect(api.version()).rejects.toMatchObject({ code: 'UNAVAILABLE' });
  await listen();
  answer = json({ Version: '26.1.5', ApiVersion: '1.45' });
  expect(await api.version()).toEqual({ version: '26.1.5', api: '1.45' });
  answer = (response) => void response.destroy();
  await expect(api.networks()).rejects.toMatchObject({ code: 'UNAVAILABLE' });
});

test('the environment does not send the agent to another dockerd', async () => {
  process.env['DOCKER_HOST'] = 'tcp://192.0.2.1:2376';
  const other = new DockerApi({ socketPath, log: silentLog() });
  answer = json([]);
  expect(await other.networks()).toEqual([]);
  other.close();
});

test('a call ends at its deadline: no answer, half an answer, an answer cut off', async () => {
  const client = new DockerClient(socketPath);
  const list = () => client.call((docker, abortSignal) => docker.listNetworks({ abortSignal }), 100);
  const late = { code: 'DEADLINE_EXCEEDED', message: 'dockerd has not answered within 0.1 s' };
  let closed = 0;
  const silent: Answer = (response) => void response.on('close', () => closed++);
  answer = silent;
  await expect(list()).rejects.toMatchObject(late);
  await expect(client.get('/networks/x', 100)).rejects.toMatchObject(late);
  await until('both are hung up', () => closed === 2);
  answer = (response, request) => {
    silent(response, request);
    response.writeHead(200, { 'content-length': 100 }).write('[');
  };
  await expect(list()).rejects.toMatchObject(late);
  await until('it is hung up', () => closed === 3);
  answer = (response) =>
    void response.writeHead(200, { 'content-length': 100 }).write('[', () => setImmediate(() => response.destroy()));
  await expect(list()).rejects.toMatchObject(late);
  answer = json([]);
  expect(await list()).toEqual([]);
  client.close();
});

test('close ends what is under way', async () => {
  let asked = 0;
  answer = () => void asked++;
  const calls = [api.networks(), api.network('d1'), api.inspectContainer('c', 60_000)];
  const ended = Promise.all(calls.map((call) => expect(call).rejects.toMatchObject({ code: 'UNAVAILABLE' })));
  await until('all are asked', () => asked === 3);
  api.close();
  await ended;
  await expect(api.networks()).rejects.toMatchObject({ code: 'UNAVAILABLE' });
  expect(asked).toBe(3);
});

test('events: again from where they ended, until the signal', async () => {
  const line = (nano: string, action: string) =>
    `{"Type":"network","Action":"${action}","Actor":{"ID":"n","Attributes":{"name":"x"}},"timeNano":${nano}}\n`;
  let stream: ServerResponse | null = null;
  answer = (response) => {
    stream = response;
    response.writeHead(200).flushHeaders();
  };
  const events: DockerEvent[] = [];
  let connected = 0;
  const abort = new AbortController();
  const handlers = { event: (event: DockerEvent) => events.push(event), connected: () => connected++ };
  const done = api.events(handlers, abort.signal);
  await until('connected', () => connected === 1);
  const whole = line('1700000000123456789', 'create');
  stream!.write(whole.slice(0, 20));
  stream!.write(whole.slice(20));
  await until('an event', () => events.length === 1);
  expect(events[0]).toEqual({ type: 'network', action: 'create', id: 'n', attributes: { name: 'x' } });
  stream!.destroy(); // dockerd killed
  await until('connected again', () => connected === 2);
  stream!.write(line('1700000001000000000', 'destroy'));
  await until('another event', () => events.length === 2);
  stream!.end(); // dockerd stopped
  await until('connected a third time', () => connected === 3);
  answer = json({ message: 'starting' }, 503);
  stream!.end();
  await until('refused', () => seen.length === 4);
  abort.abort();
  await done;
  const since = seen.map(({ url }) => new URL(url, 'http://x').searchParams.get('since'));
  expect(since).toEqual([null, '1700000000.123456789', '1700000001.000000000', '1700000001.000000000']);
  const filters = new URL(seen[0]!.url, 'http://x').searchParams.get('filters');
  expect(JSON.parse(filters!)).toMatchObject({ type: ['network', 'container'] });
});

test('events end with the signal, open or not yet', async () => {
  for (const head of [true, false]) {
    let asked = 0;
    let hungUp = 0;
    answer = (response) => {
      asked++;
      response.on('close', () => hungUp++);
      if (head) response.writeHead(200).flushHeaders();
    };
    const abort = new AbortController();
    let connected = 0;
    const done = api.events({ event: () => undefined, connected: () => connected++ }, abort.signal);
    await until('asked', () => asked === 1 && connected === (head ? 1 : 0));
    abort.abort();
    await done;
    await until('hung up', () => hungUp === 1);
  }
});
